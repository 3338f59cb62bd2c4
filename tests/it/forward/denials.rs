//! Names that were good and are denied: held, released, believed, and what the outages of the past would have come to.

use std::{sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{
            A, AAAA, HTTPS, SVCB,
            svcb::{IpHint, SvcParamKey, SvcParamValue},
        },
    },
};
use holdfast::{
    dns::{
        cache::{self, Denials, End, Lifetimes, Reason},
        forward::{Config, Policy, Released, ZoneConfig},
    },
    role::agent::Agent,
    sys::{Clock, ManualClock, UnixMillis},
};

use super::world::{NOW, World, asked_for, no_cluster, no_records, secs, short, source, zone};
use crate::support::{
    fleet::{agent_config, beside},
    process::{self, run},
    upstream::{Asked, Say, Upstream, a, cname, name},
};

pub(super) const GOOD: [u8; 4] = [192, 0, 2, 1];
pub(super) const SERVED: &str = "NoError 192.0.2.1 ede=3";
pub(super) const HOUR: Duration = Duration::from_secs(3_600);

pub(super) fn config(upstreams: &[&Upstream], denials: Denials) -> ZoneConfig {
    let lifetimes = Lifetimes { denials, ..Lifetimes::default() };
    ZoneConfig { lifetimes, ..zone(".", upstreams) }
}

fn world(upstreams: &[&Upstream], denials: Denials) -> World {
    World::with(vec![config(upstreams, denials)])
}

/// A client asks for `owner` once a minute, for so long.
pub(super) async fn used(world: &World, owner: &str, time: Duration) {
    for _ in 0..time.as_secs() / 60 {
        assert_eq!(world.a(owner).await, "NoError 192.0.2.1");
        pass(world, 60).await;
    }
}

pub(super) async fn pass(world: &World, seconds: u64) {
    world.elapse_by(secs(seconds), secs(3)).await;
}

/// Lets time pass until `holds`.
pub(super) async fn until(world: &World, what: &str, holds: impl Fn() -> bool) {
    for _ in 0..5_000 {
        if holds() {
            return;
        }
        pass(world, 1).await;
    }
    panic!("not within 5,000 s: {what}");
}

fn ended(world: &World) -> Vec<(&'static str, u64)> {
    let count = |end: End| (end.as_str(), world.cache_metrics.holds_ended(end).get());
    End::ALL.into_iter().map(count).filter(|(_, count)| *count > 0).collect()
}

async fn ttl(world: &World, owner: &str) -> u32 {
    world.ask(owner, RecordType::A).await.answers[0].ttl
}

/// 2025-10-20: an automation emptied the record of `dynamodb.us-east-1.amazonaws.com`, and its servers said NODATA from 06:48
/// to 09:25 UTC.
#[tokio::test(start_paused = true)]
async fn three_hours_of_nodata_take_nothing_away() {
    const OWNER: &str = "dynamodb.us-east-1.example";
    // 06:36 UTC.
    const BEFORE: UnixMillis = UnixMillis(1_760_942_160_000);
    for (denials, hours_served) in [(Denials::Hold(6 * HOUR), 3), (Denials::Auto, 1)] {
        let upstream = Upstream::with_a(5, GOOD).await;
        let zones = Config { zones: vec![config(&[&upstream], denials)], ..Config::default() };
        let world = World::start(&zones, cache::Config::default(), no_cluster(), None, ManualClock::new(BEFORE));
        used(&world, OWNER, secs(720)).await;
        upstream.now(|asked| vec![asked.nodata("us-east-1.example")]);
        for minute in 0..157 {
            pass(&world, 57).await;
            let said = world.a(OWNER).await;
            let expect = if minute < hours_served * 60 - 1 { SERVED } else { "NoError" };
            if minute != hours_served * 60 - 1 {
                assert_eq!(said, expect, "{denials:?}, minute {minute}");
            }
            if said == SERVED {
                assert_eq!(ttl(&world, OWNER).await, 5, "no longer than the record itself");
            }
            pass(&world, 3).await;
        }
        assert_eq!(world.clock.now().to_string(), "2025-10-20T09:25:00.000Z");
        let names = world.forwarder.held();
        let asked_meanwhile = asked_for(&upstream, OWNER);
        assert!(asked_meanwhile > 140, "upstreams are asked all the time: {asked_meanwhile}");
        if hours_served == 3 {
            assert_eq!(names.len(), 1);
            let first = &names[0];
            let words = [&first.name, &first.rtype, &first.zone, &first.denial, &first.upstream, &first.reason];
            let upstream = upstream.address.to_string();
            assert_eq!(words, ["dynamodb.us-east-1.example.", "A", ".", "NODATA", &upstream, "good"]);
            assert_eq!(first.answers, ["192.0.2.1"]);
            assert_eq!(first.since.to_string(), "2025-10-20T06:48:57.000Z");
            assert_eq!(first.until.unwrap().0.0 - first.since.0.0, 6 * 3_600_000);
            assert!(first.last > first.since);
        } else {
            assert_eq!((names.len(), ended(&world)), (0, vec![("expired", 1)]));
        }
        upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 5, [192, 0, 2, 2])])]);
        pass(&world, 31).await;
        world.a(OWNER).await;
        world.elapse(secs(1)).await;
        assert_eq!(world.a(OWNER).await, "NoError 192.0.2.2", "back as soon as upstreams have it: {denials:?}");
        assert!(world.forwarder.held().is_empty());
    }
}

