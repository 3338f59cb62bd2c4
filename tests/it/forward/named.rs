//! Upstreams that are given by name: looked up over resolvers that are given by address.

use std::sync::Arc;

use hickory_proto::rr::RecordType;
use holdfast::dns::{
    Context,
    forward::{Config, ZoneConfig},
};

use super::world::{World, asked_for, no_cluster, own_cluster, secs, source, until, zone};
use crate::support::upstream::{Asked, Say, Upstream, a, cname};

const HOST: &str = "dns.example";

fn config(upstream: &str, resolvers: &[&Upstream]) -> Config {
    let resolvers = resolvers.iter().map(|resolver| source(&resolver.address.to_string())).collect();
    let zones = vec![ZoneConfig { upstreams: vec![source(upstream)], resolvers, ..zone(".", &[]) }];
    Config { zones, ..Config::default() }
}

fn start(config: &Config, records: Arc<Context>) -> World {
    World::build(config, records)
}

fn upstreams(world: &World) -> Vec<String> {
    world.forwarder.zones()[0].upstreams.iter().map(|upstream| upstream.upstream.clone()).collect()
}

fn missing(world: &World) -> String {
    world.forwarder.zones()[0].missing.clone().unwrap_or_default()
}

/// A resolver that knows one name, behind a CNAME.
fn knows(ttl: u32, ip: [u8; 4]) -> impl Fn(Asked) -> Vec<Say> + Send + Sync + 'static {
    move |asked| match (asked.name().as_str(), asked.qtype()) {
        (HOST, RecordType::A) => {
            vec![asked.found(vec![cname(HOST, ttl, "vip.example"), a("vip.example", ttl, ip)])]
        }
        (HOST, _) => vec![asked.nodata("example")],
        _ => vec![asked.nxdomain("example")],
    }
}

#[tokio::test(start_paused = true)]
async fn its_addresses_are_looked_up_by_their_ttl_and_kept_while_that_fails() {
    let upstream = Upstream::with_a(0, [192, 0, 2, 1]).await;
    let resolver = Upstream::start(knows(60, [127, 0, 0, 1])).await;
    let (host, port) = (format!("{HOST}:{}", upstream.address.port()), upstream.address.port());
    let config = config(&host, &[&resolver]);
    let world = start(&config, no_cluster());
    until(|| !upstreams(&world).is_empty()).await;
    assert_eq!((upstreams(&world), missing(&world)), (vec![format!("127.0.0.1:{port}")], String::new()));
    assert_eq!(world.a("www.other.example").await, "NoError 192.0.2.1");
    assert_eq!(asked_for(&resolver, "www.other.example"), 0, "it looks up upstreams alone");
    let asked = asked_for(&resolver, HOST);
    world.elapse(secs(50)).await;
    assert_eq!(asked_for(&resolver, HOST), asked, "within the TTL");

    // The name moves, then its resolver denies it, then it says nothing: what was found last is asked on.
    resolver.now(knows(30, [127, 0, 0, 2]));
    world.elapse(secs(20)).await;
    assert_eq!(upstreams(&world), [format!("127.0.0.2:{port}")]);
    let last = |why: &str| format!("{HOST}.: {why}; the addresses it had last are asked");
    resolver.now(|asked| vec![asked.nxdomain("example")]);
    world.elapse(secs(40)).await;
    assert_eq!((upstreams(&world), missing(&world)), (vec![format!("127.0.0.2:{port}")], last("it has no address")));
    resolver.now(|_| Vec::new());
    world.elapse(secs(120)).await;
    assert_eq!(upstreams(&world), [format!("127.0.0.2:{port}")]);
    world.forwarder.reload(&config).unwrap();
    assert_eq!(upstreams(&world), [format!("127.0.0.2:{port}")], "a new configuration begins with it");
    resolver.now(knows(30, [127, 0, 0, 1]));
    world.elapse(secs(30)).await;
    assert_eq!((upstreams(&world), missing(&world)), (vec![format!("127.0.0.1:{port}")], String::new()));
    assert_eq!(world.a("www.other.example").await, "NoError 192.0.2.1");
}

#[tokio::test(start_paused = true)]
async fn without_an_address_so_far_it_is_waited_for() {
    let upstream = Upstream::with_a(0, [192, 0, 2, 1]).await;
    let (dead, resolver) = (Upstream::silent().await, Upstream::silent().await);
    let world = start(&config(&format!("{HOST}:{}", upstream.address.port()), &[&dead, &resolver]), no_cluster());
    assert_eq!(world.a("www.example").await, "ServFail ede=22");
    assert_eq!(missing(&world), format!("{HOST}.: not looked up yet"));
    world.elapse(secs(6)).await;
    assert!(missing(&world).starts_with(&format!("{HOST}.: 127.0.0.1:")), "{}", missing(&world));
    resolver.now(knows(60, [127, 0, 0, 1]));
    world.elapse(secs(10)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
}

/// A resolver behind a service of the cluster, as `rbldnsd.rbldnsd.svc.cluster.local`.
#[tokio::test(start_paused = true)]
async fn a_name_of_the_cluster_is_answered_from_its_records() {
    let resolver = Upstream::with_a(60, [192, 0, 2, 66]).await;
    let world = start(&config("db.prod.svc.cluster.local", &[&resolver]), own_cluster());
    until(|| !upstreams(&world).is_empty()).await;
    assert_eq!(upstreams(&world), ["10.96.0.9:53"]);
    assert_eq!(asked_for(&resolver, "db.prod.svc.cluster.local"), 0);
}
