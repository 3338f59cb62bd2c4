//! Names that a search path made: denied on the node, or completed where that is wanted.

use std::sync::Arc;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use holdfast::{
    dns::{AnswerConfig, Context, Forward, Outcome, Resolve, Rotation, ServedFrom, Transport, answer, forward::Config},
    zone,
};

use super::world::{NOW, World, asked_for, cluster, query, short, zone as forward_zone};
use crate::support::upstream::{Asked, Say, Upstream, a, soa};

const CLUSTER: &str = "
namespace prod
namespace empty
service prod/web 10.96.1.1 http:80/tcp
headless prod/db
headless prod/com
endpoint prod/com 10.1.0.1 hostname=up
external prod/away www.example.com
";

fn context(search_path_completion: bool) -> Arc<Context> {
    let config = AnswerConfig { search_path_completion, ..AnswerConfig::default() };
    cluster(CLUSTER, 0, config, &zone::Config::default())
}

/// What `answer()` says, and the code of what it wrote.
fn said(context: &Context, owner: &str, qtype: RecordType) -> (Outcome, ResponseCode, Vec<u8>) {
    let batch = context.load();
    let rotation = Rotation::default();
    let view = context.view(&batch, NOW, &rotation);
    let mut out = vec![0; 65_535];
    let outcome = answer(context, &view, &query(owner, qtype, None), Transport::Udp, None, &mut out);
    let len = match outcome {
        Outcome::Reply(reply) => reply.len,
        Outcome::Forward(Forward::Complete { len, .. }) => len,
        other => panic!("{owner}: {other:?}"),
    };
    out.truncate(len);
    let code = Message::from_vec(&out).unwrap().response_code;
    (outcome, code, out)
}

#[test]
fn a_search_path_is_denied_from_the_records_without_leaving_the_node() {
    let context = context(false);
    for external in ["github.com", "www.example.org", "a.b.c.example.net"] {
        for path in ["prod.svc.cluster.local", "svc.cluster.local", "cluster.local", "gone.svc.cluster.local"] {
            for qtype in [RecordType::A, RecordType::AAAA, RecordType::SRV] {
                let owner = format!("{external}.{path}");
                let (outcome, code, _) = said(&context, &owner, qtype);
                assert!(matches!(outcome, Outcome::Reply(_)), "{owner} {qtype}: {outcome:?}");
                assert_eq!(code, ResponseCode::NXDomain, "{owner} {qtype}");
            }
        }
    }
}

#[test]
fn only_what_no_service_can_be_called_is_completed() {
    let context = context(true);
    let cases = [
        ("github.com.empty.svc.cluster.local", Some(2)),
        ("WWW.Example.org.prod.svc.cluster.local", Some(3)),
        // One label is what services are called by; there may be one soon.
        ("github.prod.svc.cluster.local", None),
        // A service of that name is there: its endpoints come and go.
        ("github.com.prod.svc.cluster.local", None),
        ("www.github.com.prod.svc.cluster.local", None),
        ("replica-0.db.prod.svc.cluster.local", None),
        ("www.away.prod.svc.cluster.local", None),
        // Ports and protocols.
        ("_http._tcp.prod.svc.cluster.local", None),
        ("_http._tcp.gone.prod.svc.cluster.local", None),
        // No pod has a search path with a namespace that does not exist, and the shorter paths come after this one.
        ("github.com.gone.svc.cluster.local", None),
        ("github.com.svc.cluster.local", None),
        ("github.com.cluster.local", None),
        ("github.com.prod.pod.cluster.local", None),
    ];
    for (owner, expect) in cases {
        let (outcome, code, _) = said(&context, owner, RecordType::A);
        let labels = match outcome {
            Outcome::Forward(Forward::Complete { labels, .. }) => Some(labels),
            _ => None,
        };
        assert_eq!(labels, expect, "{owner}");
        assert_eq!(code, ResponseCode::NXDomain, "{owner}: and if not, it does not exist");
        let (outcome, ..) = said(&context, owner, RecordType::SRV);
        assert!(matches!(outcome, Outcome::Reply(_)), "{owner}: only addresses are completed");
    }
}

fn upstream_says(asked: &Asked) -> Vec<Say> {
    vec![match (&*asked.name(), asked.qtype()) {
        ("www.example.org", RecordType::A) => asked.found(vec![a("www.example.org", 60, [192, 0, 2, 1])]),
        ("www.example.org", _) => {
            let mut reply = asked.reply(ResponseCode::NoError);
            reply.authorities = vec![soa("example.org", 60)];
            Say::message(&reply)
        }
        ("broken.example.org", _) => asked.code(ResponseCode::ServFail),
        _ => asked.nxdomain("org"),
    }]
}

#[tokio::test(start_paused = true)]
async fn a_completed_name_is_an_alias_with_its_records_in_one_round_trip() {
    let upstream = Upstream::start(|asked| upstream_says(&asked)).await;
    let world =
        World::build(&Config { zones: vec![forward_zone(".", &[&upstream])], ..Config::default() }, context(true));
    let owner = "Www.Example.org.prod.svc.cluster.local";
    for from in [ServedFrom::Upstream, ServedFrom::Cache] {
        let resolved = world.resolve(query(owner, RecordType::A, None), Transport::Udp).await;
        let reply = Message::from_vec(&resolved.message).unwrap();
        assert_eq!(short(&reply), "NoError www.example.org. 192.0.2.1");
        assert_eq!(resolved.from, from);
        assert!(reply.queries[0].name().eq_case(&crate::support::upstream::name(owner)), "the question as it was");
        assert!(reply.answers[0].ttl <= 5, "a service may come to be");
        assert!(reply.authoritative, "the first owner is a name of the cluster");
    }
    assert_eq!(asked_for(&upstream, "www.example.org"), 1);
    // The other family exists without records: musl takes a denial of one for a denial of both.
    let resolved = world.resolve(query(owner, RecordType::AAAA, None), Transport::Udp).await;
    assert_eq!(short(&Message::from_vec(&resolved.message).unwrap()), "NoError www.example.org.");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_completed_does_not_exist_so_that_the_search_goes_on() {
    let upstream = Upstream::start(|asked| upstream_says(&asked)).await;
    let world =
        World::build(&Config { zones: vec![forward_zone(".", &[&upstream])], ..Config::default() }, context(true));
    for external in ["gone.example.org", "broken.example.org", "x.y.svc.cluster.local"] {
        let owner = format!("{external}.prod.svc.cluster.local");
        let request = world.request(query(&owner, RecordType::A, None), Transport::Udp).unwrap_err();
        let otherwise = request.written.clone();
        let resolved = world.forwarder.resolve(*request).await;
        assert_eq!(resolved.message, otherwise, "{external}");
        assert_eq!(resolved.from, ServedFrom::Cluster);
        let reply = Message::from_vec(&resolved.message).unwrap();
        assert_eq!(reply.response_code, ResponseCode::NXDomain);
        assert!(reply.authoritative);
    }
    assert_eq!(asked_for(&upstream, "x.y.svc.cluster.local"), 0, "names of ours do not leave the node");
}
