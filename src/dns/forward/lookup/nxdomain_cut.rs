//! NXDOMAIN for names below one that does not exist (RFC 8020), where the operator wants that.
//!
//! Uses fresh answers only; never denies a name with a stored answer of its own.

use std::sync::Arc;

use super::Found;
use crate::{
    dns::{
        Question,
        cache::{Age, Entry, Key, Kind, Parts},
        forward::{Inner, route::Route},
        request::ServedFrom,
    },
    sys::UnixMillis,
    wire::{Class, Name, Rtype},
};

/// The type in the key of a name that does not exist, whatever type was asked: no type has this number (RFC 6895, 3.1).
const TYPE_ANY_AT_ALL: Rtype = Rtype(0);
/// And under which class: clients can ask for type 0, but questions of any class but IN are refused before they come here.
const CLASS_NONE_ASKS: Class = Class(0);

impl Inner {
    /// NXDOMAIN for `question` if it or a name above it, within `route`, is known not to exist; NODATA if it has an address
    /// that is held.
    pub fn cut(&self, route: &Route, question: &Question, now: UnixMillis) -> Option<Found> {
        if !route.config.lifetimes.nxdomain_cut {
            return None;
        }
        let name = &question.name;
        for skip in 0..name.labels_above(&route.zone)? {
            let above = Name::from_labels(name.labels().skip(skip)).ok()?;
            let known = self.cache.get(&cut_key(route, &question.renamed(above)));
            if let Some(known) = known.filter(|known| known.kind() == Kind::NxDomain && known.is_fresh(now)) {
                let (_, authorities) = known.records(now, Age::Fresh);
                let is_held = self.has_held_address(route, question, now);
                let kind = if is_held { Kind::NoData } else { Kind::NxDomain };
                let entry = Entry::new(&Parts::new(question, kind, Vec::new(), authorities), now, 0)?;
                self.cache.metrics.hits.inc();
                return Some(Found::new(entry, Age::Fresh, ServedFrom::Cache));
            }
        }
        None
    }

    /// Remembers that the name of `question` does not exist, if `entry` says so: after a chain of CNAMEs it is another name that
    /// does not.
    pub fn keep_cut(&self, route: &Route, question: &Question, entry: &Entry, now: UnixMillis) {
        if !route.config.lifetimes.nxdomain_cut || entry.kind() != Kind::NxDomain {
            return;
        }
        let (answers, authorities) = entry.records(now, Age::Fresh);
        let nothing = question.retyped(TYPE_ANY_AT_ALL);
        let copy = Entry::new(&Parts::new(&nothing, Kind::NxDomain, Vec::new(), authorities), now, entry.ttl());
        if let (true, Some(copy)) = (answers.is_empty(), copy) {
            self.cache.insert(&cut_key(route, question), Arc::new(copy));
        }
    }
}

fn cut_key(route: &Route, question: &Question) -> Key {
    let question = Question { class: CLASS_NONE_ASKS, ..question.retyped(TYPE_ANY_AT_ALL) };
    Key::new(route.id, question.by_ref())
}
