//! The keep list: names that are resolved ahead and answered for as long as no upstream gives another answer.

use hickory_proto::rr::RecordType;
use holdfast::{
    dns::{
        ServedFrom,
        cache::{self, Denials, Lifetimes},
        forward::{Config, Released, ZoneConfig, parse_host},
    },
    sys::ManualClock,
};

use super::{
    denials::{GOOD, SERVED, config, pass, until},
    world::{NOW, World, asked_for, no_cluster, secs, zone},
};
use crate::{
    stream::metric,
    support::upstream::{Upstream, a, cname},
};

/// The answer for `registry.example`.
const REGISTRY: &str = "NoError edge.corp.example. 192.0.2.7";

/// Registry, identity provider, pager: resolved before a client asks, kept when they are denied, and answered when nothing is left.
#[tokio::test(start_paused = true)]
async fn names_of_the_keep_list_are_resolved_ahead_and_answered_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache.zst");
    let upstream = Upstream::start(|asked| match (asked.name().as_str(), asked.qtype()) {
        ("registry.example", RecordType::A) => {
            vec![asked.found(vec![cname(&asked.name(), 60, "edge.corp.example")])]
        }
        ("login.example", RecordType::A) => vec![asked.found(vec![a(&asked.name(), 60, GOOD)])],
        _ => vec![asked.nodata("example")],
    })
    .await;
    let corp = Upstream::with_a(60, [192, 0, 2, 7]).await;
    // A day after their end, answers are given up by default; here after a minute.
    let lifetimes = Lifetimes { stale_max: secs(60), ..Lifetimes::default() };
    let zones = [zone(".", &[&upstream]), zone("corp.example", &[&corp])];
    let zones = zones.map(|zone| ZoneConfig { lifetimes: lifetimes.clone(), ..zone }).into();
    let keep = ["registry.example", "login.example"].map(|name| name.parse().unwrap()).into();
    let config = Config { zones, keep, ..Config::default() };
    let clock = ManualClock::new(NOW);
    let start = || World::on_disk(&config, &file, &clock);
    let world = start().await;
    let all = |world: &World| world.forwarder.status().keep.unwrap();
    let asked = || (asked_for(&upstream, "login.example"), asked_for(&corp, "edge.corp.example"));
    // A query may be sent again, so that there may be more of them.
    let is_resolved = || world.at_hand("login.example", RecordType::A).is_some() && asked().1 > 0;
    until(&world, "resolved, and nobody asked", is_resolved).await;
    assert_eq!((all(&world).names, all(&world).unresolved.len()), (2, 0));
    assert_eq!(world.a("registry.example").await, REGISTRY);
    assert_eq!(world.a("login.example").await, "NoError 192.0.2.1");
    until(&world, "refreshed", || asked().0 >= 2 * 10).await;

    // Denied from the first minute on: no name is given up, released or believed to be gone.
    for upstream in [&upstream, &corp] {
        upstream.now(|asked| vec![asked.nxdomain("example")]);
    }
    pass(&world, 3 * 3_600).await;
    assert_eq!(world.a("registry.example").await, format!("{REGISTRY} ede=3"));
    assert_eq!(world.a("login.example").await, SERVED);
    let held: Vec<_> = world.forwarder.held().into_iter().map(|hold| (hold.name, hold.reason, hold.until)).collect();
    assert!(held.iter().any(|hold| *hold == ("login.example.".into(), "keep".into(), None)), "{held:?}");
    assert!(world.forwarder.release(&Released::Name("login.example".parse().unwrap()), false).is_empty());
    assert_eq!(world.a("login.example").await, SERVED);
    world.forwarder.save().await;
    drop(world);

    // A year later, after a restart, with upstreams that say nothing.
    for upstream in [&upstream, &corp] {
        upstream.now(|_| Vec::new());
    }
    clock.advance(secs(365 * 86_400));
    let world = start().await;
    until(&world, "looked up in vain", || all(&world).unresolved.len() == 2).await;
    assert_eq!(world.a("registry.example").await, format!("{REGISTRY} ede=3"));
    assert_eq!(world.a("login.example").await, SERVED);
    let seconds = |name| metric(&world.registry, "holdfast_forward_keep_unresolved_seconds", name);
    // Longer than the process runs: the alert does not begin anew with it.
    assert!(["login.example.", "registry.example."].into_iter().all(|name| seconds(name) > 364 * 86_400));
    assert_eq!(metric(&world.registry, "holdfast_forward_keep_names", ""), 2);
    let unresolved = all(&world).unresolved;
    let names: Vec<&str> = unresolved.iter().map(|name| &*name.name).collect();
    assert_eq!(names, ["login.example.", "registry.example."]);
    assert!(
        unresolved.iter().all(|name| name.answered.is_some_and(|at| at.0 < NOW.plus(secs(5_000)))),
        "{unresolved:?}"
    );

    for (upstream, ip) in [(&upstream, [192, 0, 2, 1]), (&corp, [192, 0, 2, 8])] {
        upstream.now(move |asked| vec![asked.found(vec![a(&asked.name(), 60, ip)])]);
    }
    until(&world, "resolved again", || all(&world).unresolved.is_empty()).await;
    assert_eq!(world.a("login.example").await, "NoError 192.0.2.1", "back without a client that asked");
}

