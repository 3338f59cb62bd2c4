use hickory_proto::{
    op::{MessageType, OpCode},
    rr::{
        DNSClass,
        rdata::{A, CNAME, NULL, SOA},
    },
};

use super::*;
use crate::wire::Rtype;

/// The zone whose server answers.
const ROUTE: &str = "corp.example.";
const ASKED: &str = "www.old.corp.example.";
const RRSIG: RecordType = RecordType::RRSIG;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn raw(owner: &str, code: RecordType, data: Vec<u8>) -> Record {
    Record::from_rdata(name(owner), 60, RData::Unknown { code, rdata: NULL::with(data) })
}

fn signature(owner: &str, covered: RecordType) -> Record {
    raw(owner, RRSIG, u16::from(covered).to_be_bytes().to_vec())
}

fn a(owner: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::A(A([192, 0, 2, 1].into())))
}

fn cname(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

fn soa(owner: &str) -> Record {
    let data = SOA::new(name("ns.example."), name("admin.example."), 1, 3_600, 600, 86_400, 30);
    Record::from_rdata(name(owner), 60, RData::SOA(data))
}

fn dname(owner: &str) -> Record {
    raw(owner, DNAME, vec![3, b'n', b'e', b'w', 0])
}

fn in_chaos(mut record: Record) -> Record {
    record.dns_class = DNSClass::CH;
    record
}

/// The records kept of an answer of the route's server: those in the answer section, and those in the authority section.
fn kept(code: ResponseCode, dnssec_ok: bool, answers: Vec<Record>, authorities: Vec<Record>) -> [Vec<String>; 2] {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.metadata.response_code = code;
    (message.answers, message.authorities) = (answers, authorities);
    let asked = Question { dnssec_ok, ..Question::new(ASKED.parse().unwrap(), Rtype::A) };
    let route = name(ROUTE);
    let sanitized = sanitize(&message, &asked, |owner| route.zone_of(owner)).unwrap();
    let shown = |records: &Vec<Record>| {
        records.iter().map(|record| format!("{} {}", record.name, u16::from(record.record_type()))).collect()
    };
    [shown(&sanitized.parts.answers), shown(&sanitized.parts.authorities)]
}

/// A DNAME explains a CNAME to clients that validate: where its owner is one that the route may speak for.
#[test]
fn a_dname_is_passed_on_with_do_from_its_own_zone_alone() {
    let alias = cname(ASKED, "www.new.corp.example.");
    let (link, end) = (format!("{ASKED} 5"), "www.new.corp.example. 1".to_owned());
    for (case, record, dnssec_ok, passes) in [
        ("in the route", dname("old.corp.example."), true, true),
        ("at the route", dname(ROUTE), true, true),
        ("without DO", dname("old.corp.example."), false, false),
        ("above the route", dname("example."), true, false),
        ("at the root", dname("."), true, false),
        ("of another name in the route", dname("other.corp.example."), true, false),
        ("of the name itself", dname(ASKED), true, false),
        ("of another class", in_chaos(dname("old.corp.example.")), true, false),
    ] {
        let owner = record.name.to_string();
        let answers = vec![record, alias.clone(), a("www.new.corp.example.")];
        let [answers, _] = kept(ResponseCode::NoError, dnssec_ok, answers, Vec::new());
        let explained = passes.then(|| format!("{owner} 39"));
        let expect: Vec<String> = explained.into_iter().chain([link.clone(), end.clone()]).collect();
        assert_eq!(answers, expect, "{case}");
    }
}

/// Owner and class are checked of every record that comes beside the ones asked for.
#[test]
fn no_other_record_passes_with_an_owner_or_class_of_its_own_choice() {
    let data = format!("{ASKED} 1");
    let (found, nothing) = (vec![data], Vec::new());
    let nsec = |owner| raw(owner, RecordType::NSEC, vec![0]);
    let nsec3 = |owner| raw(owner, RecordType::NSEC3, vec![1, 0, 0, 0]);
    let good = |more: Vec<Record>| [vec![a(ASKED)], more].concat();
    for (case, answers, authorities, expect) in [
        ("a signature", good(vec![signature(ASKED, RecordType::A)]), vec![], [vec![ASKED, "46"], vec![]]),
        ("of another type", good(vec![signature(ASKED, RecordType::TXT)]), vec![], [vec![], vec![]]),
        ("of another name", good(vec![signature("www.bank.example.", RecordType::A)]), vec![], [vec![], vec![]]),
        ("of another class", good(vec![in_chaos(signature(ASKED, RecordType::A))]), vec![], [vec![], vec![]]),
        ("a proof in the route", good(vec![]), vec![nsec("a.corp.example.")], [vec![], vec!["a.corp.example.", "47"]]),
        ("a proof elsewhere", good(vec![]), vec![nsec("www.bank.example.")], [vec![], vec![]]),
        ("a hash elsewhere", good(vec![]), vec![nsec3("0p9m.example.")], [vec![], vec![]]),
        ("its signature", good(vec![]), vec![signature("0p9m.example.", RecordType::NSEC3)], [vec![], vec![]]),
        ("a proof of another class", good(vec![]), vec![in_chaos(nsec("a.corp.example."))], [vec![], vec![]]),
        ("an address", good(vec![]), vec![a("www.bank.example."), a(ASKED)], [vec![], vec![]]),
        ("an address of another class", good(vec![in_chaos(a(ASKED))]), vec![], [vec![], vec![]]),
        ("a zone", good(vec![]), vec![soa(ROUTE)], [vec![], vec![]]),
    ] {
        let [mut kept_answers, kept_authorities] = kept(ResponseCode::NoError, true, answers, authorities);
        let more = kept_answers.split_off(1);
        assert_eq!(kept_answers, found, "{case}");
        let expect = expect.map(|words| if words.is_empty() { nothing.clone() } else { vec![words.join(" ")] });
        assert_eq!([more, kept_authorities], expect, "{case}");
    }
}

/// A denial is as long-lived as the zone says that has the name; proofs are of names that the route may speak for.
#[test]
fn a_denial_has_the_soa_of_a_zone_above_the_name_and_proofs_of_the_route() {
    let nsec = |owner| raw(owner, RecordType::NSEC, vec![0]);
    let (proof, zone) = ("a.corp.example. 47".to_owned(), format!("{ROUTE} 6"));
    for (case, authorities, expect) in [
        ("its own", vec![soa(ROUTE), nsec("a.corp.example.")], vec![zone.clone(), proof.clone()]),
        ("of the zone above", vec![soa("example."), nsec("a.example.")], vec!["example. 6".into()]),
        ("of another zone", vec![soa("bank.example."), nsec("a.corp.example.")], vec![proof.clone()]),
        ("of another class", vec![in_chaos(soa(ROUTE))], vec![]),
        ("of the zone below", vec![soa("a.www.old.corp.example.")], vec![]),
        ("with a proof of another class", vec![soa(ROUTE), in_chaos(nsec("a.corp.example."))], vec![zone.clone()]),
        (
            "with a proof outside its zone",
            vec![soa("old.corp.example."), nsec("a.corp.example.")],
            vec!["old.corp.example. 6".into()],
        ),
    ] {
        let [answers, authorities] = kept(ResponseCode::NXDomain, true, Vec::new(), authorities);
        assert!(answers.is_empty(), "{case}");
        assert_eq!(authorities, expect, "{case}");
    }
}

/// A signature of a DNAME goes with it: without one it proves nothing (RFC 6672, 5.3.1).
#[test]
fn a_dname_comes_with_its_signature() {
    let answers = vec![
        dname("old.corp.example."),
        signature("old.corp.example.", DNAME),
        signature("old.corp.example.", RecordType::A),
        signature("other.corp.example.", DNAME),
        cname(ASKED, "www.new.corp.example."),
        a("www.new.corp.example."),
    ];
    let [answers, _] = kept(ResponseCode::NoError, true, answers, Vec::new());
    let expect = ["old.corp.example. 39", "old.corp.example. 46", "www.old.corp.example. 5", "www.new.corp.example. 1"];
    assert_eq!(answers, expect);
}
