//! The store's metrics, read off the records at each scrape.

use prometheus::{IntGaugeVec, Opts, Registry};

use super::Reader;
use crate::{
    record::{Counts, HeldCounts},
    sys::Registrar,
};

/// Registers `holdfast_store_records`, `holdfast_store_version` and `holdfast_guard_held` over the records of `reader`.
///
/// # Errors
/// If one of the names is taken in `registry`.
pub fn register_metrics(registry: &Registry, reader: &Reader) -> Result<(), prometheus::Error> {
    let made = Registrar(registry);
    let gauges = |name, help, label: &str| IntGaugeVec::new(Opts::new(name, help), &[label]);
    let records = gauges(
        "holdfast_store_records",
        "Records that are served, held ones included: services, endpoints, namespaces.",
        "kind",
    )?;
    let served = reader.clone();
    made.refreshed(records, move |records| {
        let Counts { services, endpoints, namespaces } = served.load().counts();
        set(records, [("services", services), ("endpoints", endpoints), ("namespaces", namespaces)]);
    })?;
    let version = gauges(
        "holdfast_store_version",
        "Version of the records: epoch (grows with each new leader or etcd restore) and rev (grows with each change).",
        "part",
    )?;
    let served = reader.clone();
    made.refreshed(version, move |gauges| {
        let version = served.load().version().clone();
        set(gauges, [("epoch", version.epoch), ("rev", version.rev)]);
    })?;
    let held =
        gauges("holdfast_guard_held", "Records deleted at the source that are still served (safety hold).", "kind")?;
    let served = reader.clone();
    made.refreshed(held, move |held| {
        let HeldCounts { services, endpoints, namespaces } = served.held().counts();
        set(held, [("services", services), ("endpoints", endpoints), ("namespaces", namespaces)]);
    })
}

fn set<T: TryInto<i64>, const N: usize>(gauges: &IntGaugeVec, values: [(&str, T); N]) {
    for (label, value) in values {
        gauges.with_label_values(&[label]).set(value.try_into().unwrap_or(i64::MAX));
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
