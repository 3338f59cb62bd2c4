//! `holdfast dump`: records as a table, manifests, a zone or a hosts file.

use std::time::Duration;

use hickory_proto::{
    rr::{Name, RecordType},
    serialize::txt::Parser,
};
use holdfast::{
    source::{EndpointsMode, manifests},
    store::{self, Origin, What},
    sys::UnixMillis,
};

use super::{Live, ok, records, stored, text};
use crate::support::command::holdfast;

#[test]
fn a_dump_reads_back_through_manifests_as_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = records(Duration::ZERO);
    let live = Live::start(dir.path(), reader.clone());
    for form in ["json", "yaml"] {
        let dump = ok(holdfast(["dump", "--admin", text(&live.socket), "-o", form]));
        let file = dir.path().join(format!("dump.{form}"));
        std::fs::write(&file, &dump).unwrap();
        let reading = manifests::read(&file, EndpointsMode::All).unwrap();
        assert_eq!(reading.rejections.total, 0);
        let (mut writer, again) = store::open();
        let origin = Origin::Watched { cluster: reading.cluster, new_epoch: false };
        writer.apply(What::Reset { origin, records: reading.records, as_of: UnixMillis(0) }).unwrap();
        assert_eq!(again.load().root(), reader.load().root(), "{form}");
        assert_eq!(again.load().version().cluster, reader.load().version().cluster, "{form}");
        let equal = holdfast(["diff", text(&live.socket), text(&file)]);
        assert_eq!((equal.code, equal.out.lines().last()), (0, Some("equal: 18 services")), "{form}");
        assert!(equal.out.contains(&format!("\nB {}: a dump, records confirmed ", file.display())), "{}", equal.out);
    }
}

#[test]
fn a_dump_of_nothing_says_that_there_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = store::open();
    let live = Live::start(dir.path(), reader);
    let ran = holdfast(["dump", "--admin", text(&live.socket), "-o", "hosts"]);
    let expect = "holdfast: there are no records: none were on disk, and none came from the source\n";
    assert_eq!((ran.code, ran.err.as_str()), (1, expect), "{}", ran.out);
}

#[test]
fn a_dump_is_a_zone_that_others_read() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), Duration::ZERO);
    let zone = ok(holdfast(["dump", "--store", text(dir.path()), "-o", "zone"]));
    let (origin, sets) = Parser::new(&zone, None, None).parse().unwrap();
    assert_eq!(origin, Name::from_ascii("cluster.local.").unwrap());
    let count = |rtype| {
        sets.values()
            .filter(|set| set.record_type() == rtype)
            .map(|set| set.records_without_rrsigs().count())
            .sum::<usize>()
    };
    assert_eq!(count(RecordType::SOA), 1);
    assert_eq!(count(RecordType::CNAME), 2);
    // 14 cluster IPs, 2 ready endpoints under the service and under their own names, and the name server.
    assert_eq!(count(RecordType::A), 15 + 2 + 2 + 1);
    let lines = zone.lines().filter(|line| !line.starts_with([';', '$'])).count();
    let records: usize = sets.values().map(|set| set.records_without_rrsigs().count()).sum();
    assert_eq!(records, lines, "every line is a record of its own");
}

#[test]
fn a_dump_of_a_reverse_zone_is_a_zone_too() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), Duration::ZERO);
    let store = text(dir.path());
    let zone = ok(holdfast(["dump", "--store", store, "-o", "zone", "--reverse", "96.10.in-addr.arpa"]));
    let (origin, sets) = Parser::new(&zone, None, None).parse().unwrap();
    assert_eq!(origin, Name::from_ascii("96.10.in-addr.arpa.").unwrap());
    let pointers = sets.values().filter(|set| set.record_type() == RecordType::PTR).count();
    assert_eq!((pointers, sets.len()), (15, 15 + 2), "a pointer for each cluster IP, SOA and NS");
    let wrong = holdfast(["dump", "--store", store, "--reverse", "96.10.in-addr.arpa"]);
    assert_eq!((wrong.code, wrong.out.as_str()), (2, ""));
}

#[test]
fn a_dump_is_a_hosts_file() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), Duration::ZERO);
    let hosts = ok(holdfast(["dump", "--store", text(dir.path()), "-o", "hosts"]));
    let line = "10.96.130.4\tfrontend.default.svc.cluster.local frontend.default.svc frontend.default";
    assert!(hosts.lines().any(|found| found == line), "{hosts}");
    assert!(hosts.contains("# 2 aliases (ExternalName) have no address and are left out\n"), "{hosts}");
}
