//! Looks up the upstreams that are given by name: at the start, when their TTL is over, and again while that fails.
//!
//! Asks the resolvers of their zone, by address, and the records of this node for names of the cluster.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures::{StreamExt, future, stream};
use hickory_proto::rr::{
    RData, Record,
    rdata::{A, AAAA},
};
use tokio::time::Instant;

use super::probes::probe_loops;
use crate::{
    dns::{
        Question,
        forward::{
            Inner,
            resolve::{Reach, Resolver, Source},
            route::{Route, Routes},
            upstream::race,
        },
    },
    sys::Lock,
    wire::{Name, Rtype},
};

/// How often due names are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Names looked up at once.
const AT_ONCE: usize = 8;
/// How long one look-up may take.
const BUDGET: Duration = Duration::from_secs(5);

/// Keeps the addresses of upstreams that are given by name.
pub async fn run(inner: &Arc<Inner>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let routes = inner.routes.load_full();
        let due = routes.all().flat_map(|route| {
            let hosts = route.named.due(inner.now()).into_iter();
            hosts.map(|host| (Arc::clone(route), host)).collect::<Vec<_>>()
        });
        let due: Vec<_> = due.collect();
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, |(route, host)| {
                let routes = &routes;
                async move { look_up(inner, routes, &route, &host).await }
            })
            .await;
    }
}

async fn look_up(inner: &Arc<Inner>, routes: &Arc<Routes>, route: &Arc<Route>, host: &Name) {
    let ask = |rtype| addresses(inner, routes, route, Question::new(host.clone(), rtype));
    let (four, six) = future::join(ask(Rtype::A), ask(Rtype::AAAA)).await;
    let (before, _) = route.named.addresses(host);
    let (mut found, mut ttl, mut problem) = (Vec::new(), Duration::MAX, None);
    for (answer, is_four) in [(four, true), (six, false)] {
        match answer {
            Ok((addresses, good_for)) => {
                found.extend(addresses);
                ttl = ttl.min(good_for);
            }
            // The addresses of this family are kept.
            Err(error) => {
                found.extend(before.iter().filter(|ip| ip.is_ipv4() == is_four));
                problem = Some(error);
            }
        }
    }
    let zone = &route.config.zone;
    // A name without addresses may have been emptied by mistake.
    let problem = problem.filter(|_| found.is_empty() || found == before);
    let problem = problem.or_else(|| found.is_empty().then(|| "it has no address".to_owned()));
    let now = inner.now();
    let news = if let Some(problem) = problem {
        let news = route.named.failed(host, problem.clone(), now);
        if news {
            tracing::warn!(%zone, upstream = %host, %problem, "cannot look up the name of an upstream; its last addresses are kept");
        }
        news
    } else {
        let news = route.named.found(host, found, ttl, now);
        if news {
            let (addresses, _) = route.named.addresses(host);
            let listed = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            tracing::info!(%zone, upstream = %host, addresses = %listed, "name of an upstream looked up");
            let (last, host) = (inner.environment.resolv_conf_cache.clone(), host.clone());
            drop(tokio::task::spawn_blocking(move || last.note_addresses(&host, &addresses)));
        }
        news
    };
    if news {
        match route.reread(&inner.environment) {
            Ok(true) => probe_loops(inner, true),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "cannot read the upstreams again; keeping the old ones"),
        }
    }
}

/// The addresses for `question`, and how long they are good for.
async fn addresses(
    inner: &Arc<Inner>,
    routes: &Arc<Routes>,
    route: &Route,
    question: Question,
) -> Result<(Vec<IpAddr>, Duration), String> {
    let records = if inner.is_outside(&question.name) {
        let resolver = route.resolver.as_ref().ok_or("no resolver")?;
        let (attempts, deadline) = (resolver.attempts(inner.now()), Instant::now() + BUDGET);
        // A CNAME may lead anywhere.
        let answered =
            race(resolver.exchange_options(), attempts, &question, |_| true, deadline, inner.metrics()).await;
        answered.map_err(|failed| format!("{}: {}", failed.upstream, failed.kind.as_str()))?.sanitized.parts.answers
    } else {
        let trail = Lock::default();
        let records = Source::Live(&inner.environment.records, inner.now());
        let reach = Reach::Cache { inner, routes, trail: &trail };
        let found = Resolver { records, reach, asker: None }.resolve(&question).await;
        let found = found.map_err(|_| "not among the records of this node".to_owned())?;
        found.entry.records(inner.now(), found.age).0
    };
    let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(u32::MAX);
    Ok((records.iter().filter_map(address).collect(), Duration::from_secs(ttl.into())))
}

fn address(record: &Record) -> Option<IpAddr> {
    let address = match record.data {
        RData::A(A(ip)) => IpAddr::V4(ip),
        RData::AAAA(AAAA(ip)) => IpAddr::V6(ip),
        _ => return None,
    };
    (!address.is_unspecified() && !address.is_multicast()).then_some(address)
}
