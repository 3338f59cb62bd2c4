//! Upstreams that deny many names at once that they answered before.

use std::time::Duration;

use holdfast::dns::{
    cache::Denials,
    forward::{Config, Policy, ZoneConfig},
};

use super::{
    denials::{GOOD, SERVED, config, pass},
    world::{World, asked_for},
};
use crate::{
    stream::metric,
    support::upstream::{Say, Upstream, a, name},
};

/// The names `n0.example` to `n29.example` are asked often while `upstream` has them, then until it denies too many.
pub async fn deny_many(world: &World, upstream: &Upstream) {
    use_names(world).await;
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    pass(world, 31).await;
    for nth in 0..12 {
        assert_eq!(world.a(&format!("n{nth}.example")).await, SERVED);
    }
}

/// Clients ask often for the same 30 names.
pub async fn use_names(world: &World) {
    for nth in 0..30 {
        for _ in 0..4 {
            assert_eq!(world.a(&format!("n{nth}.example")).await, "NoError 192.0.2.1");
        }
    }
}

/// A server may have lost one zone and be right about another.
#[tokio::test(start_paused = true)]
async fn denials_in_bulk_count_by_zone() {
    let upstream = Upstream::with_a(30, GOOD).await;
    let zones = ["lost.example", "good.example"];
    let zones = zones.map(|owner| ZoneConfig { zone: name(owner), ..config(&[&upstream], Denials::Confirm) });
    let world = World::with(zones.into());
    for nth in 0..30 {
        for zone in ["lost", "good"] {
            for _ in 0..4 {
                assert_eq!(world.a(&format!("n{nth}.{zone}.example")).await, "NoError 192.0.2.1");
            }
        }
    }
    pass(&world, 31).await;
    upstream.now(|asked| {
        let is_lost = asked.name().contains("lost");
        vec![if is_lost { asked.nxdomain("lost.example") } else { asked.found(vec![a(&asked.name(), 30, GOOD)]) }]
    });
    for nth in 0..30 {
        world.a(&format!("n{nth}.lost.example")).await;
        world.a(&format!("n{nth}.good.example")).await;
    }
    let lying: Vec<_> =
        world.forwarder.zones().iter().map(|zone| (zone.zone.clone(), zone.upstreams[0].lying)).collect();
    assert_eq!(lying, [("good.example.".into(), false), ("lost.example.".into(), true)]);
}

/// An upstream that lost a zone file denies everything in it.
#[tokio::test(start_paused = true)]
async fn an_upstream_that_denies_many_names_at_once_is_not_believed() {
    let (first, second) = (Upstream::with_a(30, GOOD).await, Upstream::with_a(30, GOOD).await);
    let zones = vec![ZoneConfig { policy: Policy::Sequential, ..config(&[&first, &second], Denials::Confirm) }];
    let world = World::with(zones);
    let owner = |nth: usize| format!("n{nth}.example");
    use_names(&world).await;
    pass(&world, 31).await;
    let asked_second = second.count();
    first.now(|asked| vec![asked.nxdomain("example")]);
    let mut said = Vec::new();
    for nth in 0..30 {
        said.push(world.a(&owner(nth)).await);
    }
    assert_eq!(said[..9], [SERVED; 9], "a denial has to be confirmed");
    assert_eq!(said[9..], ["NoError 192.0.2.1"; 21], "the other one is asked, though the first answers");
    assert!(second.count() - asked_second >= 21);
    assert!(world.upstream_status(0).lying && !world.upstream_status(1).lying);
    let by = first.address.to_string();
    assert_eq!(metric(&world.registry, "holdfast_forward_bulk_denials_total", &by), 1, "what the alert looks at");
    // Alone it is not believed either.
    second.now(|_| Vec::new());
    pass(&world, 40).await;
    assert_eq!(world.a(&owner(20)).await, SERVED);
    assert_eq!(world.forwarder.held()[0].reason, "bulk");
    pass(&world, 600).await;
    assert!(!world.upstream_status(0).lying, "after ten minutes it is as good as any");
}

/// Nothing is known of a name that was never asked for, and the upstream that knows it is slow to say so.
#[tokio::test(start_paused = true)]
async fn a_new_name_that_a_lying_upstream_denies_is_asked_of_the_others() {
    let (liar, slow) = (Upstream::with_a(30, GOOD).await, Upstream::with_a(30, GOOD).await);
    let world = World::with(vec![config(&[&liar], Denials::Confirm)]);
    deny_many(&world, &liar).await;
    assert!(world.upstream_status(0).lying);
    // What was found outlives a new configuration.
    let zones = vec![config(&[&liar, &slow], Denials::Confirm)];
    world.forwarder.reload(&Config { zones, ..Config::default() }).unwrap();
    assert!(world.upstream_status(0).lying && !world.upstream_status(1).lying);
    slow.now(|asked| vec![Say::Wait(Duration::from_millis(700)), asked.found(vec![a(&asked.name(), 30, GOOD)])]);
    assert_eq!(world.a("new.example").await, "NoError 192.0.2.1");
    assert!(asked_for(&liar, "new.example") > 0, "it was asked as well, and was faster");
}
