//! What holds of every name, whatever the cluster holds.

use std::cell::RefCell;

use hickory_proto::op::{Message, ResponseCode};
use holdfast::{
    dns::Transport,
    wire::{Name, Rtype},
    zone::{Data, Lookup, RrSet, Zone, ZoneName},
};
use proptest::{
    collection, prop_assert, prop_assert_eq,
    sample::select,
    test_runner::{Config, TestRunner},
};

use super::{Asker, Section, direct};
use crate::support::ask::query;

const LABELS: [&str; 40] = [
    "svc",
    "pod",
    "dns",
    "ns",
    "dns-version",
    "prod",
    "other",
    "ghost",
    "empty",
    "nope",
    "web",
    "db",
    "dup",
    "cache",
    "all",
    "away",
    "in",
    "missing",
    "self",
    "waiting",
    "mixed",
    "db-0",
    "db-2",
    "twin",
    "10-1-1-1",
    "10-1-9-1",
    "fd00-10-1--0",
    "_tcp",
    "_udp",
    "_http",
    "_pg",
    "_redis",
    "x",
    "*",
    "any",
    "10",
    "96",
    "1",
    "256",
    "in-addr",
];
const SUFFIXES: [&str; 6] = [
    "cluster.local",
    "svc.cluster.local",
    "prod.svc.cluster.local",
    "96.10.in-addr.arpa",
    "1.10.in-addr.arpa",
    "9.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa",
];
const TYPES: [Rtype; 9] =
    [Rtype::A, Rtype::AAAA, Rtype::SRV, Rtype::CNAME, Rtype::PTR, Rtype::TXT, Rtype::NS, Rtype::SOA, Rtype::ANY];

/// A cluster with reverse zones.
fn section() -> Section {
    Section::read("== properties\n@reverse 10.96.0.0/12 10.1.0.0/16 fd00:10:96::/108")
}

fn ask(ask: Asker<'_>, name: &str, qtype: Rtype) -> Message {
    let name: Name = name.parse().unwrap();
    let reply = ask(Transport::Tcp, &query(name.wire(), qtype, Some(1232))).expect("there is an answer");
    Message::from_vec(&reply).expect("the answer parses")
}

fn denied(message: &Message) -> bool {
    // Behind an alias it is the target that does not exist.
    message.metadata.response_code == ResponseCode::NXDomain && message.answers.is_empty()
}

#[test]
fn a_name_that_does_not_exist_has_no_names_below_and_no_type() {
    let asker = RefCell::new(direct::asker(&section()));
    let names = (collection::vec(select(&LABELS[..]), 1..6), select(&SUFFIXES[..]));
    let types = (select(&TYPES[..]), select(&TYPES[..]));
    let mut runner = TestRunner::new(Config::with_cases(2_000));
    let outcome = runner.run(&(names, types), |((labels, suffix), (qtype, other))| {
        let mut asker = asker.borrow_mut();
        let name = format!("{}.{suffix}", labels.join("."));
        let message = ask(&mut *asker, &name, qtype);
        let mut records: Vec<String> = message.answers.iter().map(ToString::to_string).collect();
        records.sort();
        let count = records.len();
        records.dedup();
        prop_assert_eq!(count, records.len(), "a record came twice");
        prop_assert!(count > 0 || message.authorities.len() == 1, "neither records nor a SOA: {}", message);
        if denied(&message) {
            prop_assert!(denied(&ask(&mut *asker, &name, other)), "{name} {other} exists, {qtype} does not");
        } else {
            let parent = name.split_once('.').expect("a suffix").1;
            prop_assert!(!denied(&ask(&mut *asker, parent, other)), "{name} exists, and {parent} does not");
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// The records of a set in a form to compare.
fn records(zone: &Zone, set: &RrSet<'_>) -> Vec<String> {
    let name = |name: ZoneName<'_>| zone.name_of(name).expect("a name").to_string();
    let mut records = Vec::new();
    let Ok(()) = set.try_each(0, |data| {
        records.push(match data {
            Data::Cname(target) | Data::Ptr(target) | Data::Ns(target) => name(target),
            Data::Srv { weight, port, target } => format!("{weight} {port} {}", name(target)),
            Data::Soa { mname, rname, serial, .. } => format!("{} {} {serial}", name(mname), name(rname)),
            other => format!("{other:?}"),
        });
        Ok::<(), std::convert::Infallible>(())
    });
    records.sort();
    records
}

#[test]
fn the_list_of_all_sets_says_what_each_look_up_says() {
    for section in [Section::plain(), section(), Section::large()] {
        let context = section.context();
        let (zone, snapshot) = (context.zone(), context.reader().snapshot());
        let mut count = 0;
        let mut compare = |owner: ZoneName<'_>, set: RrSet<'_>| {
            count += 1;
            let name = zone.name_of(owner).expect("a name");
            let found = match zone.lookup(&snapshot, true, &name, set.rtype()) {
                Lookup::Hit(found) => records(zone, &found),
                Lookup::Cname(chain) => records(zone, &chain.sets().next().expect("an alias")),
                other => panic!("{name} {}: {other:?}", set.rtype()),
            };
            assert_eq!(records(zone, &set), found, "{name} {}", set.rtype());
            assert!(!found.is_empty(), "{name} {} is an empty set", set.rtype());
        };
        zone.for_each_set(&snapshot, &mut compare);
        zone.for_each_pointer(&snapshot, &mut compare);
        assert!(count > 80, "{count} sets");
    }
}

#[test]
fn every_reverse_zone_has_an_apex() {
    for (networks, apexes) in [
        ("", vec![]),
        ("10.96.0.0/16", vec!["96.10.in-addr.arpa."]),
        (
            "10.96.0.0/14",
            vec!["96.10.in-addr.arpa.", "97.10.in-addr.arpa.", "98.10.in-addr.arpa.", "99.10.in-addr.arpa."],
        ),
        ("0.0.0.0/0", vec!["in-addr.arpa."]),
        ("10.1.2.3/32 fd00::/8", vec!["3.2.1.10.in-addr.arpa.", "d.f.ip6.arpa."]),
        ("fc00::/7", vec!["c.f.ip6.arpa.", "d.f.ip6.arpa."]),
        ("10.96.5.4/12", (96..112).map(|octet| &*format!("{octet}.10.in-addr.arpa.").leak()).collect()),
    ] {
        let section = Section::read(&format!("== apexes\n@reverse {networks}"));
        let context = section.context();
        let names: Vec<_> = context.zone().reverse_zones().map(|apex| apex.to_name().to_string()).collect();
        assert_eq!(names, apexes, "{networks}");
        let snapshot = context.reader().snapshot();
        for apex in context.zone().reverse_zones() {
            let soa = context.zone().lookup(&snapshot, true, &apex.to_name(), Rtype::SOA);
            assert!(matches!(soa, Lookup::Hit(_)), "{}: {soa:?}", apex.to_name());
        }
    }
}
