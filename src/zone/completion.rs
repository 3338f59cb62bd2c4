//! Names made by a search path: an outside name followed by `namespace.svc` and the zone.
//!
//! Owns the rule that recognizes such names; never answers for the outside name.

use super::Zone;
use crate::{record::Snapshot, wire::Name};

/// Minimum labels of an outside name: one label alone is the name of a service.
const LABELS_MIN: usize = 2;

impl Zone {
    /// The number of labels of `name`, from its start, that the application asked for, if a search path put
    /// `namespace.svc.zone` behind them.
    ///
    /// `None` unless the namespace exists and `name` cannot: the label before the namespace is not a service of
    /// it, and no label is a port or protocol.
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
