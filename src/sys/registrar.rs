//! Metrics that are registered where they are made.

use prometheus::{
    Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, PullingGauge, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Makes metrics for one registry. An error says that the name is taken there.
#[derive(Clone, Copy, Debug)]
pub struct Registrar<'a>(pub &'a Registry);

impl Registrar<'_> {
    pub fn counter(self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.put(IntCounter::new(name, help)?)
    }

    pub fn counter_vec(self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.put(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// One counter for each of `words`, the values of `label`.
    pub fn counters<const N: usize>(
        self,
        name: &str,
        help: &str,
        label: &str,
        words: [&str; N],
    ) -> Result<[IntCounter; N], Error> {
        let vec = self.counter_vec(name, help, &[label])?;
        Ok(words.map(|word| vec.with_label_values(&[word])))
    }

    pub fn gauge(self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.put(IntGauge::new(name, help)?)
    }

    pub fn gauge_vec(self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.put(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// One gauge for each of `words`, the values of `label`.
    pub fn gauges<const N: usize>(
        self,
        name: &str,
        help: &str,
        label: &str,
        words: [&str; N],
    ) -> Result<[IntGauge; N], Error> {
        let vec = self.gauge_vec(name, help, &[label])?;
        Ok(words.map(|word| vec.with_label_values(&[word])))
    }

    /// A gauge that is read when it is scraped.
    pub fn reading(
        self,
        name: &str,
        help: &str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<PullingGauge, Error> {
        self.put(PullingGauge::new(name, help, Box::new(read))?)
    }

    pub fn histogram(self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, Error> {
        self.put(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
    }

    /// A metric that `refresh` sets before each scrape.
    pub fn refreshed<M: Collector + 'static>(
        self,
        metric: M,
        refresh: impl Fn(&M) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        self.0.register(Box::new(Refreshed { metric, refresh }))
    }

    pub fn put<M: Collector + Clone + 'static>(self, metric: M) -> Result<M, Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

struct Refreshed<M, F> {
    metric: M,
    refresh: F,
}

impl<M: Collector, F: Fn(&M) + Send + Sync> Collector for Refreshed<M, F> {
    fn desc(&self) -> Vec<&Desc> {
        self.metric.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.refresh)(&self.metric);
        self.metric.collect()
    }
}
