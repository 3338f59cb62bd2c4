//! Probes of upstreams: whether they answer again, and whether they send our questions back to us.
//!
//! Probes go to upstreams that left questions unanswered, never to one that answers.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio::sync::Notify;

use crate::{
    dns::{
        Question,
        forward::{
            Inner,
            route::{Probe, Route, Routes},
            upstream::{ExchangeOptions, Try, Upstream},
        },
        question::question_name,
    },
    wire::Rtype,
};

/// How long a probe waits.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// No client asks for this type; CoreDNS's loop plugin uses it, too.
const LOOP_TYPE: Rtype = Rtype::HINFO;

/// Probes each upstream that left a question unanswered, and each failing one, less often the longer it is gone.
pub fn probe_failing(inner: &Arc<Inner>) {
    for route in inner.routes.load().all() {
        let due = |upstream: &&Arc<Upstream>| upstream.take_due_probe(route.config.probe.every);
        for upstream in route.upstreams().iter().filter(due) {
            let (inner, upstream, route) = (Arc::clone(inner), Arc::clone(upstream), Arc::clone(route));
            tokio::spawn(async move {
                let Probe { name, recursion, .. } = &route.config.probe;
                let question = Question::new(question_name(name), Rtype::NS);
                if answers(&inner, &route, &upstream, &question, *recursion).await {
                    // Names that failed while it was away may be asked for again at once.
                    inner.failures.clear();
                } else {
                    inner.metrics().probe_failed(upstream.label());
                    if upstream.probe_failed() {
                        tracing::warn!(upstream = %upstream.server(), "upstream does not answer");
                    }
                }
            });
        }
    }
}

/// Whether `upstream` answers anything at all.
async fn answers(inner: &Inner, route: &Route, upstream: &Upstream, question: &Question, recursion: bool) -> bool {
    let options = ExchangeOptions { plain: upstream.may_drop_edns(), recursion, ..route.exchange_options() };
    let probe = Try { upstream, question, options, again: &Notify::new(), metrics: inner.metrics() };
    matches!(tokio::time::timeout(PROBE_WAIT, probe.answer()).await, Ok(Ok(_)))
}

/// Sends each upstream of each route a random name; if it comes back to us, there is a loop.
pub fn probe_loops(inner: &Arc<Inner>, all: bool) {
    for route in inner.routes.load().iter().filter(|route| route.take_loop_search() || all) {
        for upstream in route.upstreams().iter() {
            let (inner, route, upstream) = (Arc::clone(inner), Arc::clone(route), Arc::clone(upstream));
            tokio::spawn(async move {
                let labels = [(); 2].map(|()| format!("{:016x}", rand::rng().random::<u64>()));
                let name = route.begin_loop_probe(&upstream, [labels[0].as_bytes(), labels[1].as_bytes()]);
                let question = Question::new(name, LOOP_TYPE);
                answers(&inner, &route, &upstream, &question, true).await;
                route.end_loop_probe(&question.name);
            });
        }
    }
}

impl Inner {
    /// If `question` is a loop probe that came back, notes the loop; returns whether it is one.
    pub fn note_loop_probe(&self, routes: &Routes, question: &Question) -> bool {
        if question.rtype != LOOP_TYPE {
            return false;
        }
        let Some(route) = routes.find(&question.name) else { return false };
        let Some((upstream, news)) = route.loop_probe_returned(&question.name) else { return false };
        if news {
            self.metrics().loops.inc();
            let (zone, upstream) = (&route.config.zone, upstream.server());
            tracing::error!(%zone, %upstream, "forwarding loop: questions sent to this upstream come back to holdfast");
        }
        true
    }
}
