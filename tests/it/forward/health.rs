//! Who is asked, who is not, and what goes on behind.

use std::time::Duration;

use hickory_proto::rr::RecordType;
use holdfast::{
    dns::{
        Question, cache,
        forward::{Config, Host, Policy, Prefix, Rewrite, UpstreamSource, UpstreamState, ZoneConfig, parse_host},
    },
    wire::Rtype,
};

use super::world::{World, no_cluster, own_cluster, secs, short, source, zone};
use crate::support::upstream::{Upstream, a, name};

#[tokio::test(start_paused = true)]
async fn a_dead_upstream_is_found_out_probed_and_taken_back() {
    let dead = Upstream::silent().await;
    let good = Upstream::with_a(0, [192, 0, 2, 1]).await;
    let world = World::with(vec![ZoneConfig { policy: Policy::Sequential, ..zone(".", &[&dead, &good]) }]);
    for nth in 0..4 {
        assert_eq!(world.a(&format!("n{nth}.example")).await, "NoError 192.0.2.1");
        world.elapse(secs(1)).await;
    }
    assert_eq!(world.upstream_status(0).state, UpstreamState::Failing);
    let before = dead.seen().iter().filter(|asked| asked.name().starts_with('m')).count();
    let started = tokio::time::Instant::now();
    for nth in 0..20 {
        assert_eq!(world.a(&format!("m{nth}.example")).await, "NoError 192.0.2.1");
    }
    assert!(started.elapsed() < Duration::from_millis(50), "nobody waits for it any more");
    assert_eq!(dead.seen().iter().filter(|asked| asked.name().starts_with('m')).count(), before, "nor asks it");
    assert!(good.seen().iter().all(|asked| !asked.name().is_empty()), "a working upstream is not probed");
    let probes = |upstream: &Upstream| upstream.seen().iter().filter(|asked| asked.name().is_empty()).count();
    let first = probes(&dead);
    world.elapse(secs(60)).await;
    assert!((8..=30).contains(&(probes(&dead) - first)), "{} probes in a minute", probes(&dead) - first);
    dead.now(|asked| vec![asked.found(vec![a(&asked.name(), 0, [192, 0, 2, 2])])]);
    world.elapse(secs(6)).await;
    assert_eq!(world.upstream_status(0).state, UpstreamState::Up);
    assert_eq!(world.a("back.example").await, "NoError 192.0.2.2");
}

