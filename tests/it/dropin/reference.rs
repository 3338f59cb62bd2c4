//! Corefiles of the shapes that are in use, with the answers that node-cache and CoreDNS gave to the same questions.
//!
//! `reference/answers` holds what they said, `reference/*.zone` what their upstreams said, and `reference/differences` what is
//! answered otherwise here on purpose.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    path::Path,
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType},
};

use super::served::serve;
use crate::{
    forward::world::at_once,
    support::upstream::{Asked, Say, Upstream, name},
};

const COREFILES: [&str; 11] =
    ["addon", "aks", "gardener", "gke", "ipvs", "kops", "kubespray", "local", "openshift", "rke2", "template"];

pub fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/dropin").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a file without its comments.
fn lines(file: &str) -> Vec<String> {
    read(file).lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// The records of an upstream by their owner.
type Zone = BTreeMap<String, Vec<(u32, RecordType, String)>>;

fn zone(file: &str) -> Zone {
    let mut zone = Zone::new();
    for line in lines(file) {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [owner, ttl, rtype, data] = words[..] else { panic!("{line}") };
        let record = (ttl.parse().unwrap(), rtype.parse().unwrap(), data.to_owned());
        zone.entry(owner.to_owned()).or_default().push(record);
    }
    zone
}

/// What an upstream with these records says.
fn answer(zone: &Zone, asked: &Asked) -> Say {
    let asked_for = format!("{}.", asked.name());
    match asked_for.as_str() {
        "refused.example." => return asked.code(ResponseCode::Refused),
        "servfail.example." => return asked.code(ResponseCode::ServFail),
        _ => {}
    }
    let mut reply = asked.reply(ResponseCode::NoError);
    let mut owner = asked_for;
    loop {
        let record = |(ttl, rtype, data): &(u32, RecordType, String)| {
            Record::from_rdata(name(&owner), *ttl, RData::try_from_str(*rtype, data).unwrap())
        };
        let records = zone.get(&owner);
        let fits = |rtype: RecordType| rtype == asked.qtype() || asked.qtype() == RecordType::ANY;
        let found: Vec<Record> =
            records.into_iter().flatten().filter(|(_, rtype, _)| fits(*rtype)).map(record).collect();
        if !found.is_empty() {
            reply.answers.extend(found);
            return Say::message(&reply);
        }
        let alias = records.into_iter().flatten().find(|(_, rtype, _)| *rtype == RecordType::CNAME);
        let Some(alias) = alias else { break };
        reply.answers.push(record(alias));
        owner.clone_from(&alias.2);
    }
    let exists = zone.keys().any(|known| *known == owner || known.ends_with(&format!(".{owner}")));
    if !exists {
        reply.metadata.response_code = ResponseCode::NXDomain;
    }
    let labels: Vec<&str> = owner.split('.').filter(|label| !label.is_empty()).collect();
    let soa = format!("{}.", labels[labels.len().saturating_sub(2)..].join("."));
    let data = RData::try_from_str(RecordType::SOA, "ns.test. host.test. 1 60 60 60 60").unwrap();
    reply.authorities.push(Record::from_rdata(name(&soa), 60, data));
    Say::message(&reply)
}

pub async fn upstream(file: &str) -> Upstream {
    let zone = zone(file);
    let upstream = Upstream::start(move |asked| vec![answer(&zone, &asked)]).await;
    // A client asks for HINFO as well.
    upstream.hear_loop_probes();
    upstream
}

/// The Corefile with upstreams of a test in place of the addresses in it.
fn filled(corefile: &str) -> String {
    let mut text = read(&format!("corefiles/{corefile}.Corefile"));
    for (address, upstream) in [
        ("__PILLAR__CLUSTER__DNS__", "UP1"),
        ("10.96.0.3", "UP1"),
        ("100.64.0.10", "UP1"),
        ("10.0.0.10", "UP1"),
        ("__PILLAR__UPSTREAM__SERVERS__", "UP2"),
        ("/etc/resolv.conf", "UP2"),
        ("168.63.129.16", "UP2"),
        ("169.254.169.254", "UP2"),
        ("10.0.0.2\n", "UP2\n"),
        ("10.0.0.53 10.0.0.54", "UP3"),
        ("10.0.0.53", "UP3"),
        ("10.0.0.54", "UP3"),
        ("__PILLAR__LOCAL__DNS__", "169.254.20.10"),
        ("__PILLAR__DNS__SERVER__", ""),
        ("__PILLAR__DNS__DOMAIN__", "cluster.local"),
        // Names of the machine are none of the test's.
        ("    hosts {", "    hosts /none {"),
    ] {
        text = text.replace(address, upstream);
    }
    text
}

/// A record without its TTL, quotes and blanks in its data, in lower case.
fn shown(record: &Record) -> String {
    let data = match &record.data {
        RData::TXT(text) => text.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect(),
        RData::HINFO(info) => [&info.cpu, &info.os].map(|part| String::from_utf8_lossy(part)).concat(),
        other => other.to_string(),
    };
    let data: String = data.chars().filter(|char| !char.is_whitespace() && *char != '"').collect();
    format!("{} {} {data}", record.name.to_ascii(), record.record_type()).to_ascii_lowercase()
}

pub fn short(message: &Message) -> String {
    let sorted = |records: &[Record]| {
        let mut shown: Vec<String> = records.iter().map(shown).collect();
        shown.sort();
        shown
    };
    let mut parts = vec![format!("{:?}", message.response_code).to_ascii_lowercase()];
    parts.extend(sorted(&message.answers));
    if !message.authorities.is_empty() {
        parts.push(format!("/ {}", sorted(&message.authorities).join(" ; ")));
    }
    parts.join(" | ")
}

/// Answers by Corefile and question.
fn answers(file: &str) -> HashMap<(String, String), String> {
    let mut answers = HashMap::new();
    let mut question = String::new();
    for line in lines(file) {
        if let Some(asked) = line.strip_prefix("? ") {
            asked.clone_into(&mut question);
            continue;
        }
        let (corefiles, answer) = line.split_once(" : ").unwrap();
        for corefile in corefiles.split(' ') {
            answers.insert((corefile.to_owned(), question.clone()), answer.to_owned());
        }
    }
    answers
}

#[tokio::test(start_paused = true)]
async fn corefiles_in_use_are_answered_as_node_cache_answers_them() {
    let (theirs, mut otherwise) = (answers("reference/answers"), answers("reference/differences"));
    let upstreams = [
        upstream("reference/cluster.zone").await,
        upstream("reference/outside.zone").await,
        upstream("reference/stub.zone").await,
    ];
    let questions = lines("reference/questions");
    assert!(questions.len() >= 200);
    let mut wrong = String::new();
    for corefile in COREFILES {
        let world = serve(&filled(corefile), &upstreams.each_ref());
        for question in &questions {
            let (owner, rtype) = question.split_once(' ').unwrap();
            let ours = short(&at_once(world.ask(owner, rtype.parse().unwrap())).await);
            let key = (corefile.to_owned(), question.to_ascii_lowercase());
            // Those that depend on the machine were not kept.
            let Some(theirs) = theirs.get(&key) else { continue };
            let expect = otherwise.remove(&key).unwrap_or_else(|| theirs.clone());
            if ours != expect {
                let _ = writeln!(wrong, "? {}\n{corefile} : {ours}\n# not {expect}", key.1);
            }
        }
    }
    assert!(wrong.is_empty(), "answered otherwise:\n{wrong}");
    assert!(otherwise.is_empty(), "differences that are none: {otherwise:?}");
}