/// A service deregistered in Consul, a record that external-dns deletes with its Ingress: the name is really gone.
#[tokio::test(start_paused = true)]
async fn a_name_that_is_really_gone_goes_after_the_hold_or_at_once_where_the_zone_says_so() {
    for (denials, minutes) in [(Denials::Auto, 60), (Denials::Hold(secs(600)), 10), (Denials::Believe, 0)] {
        let upstream = Upstream::with_a(60, GOOD).await;
        let world = world(&[&upstream], denials);
        used(&world, "api.service.consul", secs(900)).await;
        upstream.now(|asked| vec![asked.nxdomain("consul")]);
        world.elapse(secs(1)).await;
        let mut served = 0;
        while world.a("api.service.consul").await == SERVED {
            served += 1;
            pass(&world, 60).await;
        }
        assert_eq!(world.a("api.service.consul").await, "NXDomain", "{denials:?}");
        assert_eq!(served, minutes, "{denials:?}");
        pass(&world, 3_600).await;
        assert_eq!(world.a("api.service.consul").await, "NXDomain", "and stays gone: {denials:?}");
    }
}

/// A headless service without a ready endpoint does not exist, and workloads wait for that.
#[tokio::test(start_paused = true)]
async fn the_dns_of_the_cluster_is_believed_when_it_says_so_twice() {
    const OWNER: &str = "db.prod.svc.cluster.local";
    let upstream = Upstream::with_a(5, GOOD).await;
    let fallback = vec![source(&upstream.address.to_string())];
    let config = Config { cluster_fallback: fallback, ..Config::default() };
    let world = World::build(&config, no_records(true));
    used(&world, OWNER, secs(900)).await;
    upstream.now(|asked| vec![asked.nxdomain("cluster.local")]);
    assert_eq!(world.a(OWNER).await, SERVED);
    world.elapse(secs(6)).await;
    assert_eq!(world.a(OWNER).await, "NXDomain");
    assert!(world.forwarder.held().is_empty());
}