#[tokio::test(start_paused = true)]
async fn with_everybody_down_the_decision_is_short_and_remembered() {
    let upstream = Upstream::silent().await;
    let world = World::new(&[&upstream]);
    for nth in 0..3 {
        world.a(&format!("n{nth}.example")).await;
    }
    assert!(world.forwarder.status().zones[0].down);
    let started = tokio::time::Instant::now();
    assert_eq!(world.a("new.example").await, "ServFail ede=22");
    assert!(started.elapsed() <= Duration::from_millis(1_100), "{:?}", started.elapsed());
    let started = tokio::time::Instant::now();
    assert_eq!(world.a("new.example").await, "ServFail ede=22");
    assert!(started.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn policies_order_the_upstreams() {
    for (policy, low, high) in [(Policy::Sequential, 100, 100), (Policy::RoundRobin, 50, 50), (Policy::Random, 25, 75)]
    {
        let one = Upstream::with_a(0, [192, 0, 2, 1]).await;
        let two = Upstream::with_a(0, [192, 0, 2, 2]).await;
        let world = World::with(vec![ZoneConfig { policy, ..zone(".", &[&one, &two]) }]);
        let mut first = 0;
        for nth in 0..100 {
            first += usize::from(world.a(&format!("n{nth}.example")).await.ends_with(".1"));
        }
        assert!((low..=high).contains(&first), "{policy:?}: {first}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_resolv_conf_is_taken_over_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 127.0.0.1\n").unwrap();
    let source = UpstreamSource::ResolvConf(path.clone());
    let world = World::with(vec![ZoneConfig { upstreams: vec![source], ..zone(".", &[]) }]);
    let names = || world.forwarder.status().zones[0].upstreams.iter().map(|up| up.upstream.clone()).collect::<Vec<_>>();
    assert_eq!(names(), ["127.0.0.1:53"]);
    world.elapse(secs(3)).await;
    std::fs::write(&path, "nameserver 127.0.0.2\nnameserver 127.0.0.1\n").unwrap();
    world.elapse(secs(3)).await;
    assert_eq!(names(), ["127.0.0.2:53", "127.0.0.1:53"]);
    std::fs::write(&path, "nothing here\n").unwrap();
    world.elapse(secs(3)).await;
    assert_eq!(names(), ["127.0.0.2:53", "127.0.0.1:53"]);
}

#[tokio::test(start_paused = true)]
async fn a_resolv_conf_without_servers_is_waited_for_and_what_was_known_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    std::fs::write(&path, "search example.org\n").unwrap();
    let waits = || ZoneConfig { upstreams: vec![UpstreamSource::ResolvConf(path.clone())], ..zone(".", &[]) };
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let world = World::with(vec![waits()]);
    for _ in 0..2 {
        assert_eq!(world.a("www.example").await, "ServFail ede=22");
    }
    assert_eq!(world.metrics.down.get(), 2);
    let told = || world.forwarder.status().zones[0].missing.clone();
    assert_eq!(told(), Some(format!("{}: no nameserver line with an address", path.display())));
    world.elapse(secs(3)).await;
    // A reload is no reason to give up the wait, and another file is waited for as well.
    world.forwarder.reload(&Config { zones: vec![waits()], ..Config::default() }).unwrap();
    let gone = ZoneConfig { upstreams: vec![source("/nonexistent/resolv.conf")], ..zone(".", &[]) };
    world.forwarder.reload(&Config { zones: vec![gone], ..Config::default() }).unwrap();
    assert_eq!(told(), Some("/nonexistent/resolv.conf: No such file or directory (os error 2)".into()));
    world.forwarder.reload(&Config { zones: vec![waits()], ..Config::default() }).unwrap();

    std::fs::write(&path, format!("nameserver {}\n", upstream.address)).unwrap();
    world.elapse(secs(3)).await;
    assert_eq!((world.a("www.example").await.as_str(), told()), ("NoError 192.0.2.1", None));

    // From here on there is something to lose.
    std::fs::write(&path, "").unwrap();
    world.elapse(secs(3)).await;
    assert!(world.forwarder.reload(&Config { zones: vec![waits()], ..Config::default() }).is_err());
    assert_eq!(world.a("other.example").await, "NoError 192.0.2.1");
}

#[tokio::test(start_paused = true)]
async fn without_upstreams_what_is_cached_is_served_past_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("resolv.conf"), folder.path().join("cache.zst"));
    let upstream = Upstream::with_a(30, [192, 0, 2, 1]).await;
    std::fs::write(&path, format!("nameserver {}\n", upstream.address)).unwrap();
    let upstreams = vec![UpstreamSource::ResolvConf(path.clone())];
    let config = Config { zones: vec![ZoneConfig { upstreams, ..zone(".", &[]) }], ..Config::default() };
    let start = |clock| World::start(&config, cache::Config::default(), no_cluster(), Some(file.clone()), clock);
    let world = start(holdfast::sys::ManualClock::new(holdfast::sys::UnixMillis(1_733_941_800_000)));
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    world.forwarder.save().await;
    let later = world.clock.clone();
    later.advance(secs(100_000));
    drop(world);
    std::fs::write(&path, "").unwrap();
    let world = start(later);
    world.forwarder.loaded().await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
    assert_eq!(world.a("new.example").await, "ServFail ede=22");
}

