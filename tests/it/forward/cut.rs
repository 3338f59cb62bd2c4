//! NXDOMAIN for what lies below a name that does not exist, where that is wanted (RFC 8020).

use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::dns::{cache::Lifetimes, forward::ZoneConfig};

use super::world::{World, asked_for, secs, zone};
use crate::support::upstream::{Asked, Say, Upstream, a, cname};

fn say(asked: &Asked) -> Vec<Say> {
    let owner = asked.name();
    vec![match &*owner {
        "alias.example" => {
            let mut reply = asked.reply(ResponseCode::NXDomain);
            reply.answers = vec![cname(&owner, 60, "gone.example")];
            reply.authorities = vec![crate::support::upstream::soa("example", 60)];
            Say::message(&reply)
        }
        "empty.example" => asked.nodata("example"),
        _ if owner.ends_with("gone.example") => asked.nxdomain("example"),
        _ => asked.found(vec![a(&owner, 60, [192, 0, 2, 1])]),
    }]
}

async fn world(nxdomain_cut: bool) -> (World, Upstream) {
    let upstream = Upstream::start(|asked| say(&asked)).await;
    let lifetimes = Lifetimes { nxdomain_cut, ..Lifetimes::default() };
    let world = World::with(vec![ZoneConfig { lifetimes, ..zone(".", &[&upstream]) }]);
    (world, upstream)
}

#[tokio::test(start_paused = true)]
async fn names_below_one_that_does_not_exist_are_not_asked_for() {
    let (world, upstream) = world(true).await;
    assert_eq!(world.a("below.gone.example").await, "NXDomain");
    assert_eq!(world.a("gone.example").await, "NXDomain");
    for (owner, qtype) in [
        ("new.gone.example", RecordType::A),
        ("deep.down.gone.example", RecordType::AAAA),
        ("gone.example", RecordType::TXT),
    ] {
        let reply = world.ask(owner, qtype).await;
        assert_eq!(reply.response_code, ResponseCode::NXDomain, "{owner}");
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA, "{owner}");
        assert!(!reply.authoritative);
        assert_eq!(asked_for(&upstream, owner), usize::from(owner == "gone.example"), "{owner}");
    }
    assert_eq!(upstream.seen().iter().filter(|asked| asked.qtype() == RecordType::TXT).count(), 0, "whatever the type");
    world.elapse(secs(31)).await;
    assert_eq!(world.a("late.gone.example").await, "NXDomain");
    assert_eq!(asked_for(&upstream, "late.gone.example"), 1, "for as long as a negative answer lives");
}

#[tokio::test(start_paused = true)]
async fn neither_neighbours_nor_aliases_nor_empty_names_are_cut_off() {
    let (world, upstream) = world(true).await;
    assert_eq!(world.a("gone.example").await, "NXDomain");
    assert_eq!(world.a("notgone.example").await, "NXDomain", "it ends in the same letters only, and is asked for");
    assert_eq!(asked_for(&upstream, "notgone.example"), 1);
    assert_eq!(world.a("alias.example").await, "NXDomain gone.example.");
    // Type 0 is none of DNS, and a client can ask for it all the same.
    world.ask("alias.example", RecordType::Unknown(0)).await;
    assert_eq!(world.a("below.alias.example").await, "NoError 192.0.2.1", "the alias itself exists (RFC 8020, 2)");
    assert_eq!(world.a("empty.example").await, "NoError");
    assert_eq!(world.a("below.empty.example").await, "NoError 192.0.2.1");
}

#[tokio::test(start_paused = true)]
async fn it_is_off_by_default() {
    assert!(!Lifetimes::default().nxdomain_cut);
    let (world, upstream) = world(false).await;
    assert_eq!(world.a("gone.example").await, "NXDomain");
    assert_eq!(world.a("new.gone.example").await, "NXDomain");
    assert_eq!(asked_for(&upstream, "new.gone.example"), 1);
}