/// `dnsmasq` and CoreDNS's template deny without SOA.
#[tokio::test(start_paused = true)]
async fn a_denial_without_soa_counts_like_any_other() {
    for (denials, held) in [(Denials::Confirm, 2), (Denials::Hold(secs(60)), 60), (Denials::Believe, 0)] {
        let upstream = Upstream::with_a(10, GOOD).await;
        let world = world(&[&upstream], denials);
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
        upstream.now(|asked| vec![asked.code(ResponseCode::NXDomain)]);
        pass(&world, 11).await;
        for second in 0..held {
            let reply = world.ask("www.example", RecordType::A).await;
            assert_eq!((short(&reply), reply.answers[0].ttl), (SERVED.into(), 10), "{denials:?}, second {second}");
            world.elapse(secs(1)).await;
        }
        // What an upstream said a moment ago still counts.
        world.elapse(secs(6)).await;
        assert_eq!(world.a("www.example").await, "NXDomain", "{denials:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_switch_from_blue_to_green_is_believed_at_once() {
    let upstream = Upstream::start(|asked| {
        vec![asked.found(vec![cname(&asked.name(), 30, "blue.example"), a("blue.example", 30, GOOD)])]
    })
    .await;
    let world = world(&[&upstream], Denials::Hold(HOUR));
    for _ in 0..30 {
        assert_eq!(world.a("www.example").await, "NoError blue.example. 192.0.2.1");
        pass(&world, 31).await;
    }
    upstream.now(|asked| {
        vec![asked.found(vec![cname(&asked.name(), 30, "green.example"), a("green.example", 30, [192, 0, 2, 2])])]
    });
    assert_eq!(world.a("www.example").await, "NoError green.example. 192.0.2.2");
    assert!(world.forwarder.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_short_flap_is_not_seen_by_clients_and_ends_with_the_first_answer() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let world = world(&[&upstream], Denials::Auto);
    used(&world, "www.example", secs(660)).await;
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    for _ in 0..90 {
        assert_eq!(world.a("www.example").await, SERVED);
        world.elapse(secs(1)).await;
    }
    let asked = asked_for(&upstream, "www.example");
    assert!(asked <= 11 + 90 / 5 + 1, "asked at most once in five seconds: {asked}");
    assert_eq!(world.cache_metrics.holds_begun(Reason::Good).get(), 1);
    upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 10, GOOD)])]);
    world.elapse(secs(5)).await;
    world.a("www.example").await;
    world.elapse(secs(1)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    assert_eq!(ended(&world), [("answered", 1)]);
}

/// A delegation that is broken, perhaps on purpose, for one name after another.
#[tokio::test(start_paused = true)]
async fn holds_are_bounded_and_the_oldest_go() {
    const NAMES: usize = 600;
    let upstream = Upstream::with_a(10, GOOD).await;
    let zones = vec![config(&[&upstream], Denials::Hold(HOUR))];
    let cache_config = cache::Config { max_bytes: 1 << 20, worker_caches: 0, ..cache::Config::default() };
    let config = Config { zones, ..Config::default() };
    let world = World::start(&config, cache_config, no_cluster(), None, ManualClock::new(NOW));
    let owner = |nth: usize| format!("n{nth}.broken.example");
    for nth in 0..NAMES {
        assert_eq!(world.a(&owner(nth)).await, "NoError 192.0.2.1");
    }
    upstream.now(|asked| vec![asked.nxdomain("broken.example")]);
    pass(&world, 11).await;
    for nth in 0..NAMES {
        assert_eq!(world.a(&owner(nth)).await, SERVED, "{nth}");
    }
    let (held, ended) = (world.forwarder.held(), ended(&world));
    assert!((50..500).contains(&held.len()), "{}", held.len());
    assert_eq!(ended, [("displaced", (NAMES - held.len()) as u64)]);
    assert_eq!(held.last().unwrap().name, owner(NAMES - 1) + ".");
    assert_eq!(world.a(&owner(0)).await, "NXDomain", "a denial of what was displaced is believed");
    world.elapse(secs(1)).await;
    let status = world.forwarder.status();
    assert_eq!(status.held_names, held.len());
    assert!(status.cache.bytes <= status.cache.max_bytes, "{:?}", status.cache);
}

/// Some stub resolvers (musl) take NXDOMAIN for one type as the end of both.
#[tokio::test(start_paused = true)]
async fn a_held_name_does_not_exist_for_no_type() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let world = world(&[&upstream], Denials::Hold(HOUR));
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    pass(&world, 11).await;
    // Both are asked at once, and this one may be first.
    assert_eq!(short(&world.ask("www.example", RecordType::AAAA).await), "NoError");
    assert_eq!(world.a("www.example").await, SERVED);
    assert_eq!(short(&world.ask("www.example", RecordType::TXT).await), "NoError");
    assert_eq!(short(&world.ask("other.example", RecordType::AAAA).await), "NXDomain");
}

