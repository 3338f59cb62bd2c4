//! Answers made of records of the cluster and of what upstreams say: whose word they are, and how old.

use std::sync::Arc;

use hickory_proto::rr::RecordType;
use holdfast::{
    dns::{AnswerConfig, Context, forward::Config},
    zone,
};

use super::world::{World, asked_for, cluster, short, zone as forward_zone};
use crate::support::upstream::{Upstream, a, cname};

const CLUSTER: &str = "
namespace prod
service prod/web 10.96.1.1 http:80/tcp
external prod/away www.example.com
external prod/pointer 1.1.96.10.in-addr.arpa
external prod/nobody 9.9.96.10.in-addr.arpa
";

/// The cluster, confirmed so many seconds ago.
fn context(age: u64) -> Arc<Context> {
    let rules = zone::Config { reverse: vec!["10.96.0.0/16".parse().unwrap()], ..zone::Config::default() };
    cluster(CLUSTER, age, AnswerConfig::default(), &rules)
}

async fn world(age: u64) -> (World, Upstream) {
    let upstream = Upstream::start(|asked| {
        let owner = asked.name();
        vec![match &*owner {
            "into.example.com" => asked.found(vec![cname(&owner, 60, "web.prod.svc.cluster.local")]),
            "out.example.com" => asked.found(vec![cname(&owner, 60, "away.prod.svc.cluster.local")]),
            _ => asked.found(vec![a(&owner, 60, [192, 0, 2, 1])]),
        }]
    })
    .await;
    let config = Config { zones: vec![forward_zone(".", &[&upstream])], ..Config::default() };
    (World::build(&config, context(age)), upstream)
}

#[tokio::test(start_paused = true)]
async fn stale_records_are_told_whichever_way_an_alias_crosses() {
    for (age, told) in [(5, ""), (600, " ede=3")] {
        let (world, _upstream) = world(age).await;
        let cases = [
            ("away.prod.svc.cluster.local", "NoError www.example.com. 192.0.2.1", true, told),
            ("into.example.com", "NoError web.prod.svc.cluster.local. 10.96.1.1", false, told),
            ("out.example.com", "NoError away.prod.svc.cluster.local. www.example.com. 192.0.2.1", false, told),
            ("www.example.com", "NoError 192.0.2.1", false, ""),
        ];
        // From upstream first, then from the cache, which knows nothing of the cluster's age.
        for _ in 0..2 {
            for (owner, expect, authoritative, told) in cases {
                let reply = world.ask(owner, RecordType::A).await;
                assert_eq!(short(&reply), format!("{expect}{told}"), "{owner} at {age} s");
                // AA is about the first owner: our alias, or theirs.
                assert_eq!(reply.metadata.authoritative, authoritative, "{owner}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_external_name_in_a_reverse_zone_of_ours_stays_on_the_node() {
    let (world, upstream) = world(5).await;
    for (alias, target, code) in [("pointer", "1.1.96.10", "NoError"), ("nobody", "9.9.96.10", "NXDomain")] {
        let target = format!("{target}.in-addr.arpa");
        let reply = world.ask(&format!("{alias}.prod.svc.cluster.local"), RecordType::A).await;
        assert_eq!(short(&reply), format!("{code} {target}."));
        assert_eq!(reply.authorities[0].name.to_ascii(), "96.10.in-addr.arpa.", "{alias}: the zone that says so");
        assert_eq!(asked_for(&upstream, &target), 0);
    }
}
