//! Our metrics under the names that CoreDNS 1.12 and NodeLocal `DNSCache` give them, made from our own when they are scraped.
//!
//! Counts nothing itself. Labels have the values that are true here: one server, the zone `.`, no view.

use prometheus::proto::{Bucket, LabelPair, Metric, MetricFamily, MetricType};

use crate::sys::series::{self, counter, family, gauge};

/// Upper ends of CoreDNS's buckets: 250 µs, and double fifteen times.
const BUCKETS: usize = 16;
const FIRST_BUCKET: f64 = 0.000_25;
/// Kinds of set-up errors that node-cache tells of from the start, and one that it has not.
const SETUP_ERRORS: [&str; 6] =
    ["iptables", "iptables_lock", "interface_add", "interface_check", "configmap", "admin_socket"];

/// Each name, and its help as CoreDNS has it.
const HELP: [(&str, &str); 24] = [
    ("coredns_build_info", "A metric with a constant '1' value labeled by version, revision, and goversion."),
    ("coredns_cache_entries", "The number of elements in the cache."),
    ("coredns_cache_evictions_total", "The count of cache evictions."),
    ("coredns_cache_hits_total", "The count of cache hits."),
    ("coredns_cache_misses_total", "The count of cache misses."),
    ("coredns_cache_prefetch_total", "The number of times the cache has prefetched a cached item."),
    ("coredns_cache_requests_total", "The count of cache requests."),
    ("coredns_cache_served_stale_total", "The number of requests served from stale cache entries."),
    ("coredns_dns_request_duration_seconds", "Histogram of the time (in seconds) each request took per zone."),
    ("coredns_dns_requests_total", "Counter of DNS requests made per zone, protocol and family."),
    ("coredns_dns_responses_total", "Counter of response status codes."),
    ("coredns_forward_healthcheck_broken_total", "Counter of the number of complete failures of the healthchecks."),
    ("coredns_forward_healthcheck_failures_total", "Counter of the number of failed healthchecks."),
    (
        "coredns_forward_max_concurrent_rejects_total",
        "Counter of the number of queries rejected because the concurrent queries were at maximum.",
    ),
    ("coredns_forward_request_duration_seconds", "Histogram of the time each request took."),
    ("coredns_forward_requests_total", "Counter of requests made per upstream."),
    ("coredns_forward_responses_total", "Counter of responses received per upstream."),
    ("coredns_health_request_duration_seconds", "Histogram of the time (in seconds) each request took."),
    ("coredns_nodecache_setup_errors_total", "The number of errors during periodic network setup for node-cache"),
    ("coredns_panics_total", "A metrics that counts the number of panics."),
    ("coredns_proxy_healthcheck_failures_total", "Counter of the number of failed healthchecks."),
    ("coredns_proxy_request_duration_seconds", "Histogram of the time each request took."),
    ("coredns_proxy_requests_total", "Counter of requests made per upstream."),
    ("coredns_proxy_responses_total", "Counter of responses received per upstream."),
];

/// The same counts under the other names, for a process that answers at `server` first of all.
pub fn named(families: &[MetricFamily], server: &str) -> Vec<MetricFamily> {
    let from = From { families, server };
    let mut named = from.dns();
    named.extend(from.cache());
    named.extend(from.forward());
    named.extend(from.process());
    named.retain(|family| !family.get_metric().is_empty());
    named.sort_by(|one, other| one.name().cmp(other.name()));
    named
}

struct From<'a> {
    families: &'a [MetricFamily],
    server: &'a str,
}