#[tokio::test(start_paused = true)]
async fn a_release_ends_the_hold_of_a_name_or_of_a_zone() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let world = world(&[&upstream], Denials::Hold(HOUR));
    let owners = ["a.one.example", "b.one.example", "c.two.example"];
    for owner in owners {
        assert_eq!(world.a(owner).await, "NoError 192.0.2.1");
    }
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    pass(&world, 11).await;
    for owner in owners {
        assert_eq!(world.a(owner).await, SERVED);
    }
    let release = |which, dry_run| -> Vec<String> {
        let released = world.forwarder.release(&which, dry_run).into_iter();
        released.map(|hold| hold.name).collect()
    };
    let zone = || Released::Zone("one.example".parse().unwrap());
    assert_eq!(release(zone(), true), ["a.one.example.", "b.one.example."]);
    assert_eq!(world.forwarder.held().len(), 3, "a dry run ends nothing");
    assert_eq!(release(zone(), false), ["a.one.example.", "b.one.example."]);
    assert_eq!(release(Released::Name("none.example".parse().unwrap()), false), [""; 0]);
    assert_eq!(world.a("a.one.example").await, "NXDomain");
    assert_eq!(world.a("b.one.example").await, "NXDomain");
    assert_eq!(world.a("c.two.example").await, SERVED);
    assert_eq!(release(Released::Name("c.two.example".parse().unwrap()), false), ["c.two.example."]);
    assert_eq!(world.a("c.two.example").await, "NXDomain");
    assert_eq!(ended(&world), [("released", 3)]);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_has_records_outdoes_one_that_denies() {
    let good = Upstream::with_a(10, GOOD).await;
    let liar = Upstream::with_a(10, GOOD).await;
    let two = ZoneConfig { policy: Policy::RoundRobin, ..config(&[&good, &liar], Denials::Auto) };
    let world = World::with(vec![two]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    liar.now(|asked| vec![asked.nxdomain("example")]);
    for _ in 0..20 {
        pass(&world, 11).await;
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1", "fresh, not held");
    }
    assert!(asked_for(&liar, "www.example") > 3 && world.forwarder.held().is_empty());
}

/// A hold does not end what is served while nobody answers.
#[tokio::test(start_paused = true)]
async fn after_the_hold_a_dead_upstream_takes_nothing_away() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let world = world(&[&upstream], Denials::Hold(secs(60)));
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    let denies = |asked: Asked| vec![asked.nxdomain("example")];
    upstream.now(denies);
    pass(&world, 11).await;
    assert_eq!(world.a("www.example").await, SERVED);
    upstream.now(|_| Vec::<Say>::new());
    pass(&world, 120).await;
    let world = Arc::new(world);
    let asking = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.ask("www.example", RecordType::A).await }
    });
    world.elapse(secs(6)).await;
    let reply: Message = asking.await.unwrap();
    assert_eq!(short(&reply), SERVED);
    upstream.now(denies);
    pass(&world, 12).await;
    assert_eq!(world.a("www.example").await, "NXDomain", "the hold is over");
}

