//! The outcome of `answer()` for a query.

use crate::{
    dns::ServedFrom,
    wire::{DropReason, Rcode},
};

/// The next step for a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    Reply(Reply),
    Forward(Forward),
    Drop(DropReason),
}

/// An answer, and what is counted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Bytes of the answer, at the start of the buffer.
    pub len: usize,
    /// The response code, with the bits of an extended code.
    pub rcode: Rcode,
    pub from: ServedFrom,
}

/// The question for an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The question as it is: a name in no zone of ours.
    Whole,
    /// The question as it is, of the resolver that stands in for the cluster until there are records.
    Fallback,
    /// The target of the last CNAME in the answer written, whose records belong behind it.
    ///
    /// The answer is complete as it is, for the case that upstream fails: the CNAMEs alone, NOERROR.
    Chase {
        /// Bytes of that answer, at the start of the buffer.
        len: usize,
    },
    /// The outside name at the start of a name that a search path made, whose records belong behind a CNAME to it.
    ///
    /// The written answer denies the question's name, for the case that the outside name does not exist either.
    Complete {
        /// Bytes of that answer, at the start of the buffer.
        len: usize,
        /// Labels of the outside name.
        labels: usize,
    },
}