#[tokio::test(start_paused = true)]
async fn a_hosts_file_that_is_missing_or_a_directory_is_taken_up_when_it_appears() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    let upstream = Upstream::start(|asked| vec![asked.nxdomain("example")]).await;
    let world = World::with(vec![ZoneConfig { hosts_file: Some(path.clone()), ..zone(".", &[&upstream]) }]);
    assert_eq!(world.a("printer.example").await, "NXDomain");
    let told = || (world.forwarder.status().zones[0].hosts_missing.clone(), world.metrics.files_missing.get());
    let gone = format!("{}: No such file or directory (os error 2)", path.display());
    world.elapse(secs(1)).await;
    assert_eq!(told(), (Some(gone), 1));
    std::fs::create_dir(&path).unwrap();
    world.elapse(secs(3)).await;
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, b"# caf\xE9\n10.0.0.1 printer.example\n").unwrap();
    world.elapse(secs(3)).await;
    assert_eq!(world.a("printer.example").await, "NoError 10.0.0.1");
    assert_eq!(told(), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn rewrites_come_before_templates_and_those_before_hosts_as_in_coredns() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let world = World::with(vec![ZoneConfig {
        rewrites: vec![rewrite("exact registry.example host.internal.example"), rewrite("exact six.example t.example")],
        templates: vec![
            "AAAA".parse().unwrap(),
            "ANY match ^deep[.] rcode NXDOMAIN fallthrough".parse().unwrap(),
            "A match ^t[.] answer \"{{ .Name }} 60 IN A 10.4.0.2\" fallthrough".parse().unwrap(),
            "A match ^alias[.] answer \"{{ .Name }} 60 IN CNAME www.example.org\" fallthrough".parse().unwrap(),
        ],
        hosts: vec![parse_host("10.4.0.1 host.internal.example t.example deep.example").unwrap()],
        ..zone(".", &[&upstream])
    }]);
    assert_eq!(world.a("registry.example").await, "NoError 10.4.0.1");
    assert_eq!(world.a("host.internal.example").await, "NoError 10.4.0.1");
    assert_eq!(world.a("six.example").await, "NoError 10.4.0.2");
    assert_eq!(world.a("deep.example").await, "NXDomain");
    assert_eq!(upstream.count(), 0, "nothing of it is asked");
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    assert_eq!(world.a("alias.example").await, "NoError www.example.org. 192.0.2.1");
}

/// In `CoreDNS` dns64 is in front of rewrite, template and hosts.
#[tokio::test(start_paused = true)]
async fn addresses_of_hosts_templates_and_rewritten_names_are_translated_like_those_of_upstreams() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let world = World::with(vec![ZoneConfig {
        dns64: Some(Prefix::WELL_KNOWN),
        rewrites: vec![rewrite("exact alias.example printer.example"), rewrite("exact up.example www.example")],
        templates: vec![
            "AAAA match ^t[.] fallthrough".parse().unwrap(),
            "A match ^t[.] answer \"{{ .Name }} 60 IN A 10.4.0.2\" fallthrough".parse().unwrap(),
            "ANY match ^gone[.] rcode NXDOMAIN fallthrough".parse().unwrap(),
        ],
        hosts: ["10.0.0.9 printer.example", "10.0.0.7 gone.example", "2001:db8::6 six.example", "10.0.0.6 six.example"]
            .map(|line| parse_host(line).unwrap())
            .into(),
        ..zone(".", &[&upstream])
    }]);
    for (owner, expect) in [
        ("printer.example", "NoError 64:ff9b::a00:9"),
        ("alias.example", "NoError 64:ff9b::a00:9"),
        ("up.example", "NoError 64:ff9b::c000:201"),
        ("t.example", "NoError 64:ff9b::a04:2"),
        ("gone.example", "NXDomain"),
        ("six.example", "NoError 2001:db8::6"),
        ("www.example", "NoError 64:ff9b::c000:201"),
    ] {
        assert_eq!(short(&world.ask(owner, RecordType::AAAA).await), expect, "{owner}");
    }
}

