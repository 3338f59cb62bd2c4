//! What a small question may cost: time, bytes, and answers to a forged address.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::{
    dns::{AnswerConfig, Config, Context, Rotation, Transport, answer},
    store::{self, Origin, What},
    sys::UnixMillis,
    wire::{Name, Rtype},
    zone::{self, Zone},
};

use crate::support::{
    ask, cluster,
    dns::{PATIENCE, query, receive, start},
};

const NOW: UnixMillis = UnixMillis(1_000_000);

/// A headless service with so many endpoints.
fn large(endpoints: usize) -> Context {
    let mut text = String::from("namespace big\nheadless big/many http:80/tcp\n");
    for endpoint in 0..endpoints {
        let _ = writeln!(
            text,
            "endpoint big/many 10.{}.{}.{} http:80/tcp",
            endpoint >> 16,
            endpoint >> 8 & 255,
            endpoint & 255
        );
    }
    let (mut writer, reader) = store::open();
    let origin = Origin::Watched { cluster: "large".into(), new_epoch: false };
    let records = cluster::changes(&text).into_iter().collect();
    writer.apply(What::Reset { origin, records, as_of: NOW }).unwrap();
    Context::new(Zone::new(&zone::Config::default()), reader, AnswerConfig::default())
}

/// The least time that one answer takes of many, in microseconds.
fn least_us(context: &Context, name: &str, qtype: Rtype) -> f64 {
    let (batch, rotation) = (context.load(), Rotation::default());
    let view = context.view(&batch, NOW, &rotation);
    let name: Name = name.parse().unwrap();
    let question = ask::query(name.wire(), qtype, Some(1232));
    let mut out = vec![0; 65_535];
    let mut once = || {
        let began = Instant::now();
        let _ = answer(context, &view, &question, Transport::Udp, None, &mut out);
        began.elapsed().as_secs_f64() * 1e6
    };
    (0..200).map(|_| once()).fold(f64::MAX, f64::min)
}

/// The cost of an answer that does not fit is that of the part that would: ten times the endpoints cost hardly more.
#[test]
fn a_question_for_a_service_of_ten_thousand_endpoints_costs_what_fits() {
    let (small, large) = (large(1_000), large(10_000));
    for (name, qtype) in [
        ("_http._tcp.many.big.svc.cluster.local", Rtype::SRV),
        ("many.big.svc.cluster.local", Rtype::SRV),
        ("many.big.svc.cluster.local", Rtype::A),
    ] {
        let (of_small, of_large) = (least_us(&small, name, qtype), least_us(&large, name, qtype));
        // An unoptimised build takes ten times as long as a release; both are the least of many.
        assert!(of_large <= 3.0 * of_small + 200.0, "{name}: {of_small} µs for 1,000 and {of_large} µs for 10,000");
    }
}

/// A client takes half of the places of forwards, and another one still gets all it asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_names_nobody_answers_leaves_places_to_others() {
    let server = start(Config { forwards_max: 32, workers: 1, ..Config::default() });
    let socket = |last: u8| {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 0)).unwrap();
        socket.connect(server.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (attacker, victim) = (socket(2), socket(3));
    for id in 0..200 {
        attacker.send(&query(id, &format!("slow{id}.example."), RecordType::A)).unwrap();
    }
    for _ in 0..184 {
        assert_eq!(receive(&attacker).response_code, ResponseCode::ServFail, "beyond half of the places");
    }
    for id in 0..100 {
        victim.send(&query(id, "www.example.", RecordType::A)).unwrap();
        assert_eq!(receive(&victim).response_code, ResponseCode::NoError, "{id}");
    }
    server.script.gate.add_permits(16);
    for _ in 0..16 {
        assert_eq!(receive(&attacker).response_code, ResponseCode::NoError);
    }
    server.running.drain(Duration::from_secs(1)).await;
}