/// Answers to clients that set DO are kept apart, and the name is denied all the same.
#[tokio::test(start_paused = true)]
async fn a_client_that_sets_do_while_a_name_is_held_is_served_too_and_as_long() {
    let upstream = Upstream::with_a(60, GOOD).await;
    let world = world(&[&upstream], Denials::Hold(HOUR));
    assert_eq!(world.a("plain.example").await, "NoError 192.0.2.1");
    assert_eq!(world.a_with_do("secure.example").await, "NoError 192.0.2.1");
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    pass(&world, 61).await;
    assert_eq!(world.a_with_do("plain.example").await, "NXDomain", "it is held from the first denial on");
    assert_eq!(world.a("plain.example").await, SERVED);
    assert_eq!(world.a_with_do("secure.example").await, SERVED);
    pass(&world, 31).await;
    assert_eq!(world.a_with_do("plain.example").await, SERVED);
    assert_eq!(world.a("secure.example").await, SERVED, "in the other direction");
    let ends = world.forwarder.held().into_iter().map(|hold| (hold.name, hold.until));
    let ends: std::collections::BTreeSet<_> =
        ends.map(|(name, until)| (name, until.map(|at| at.to_string()))).collect();
    assert_eq!((world.forwarder.held().len(), ends.len()), (4, 2), "{ends:?}");
    pass(&world, 3_600).await;
    for _ in 0..2 {
        for owner in ["plain.example", "secure.example"] {
            assert_eq!(world.a(owner).await, "NXDomain", "the hold is spent once");
            assert_eq!(world.a_with_do(owner).await, "NXDomain", "the hold is spent once");
        }
        pass(&world, 40).await;
    }
}

/// RFC 8020 is about names that do not exist; one that is held does.
#[tokio::test(start_paused = true)]
async fn a_held_name_below_one_that_does_not_exist_has_no_nxdomain() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let lifetimes = Lifetimes { denials: Denials::Hold(HOUR), nxdomain_cut: true, ..Lifetimes::default() };
    let world = World::with(vec![ZoneConfig { lifetimes, ..zone(".", &[&upstream]) }]);
    assert_eq!(world.a("www.corp.example").await, "NoError 192.0.2.1");
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    pass(&world, 11).await;
    assert_eq!(world.a("www.corp.example").await, SERVED);
    assert_eq!(world.a("corp.example").await, "NXDomain");
    let asked = upstream.count();
    assert_eq!(short(&world.ask("www.corp.example", RecordType::AAAA).await), "NoError");
    assert_eq!(short(&world.ask("ftp.corp.example", RecordType::AAAA).await), "NXDomain");
    assert_eq!(upstream.count(), asked, "known from the name above");
}

/// An answer that may not be kept for a second is no last good answer.
#[tokio::test(start_paused = true)]
async fn names_without_a_ttl_are_held_where_min_ttl_gives_them_one() {
    for (min_ttl, expect) in [(0, "NXDomain"), (1, SERVED)] {
        let upstream = Upstream::with_a(0, GOOD).await;
        let lifetimes = Lifetimes { denials: Denials::Hold(HOUR), min_ttl: secs(min_ttl), ..Lifetimes::default() };
        let world = World::with(vec![ZoneConfig { lifetimes, ..zone(".", &[&upstream]) }]);
        assert_eq!(world.a("web.service.consul").await, "NoError 192.0.2.1");
        upstream.now(|asked| vec![asked.nxdomain("consul")]);
        pass(&world, 2).await;
        assert_eq!(world.a("web.service.consul").await, expect, "min_ttl {min_ttl} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_an_address_that_the_zone_rejects_is_none() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let reject = ["10.0.0.0/8", "0.0.0.0/32", "192.0.2.66/32"].map(|network| network.parse().unwrap()).into();
    let world = World::with(vec![ZoneConfig { reject, ..config(&[&upstream], Denials::Auto) }]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    for bad in [[10, 1, 2, 3], [0, 0, 0, 0], [192, 0, 2, 66]] {
        upstream.now(move |asked| {
            let bad = std::net::Ipv4Addr::from(bad);
            let data = match asked.qtype() {
                RecordType::A => RData::A(A(bad)),
                RecordType::AAAA => RData::AAAA(AAAA(bad.to_ipv6_mapped())),
                _ => {
                    let hint = SvcParamValue::Ipv4Hint(IpHint(vec![A(bad)]));
                    RData::HTTPS(HTTPS(SVCB::new(1, Name::root(), vec![(SvcParamKey::Ipv4Hint, hint)])))
                }
            };
            let good = (asked.qtype() == RecordType::A).then(|| a(&asked.name(), 10, GOOD));
            let bad = Record::from_rdata(name(&asked.name()), 10, data);
            vec![asked.found(good.into_iter().chain([bad]).collect())]
        });
        pass(&world, 20).await;
        assert_eq!(world.a("www.example").await, SERVED, "{bad:?}: the good answer before");
        let fresh = format!("n{}.example", bad[3]);
        assert!(world.a(&fresh).await.starts_with("ServFail"), "{bad:?}");
        let six = short(&world.ask(&fresh, RecordType::AAAA).await);
        assert!(six.starts_with("ServFail"), "{bad:?} in another form: {six}");
        let hint = short(&world.ask(&fresh, RecordType::HTTPS).await);
        assert!(hint.starts_with("ServFail"), "{bad:?} as a hint: {hint}");
    }
    upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 10, [192, 0, 2, 2])])]);
    pass(&world, 20).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.2", "any other is believed at once");
}