impl<'a> From<'a> {
    /// The series of one of our metrics.
    fn series(&self, name: &str) -> &'a [Metric] {
        self.families.iter().find(|family| family.name() == name).map_or(&[], |family| family.get_metric())
    }

    /// The sum of the series of a counter whose labels fit.
    fn sum(&self, name: &str, fits: impl Fn(&Metric) -> bool) -> f64 {
        self.series(name).iter().filter(|metric| fits(metric)).map(|metric| metric.get_counter().get_value()).sum()
    }

    /// The labels every metric of a server has, and more.
    fn at<'b>(&'b self, zone: &'b str, more: &[(&'b str, &'b str)]) -> Vec<(&'b str, &'b str)> {
        [more, &[("server", self.server), ("view", ""), (zone, ".")]].concat()
    }

    fn dns(&self) -> Vec<MetricFamily> {
        // 1 is IPv4 and 2 IPv6, as the IANA numbers them; queries are not counted apart.
        let family = if self.server.contains('[') { "2" } else { "1" };
        let requests = self.series("holdfast_dns_requests_total").iter().map(|metric| {
            let labels = [("family", family), ("proto", label(metric, "proto")), ("type", label(metric, "type"))];
            counter(&self.at("zone", &labels), metric.get_counter().get_value())
        });
        let responses = self.series("holdfast_dns_responses_total").iter().map(|metric| {
            let plugin = match label(metric, "from") {
                "upstream" => "forward",
                "cluster" => "kubernetes",
                "pinned" => "hosts",
                _ => "cache",
            };
            (plugin, label(metric, "rcode"), metric.get_counter().get_value())
        });
        // Fresh and stale answers are the cache's alike.
        let mut by_plugin: Vec<(&str, &str, f64)> = Vec::new();
        for (plugin, rcode, value) in responses {
            match by_plugin.iter_mut().find(|known| (known.0, known.1) == (plugin, rcode)) {
                Some(known) => known.2 += value,
                None => by_plugin.push((plugin, rcode, value)),
            }
        }
        let responses = by_plugin
            .iter()
            .map(|(plugin, rcode, value)| counter(&self.at("zone", &[("plugin", plugin), ("rcode", rcode)]), *value));
        let durations = self.series("holdfast_dns_request_duration_seconds");
        let durations = (!durations.is_empty()).then(|| histogram(&self.at("zone", &[]), durations));
        vec![
            counters("coredns_dns_requests_total", requests),
            counters("coredns_dns_responses_total", responses),
            histograms("coredns_dns_request_duration_seconds", durations),
        ]
    }

    fn cache(&self) -> Vec<MetricFamily> {
        let found = |what: &'static str| {
            self.sum("holdfast_cache_lookups_total", move |metric| what == "all" || label(metric, "result") == what)
        };
        let known = !self.series("holdfast_cache_lookups_total").is_empty();
        let one = |value: f64| known.then(|| counter(&self.at("zones", &[]), value));
        // Negative answers are not counted apart.
        let typed = |value: f64| known.then(|| counter(&self.at("zones", &[("type", "success")]), value));
        let entries = self
            .series("holdfast_cache_entries")
            .iter()
            .map(|metric| gauge(&self.at("zones", &[("type", "success")]), metric.get_gauge().get_value()));
        let all = |_: &Metric| true;
        vec![
            gauges("coredns_cache_entries", entries),
            counters("coredns_cache_hits_total", typed(found("fresh") + found("stale"))),
            counters("coredns_cache_misses_total", one(found("miss"))),
            counters("coredns_cache_requests_total", one(found("all"))),
            counters("coredns_cache_served_stale_total", one(found("stale"))),
            counters("coredns_cache_prefetch_total", one(self.sum("holdfast_cache_prefetches_total", all))),
            counters("coredns_cache_evictions_total", typed(self.sum("holdfast_cache_evictions_total", all))),
        ]
    }

    fn forward(&self) -> Vec<MetricFamily> {
        let answers = self.series("holdfast_forward_upstream_duration_seconds");
        let failures = self.series("holdfast_forward_probe_failures_total");
        // Under `proxy` with the label `proxy_name`, and under the older names without.
        let both = |subsystem: &'static str| -> Vec<MetricFamily> {
            let more: &[(&str, &str)] = if subsystem == "proxy" { &[("proxy_name", "forward")] } else { &[] };
            let to = |metric: &'a Metric| ("to", label(metric, "upstream"));
            let labels = |metric: &'a Metric| [more, &[("rcode", label(metric, "rcode")), to(metric)]].concat();
            let durations = answers.iter().map(|metric| histogram(&labels(metric), std::slice::from_ref(metric)));
            let responses = answers.iter().map(|metric| counter(&labels(metric), count(metric)));
            let mut asked: Vec<(&str, f64)> = Vec::new();
            for metric in answers {
                match asked.iter_mut().find(|(upstream, _)| *upstream == to(metric).1) {
                    Some((_, total)) => *total += count(metric),
                    None => asked.push((to(metric).1, count(metric))),
                }
            }
            let requests =
                asked.iter().map(|(upstream, total)| counter(&[more, &[("to", *upstream)]].concat(), *total));
            let failed = failures
                .iter()
                .map(|metric| counter(&[more, &[to(metric)]].concat(), metric.get_counter().get_value()));
            vec![
                histograms(&format!("coredns_{subsystem}_request_duration_seconds"), durations),
                counters(&format!("coredns_{subsystem}_requests_total"), requests),
                counters(&format!("coredns_{subsystem}_responses_total"), responses),
                counters(&format!("coredns_{subsystem}_healthcheck_failures_total"), failed),
            ]
        };
        let plain = |ours: &str| {
            self.series(ours).iter().map(|metric| counter(&[], metric.get_counter().get_value())).collect::<Vec<_>>()
        };
        let mut families = both("proxy");
        families.extend(both("forward"));
        families
            .push(counters("coredns_forward_max_concurrent_rejects_total", plain("holdfast_forward_over_limit_total")));
        families.push(counters("coredns_forward_healthcheck_broken_total", plain("holdfast_forward_down_total")));
        families
    }

    fn process(&self) -> Vec<MetricFamily> {
        let setup = SETUP_ERRORS.map(|kind| {
            let as_node_cache = |metric: &Metric| match label(metric, "errortype") {
                "nftables" | "privilege" | "watch" | "sandbox" => "iptables",
                "address" | "interface_add" => "interface_add",
                "interface_check" => "interface_check",
                "admin_socket" => "admin_socket",
                _ => "configmap",
            };
            let node = self.sum("holdfast_node_setup_errors_total", |metric| as_node_cache(metric) == kind);
            let files = if kind == "configmap" { self.sum("holdfast_corefile_errors_total", |_| true) } else { 0.0 };
            counter(&[("errortype", kind)], node + files)
        });
        let version =
            [("goversion", ""), ("revision", ""), ("version", concat!("holdfast-", env!("CARGO_PKG_VERSION")))];
        let health = self.series("holdfast_admin_health_duration_seconds");
        vec![
            counters("coredns_nodecache_setup_errors_total", setup),
            // A process that panics is gone, and its successor has not panicked.
            counters("coredns_panics_total", [counter(&[], 0.0)]),
            gauges("coredns_build_info", [gauge(&version, 1.0)]),
            histograms("coredns_health_request_duration_seconds", health.iter().cloned()),
        ]
    }
}

