//! Those who do not keep up, and those who do not mean well.

use std::{sync::Arc, time::Duration};

use holdfast::{
    proto::{self, Event, FRAME_BYTES_MAX, Mirror, Mode, RecordsClient},
    record::{Change, Snapshot, Version},
    source::hub,
    stream,
    sys::{Clock, UnixMillis},
};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

use super::rig::{Agent, Hub, Line, Net, World, clock, metric, service, services};

async fn client(net: &Net, address: &str) -> RecordsClient<Channel> {
    client_by(&net.dial(), address).await
}

/// A client that reads when it is told to.
pub async fn client_by(dial: &hub::Dial, address: &str) -> RecordsClient<Channel> {
    let io = dial(address.to_owned()).await.unwrap();
    let mut io = Some(TokioIo::new(io));
    let connector = tower::service_fn(move |_: http::Uri| {
        let io = io.take().ok_or_else(|| std::io::Error::other("once"));
        async move { io }
    });
    let endpoint = Endpoint::from_static("http://hub").initial_stream_window_size(65_535);
    RecordsClient::new(endpoint.connect_with_connector(connector).await.unwrap())
        .max_decoding_message_size(FRAME_BYTES_MAX)
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_falls_out_of_the_history_is_repaired_on_the_same_stream() {
    let (clock, net) = (clock(), Net::default());
    let config = stream::Config { ring_bytes_max: 32 << 10, ..stream::Config::default() };
    let mut hub = Hub::start("hub", &clock, config);
    hub.list(services(1_000), false);
    net.put("hub", Line::Hub(hub.server.clone()));
    let quick = Agent::start("quick", &clock, &net, &["hub"]);

    let mut slow = client(&net, "hub").await;
    let mut mirror = Mirror::new("slow", Snapshot::default());
    let mut frames = slow.follow(proto::hello("slow", "", mirror.held())).await.unwrap().into_inner();
    while !matches!(mirror.take(frames.message().await.unwrap().unwrap()).unwrap(), Event::Replaced(_)) {}

    // It reads nothing while far more happens than the history and the buffers between hold.
    for n in 0..2_000 {
        hub.change((0..20).map(|k| service(&format!("s{}", (n * 20 + k) % 1_000), 10_000 + n)).collect());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(hub.metric("holdfast_stream_history_bytes", "") <= 32 * 1024);
    }
    quick.equals(&hub).await;
    let mut repairs = 0;
    while mirror.held().version() != &hub.version() {
        let event = mirror.take(frames.message().await.unwrap().unwrap()).unwrap();
        repairs += u32::from(matches!(event, Event::Begins(Mode::Repair | Mode::Snapshot)));
    }
    assert!(repairs >= 1);
    assert_eq!(mirror.held().root(), hub.writer.reader().load().root());
    assert!(hub.metric("holdfast_stream_fallen_total", "") >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_fifty_thousand_changes_stays_within_the_history_and_reaches_everybody() {
    let (clock, net) = (clock(), Net::default());
    let mut hub = Hub::start("hub", &clock, stream::Config { ring_bytes_max: 256 << 10, ..stream::Config::default() });
    hub.list(services(1_000), false);
    net.put("hub", Line::Hub(hub.server.clone()));
    let agents: Vec<Agent> = (0..3).map(|n| Agent::start(&format!("agent-{n}"), &clock, &net, &["hub"])).collect();
    for agent in &agents {
        agent.equals(&hub).await;
    }
    for n in 0..50_000 {
        hub.change(vec![service(&format!("s{}", n % 1_000), 10_000 + n)]);
        if n % 50 == 0 {
            tokio::task::yield_now().await;
        }
        if n % 1_000 == 0 {
            assert!(hub.metric("holdfast_stream_history_bytes", "") <= 256 << 10);
        }
    }
    for agent in &agents {
        agent.equals(&hub).await;
        assert_eq!(agent.reader.load().counts().services, 1_000);
        assert_eq!(agent.metric("holdfast_store_digest_mismatch_total", ""), 0);
    }
    assert_eq!(net.dialled.lock().unwrap().len(), 3, "nobody had to come back");
}

/// A hub that sends to one at a time, with more records than fit into the buffers between, also when packed.
fn hub_of_one_turn(clock: &Clock) -> Hub {
    let mut hub = Hub::start("hub", clock, stream::Config { transfers_max: 1, ..stream::Config::default() });
    hub.list(unpackable(20_000), false);
    hub
}

/// Services whose names do not pack.
fn unpackable(count: u32) -> Vec<Change> {
    (0..count).map(|n| service(&format!("{:x}", xxhash_rust::xxh3::xxh3_128(&n.to_be_bytes())), n)).collect()
}

/// What is in these buckets of the hub, at an older version.
fn part_of(hub: &Hub, buckets: std::ops::Range<usize>) -> Snapshot {
    let whole = hub.writer.reader().snapshot();
    let same = whole.buckets()[buckets].iter().flat_map(|bucket| bucket.services());
    let older = Version { rev: 0, ..whole.version().clone() };
    Snapshot::default().apply(same.map(|service| Change::Put(Arc::clone(service))), older)
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_reads_no_snapshot_takes_no_turn_from_others() {
    let (clock, net) = (clock(), Net::default());
    let hub = hub_of_one_turn(&clock);
    net.put("hub", Line::Hub(hub.server.clone()));
    let mut stuck = client(&net, "hub").await;
    let _frames = stuck.follow(proto::hello("stuck", "", &Snapshot::default())).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let agent = Agent::start("agent", &clock, &net, &["hub"]);
    let took = agent.equals(&hub).await;
    assert!(took > Duration::from_secs(20) && took < Duration::from_secs(40), "{took:?}");
    assert_eq!(net.dialled.lock().unwrap().len(), 2, "signs of life kept the one that waited");
}

#[tokio::test(start_paused = true)]
async fn large_repairs_wait_for_their_turn_and_small_ones_do_not() {
    let (clock, net) = (clock(), Net::default());
    let hub = hub_of_one_turn(&clock);
    net.put("hub", Line::Hub(hub.server.clone()));
    let mut stuck = client(&net, "hub").await;
    let _frames = stuck.follow(proto::hello("stuck", "", &part_of(&hub, 128..256))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let far_behind = Agent::holding("far-behind", &clock, &net, &["hub"], Some(part_of(&hub, 128..256)));
    let behind = Agent::holding("behind", &clock, &net, &["hub"], Some(part_of(&hub, 10..256)));
    let (took, at_once) = tokio::join!(far_behind.equals(&hub), behind.equals(&hub));
    assert!(took > Duration::from_secs(20) && took < Duration::from_secs(40), "{took:?}");
    assert!(at_once < Duration::from_secs(1), "{at_once:?}");
    assert_eq!(hub.metric("holdfast_stream_resume_total", "repair"), 3);
    assert_eq!(net.dialled.lock().unwrap().len(), 3, "signs of life kept the one that waited");
}

/// Reads until records came whole, and gives their age as it was told with them.
async fn age_told(mirror: &mut Mirror, frames: &mut tonic::Streaming<proto::Frame>) -> UnixMillis {
    loop {
        let frame = frames.message().await.unwrap().unwrap();
        if let Event::Replaced(whole) = mirror.take(frame).unwrap() {
            return whole.vouched.as_of;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_takes_long_is_as_old_as_its_beginning() {
    let (clock, net) = (clock(), Net::default());
    let mut hub = Hub::start("hub", &clock, stream::Config::default());
    hub.list(unpackable(20_000), false);
    let whole = hub.writer.reader().snapshot();
    // Half of the buckets are as the hub has them.
    let held = part_of(&hub, 128..256);
    net.put("hub", Line::Hub(hub.server.clone()));
    let mut slow = client(&net, "hub").await;
    let mut frames = slow.follow(proto::hello("slow", "", &held)).await.unwrap().into_inner();
    let begun = hub.writer.reader().as_of().unwrap();

    // While it reads nothing, an operator lets go of something, and time passes.
    tokio::time::sleep(Duration::from_secs(20)).await;
    hub.change(vec![service("late", 1)]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    hub.vouch();
    let mut mirror = Mirror::new("slow", held);
    let told = age_told(&mut mirror, &mut frames).await;
    assert_eq!(hub.metric("holdfast_stream_resume_total", "repair"), 1);
    assert_eq!(mirror.held().root(), whole.root(), "of records without what came since");
    assert!(told <= begun.plus(Duration::from_secs(5)), "{told} is no age of records as of {begun}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_made_earlier_is_as_young_as_the_records_that_have_not_changed_since() {
    let world = World::new();
    let mut hub = world.hub("hub", 100);
    let World { clock, net } = &world;
    let first = world.agent("first", &["hub"]);
    first.equals(&hub).await;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        hub.vouch();
    }
    let mut late = client(net, "hub").await;
    let mut frames = late.follow(proto::hello("late", "", &Snapshot::default())).await.unwrap().into_inner();
    let told = age_told(&mut Mirror::new("late", Snapshot::default()), &mut frames).await;
    assert!(told.age(clock.now()) < Duration::from_secs(6), "told {told} at {}", clock.now());
}

#[tokio::test(start_paused = true)]
async fn a_greeting_that_is_none_is_answered_with_a_status() {
    let world = World::new();
    let _hub = world.hub("hub", 3);
    let net = &world.net;
    let mut client = client(net, "hub").await;
    let mut hello = proto::hello("agent", "", &Snapshot::default());
    hello.protocol = 0;
    let status = client.follow(hello.clone()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
    hello.node = "x".repeat(100_000);
    let status = client.follow(hello).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_is_closed() {
    let (clock, net) = (clock(), Net::default());
    let hub = Hub::start("hub", &clock, stream::Config::default());
    net.put("hub", Line::Hub(hub.server.clone()));
    let mut idle = (net.dial())("hub".into()).await.unwrap();
    let start = tokio::time::Instant::now();
    tokio::io::copy(&mut idle, &mut tokio::io::sink()).await.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(11), "{:?}", start.elapsed());
    assert_eq!(hub.metric("holdfast_stream_connections", ""), 0);
}

#[tokio::test(start_paused = true)]
async fn garbage_costs_the_hub_one_connection() {
    let world = World::new();
    let hub = world.hub("hub", 3);
    let net = &world.net;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 4_096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut io = (net.dial())("hub".into()).await.unwrap();
        let _ = tokio::io::AsyncWriteExt::write_all(&mut io, garbage).await;
        let _ = tokio::io::copy(&mut io, &mut tokio::io::sink()).await;
    }
    let agent = world.agent("agent", &["hub"]);
    agent.equals(&hub).await;
    assert_eq!(hub.metric("holdfast_stream_connections", ""), 1);
}

/// A hub whose frames are written by hand, one list a stream.
fn scripted(scripts: Vec<Vec<bytes::Bytes>>) -> hub::Dial {
    let scripts = Arc::new(std::sync::Mutex::new(scripts.into_iter()));
    Arc::new(move |_| {
        let scripts = Arc::clone(&scripts);
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(256 << 10);
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |_| {
                    let frames = scripts.lock().unwrap().next().unwrap_or_default();
                    let body = futures::stream::iter(frames)
                        .map(|frame| Ok::<_, std::convert::Infallible>(http_body::Frame::data(frame)));
                    let body = http_body_util::StreamBody::new(body.chain(futures::stream::pending()));
                    let response = http::Response::builder().header("content-type", "application/grpc").body(body);
                    async move { response }
                });
                let _ = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                    .serve_connection(TokioIo::new(theirs), service)
                    .await;
            });
            Ok(Box::new(ours) as Box<dyn hub::Io>)
        })
    })
}

use futures::StreamExt as _;

#[tokio::test(start_paused = true)]
async fn a_hub_whose_records_do_not_add_up_is_asked_to_repair_and_counted() {
    let clock = clock();
    let version = |rev| Version { cluster: "uid".into(), epoch: 1, rev };
    let truth = Snapshot::default().apply(services(50), version(1));
    let next = truth.apply([service("s1", 999)], version(2));
    let vouched = proto::Vouched { as_of: clock.now(), path: vec!["hub".into()], ..Default::default() };
    let mut good = vec![proto::welcome(Mode::Snapshot, "hub")];
    good.extend(proto::snapshot_parts(&truth));
    good.push(proto::mark(&truth, &vouched));
    // The batch forgets what the mark counts.
    good.push(proto::batch(&version(1), &[], &next, &vouched, vec![], vouched.as_of));
    let bucket = truth.digests().zip(next.digests()).position(|(a, b)| a != b).unwrap();
    let repair =
        vec![proto::welcome(Mode::Repair, "hub"), proto::bucket_part(&next, bucket), proto::mark(&next, &vouched)];
    let registry = prometheus::Registry::new();
    let (mut writer, reader) = holdfast::store::open();
    let (status, _) = tokio::sync::watch::channel(hub::Status::default());
    let parts = hub::Parts {
        reader: reader.clone(),
        clock,
        metrics: hub::Metrics::register(&registry).unwrap(),
        dial: scripted(vec![good, repair]),
        learnt: holdfast::source::Learnt { known: vec![], keep: Arc::new(|_| {}) },
        status,
    };
    let config = hub::Config { addresses: vec!["hub".into()], node: "agent".into(), ..Default::default() };
    let (sender, mut updates) = tokio::sync::mpsc::channel(16);
    let following = tokio::spawn(hub::run(config, parts, sender));
    let mut roots = Vec::new();
    while reader.load().root() != next.root() {
        let update = updates.recv().await.unwrap();
        assert!(!matches!(update.what, holdfast::store::What::Lost { .. }), "no new connection was needed: {update:?}");
        writer.apply(update).unwrap();
        roots.push(reader.load().root());
    }
    assert!(roots.iter().all(|root| [truth.root(), next.root()].contains(root)), "nothing unproven was ever served");
    assert_eq!(metric(&registry, "holdfast_store_digest_mismatch_total", ""), 1);
    following.abort();
}
