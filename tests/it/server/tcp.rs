//! What TCP adds: connections, and the bounds on them.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::dns::{Config, TcpConfig};

use crate::support::dns::{Tcp, ask_tcp, bind, edns_query, framed, gist, query, records, serve, start};

const WEB: &str = "web.prod.svc.cluster.local.";
const SLOW: &str = "slow.example.org.";

fn web(id: u16) -> Vec<u8> {
    query(id, WEB, RecordType::A)
}

fn with(tcp: TcpConfig) -> Config {
    Config { tcp, workers: 1, ..Config::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_answer_does_not_hold_up_those_behind_it() {
    let server = start(Config::default());
    let mut tcp = Tcp::connect(server.address());
    tcp.send(&query(1, SLOW, RecordType::A));
    let burst: Vec<u8> = (2..50).flat_map(|id| framed(&web(id))).collect();
    tcp.0.write_all(&burst).unwrap();
    for id in 2..50 {
        assert_eq!(tcp.receive().id, id);
    }
    server.script.gate.add_permits(1);
    assert_eq!(tcp.receive().id, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_queries_hold_up_nobody_else() {
    let server = start(Config::default());
    let query = framed(&web(1));
    let halves: Vec<_> = (0..50)
        .map(|cut| {
            let mut half = Tcp::connect(server.address());
            half.0.write_all(&query[..=cut % (query.len() - 1)]).unwrap();
            half
        })
        .collect();
    for id in 0..20 {
        assert_eq!(ask_tcp(server.address(), &web(id)).id, id);
    }
    // None of them was sent away for it.
    for mut half in halves.into_iter().take(1) {
        half.0.write_all(&query[1..]).unwrap();
        assert_eq!(half.receive().id, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_comes_a_byte_at_a_time_is_answered_if_it_comes_in_time() {
    let server = start(Config::default());
    let mut tcp = Tcp::connect(server.address());
    for byte in framed(&web(5)) {
        tcp.0.write_all(&[byte]).unwrap();
    }
    assert_eq!(tcp.receive().id, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_message_is_given_up_and_what_was_asked_before_it_is_answered() {
    let server = start(with(TcpConfig { partial: Duration::from_millis(30), ..TcpConfig::default() }));
    for cut in [1, 2, 3, 20] {
        let mut tcp = Tcp::connect(server.address());
        tcp.send(&query(1, SLOW, RecordType::A));
        tcp.0.write_all(&framed(&web(2))[..cut]).unwrap();
        server.script.gate.add_permits(1);
        assert_eq!(tcp.receive().id, 1);
        assert!(tcp.try_receive().is_none());
    }
    server.wait_for_count("holdfast_dns_tcp_closed_total", &[("reason", "partial")], 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_and_one_that_waits_for_an_answer_is_not() {
    let server = start(with(TcpConfig { idle: Duration::from_millis(30), ..TcpConfig::default() }));
    let mut waiting = Tcp::connect(server.address());
    waiting.send(&query(1, SLOW, RecordType::A));
    server.script.wait_for(1).await;
    let mut never = Tcp::connect(server.address());
    assert!(never.try_receive().is_none());
    let mut once = Tcp::connect(server.address());
    once.send(&web(2));
    assert_eq!(once.receive().id, 2);
    assert!(once.try_receive().is_none());
    server.script.gate.add_permits(1);
    assert_eq!(waiting.receive().id, 1);
    server.wait_for_count("holdfast_dns_tcp_closed_total", &[("reason", "idle")], 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_lies_ends_that_connection_only() {
    let server = start(with(TcpConfig { partial: Duration::from_millis(30), ..TcpConfig::default() }));
    let mut good = Tcp::connect(server.address());
    good.send(&web(1));
    assert_eq!(good.receive().id, 1);
    let query = web(2);
    for (prefix, reason) in [(0_u16, "length"), (5, "length"), (u16::MAX, "partial")] {
        let mut bad = Tcp::connect(server.address());
        bad.0.write_all(&[&prefix.to_be_bytes()[..], &query].concat()).unwrap();
        assert!(bad.try_receive().is_none(), "{prefix}");
        assert!(server.count("holdfast_dns_tcp_closed_total", &[("reason", reason)]) > 0, "{prefix}");
    }
    // One that announces too little is answered as what it announces, and the rest is read as the next prefix.
    let mut short = Tcp::connect(server.address());
    short.0.write_all(&[&20_u16.to_be_bytes()[..], &query].concat()).unwrap();
    assert_eq!(short.receive().metadata.response_code, ResponseCode::FormErr);
    good.send(&web(3));
    assert_eq!(good.receive().id, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_source_has_its_share_of_connections_and_spares_its_idle_ones_first() {
    let tcp = TcpConfig { connections_per_source_max: 3, ..TcpConfig::default() };
    let server = serve(bind(&["0.0.0.0:0"], with(tcp)), records());
    let port = server.address().port();
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    let mut idle = Tcp::connect(here);
    idle.send(&web(1));
    idle.receive();
    let mut busy: Vec<_> = (0..3)
        .map(|id| {
            let mut tcp = Tcp::connect(here);
            tcp.send(&query(id, SLOW, RecordType::A));
            tcp
        })
        .collect();
    server.script.wait_for(3).await;
    assert!(idle.try_receive().is_none(), "the idle one had to go for the third");
    let mut refused = Tcp::connect(here);
    assert!(refused.try_receive().is_none(), "all of them wait for answers");
    server.wait_for_count("holdfast_dns_tcp_refused_total", &[("reason", "source")], 1).await;
    server.wait_for_count("holdfast_dns_tcp_closed_total", &[("reason", "evicted")], 1).await;
    // Another source is another matter.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 9], 0)).into()).unwrap();
    socket.connect(&here.into()).unwrap();
    let mut other = Tcp(socket.into());
    other.send(&web(9));
    assert_eq!(other.receive().id, 9);
    server.script.gate.add_permits(3);
    for (id, busy) in (0..).zip(&mut busy) {
        assert_eq!(busy.receive().id, id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_total_bound_the_longest_idle_goes_first() {
    let server = start(with(TcpConfig { connections_max: 3, ..TcpConfig::default() }));
    let mut idle: Vec<_> = (0..3)
        .map(|id| {
            let mut tcp = Tcp::connect(server.address());
            tcp.send(&web(id));
            tcp.receive();
            tcp
        })
        .collect();
    assert_eq!(ask_tcp(server.address(), &web(9)).id, 9);
    assert!(idle[0].try_receive().is_none());
    idle[2].send(&web(3));
    assert_eq!(idle[2].receive().id, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_answers_is_closed_and_costs_bounded_memory() {
    let server = start(with(TcpConfig { write: Duration::from_millis(50), ..TcpConfig::default() }));
    let mut greedy = Tcp::connect(server.address());
    let ask = framed(&edns_query(1, "many.prod.svc.cluster.local.", RecordType::A, 4_096));
    // Far more answers than the kernel's buffers hold; the server stops reading long before.
    greedy.0.write_all(&ask.repeat(20_000)).unwrap();
    server.wait_for_count("holdfast_dns_tcp_closed_total", &[("reason", "write")], 1).await;
    assert!(server.count("holdfast_dns_responses_total", &[]) < 20_000);
    assert_eq!(gist(&ask_tcp(server.address(), &web(2))).0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_with_more_answers_than_are_buffered_is_answered_whole() {
    let server = start(Config::default());
    let mut tcp = Tcp::connect(server.address());
    let many = |id| framed(&edns_query(id, "many.prod.svc.cluster.local.", RecordType::A, 4_096));
    tcp.0.write_all(&(0..100).flat_map(many).collect::<Vec<u8>>()).unwrap();
    for id in 0..100 {
        assert_eq!(gist(&tcp.receive()), (id, ResponseCode::NoError, 300));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_beyond_the_bound_in_flight_wait_their_turn() {
    let server = start(with(TcpConfig { in_flight_max: 2, ..TcpConfig::default() }));
    let mut tcp = Tcp::connect(server.address());
    let burst: Vec<u8> =
        (1..=3).flat_map(|id| framed(&query(id, SLOW, RecordType::A))).chain(framed(&web(4))).collect();
    tcp.0.write_all(&burst).unwrap();
    server.script.wait_for(2).await;
    // A second connection is served all the while.
    assert_eq!(ask_tcp(server.address(), &web(9)).id, 9);
    assert_eq!(server.script.asked.load(std::sync::atomic::Ordering::SeqCst), 2);
    server.script.gate.add_permits(3);
    let mut ids: Vec<u16> = (0..4).map(|_| tcp.receive().id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_nothing_more_gets_all_its_answers() {
    let server = start(Config::default());
    let mut tcp = Tcp::connect(server.address());
    tcp.send(&query(1, SLOW, RecordType::A));
    tcp.send(&web(2));
    tcp.finish();
    assert_eq!(tcp.receive().id, 2);
    server.script.gate.add_permits(1);
    assert_eq!(tcp.receive().id, 1);
    assert!(tcp.try_receive().is_none());
}

/// Runs itself in a child process that may open few files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_descriptor_left_idle_connections_make_room() {
    const CHILD: &str = "HOLDFAST_TEST_FEW_FILES";
    if env::var_os(CHILD).is_some() {
        let server = start(Config { workers: 1, ..Config::default() });
        println!("\nlistening on {}", server.address());
        // Until the parent is done.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let name = "server::tcp::without_a_file_descriptor_left_idle_connections_make_room";
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Read to the end, as the child goes on printing.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address: SocketAddr = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("listening on ")?.parse().ok())
        .expect("the child says where it listens");
    let idle: Vec<_> = (0..60).map(|_| Tcp::connect(address)).collect();
    assert_eq!(ask_tcp(address, &web(1)).id, 1);
    drop((idle, child.stdin.take()));
    let said: Vec<_> = lines.map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success(), "{said:?}");
}
