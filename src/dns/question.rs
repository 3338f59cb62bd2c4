//! A question: the one type from which cache keys and upstream queries are made.

use std::borrow::Borrow;

use hickory_proto::rr::{self, RecordType};

use crate::wire::{Class, Name, Query, Rtype};

/// Name, type and class, and the two flags that change an upstream's answer.
///
/// `Question<&Name>` borrows the name of a client's query, so that a cached answer costs no copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<N = Name> {
    pub name: N,
    pub rtype: Rtype,
    pub class: Class,
    /// DO of the client's OPT record (RFC 3225).
    pub dnssec_ok: bool,
    /// CD of the client's header (RFC 4035, 3.2.2).
    pub checking_disabled: bool,
}

impl<'q> Question<&'q Name> {
    #[inline]
    pub fn of(query: &'q Query<'_>) -> Self {
        Self {
            name: &query.name,
            rtype: query.qtype,
            class: query.qclass,
            dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: query.cd,
        }
    }

    pub fn to_owned(self) -> Question {
        self.renamed(self.name.clone())
    }
}

impl Question {
    /// A question of class IN without flags.
    pub fn new(name: Name, rtype: Rtype) -> Self {
        Self { name, rtype, class: Class::IN, dnssec_ok: false, checking_disabled: false }
    }
}

impl<N: Borrow<Name>> Question<N> {
    #[inline]
    pub fn by_ref(&self) -> Question<&Name> {
        let Self { ref name, rtype, class, dnssec_ok, checking_disabled } = *self;
        Question { name: name.borrow(), rtype, class, dnssec_ok, checking_disabled }
    }

    /// The same question for another name.
    pub fn renamed(&self, name: Name) -> Question {
        let Self { name: _, rtype, class, dnssec_ok, checking_disabled } = *self;
        Question { name, rtype, class, dnssec_ok, checking_disabled }
    }

    /// The same question for another type.
    pub fn retyped(&self, rtype: Rtype) -> Question {
        Question { rtype, ..self.renamed(self.name.borrow().clone()) }
    }

    /// The name as hickory has it, for comparison with the records of messages.
    pub fn record_name(&self) -> rr::Name {
        record_name(self.name.borrow())
    }

    pub fn record_type(&self) -> RecordType {
        RecordType::from(self.rtype.0)
    }
}

/// `name` as hickory has it.
pub fn record_name(name: &Name) -> rr::Name {
    let mut out = rr::Name::from_labels(name.labels()).expect("both types have the limits of RFC 1035");
    out.set_fqdn(true);
    out
}

/// `name` in lower case, as questions have it.
pub fn question_name(name: &rr::Name) -> Name {
    Name::from_labels(name.iter()).expect("both types have the limits of RFC 1035")
}
