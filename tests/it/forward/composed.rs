//! Answers made of records of the cluster and of what upstreams say: whose word they are, and how old.

use std::sync::Arc;

use hickory_proto::{op::Message, rr::RecordType};
use holdfast::{
    dns::{
        AnswerConfig, Context, Forward, ForwardRequest, Outcome, Resolve, Rotation, Transport, answer, forward::Config,
    },
    store::{self, Origin, What},
    sys::UnixMillis,
    zone::{self, Zone},
};
use tokio::time::Instant;

use super::world::{CLIENT, World, asked_for, query, short, zone};
use crate::support::{
    cluster,
    upstream::{Upstream, a, cname},
};

const NOW: UnixMillis = UnixMillis(1_733_941_800_000);
const CLUSTER: &str = "
namespace prod
service prod/web 10.96.1.1 http:80/tcp
external prod/away www.example.com
external prod/pointer 1.1.96.10.in-addr.arpa
external prod/nobody 9.9.96.10.in-addr.arpa
";

/// The cluster, last vouched for so many seconds ago.
fn context(age: u64) -> Arc<Context> {
    let (mut writer, reader) = store::open();
    let origin = Origin::Watched { cluster: "test".into(), new_epoch: false };
    let records = cluster::changes(CLUSTER).into_iter().collect();
    writer.apply(What::Reset { origin, records, as_of: UnixMillis(NOW.0 - age * 1_000) }).unwrap();
    let rules = zone::Config { reverse: vec!["10.96.0.0/16".parse().unwrap()], ..zone::Config::default() };
    Arc::new(Context::new(Zone::new(&rules), reader, AnswerConfig::default()))
}

fn said(context: &Context, query: &[u8]) -> (Outcome, Vec<u8>) {
    let batch = context.load();
    let rotation = Rotation::default();
    let mut out = vec![0; 65_535];
    let outcome = answer(context, &context.view(&batch, NOW, &rotation), query, Transport::Tcp, &mut out);
    let len = match outcome {
        Outcome::Reply(reply) => reply.len,
        Outcome::Forward(Forward::Chase { len }) => len,
        _ => 0,
    };
    out.truncate(len);
    (outcome, out)
}

/// Asks as a client does: the records first, then the forwarder with what they say.
async fn ask(context: &Context, world: &World, owner: &str) -> Message {
    let query = query(owner, RecordType::A, Some(1232));
    let chase = match said(context, &query) {
        (Outcome::Forward(Forward::Chase { .. }), written) => Some(written),
        (Outcome::Forward(Forward::Whole), _) => None,
        (other, _) => panic!("{owner}: {other:?}"),
    };
    let received = Instant::now();
    let request = ForwardRequest {
        query,
        transport: Transport::Tcp,
        client: CLIENT,
        received,
        cookie: None,
        cluster_fallback: false,
        chase,
        complete: None,
    };
    Message::from_vec(&world.forwarder.resolve(request).await.message).unwrap()
}

async fn world(context: &Arc<Context>) -> (World, Upstream) {
    let upstream = Upstream::start(|asked| {
        let owner = asked.name();
        vec![match &*owner {
            "into.example.com" => asked.found(vec![cname(&owner, 60, "web.prod.svc.cluster.local")]),
            "out.example.com" => asked.found(vec![cname(&owner, 60, "away.prod.svc.cluster.local")]),
            _ => asked.found(vec![a(&owner, 60, [192, 0, 2, 1])]),
        }]
    })
    .await;
    let own = Arc::clone(context);
    let own = move |query: &[u8]| Some(said(&own, query).1).filter(|written| !written.is_empty());
    let config = Config { zones: vec![zone(".", &[&upstream])], ..Config::default() };
    (World::build(&config, Arc::new(own)), upstream)
}

#[tokio::test(start_paused = true)]
async fn stale_records_are_told_whichever_way_an_alias_crosses() {
    for (age, told) in [(5, ""), (600, " ede=3")] {
        let context = context(age);
        let (world, _upstream) = world(&context).await;
        let cases = [
            ("away.prod.svc.cluster.local", "NoError www.example.com. 192.0.2.1", true, told),
            ("into.example.com", "NoError web.prod.svc.cluster.local. 10.96.1.1", false, told),
            ("out.example.com", "NoError away.prod.svc.cluster.local. www.example.com. 192.0.2.1", false, told),
            ("www.example.com", "NoError 192.0.2.1", false, ""),
        ];
        // From upstream first, then from the cache, which knows nothing of the cluster's age.
        for _ in 0..2 {
            for (owner, expect, authoritative, told) in cases {
                let reply = ask(&context, &world, owner).await;
                assert_eq!(short(&reply), format!("{expect}{told}"), "{owner} at {age} s");
                // AA is about the first owner: our alias, or theirs.
                assert_eq!(reply.metadata.authoritative, authoritative, "{owner}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_external_name_in_a_reverse_zone_of_ours_stays_on_the_node() {
    let context = context(5);
    let (world, upstream) = world(&context).await;
    for (alias, target, code) in [("pointer", "1.1.96.10", "NoError"), ("nobody", "9.9.96.10", "NXDomain")] {
        let target = format!("{target}.in-addr.arpa");
        let reply = ask(&context, &world, &format!("{alias}.prod.svc.cluster.local")).await;
        assert_eq!(short(&reply), format!("{code} {target}."));
        assert_eq!(reply.authorities[0].name.to_ascii(), "96.10.in-addr.arpa.", "{alias}: the zone that says so");
        assert_eq!(asked_for(&upstream, &target), 0);
    }
}
