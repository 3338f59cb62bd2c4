//! What UDP adds.

use std::{
    env,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    process::Command,
    sync::{Arc, Mutex, mpsc},
};

use futures::future::{BoxFuture, FutureExt};
use hickory_proto::rr::RecordType;
use holdfast::{
    dns::{Config, ForwardRequest, Resolve, Resolved, ServedFrom, Transport, cache::WorkerCache},
    sys::UnixMillis,
    wire,
};

use crate::support::dns::{Script, Tcp, bind, gist, query, receive, records, serve, serve_with, start, udp};

const WEB: &str = "web.prod.svc.cluster.local.";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_on_one_address_does_not_hold_up_another() {
    let bound = bind(&["127.0.0.1:0", "127.0.0.2:0"], Config { workers: 1, ..Config::default() });
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    // All of it is queued before the worker begins.
    for id in 0..200 {
        client.send_to(&query(id, WEB, RecordType::A), bound.addresses()[0]).unwrap();
    }
    client.send_to(&query(1_000, WEB, RecordType::A), bound.addresses()[1]).unwrap();
    let _server = serve(bound, records());
    let mut before = 0;
    let mut room = [0; 512];
    loop {
        client.recv(&mut room).expect("an answer");
        if room[..2] == 1_000_u16.to_be_bytes() {
            break;
        }
        before += 1;
    }
    assert!(before <= 64, "{before} answers of the flood came first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_comes_back_to_its_client_from_the_address_asked() {
    let server = serve(bind(&["0.0.0.0:0", "[::]:0"], Config::default()), records());
    let ports = [server.addresses[0].port(), server.addresses[1].port()];
    let asked: [SocketAddr; 3] = [
        ([127, 0, 0, 2], ports[0]).into(),
        ([127, 0, 0, 3], ports[0]).into(),
        (std::net::Ipv6Addr::LOCALHOST, ports[1]).into(),
    ];
    let clients: Vec<_> = (0..12_u16).zip(asked.iter().cycle()).map(|(id, &asked)| (id, udp(asked))).collect();
    for (id, client) in &clients {
        client.send(&query(*id, "slow.example.org.", RecordType::A)).unwrap();
    }
    server.script.wait_for(12).await;
    server.script.gate.add_permits(12);
    for (id, client) in &clients {
        assert_eq!(receive(client).id, *id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_worker_answers_its_share() {
    let server = start(Config { workers: 4, ..Config::default() });
    for id in 0..200 {
        let client = udp(server.address());
        client.send(&query(id, WEB, RecordType::A)).unwrap();
        assert_eq!(gist(&receive(&client)).0, id);
    }
    server.wait_for_count("holdfast_dns_responses_total", &[("from", "cluster")], 200).await;
}

/// A resolver that takes a thread of the runtime and does not give it back before it is told to.
struct Blocks {
    taken: mpsc::SyncSender<()>,
    give_back: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Resolve for Blocks {
    fn resolve(&self, request: ForwardRequest) -> BoxFuture<'static, Resolved> {
        let (taken, give_back) = (self.taken.clone(), Arc::clone(&self.give_back));
        async move {
            taken.send(()).unwrap();
            // Blocks this thread, as nothing on the runtime should.
            give_back.lock().unwrap().recv().unwrap();
            let message = [&request.query[..2], &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
            Resolved { message, from: ServedFrom::Upstream }
        }
        .boxed()
    }
}

/// One thread is all of the runtime. Of two, one that is held up can leave the other asleep, with nobody to read sockets.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tcp_and_forwards_that_hold_up_the_whole_runtime_do_not_hold_up_udp() {
    let (taken, is_taken) = mpsc::sync_channel(1);
    let (give_back, inbox) = mpsc::channel();
    let blocks = Blocks { taken, give_back: Arc::new(Mutex::new(inbox)) };
    let bound = bind(&["127.0.0.1:0"], Config { workers: 1, ..Config::default() });
    let server = serve_with(bound, records(), &Script::new(), Arc::new(blocks));
    let mut held_up = Tcp::connect(server.address());
    held_up.send(&query(1, "example.org.", RecordType::A));
    is_taken.recv().unwrap();
    let client = udp(server.address());
    for id in 2..200 {
        client.send(&query(id, WEB, RecordType::A)).unwrap();
        assert_eq!(gist(&receive(&client)).0, id);
    }
    give_back.send(()).unwrap();
    assert_eq!(gist(&held_up.receive()).0, 1);
}

struct Panics;

impl Resolve for Panics {
    fn resolve(&self, _: ForwardRequest) -> BoxFuture<'static, Resolved> {
        unreachable!("the cache is asked first")
    }

    fn cached(
        &self,
        _: &wire::Query<'_>,
        _: Transport,
        _: UnixMillis,
        _: &mut WorkerCache,
        _: &mut [u8],
    ) -> Option<(usize, ServedFrom)> {
        panic!("a broken cache")
    }
}

/// Runs itself in a child process, which must die of SIGABRT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_one_worker_takes_the_process_down() {
    const CHILD: &str = "HOLDFAST_TEST_PANICKING_WORKER";
    if env::var_os(CHILD).is_some() {
        let server = serve_with(
            bind(&["127.0.0.1:0"], Config { workers: 2, ..Config::default() }),
            records(),
            &Script::new(),
            Arc::new(Panics),
        );
        let client = udp(server.address());
        client.send(&query(1, "example.org.", RecordType::A)).unwrap();
        receive(&client);
        return;
    }
    let name = "server::udp::a_panic_in_one_worker_takes_the_process_down";
    let child = Command::new(env::current_exe().unwrap()).args(["--exact", name]).env(CHILD, "1").output().unwrap();
    assert_eq!(child.status.signal(), Some(6), "{}", String::from_utf8_lossy(&child.stderr));
}
