//! The store's metrics: read off the records when they are asked for, so nobody has to keep them up.

use prometheus::{
    IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::Reader;

/// Registers `holdfast_store_records`, `holdfast_store_version` and `holdfast_guard_held` over what `reader` sees.
///
/// # Errors
/// If one of the names is taken in `registry`.
pub fn register_metrics(registry: &Registry, reader: &Reader) -> Result<(), prometheus::Error> {
    let gauge = |name, help, label: &str| IntGaugeVec::new(Opts::new(name, help), &[label]);
    let records = gauge(
        "holdfast_store_records",
        "Records that are served, held ones included: services, endpoints, namespaces.",
        "kind",
    )?;
    let version = gauge(
        "holdfast_store_version",
        "Version of the records: epoch (grows with each new leader or etcd restore) and rev (grows with each change).",
        "part",
    )?;
    let held =
        gauge("holdfast_guard_held", "Records deleted at the source that are still served (safety hold).", "kind")?;
    registry.register(Box::new(Store {
        records: ["services", "endpoints", "namespaces"].map(|kind| records.with_label_values(&[kind])),
        version: ["epoch", "rev"].map(|part| version.with_label_values(&[part])),
        held: ["services", "endpoints", "namespaces"].map(|kind| held.with_label_values(&[kind])),
        families: [records, version, held],
        reader: reader.clone(),
    }))
}

struct Store {
    families: [IntGaugeVec; 3],
    records: [IntGauge; 3],
    version: [IntGauge; 2],
    held: [IntGauge; 3],
    reader: Reader,
}

fn set<const N: usize>(gauges: &[IntGauge; N], values: [u64; N]) {
    for (gauge, value) in gauges.iter().zip(values) {
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}

impl Collector for Store {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let snapshot = self.reader.load();
        let counts = snapshot.counts();
        set(&self.records, [counts.services as u64, counts.endpoints as u64, counts.namespaces as u64]);
        set(&self.version, [snapshot.version().epoch, snapshot.version().rev]);
        let held = self.reader.held().counts();
        set(&self.held, [held.services as u64, held.endpoints as u64, held.namespaces as u64]);
        self.families.iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::Change,
        store::{self, Origin, What},
        sys::UnixMillis,
    };

    #[test]
    fn they_say_what_is_served_at_the_moment_they_are_asked() {
        let (mut writer, reader) = store::open();
        let registry = Registry::new();
        register_metrics(&registry, &reader).unwrap();
        let value = |name: &str, label: &str| {
            let families = registry.gather();
            let family = families.iter().find(|family| family.name() == name).unwrap();
            let metric = family.get_metric().iter().find(|metric| metric.get_label()[0].value() == label).unwrap();
            metric.get_gauge().get_value()
        };
        assert!(value("holdfast_store_records", "namespaces").abs() < 0.5);
        let records = ["a", "b"].map(|name| Change::PutNamespace(name.into())).into_iter().collect();
        let origin = Origin::Watched { cluster: "uid".into(), new_epoch: false };
        writer.apply(What::Reset { origin, records, as_of: UnixMillis(1) }).unwrap();
        let expected = [
            ("holdfast_store_records", "namespaces", 2.0),
            ("holdfast_store_records", "services", 0.0),
            ("holdfast_store_version", "epoch", 1.0),
            ("holdfast_store_version", "rev", 1.0),
            ("holdfast_guard_held", "services", 0.0),
        ];
        for (name, label, expected) in expected {
            assert!((value(name, label) - expected).abs() < 0.5, "{name} {label}");
        }
    }
}
