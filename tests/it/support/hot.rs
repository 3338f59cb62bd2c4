//! The questions a node asks all day, and a cluster big enough to ask them of.

use std::fmt::Write as _;

use holdfast::{
    dns::{AnswerConfig, Context, Transport},
    store::{self, Origin, Records, What},
    sys::UnixMillis,
    wire::{Name, Rtype},
    zone::{self, Zone},
};

use super::{ask, cluster};

/// When the records were vouched for, and when the questions come.
pub const NOW: UnixMillis = UnixMillis(1_000_000);

/// A question that must cost little.
pub struct Question {
    pub title: &'static str,
    pub transport: Transport,
    pub message: Vec<u8>,
    /// Answers that must come back.
    pub answers: u16,
}

/// 10,000 services with a cluster IP in 100 namespaces, headless ones of 3 and of 100 endpoints in each of them, and one of 10,000.
pub fn context() -> Context {
    let mut text = String::new();
    for namespace in 0..100 {
        let _ = writeln!(text, "namespace ns-{namespace}");
        for service in 0..100 {
            let _ = writeln!(text, "service ns-{namespace}/svc-{service} 10.96.{namespace}.{service} http:80/tcp");
        }
        for (service, endpoints) in [("three", 3), ("hundred", 100)] {
            let _ = writeln!(text, "headless ns-{namespace}/{service} http:80/tcp");
            for endpoint in 0..endpoints {
                let _ = writeln!(
                    text,
                    "endpoint ns-{namespace}/{service} 10.{endpoints}.{namespace}.{endpoint} http:80/tcp"
                );
            }
        }
    }
    let _ = writeln!(text, "headless ns-99/huge http:80/tcp");
    for endpoint in 0..10_000 {
        let _ = writeln!(text, "endpoint ns-99/huge 10.200.{}.{} http:80/tcp", endpoint >> 8, endpoint & 255);
    }
    let _ = writeln!(text, "external ns-7/away svc-1.ns-1.svc.cluster.local");
    let (mut writer, reader) = store::open();
    let origin = Origin::Watched { cluster: "hot".into(), new_epoch: false };
    // One after another: the hash table of a bucket depends on the order of insertions, and so does the count.
    let (records, changes) = (Records::default(), cluster::changes(&text));
    writer.apply(What::Reset { origin: origin.clone(), records, as_of: NOW }).expect("a first list is applied");
    writer.apply(What::Changes { origin, changes, as_of: NOW }).expect("changes are applied");
    let zone = zone::Config { reverse: vec!["10.96.0.0/12".parse().expect("a network")], ..zone::Config::default() };
    Context::new(Zone::new(&zone), reader, AnswerConfig::default())
}

pub fn questions() -> Vec<Question> {
    use Transport::{Tcp, Udp};
    const SERVICE: &str = "svc-42.ns-7.svc.cluster.local";
    let question = |title, name: &str, qtype, transport, edns, answers| {
        let name: Name = name.parse().expect("a name");
        Question { title, transport, message: ask::query(name.wire(), qtype, edns), answers }
    };
    vec![
        question("cluster IP", SERVICE, Rtype::A, Udp, None, 1),
        question("cluster IP, EDNS", SERVICE, Rtype::A, Udp, Some(1232), 1),
        question("cluster IP, AAAA: NODATA", SERVICE, Rtype::AAAA, Udp, None, 0),
        question(
            "search path, unknown service: NXDOMAIN",
            "www.example.com.ns-7.svc.cluster.local",
            Rtype::A,
            Udp,
            None,
            0,
        ),
        question("search path, no such namespace: NXDOMAIN", "example.com.svc.cluster.local", Rtype::A, Udp, None, 0),
        question("search path, not even svc: NXDOMAIN", "example.com.cluster.local", Rtype::A, Udp, None, 0),
        question("headless, 3 endpoints", "three.ns-7.svc.cluster.local", Rtype::A, Udp, None, 3),
        question("headless, 100 endpoints", "hundred.ns-7.svc.cluster.local", Rtype::A, Tcp, None, 100),
        question("endpoint", "10-3-7-1.three.ns-7.svc.cluster.local", Rtype::A, Udp, None, 1),
        question("PTR", "42.7.96.10.in-addr.arpa", Rtype::PTR, Udp, None, 1),
        question("SRV", "_http._tcp.svc-42.ns-7.svc.cluster.local", Rtype::SRV, Udp, None, 1),
        question("SRV, 3 endpoints", "_http._tcp.three.ns-7.svc.cluster.local", Rtype::SRV, Udp, None, 3),
        question("SRV, 100 endpoints", "_http._tcp.hundred.ns-7.svc.cluster.local", Rtype::SRV, Tcp, None, 100),
        // As many as fit.
        question("SRV, 10,000 endpoints", "_http._tcp.huge.ns-99.svc.cluster.local", Rtype::SRV, Udp, Some(1232), 34),
        question("A, 10,000 endpoints", "huge.ns-99.svc.cluster.local", Rtype::A, Udp, Some(1232), 73),
        question("alias", "away.ns-7.svc.cluster.local", Rtype::A, Udp, None, 2),
        question("pod", "10-1-2-3.ns-7.pod.cluster.local", Rtype::A, Udp, None, 1),
        question("outside", "www.example.com", Rtype::A, Udp, None, 0),
    ]
}