/// A zone whose answers are not kept is asked each time, and a view asks upstreams of its own: the list holds for both.
#[tokio::test(start_paused = true)]
async fn the_keep_list_covers_views_and_zones_without_a_cache() {
    const OWNER: &str = "login.example";
    for lifetimes in [Lifetimes::default(), Lifetimes { keep: false, ..Lifetimes::default() }] {
        let (main, upstream) = (Upstream::with_a(60, [192, 0, 2, 9]).await, Upstream::with_a(60, GOOD).await);
        let keep = vec![OWNER.parse().unwrap()];
        let config = |upstream| {
            let zones = vec![ZoneConfig { lifetimes: lifetimes.clone(), ..zone(".", &[upstream]) }];
            Config { zones, keep: keep.clone(), ..Config::default() }
        };
        let world = World::build(&config(&main), no_cluster());
        let view = world.view(&config(&upstream));
        until(&world, "resolved at both", || asked_for(&main, OWNER) > 1 && asked_for(&upstream, OWNER) > 1).await;
        assert_eq!(
            (world.a(OWNER).await, view.a(OWNER).await),
            ("NoError 192.0.2.9".into(), "NoError 192.0.2.1".into())
        );
        let before = asked_for(&upstream, OWNER);
        view.a(OWNER).await;
        assert_eq!(asked_for(&upstream, OWNER) > before, !lifetimes.keep, "asked each time without a cache");

        upstream.now(|asked| vec![asked.nxdomain("example")]);
        pass(&world, 600).await;
        assert_eq!(view.a(OWNER).await, SERVED, "denied: {lifetimes:?}");
        let unresolved = |world: &World| world.forwarder.keep().unwrap().unresolved.len();
        assert_eq!((unresolved(&world), unresolved(&view)), (0, 1));
        upstream.now(|_| Vec::new());
        pass(&world, 600).await;
        assert_eq!(view.a(OWNER).await, SERVED, "silent: {lifetimes:?}");
        upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 60, [192, 0, 2, 2])])]);
        pass(&world, 60).await;
        assert_eq!(view.a(OWNER).await, "NoError 192.0.2.2", "back: {lifetimes:?}");
        assert_eq!(unresolved(&view), 0);
    }
}

/// A client that sets DO has asked before: its answer is kept with the others.
#[tokio::test(start_paused = true)]
async fn kept_names_are_kept_with_do_where_a_client_asked_so() {
    const OWNER: &str = "login.example";
    let upstream = Upstream::with_a(60, GOOD).await;
    let keep = vec![OWNER.parse().unwrap()];
    let config = Config { zones: vec![config(&[&upstream], Denials::Auto)], keep, ..Config::default() };
    let world = World::build(&config, no_cluster());
    until(&world, "resolved", || world.at_hand(OWNER, RecordType::A).is_some()).await;
    assert_eq!(world.a_with_do(OWNER).await, "NoError 192.0.2.1");
    pass(&world, 120).await;
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    pass(&world, 3 * 3_600).await;
    assert_eq!(world.a_with_do(OWNER).await, SERVED);
}

