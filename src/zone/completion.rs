//! Names that a search path made: an outside name with `namespace.svc` and the zone behind it.
//!
//! Owns the rule which names those are; never says what the outside name holds.

use super::Zone;
use crate::{record::Snapshot, wire::Name};

/// Labels an outside name has at least: one alone is what services are called by.
const LABELS_MIN: usize = 2;

impl Zone {
    /// How many labels of `name`, from its start, a client most likely meant, if a search path put
    /// `namespace.svc.zone` behind them.
    ///
    /// None unless the namespace exists and nothing under `name` could: the label before the namespace is no service of
    /// it, and no label is that of a port or protocol.
    #[must_use]
    pub fn search_path_target(&self, snapshot: &Snapshot, name: &Name) -> Option<usize> {
        let labels = name.labels_above(self.name())?.checked_sub(2).filter(|labels| *labels >= LABELS_MIN)?;
        let at = |index| name.label(index).unwrap_or_default();
        let (service, namespace, class) = (at(labels - 1), at(labels), at(labels + 1));
        let made_by_search_path = class == b"svc"
            && snapshot.has_namespace(namespace)
            && snapshot.service(namespace, service).is_none()
            && !(0..labels).any(|index| at(index).starts_with(b"_"));
        made_by_search_path.then_some(labels)
    }
}