/// The whole way of an operator: `status`, `guard`, `lookup`, `guard release`.
#[tokio::test]
async fn a_held_name_is_listed_looked_up_and_released_with_the_tools() {
    let home = tempfile::TempDir::new().unwrap();
    let upstream = Upstream::with_a(60, GOOD).await;
    let manifests = home.path().join("cluster.yaml");
    std::fs::write(&manifests, "{kind: List, items: []}").unwrap();
    let file = home.path().join("agent.yaml");
    let forward = format!("forward: [{{zone: example, upstreams: ['{}'], denials: hold 1h}}]\n", upstream.address);
    std::fs::write(&file, forward).unwrap();
    let words = ["--manifests", manifests.to_str().unwrap(), "--config", file.to_str().unwrap()];
    let config = agent_config(home.path(), &words);
    let clock = ManualClock::new(NOW);
    let agent = Agent::start(config, Clock::Manual(clock.clone())).await.unwrap();
    let (dns, socket) = (agent.addresses().dns[0], agent.addresses().admin.clone());
    let ask = async || beside(move || process::ask(dns, "www.example.", RecordType::A)).await;
    let tool = async |words: &'static [&'static str]| {
        let socket = socket.clone();
        let ran = beside(move || run(&[words, &["--admin", socket.to_str().unwrap()]].concat())).await;
        (ran.status.code(), String::from_utf8(ran.stdout).unwrap())
    };
    assert_eq!(short(&ask().await), "NoError 192.0.2.1");
    assert_eq!(tool(&["guard"]).await, (Some(0), "nothing is held\n".into()));
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    clock.advance(secs(61));
    assert_eq!(short(&ask().await), SERVED);
    clock.advance(secs(120));

    let (code, guard) = tool(&["guard"]).await;
    let row = guard.lines().find(|line| line.starts_with("www.example."));
    let row = row.unwrap_or_else(|| panic!("{guard}")).split("   ");
    let row: Vec<&str> = row.map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let by = upstream.address.to_string();
    let told = ["www.example.", "A", &by, "NXDOMAIN", "2m (since 18:31:01 UTC)", "19:31:01 UTC", "good", "192.0.2.1"];
    assert_eq!((code, row.as_slice()), (Some(1), told.as_slice()), "{guard}");
    assert!(guard.starts_with("1 name outside the cluster DENIED by upstreams"), "{guard}");
    let (code, lookup) = tool(&["lookup", "www.example.", "A"]).await;
    let held =
        format!("A: {by} says NXDOMAIN, for 2m (since 18:31:01 UTC); the last good answer (18:30:00 UTC) is served");
    assert!(code == Some(0) && lookup.contains(&held) && lookup.contains("3 (Stale Answer)"), "{lookup}");
    let (_, status) = tool(&["status"]).await;
    assert!(status.contains("1 name DENIED and still served, see `holdfast guard`"), "{status}");

    let (code, text) = tool(&["guard", "release", "--zone", "other.example"]).await;
    assert_eq!((code, text.as_str()), (Some(1), "nothing is held of other.example\n"));
    let (code, text) = tool(&["guard", "release", "www.example"]).await;
    assert!(code == Some(0) && text.starts_with("www.example. A released"), "{text}");
    assert_eq!(short(&ask().await), "NXDomain");
    assert_eq!(tool(&["guard"]).await, (Some(0), "nothing is held\n".into()));
    agent.stop().await;
}