/// A mirror in the hosts of a zone, an identity provider under another name.
#[tokio::test(start_paused = true)]
async fn kept_names_that_the_zone_itself_answers_or_renames_are_resolved_by_it() {
    let upstream = Upstream::start(|asked| match (asked.name().as_str(), asked.qtype()) {
        ("idp.internal.example", RecordType::A) => vec![asked.found(vec![a(&asked.name(), 60, GOOD)])],
        _ => vec![asked.nxdomain("example")],
    })
    .await;
    let zones = vec![ZoneConfig {
        hosts: vec![parse_host("10.0.0.5 registry.example").unwrap()],
        rewrites: vec!["exact login.example idp.internal.example".parse().unwrap()],
        ..config(&[&upstream], Denials::Auto)
    }];
    let keep = ["registry.example", "login.example", "gone.example"].map(|name| name.parse().unwrap()).into();
    let world = World::build(&Config { zones, keep, ..Config::default() }, no_cluster());
    until(&world, "looked up", || world.forwarder.kept_addresses().len() == 2).await;
    let addresses = world.forwarder.kept_addresses().into_iter();
    let addresses: Vec<_> = addresses.map(|(name, addresses)| format!("{name} {}", addresses[0])).collect();
    assert_eq!(addresses, ["login.example. 192.0.2.1", "registry.example. 10.0.0.5"]);
    let unresolved =
        || -> Vec<String> { world.forwarder.keep().unwrap().unresolved.into_iter().map(|name| name.name).collect() };
    assert_eq!(unresolved(), ["gone.example."]);
    assert_eq!((asked_for(&upstream, "registry.example"), asked_for(&upstream, "login.example")), (0, 0));
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    pass(&world, 3 * 3_600).await;
    assert_eq!(world.a("login.example").await, SERVED);
    assert_eq!(unresolved(), ["gone.example.", "login.example."]);
    assert_eq!(world.a("registry.example").await, "NoError 10.0.0.5");
}

/// What is on the keep list stays when the cache is flooded; what is taken off it goes like anything else.
#[tokio::test(start_paused = true)]
async fn the_keep_list_is_no_place_for_eviction_and_ends_with_the_configuration() {
    let upstream = Upstream::with_a(600, GOOD).await;
    let cache_config = cache::Config { max_bytes: 1 << 20, worker_caches: 0, ..cache::Config::default() };
    let keep = vec!["pager.example".parse().unwrap()];
    let mut config = Config { zones: vec![zone(".", &[&upstream])], keep, ..Config::default() };
    let world = World::start(&config, cache_config, no_cluster(), None, ManualClock::new(NOW));
    until(&world, "resolved", || world.at_hand("pager.example", RecordType::AAAA).is_some()).await;
    for nth in 0..3_000 {
        world.a(&format!("n{nth}.example")).await;
    }
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    until(&world, "held", || !world.forwarder.held().is_empty()).await;
    until(&world, "expired", || {
        world.at_hand("pager.example", RecordType::A).is_none_or(|(_, from)| from != ServedFrom::Cache)
    })
    .await;
    assert_eq!(world.a("pager.example").await, SERVED);
    config.keep.clear();
    world.forwarder.reload(&config).unwrap();
    until(&world, "no longer held", || world.forwarder.held().is_empty()).await;
    assert!(world.forwarder.status().keep.is_none());
    assert_eq!(world.a("pager.example").await, "NXDomain");
}

/// Names of one block of a Corefile that it renames into a zone that another block forwards.
#[tokio::test(start_paused = true)]
async fn a_kept_name_that_is_renamed_into_another_zone_is_asked_where_clients_ask_it() {
    let (own, other) = (Upstream::with_a(60, GOOD).await, Upstream::with_a(60, [192, 0, 2, 66]).await);
    let corp = ZoneConfig {
        rewrites: vec!["exact login.corp.example idp.internal.example".parse().unwrap()],
        rewrite_zones: vec!["corp.example.".parse().unwrap()],
        ..zone("corp.example", &[&own])
    };
    let zones = vec![corp, zone("internal.example", &[&other])];
    let keep = vec!["login.corp.example".parse().unwrap()];
    let world = World::build(&Config { zones, keep, ..Config::default() }, no_cluster());
    until(&world, "resolved", || !world.forwarder.kept_addresses().is_empty()).await;
    assert_eq!(world.forwarder.kept_addresses(), [("login.corp.example.".to_owned(), vec![GOOD.into()])]);
    for upstream in [&own, &other] {
        upstream.now(|_| Vec::new());
    }
    pass(&world, 400).await;
    assert_eq!(world.a("login.corp.example").await, SERVED, "kept under the key that clients ask for");
    assert_eq!(asked_for(&other, "idp.internal.example"), 0);
}
