//! Corners of Corefiles that were decided once: what a hosts file says of names it does not hold, and of which zone a hub has
//! the records.

use std::path::Path;

use hickory_proto::rr::RecordType;
use holdfast::corefile::{self, Surroundings};

use super::served::serve;
use crate::{
    forward::world::{asked_for, short},
    support::upstream::Upstream,
};

const HOSTS: &str = "10.0.0.9 printer.example lobby.example\n 10.0.0.9 printer.example\n 10.0.0.8 printer.example";
const REVERSE: &str = "9.0.0.10.in-addr.arpa";

/// There is no SOA for an NXDOMAIN.
#[tokio::test(start_paused = true)]
async fn hosts_without_fallthrough_fail_names_they_do_not_hold_and_with_it_ask_on() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    for (fallthrough, other) in
        [("", "ServFail"), ("fallthrough", "NoError 192.0.2.1"), ("fallthrough other.example", "ServFail")]
    {
        let world = serve(&format!(". {{\n hosts {{\n {HOSTS}\n {fallthrough}\n }}\n forward . UP1\n}}"), &[&upstream]);
        assert_eq!(world.a("lobby.example").await, "NoError 10.0.0.9", "{fallthrough:?}");
        assert_eq!(short(&world.ask("lobby.example", RecordType::TXT).await), "NoError", "{fallthrough:?}");
        let said = world.a("www.example").await;
        assert!(said.starts_with(other), "{fallthrough:?}: {said}");
        let named = world.a("www.other.example").await;
        assert_eq!(named == "NoError 192.0.2.1", !fallthrough.is_empty(), "{fallthrough:?}: {named}");
    }
    assert_eq!(asked_for(&upstream, "lobby.example"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_reverse_name_of_a_host_has_each_of_its_names_once_in_the_order_of_the_file() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    for (option, expect) in [("", "NoError printer.example. lobby.example."), ("no_reverse\n fallthrough", "NoError")] {
        let world = serve(&format!(". {{\n hosts {{\n {HOSTS}\n {option}\n }}\n forward . UP1\n}}"), &[&upstream]);
        assert_eq!(short(&world.ask(REVERSE, RecordType::PTR).await), expect, "{option:?}");
    }
    assert_eq!(asked_for(&upstream, REVERSE), 1);
}

/// Hubs have the records of one zone.
#[test]
fn with_a_hub_a_second_cluster_zone_is_forwarded_as_the_corefile_says() {
    let text = "cluster.local:53 {\n forward . 10.96.0.99\n}\neast.local:53 {\n forward . 10.112.0.99\n}\n.:53 {\n forward . 192.0.2.53\n}\n";
    let file = corefile::parse(Path::new("Corefile"), text, &Surroundings::NONE).unwrap();
    for (cluster_dns, zone, fallback) in [
        (None, "cluster.local", "10.96.0.99"),
        (Some("10.96.0.99".parse().unwrap()), "cluster.local", "10.96.0.99"),
        (Some("10.112.0.99".parse().unwrap()), "east.local", "10.112.0.99"),
    ] {
        let options = corefile::Options { hub: true, cluster_dns, ..corefile::Options::default() };
        let yaml = corefile::translate(&file, &options).unwrap().yaml;
        assert!(yaml.contains(&format!("zone: {zone}\ncluster_fallback: [{fallback}]\n")), "{yaml}");
        for (zone, upstream) in [("east.local", "10.112.0.99"), ("cluster.local", "10.96.0.99")] {
            let (_, rest) = yaml.split_once(&format!("- zone: {zone}\n")).unwrap_or_else(|| panic!("{zone}: {yaml}"));
            let lines = rest.split("- zone: ").next().unwrap();
            assert!(lines.contains(&format!("upstreams: [{upstream}]")), "{zone}: {yaml}");
        }
    }
}
