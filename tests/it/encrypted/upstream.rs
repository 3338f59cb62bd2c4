//! A forwarder that asks this program's own listeners over TLS and HTTPS.

use hickory_proto::rr::RecordType;
use holdfast::dns::{
    TcpConfig, Transport,
    forward::{DohMethod, ZoneConfig},
};

use super::Encrypted;
use crate::{
    forward::world::{World, source, zone},
    support::certificate::certificate_pem,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_own_listeners_answer_as_upstreams() {
    let server = Encrypted::start(TcpConfig::default());
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, certificate_pem()).unwrap();
    for (scheme, transport, method) in [
        ("tls", Transport::Tls, DohMethod::Post),
        ("https", Transport::Https, DohMethod::Post),
        ("https", Transport::Https, DohMethod::Get),
    ] {
        let upstreams = vec![source(&format!("{scheme}://{}#dns.example", server.at(transport)))];
        let zone = ZoneConfig { upstreams, tls_ca: Some(ca.clone()), doh_method: method, ..zone(".", &[]) };
        let world = World::with(vec![zone]);
        let asked = format!("{scheme} {method:?}");
        assert_eq!(world.a("web.prod.svc.cluster.local").await, "NoError 10.0.0.1", "{asked}");
        assert_eq!(world.a("nope.prod.svc.cluster.local").await, "NXDomain", "{asked}");
        // 300 addresses do not fit into one segment or one frame of HTTP/2's first window.
        let many = world.ask("many.prod.svc.cluster.local", RecordType::A).await;
        assert_eq!(many.answers.len(), 300, "{asked}");
        assert_eq!((world.metrics.queries_udp.get(), world.metrics.queries_tcp.get()), (0, 0), "nothing in the clear");
    }
}