fn rewrite(text: &str) -> Rewrite {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_changed_hosts_file_is_taken_over_and_one_that_is_gone_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    std::fs::write(&path, "10.0.0.1 printer.example\n").unwrap();
    let upstream = Upstream::start(|asked| vec![asked.nxdomain("example")]).await;
    let world = World::with(vec![ZoneConfig { hosts_file: Some(path.clone()), ..zone(".", &[&upstream]) }]);
    assert_eq!(world.a("printer.example").await, "NoError 10.0.0.1");
    world.elapse(secs(3)).await;
    std::fs::write(&path, "10.0.0.2 printer.example\n10.0.0.3 other.example\n").unwrap();
    world.elapse(secs(3)).await;
    assert_eq!(world.a("printer.example").await, "NoError 10.0.0.2");
    assert_eq!(world.a("other.example").await, "NoError 10.0.0.3");
    std::fs::remove_file(&path).unwrap();
    world.elapse(secs(3)).await;
    assert_eq!(world.a("printer.example").await, "NoError 10.0.0.2");
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_cache_and_a_bad_one_changes_nothing() {
    let one = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let two = Upstream::with_a(60, [192, 0, 2, 2]).await;
    let world = World::new(&[&one]);
    world.a("www.example").await;
    let bad = Config { zones: vec![zone(".", &[])], ..Config::default() };
    assert!(world.forwarder.reload(&bad).is_err());
    assert_eq!(world.a("other.example").await, "NoError 192.0.2.1");
    world.forwarder.reload(&Config { zones: vec![zone(".", &[&two])], ..Config::default() }).unwrap();
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1", "from the cache");
    assert_eq!(world.a("new.example").await, "NoError 192.0.2.2");
}

#[tokio::test(start_paused = true)]
async fn a_warm_restart_answers_with_every_upstream_dead_and_true_ttls() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache.zst");
    let upstream = Upstream::start(|asked| {
        vec![asked.found(vec![a(
            &asked.name(),
            if asked.name().starts_with("long") { 600 } else { 30 },
            [192, 0, 2, 1],
        )])]
    })
    .await;
    let config =
        Config { zones: vec![zone(".", &[&upstream]), zone("corp.example", &[&upstream])], ..Config::default() };
    let start = |clock| World::start(&config, cache::Config::default(), no_cluster(), Some(file.clone()), clock);
    let world = start(holdfast::sys::ManualClock::new(holdfast::sys::UnixMillis(1_733_941_800_000)));
    for owner in ["long.example", "short.example", "long.corp.example"] {
        assert_eq!(world.a(owner).await, "NoError 192.0.2.1");
    }
    // Killed a minute later: the save of that minute has to do.
    world.elapse(secs(61)).await;
    // It is written on another thread, which no clock drives, and which gives way to whatever else this machine does.
    let patience = std::time::Instant::now() + secs(300);
    while !file.exists() {
        assert!(std::time::Instant::now() < patience, "the cache was not saved");
        tokio::task::yield_now().await;
    }
    let clock = world.clock.clone();
    drop(world);
    upstream.now(|_| Vec::new());
    let world = start(clock);
    world.forwarder.loaded().await;
    assert_eq!(world.at_hand("long.example", RecordType::A).unwrap().0.answers[0].ttl, 539);
    assert_eq!(world.at_hand("long.corp.example", RecordType::A).unwrap().0.answers[0].ttl, 539);
    assert_eq!(world.a("short.example").await, "NoError 192.0.2.1 ede=3");
}

