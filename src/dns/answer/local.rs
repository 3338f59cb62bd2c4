//! The result for a question from the records and pins of this node. The only place that decides it: `answer()`, the
//! resolver (for aliases that lead into the cluster) and `holdfast lookup` all ask here.
//!
//! Pure: no I/O, no lock, no allocation.

use super::view::{Records, Rules};
use crate::{
    dns::{Discovery, Question, pins::Pin},
    wire::{Class, Name, Rtype},
    zone::{Apex, Chain, Lookup, RrSet},
};

/// The result for a question before any forward zone is looked at.
#[derive(Clone, Copy, Debug)]
pub enum Local<'a> {
    /// A class other than IN that no forward zone has a rule for, or a zone transfer.
    Refused,
    /// The addresses of the asked family; there may be none.
    Pinned(&'a Pin),
    Hit(RrSet<'a>),
    /// A chain of CNAMEs; the last may lead outside.
    Alias(Chain<'a>),
    NoData(Apex),
    NxDomain(Apex),
    /// A name that a search path made: the first `labels` labels are the name of an outside host. If that does not exist,
    /// the question's name does not exist either.
    Completion {
        labels: usize,
    },
    /// How clients find encrypted DNS (RFC 9462).
    Designated(&'a Discovery),
    /// A name of the cluster, before there are any records.
    NotReady,
    /// The same, where `cluster_fallback` names a resolver for it.
    Fallback,
    /// Not a name of the cluster: forward zones decide.
    Outside,
}

impl Rules {
    #[inline]
    pub fn local<'a>(&'a self, records: &Records<'a>, question: Question<&Name>) -> Local<'a> {
        let Question { name, rtype, class, .. } = question;
        if class != Class::IN || rtype.is_transfer() {
            return self.unusual(rtype);
        }
        if let Some(pins) = records.pins
            && (rtype == Rtype::A || rtype == Rtype::AAAA)
            && let Some(pin) = pins.get(name, records.now)
        {
            return Local::Pinned(pin);
        }
        if rtype == Rtype::SVCB && self.discovery.owns(name, rtype) {
            return Local::Designated(&self.discovery);
        }
        if self.config.forward_only {
            return self.outside(name, rtype);
        }
        match self.zone.lookup(records.snapshot, records.synced, name, rtype) {
            Lookup::Hit(set) => Local::Hit(set),
            Lookup::Cname(chain) => Local::Alias(chain),
            Lookup::NoData(apex) => Local::NoData(apex),
            Lookup::NxDomain(apex) => self.denied(records, question, apex),
            Lookup::NotOurs => self.outside(name, rtype),
            Lookup::NotReady if self.config.cluster_fallback => Local::Fallback,
            Lookup::NotReady => Local::NotReady,
        }
    }

    #[cold]
    fn unusual<'a>(&self, rtype: Rtype) -> Local<'a> {
        if !rtype.is_transfer() && self.admits_other_classes() { Local::Outside } else { Local::Refused }
    }

    #[inline]
    fn outside<'a>(&'a self, name: &Name, rtype: Rtype) -> Local<'a> {
        if self.discovery.owns(name, rtype) { Local::Designated(&self.discovery) } else { Local::Outside }
    }

    #[inline]
    fn denied<'a>(&self, records: &Records<'a>, question: Question<&Name>, apex: Apex) -> Local<'a> {
        let completes = self.config.search_path_completion && matches!(question.rtype, Rtype::A | Rtype::AAAA);
        match completes.then(|| self.zone.search_path_target(records.snapshot, question.name)).flatten() {
            Some(labels) => Local::Completion { labels },
            None => Local::NxDomain(apex),
        }
    }
}
