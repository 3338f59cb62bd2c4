//! Counters of forwarding, and its log lines.

use std::{
    collections::HashMap,
    fmt::Display,
    io,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::log_limit::LogLimit;
use crate::sys::{Lock, Registrar, labels};

/// The response codes with a label of their own.
const RCODES: [&str; 7] = ["NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "other"];

/// Names that are not resolved, and for how long.
type Unresolved = HashMap<String, Duration>;

/// Handles of the `holdfast_forward_*` metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Queries sent to upstreams, by protocol.
    pub queries_udp: IntCounter,
    pub queries_tcp: IntCounter,
    pub queries_tls: IntCounter,
    pub queries_https: IntCounter,
    /// Upstream messages that did not answer what was asked, by [`Mismatch`].
    mismatches: [IntCounter; Mismatch::ALL.len()],
    /// Tries that failed, by [`FailureKind`].
    failures: [IntCounter; FailureKind::ALL.len()],
    /// Questions refused because too many were in flight.
    pub over_limit: IntCounter,
    pub servfail: IntCounter,
    /// Records of upstream answers that answer no question.
    pub dropped_records: IntCounter,
    durations: HistogramVec,
    probe_failures: IntCounterVec,
    bulk_denials: IntCounterVec,
    /// Files of zones that cannot be used.
    pub files_missing: IntGauge,
    keep_names: IntGauge,
    keep_failing: IntGaugeVec,
    /// The unresolved names of each view, with the seconds.
    keep_unresolved: Arc<Lock<HashMap<Box<[u8]>, Unresolved>>>,
    /// How many upstreams have each name, in all zones and views.
    named: Arc<Lock<HashMap<String, usize>>>,
    pub loops: IntCounter,
    /// Questions of a zone whose upstreams all fail, or that has none.
    pub down: IntCounter,
    pub in_flight: IntGauge,
    /// Answers that a dnstap collector did not get.
    pub dnstap_dropped: IntCounter,
    log_limit: LogLimit,
    log_holds: LogLimit,
}

labels! {
    /// Why a message is not the answer to a query.
    pub enum Mismatch {
        /// Fewer bytes than a header.
        Short = "short",
        Id = "id",
        /// QR is 0.
        NotResponse = "not_response",
        Opcode = "opcode",
        /// Not exactly one question.
        QuestionCount = "question_count",
        /// Another name, type or class, or one that is cut short.
        Question = "question",
        /// The right name in other case than sent.
        Case = "case",
        /// The rest does not parse.
        Garbage = "garbage",
        /// Longer than we can receive.
        Oversized = "oversized",
    }
}

labels! {
    /// Why one try at one upstream gave nothing.
    pub enum FailureKind {
        Timeout = "timeout",
        /// The network or the kernel said no.
        Io = "io",
        Tls = "tls",
        /// An HTTP status, or a body that is no answer.
        Http = "http",
        ServFail = "servfail",
        Refused = "refused",
        /// NOTIMP, FORMERR or a code that means no answer.
        OtherRcode = "other_rcode",
        /// NOERROR without answer and SOA, NXDOMAIN without SOA, or an answer for something else.
        Lame = "lame",
        /// An address that `reject` of the zone names.
        Rejected = "rejected",
    }
}

/// The name of an upstream, for as long as there are series of it.
#[derive(Debug)]
pub struct Named {
    upstream: String,
    metrics: Metrics,
}

impl Named {
    pub fn as_str(&self) -> &str {
        &self.upstream
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut named = self.metrics.lock();
        let Some(count) = named.get_mut(&self.upstream) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        named.remove(&self.upstream);
        // A label that was never counted has no series.
        let _ = self.metrics.probe_failures.remove_label_values(&[&self.upstream]);
        let _ = self.metrics.bulk_denials.remove_label_values(&[&self.upstream]);
        for rcode in RCODES {
            let _ = self.metrics.durations.remove_label_values(&[rcode, &self.upstream]);
        }
    }
}

impl Metrics {
    /// Registers every metric of this module.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let made = Registrar(registry);
        let [queries_udp, queries_tcp, queries_tls, queries_https] = made.counters(
            "holdfast_forward_queries_total",
            "Queries sent to upstreams.",
            "proto",
            ["udp", "tcp", "tls", "https"],
        )?;
        // CoreDNS's buckets: its dashboards read them under its names.
        let bounds = prometheus::exponential_buckets(0.000_25, 2.0, 16)?;
        let durations = HistogramOpts::new(
            "holdfast_forward_upstream_duration_seconds",
            "Time from asking an upstream to its answer.",
        );
        let durations = made.put(HistogramVec::new(durations.buckets(bounds), &["rcode", "upstream"])?)?;
        Ok(Self {
            queries_udp,
            queries_tcp,
            queries_tls,
            queries_https,
            mismatches: made.counters(
                "holdfast_forward_mismatches_total",
                "Messages of upstreams dropped because they do not match the query.",
                "kind",
                Mismatch::ALL.map(Mismatch::as_str),
            )?,
            failures: made.counters(
                "holdfast_forward_failures_total",
                "Queries to an upstream that got no usable answer.",
                "kind",
                FailureKind::ALL.map(FailureKind::as_str),
            )?,
            over_limit: made.counter(
                "holdfast_forward_over_limit_total",
                "Queries answered SERVFAIL because their zone had `max_concurrent` queries in flight.",
            )?,
            servfail: made.counter("holdfast_forward_servfail_total", "Queries answered SERVFAIL after asking upstreams.")?,
            dropped_records: made.counter(
                "holdfast_forward_dropped_records_total",
                "Records of upstream answers dropped because they do not belong to the question or to the zone of the upstream.",
            )?,
            loops: made.counter(
                "holdfast_forward_loops_total",
                "Queries sent to an upstream that came back to holdfast (forwarding loop).",
            )?,
            down: made.counter(
                "holdfast_forward_down_total",
                "Queries for a zone whose upstreams all failed, or that had none.",
            )?,
            durations,
            bulk_denials: made.counter_vec(
                "holdfast_forward_bulk_denials_total",
                "Times an upstream denied so many names that it had answered before that its denials are ignored for 10 minutes.",
                &["upstream"],
            )?,
            files_missing: made.gauge(
                "holdfast_forward_files_missing",
                "Files of forward zones that cannot be used now: a resolv.conf, certificates, a hosts file, a file of weights.",
            )?,
            keep_names: made.gauge("holdfast_forward_keep_names", "Names on the keep list.")?,
            keep_failing: made.gauge_vec(
                "holdfast_forward_keep_unresolved_seconds",
                "Time since a name of the keep list was last resolved; only for names that cannot be resolved now.",
                &["name"],
            )?,
            keep_unresolved: Arc::default(),
            probe_failures: made.counter_vec(
                "holdfast_forward_probe_failures_total",
                "Probes that a failing upstream did not answer.",
                &["upstream"],
            )?,
            named: Arc::default(),
            in_flight: made.gauge("holdfast_forward_in_flight", "Queries that wait for an upstream now.")?,
            dnstap_dropped: made.counter(
                "holdfast_forward_dnstap_dropped_total",
                "Answers not sent to the dnstap collector because it was slow or gone.",
            )?,
            log_limit: LogLimit::default(),
            log_holds: LogLimit::default(),
        })
    }

    /// Counts for an upstream of this name. Its series are gone with the last that has the name, as a reload or a changed
    /// resolv.conf may have it.
    pub fn named(&self, upstream: String) -> Named {
        *self.lock().entry(upstream.clone()).or_default() += 1;
        Named { upstream, metrics: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.named.lock()
    }

    /// Notes an answer of `upstream`, and how long it took.
    pub fn answered(&self, upstream: &str, rcode: ResponseCode, after: Duration) {
        let rcode = match rcode {
            ResponseCode::NoError => RCODES[0],
            ResponseCode::NXDomain => RCODES[1],
            ResponseCode::ServFail => RCODES[2],
            ResponseCode::Refused => RCODES[3],
            ResponseCode::FormErr => RCODES[4],
            ResponseCode::NotImp => RCODES[5],
            _ => RCODES[6],
        };
        self.durations.with_label_values(&[rcode, upstream]).observe(after.as_secs_f64());
    }

    /// Notes a probe that a failing upstream did not answer.
    pub fn probe_failed(&self, upstream: &str) {
        self.probe_failures.with_label_values(&[upstream]).inc();
    }

    /// Notes that an upstream begins to deny too many names.
    pub fn denies_in_bulk(&self, upstream: &str) {
        self.bulk_denials.with_label_values(&[upstream]).inc();
        tracing::warn!(
            upstream,
            "upstream denies many names at once that it answered before: its denials are ignored for 10 minutes"
        );
    }

    /// Notes how many names are on the keep list, and which of them are unresolved at `view` for how long. The longest time of
    /// any view counts.
    pub fn keep(&self, view: &[u8], names: usize, unresolved: Unresolved) {
        self.keep_names.set(i64::try_from(names).unwrap_or(i64::MAX));
        let mut by_view = self.keep_unresolved.lock();
        let before = by_view.insert(view.into(), unresolved).unwrap_or_default();
        for name in before.keys().filter(|name| !by_view.values().any(|names| names.contains_key(*name))) {
            let _ = self.keep_failing.remove_label_values(&[name]);
        }
        let mut longest = HashMap::<&str, Duration>::new();
        for (name, time) in by_view.values().flatten() {
            let known = longest.entry(name).or_default();
            *known = (*known).max(*time);
        }
        for (name, time) in longest {
            self.keep_failing.with_label_values(&[name]).set(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        }
    }

    /// Counts a message of `upstream` that was not the answer.
    pub fn mismatch(&self, kind: Mismatch, upstream: &dyn Display) {
        self.mismatches[kind as usize].inc();
        self.log_limit.log("a message that is not the answer was dropped", upstream, &kind.as_str());
    }

    /// How many of `kind` were counted.
    pub fn mismatches(&self, kind: Mismatch) -> u64 {
        self.mismatches[kind as usize].get()
    }

    /// Counts a failed try at `upstream`; `why` is the system's error, if it has one.
    pub fn failure(&self, kind: FailureKind, upstream: &dyn Display, why: Option<&io::Error>) {
        self.failures[kind as usize].inc();
        // An upstream's answer for a name concerns the name; errors of the network and of the upstream concern the operator.
        if matches!(kind, FailureKind::Timeout | FailureKind::Io | FailureKind::Tls | FailureKind::Http) {
            let reason = why.map_or_else(|| kind.as_str().to_owned(), ToString::to_string);
            self.log_limit.log("an upstream gave no answer", upstream, &reason);
        }
    }

    /// Tells that a name is held.
    pub fn held(&self, name: &dyn Display, rtype: &dyn Display, upstream: &str, denial: &'static str) {
        self.log_holds.held(name, rtype, upstream, denial);
    }

    /// How many of `kind` were counted.
    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.failures[kind as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_an_upstream_go_with_the_last_that_has_its_name() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let series = || -> usize {
            let named = |family: &&prometheus::proto::MetricFamily| {
                ["holdfast_forward_upstream_duration_seconds", "holdfast_forward_probe_failures_total"]
                    .contains(&family.name())
            };
            registry.gather().iter().filter(named).map(|family| family.get_metric().len()).sum()
        };
        let (before, after) = (metrics.named("10.0.0.1:53".into()), metrics.named("10.0.0.1:53".into()));
        let other = metrics.named("10.0.0.2:53".into());
        for upstream in [&before, &other] {
            for rcode in [ResponseCode::NoError, ResponseCode::ServFail, ResponseCode::BADVERS] {
                metrics.answered(upstream.as_str(), rcode, Duration::from_millis(1));
            }
            metrics.probe_failed(upstream.as_str());
        }
        assert_eq!(series(), 8);
        drop(before);
        assert_eq!(series(), 8, "a reload made one of the same name before the old one was gone");
        drop(after);
        assert_eq!(series(), 4);
        drop(other);
        assert_eq!(series(), 0);
    }
}