fn label<'a>(metric: &'a Metric, name: &str) -> &'a str {
    metric.get_label().iter().find(|pair| pair.name() == name).map_or("", LabelPair::value)
}

#[expect(clippy::cast_precision_loss, reason = "what Prometheus reads is a double")]
fn count(metric: &Metric) -> f64 {
    metric.get_histogram().get_sample_count() as f64
}

/// The sum of all these as one histogram with CoreDNS's buckets; ours have a bound at each of them.
fn histogram(labels: &[(&str, &str)], parts: &[Metric]) -> Metric {
    // The bounds are the same numbers, written in another way.
    let below = |metric: &Metric, bound: f64| {
        let within = |bucket: &&Bucket| bucket.upper_bound() <= bound * 1.000_001;
        metric.get_histogram().get_bucket().iter().rfind(within).map_or(0, Bucket::cumulative_count)
    };
    let bounds = std::iter::successors(Some(FIRST_BUCKET), |bound| Some(bound * 2.0)).take(BUCKETS);
    let buckets: Vec<(f64, u64)> =
        bounds.map(|bound| (bound, parts.iter().map(|part| below(part, bound)).sum())).collect();
    let count = parts.iter().map(|part| part.get_histogram().get_sample_count()).sum();
    let sum = parts.iter().map(|part| part.get_histogram().get_sample_sum()).sum();
    series::histogram(labels, &buckets, count, sum)
}

fn counters(name: &str, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help(name), MetricType::COUNTER, series)
}

fn gauges(name: &str, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help(name), MetricType::GAUGE, series)
}

fn histograms(name: &str, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    family(name, help(name), MetricType::HISTOGRAM, series)
}

fn help(name: &str) -> &'static str {
    HELP.iter().find(|(known, _)| *known == name).map_or("", |(_, help)| help)
}

#[cfg(test)]
mod tests;