#[tokio::test(start_paused = true)]
async fn the_cached_answer_of_a_name_can_be_inspected() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let world = World::new(&[&upstream]);
    let look = || {
        let batch = world.records.load();
        let records = world.records.records(&batch, world.clock.now());
        let question = Question::new("www.example".parse().unwrap(), Rtype::A);
        world.forwarder.inspect(world.records.rules(), records, &question)
    };
    let cached = || look().legs[0].cached.clone().map(|cached| (cached.left, cached.served_stale));
    let ttl = || look().answer.map(|answer| answer.answers[0].ttl);
    assert_eq!((cached(), ttl()), (None, None));
    world.a("www.example").await;
    world.elapse(secs(10)).await;
    let leg = look().legs.remove(0);
    assert_eq!((leg.zone.as_str(), leg.upstreams), (".", vec![upstream.address.to_string()]));
    assert_eq!((cached(), ttl()), (Some((Some(secs(50)), false)), Some(50)));
    let asked = upstream.count();
    world.elapse(secs(60)).await;
    assert_eq!(cached(), Some((None, false)), "it would be asked for first");
    assert_eq!(upstream.count(), asked, "to look is not to ask");
    upstream.now(|_| Vec::new());
    // Until the upstream is known to be gone.
    for _ in 0..4 {
        world.a("www.example").await;
        world.elapse(secs(2)).await;
    }
    assert_eq!((cached(), ttl()), (Some((None, true)), Some(30)));
}

#[tokio::test(start_paused = true)]
async fn a_broken_cache_file_is_set_aside_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache.zst");
    let upstream = Upstream::with_a(600, [192, 0, 2, 1]).await;
    let config = Config { zones: vec![zone(".", &[&upstream])], ..Config::default() };
    let clock = holdfast::sys::ManualClock::new(holdfast::sys::UnixMillis(1_733_941_800_000));
    let start = || World::start(&config, cache::Config::default(), no_cluster(), Some(file.clone()), clock.clone());
    let world = start();
    world.a("www.example").await;
    world.forwarder.save().await;
    drop(world);
    let good = std::fs::read(&file).unwrap();
    for spoil in [0, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[spoil] ^= 0x55;
        std::fs::write(&file, &bad).unwrap();
        let world = start();
        world.forwarder.loaded().await;
        assert!(world.at_hand("www.example", RecordType::A).is_none(), "byte {spoil}");
        assert_eq!(world.forwarder.status().cache.entries, 0, "byte {spoil}");
        assert_eq!(world.cache_metrics.disk_errors.get(), 1);
        assert!(!file.exists());
    }
    std::fs::write(&file, &good).unwrap();
    let world = start();
    world.forwarder.loaded().await;
    assert!(world.at_hand("www.example", RecordType::A).is_some());
}

#[tokio::test(start_paused = true)]
async fn hosts_rewrites_and_dns64_are_local() {
    let upstream = Upstream::start(|asked| match asked.qtype() {
        RecordType::A => vec![asked.found(vec![a(&asked.name(), 60, [192, 0, 2, 33])])],
        _ => vec![asked.nodata("example")],
    })
    .await;
    let host = Host { address: "10.1.1.1".parse().unwrap(), names: vec![name("printer.example")] };
    let config = ZoneConfig {
        hosts: vec![host],
        rewrites: vec![
            rewrite("exact alias.example real.example.org"),
            rewrite("exact db.example db.prod.svc.cluster.local"),
            rewrite("suffix old.example new.example"),
        ],
        dns64: Some(Prefix::WELL_KNOWN),
        ..zone(".", &[&upstream])
    };
    let world = World::build(&Config { zones: vec![config], ..Config::default() }, own_cluster());
    assert_eq!(world.a("printer.example").await, "NoError 10.1.1.1");
    assert_eq!(upstream.seen().iter().filter(|asked| asked.name() == "printer.example").count(), 0);
    let reply = world.ask("ALIAS.example", RecordType::A).await;
    assert_eq!(short(&reply), "NoError 192.0.2.33");
    assert!(reply.answers[0].name.eq_case(&name("ALIAS.example")));
    assert_eq!(world.a("db.example").await, "NoError 10.96.0.9", "into the cluster, from the records");
    world.a("www.old.example").await;
    let seen = upstream.seen();
    assert!(seen.iter().any(|asked| asked.name() == "real.example.org"));
    assert!(seen.iter().any(|asked| asked.name() == "www.new.example"));
    assert!(!seen.iter().any(|asked| asked.name().contains("old.example") || asked.name().contains("db.")));
    assert_eq!(short(&world.ask("six.example", RecordType::AAAA).await), "NoError 64:ff9b::c000:221");
}
