//! Questions that would come back to us: refused where that is plain to see, found out where it is not.

use std::{net::SocketAddr, sync::Arc};

use hickory_proto::rr::RecordType;
use holdfast::{
    dns::{
        cache,
        forward::{Config, Environment, Forwarder, Metrics, Policy, ResolvConfCache, UpstreamSource, ZoneConfig},
    },
    sys::{Clock, ManualClock, UnixMillis},
};
use tokio::task::JoinHandle;

use super::world::{World, asked_for, no_cluster, secs, settle, source, zone};
use crate::support::upstream::{Upstream, a};

fn listening(config: &Config, listen: &str) -> Result<Forwarder, Vec<String>> {
    let registry = prometheus::Registry::new();
    let surroundings = Environment {
        clock: Clock::Manual(ManualClock::new(UnixMillis(1))),
        metrics: Metrics::register(&registry).unwrap(),
        cache_metrics: cache::Metrics::register(&registry).unwrap(),
        cache_file: None,
        resolv_conf_cache: ResolvConfCache::default(),
        listen: vec![listen.parse::<SocketAddr>().unwrap()],
        records: no_cluster(),
    };
    let forwarder = Forwarder::new(config, cache::Config::default(), surroundings);
    forwarder.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn asking(upstream: UpstreamSource) -> Config {
    Config { zones: vec![ZoneConfig { upstreams: vec![upstream], ..zone(".", &[]) }], ..Config::default() }
}

#[tokio::test]
async fn our_own_address_is_no_upstream_at_start_nor_at_reload_nor_by_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 127.0.0.1\n").unwrap();
    for own in [source("127.0.0.1"), UpstreamSource::ResolvConf(path.clone())] {
        for listen in ["127.0.0.1:53", "0.0.0.0:53"] {
            match (listening(&asking(own.clone()), listen), &own) {
                (Err(errors), UpstreamSource::Server(_)) => {
                    assert_eq!(errors.len(), 1);
                    assert!(errors[0].contains("127.0.0.1:53 is an address holdfast itself listens on"), "{errors:?}");
                }
                // Names of the cluster are answered whatever the node asks for all others.
                (Ok(forwarder), UpstreamSource::ResolvConf(_)) => {
                    let zone = &forwarder.status().zones[0];
                    let reason = zone.missing.as_ref().unwrap();
                    assert!(reason.ends_with("names 127.0.0.1:53, an address holdfast itself listens on"), "{reason}");
                    assert!(zone.upstreams.is_empty() && zone.down);
                }
                (outcome, _) => panic!("{own:?}: {outcome:?}"),
            }

            let forwarder = listening(&asking(source("192.0.2.9")), listen).unwrap();
            let errors = forwarder.reload(&asking(own.clone())).unwrap_err();
            assert!(errors[0].to_string().contains("itself listens on"), "{errors:?}");
            let kept = &forwarder.status().zones[0].upstreams;
            assert_eq!((kept.len(), &*kept[0].upstream), (1, "192.0.2.9:53"), "the old one stays");
        }
    }
    std::fs::write(&path, "nameserver 127.0.0.1\nnameserver 192.0.2.9\n").unwrap();
    let forwarder = listening(&asking(UpstreamSource::ResolvConf(path.clone())), "0.0.0.0:53").unwrap();
    let zone = &forwarder.status().zones[0];
    assert_eq!((zone.upstreams.len(), &*zone.upstreams[0].upstream), (1, "192.0.2.9:53"), "the other one is asked");
    assert!(zone.missing.is_some());
    forwarder.reload(&asking(source("192.0.2.1"))).unwrap();
    forwarder.reload(&asking(UpstreamSource::ResolvConf(path))).unwrap();
    assert_eq!(forwarder.status().zones[0].upstreams[0].upstream, "192.0.2.9:53", "also at a reload");
}

/// Has `upstream` ask `world` whatever it is asked, and answer nothing; until aborted.
fn close_loop(upstream: &Upstream, world: &Arc<World>) -> JoinHandle<()> {
    let back = Arc::downgrade(world);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<(String, RecordType)>();
    upstream.now(move |asked| {
        let _ = sender.send((asked.name(), asked.qtype()));
        Vec::new()
    });
    tokio::spawn(async move {
        while let Some((owner, qtype)) = receiver.recv().await {
            let Some(world) = back.upgrade() else { return };
            tokio::spawn(async move { world.ask(&owner, qtype).await });
        }
    })
}

fn answer_again(upstream: &Upstream) {
    upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 0, [192, 0, 2, 1])])]);
}

#[tokio::test(start_paused = true)]
async fn a_loop_through_others_is_found_and_ends_when_it_is_gone() {
    let upstream = Upstream::with_a(0, [192, 0, 2, 1]).await;
    let world = Arc::new(World::new(&[&upstream]));
    upstream.hear_loop_probes();
    let echo = close_loop(&upstream, &world);
    world.elapse(secs(1)).await;
    settle().await;
    assert!(world.forwarder.status().zones[0].looped);
    assert_eq!(world.metrics.loops.get(), 1);
    assert_eq!(world.a("www.example").await, "ServFail ede=22");
    echo.abort();
    answer_again(&upstream);
    world.elapse(secs(32)).await;
    assert!(!world.forwarder.status().zones[0].looped);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_comes_to_be_later_is_found_by_the_questions_it_swallows() {
    let upstream = Upstream::with_a(0, [192, 0, 2, 1]).await;
    let world = Arc::new(World::new(&[&upstream]));
    upstream.hear_loop_probes();
    let searches = |upstream: &Upstream| upstream.seen().iter().filter(|it| it.qtype() == RecordType::HINFO).count();
    world.elapse(secs(65)).await;
    assert_eq!(searches(&upstream), 1, "once at start; a route that works is left alone");
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    let _echo = close_loop(&upstream, &world);
    assert!(world.a("new.example").await.starts_with("ServFail"));
    world.elapse(secs(32)).await;
    assert!(world.forwarder.status().zones[0].looped);
    assert!(world.upstream_status(0).looped);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_asks_us_back_is_left_out_and_the_other_goes_on() {
    let looping = Upstream::silent().await;
    let good = Upstream::start(|asked| match asked.qtype() {
        RecordType::A => vec![asked.found(vec![a(&asked.name(), 0, [192, 0, 2, 1])])],
        _ => vec![asked.nodata(".")],
    })
    .await;
    let config = ZoneConfig { policy: Policy::Sequential, ..zone(".", &[&looping, &good]) };
    let world = Arc::new(World::with(vec![config]));
    looping.hear_loop_probes();
    let _echo = close_loop(&looping, &world);
    world.elapse(secs(2)).await;
    let status = world.forwarder.status();
    assert!(status.zones[0].looped && !status.zones[0].down);
    assert!(world.upstream_status(0).looped && !world.upstream_status(1).looped);
    let started = tokio::time::Instant::now();
    for nth in 0..10 {
        assert_eq!(world.a(&format!("n{nth}.example")).await, "NoError 192.0.2.1");
        assert_eq!(asked_for(&looping, &format!("n{nth}.example")), 0);
    }
    assert!(started.elapsed() < std::time::Duration::from_millis(50));
}
