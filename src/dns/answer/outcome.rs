//! What `answer()` says is to be done with a query.

use crate::{
    dns::ServedFrom,
    wire::{DropReason, Rcode},
};

/// What is to be done with a query.
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
    /// What it says, extended codes as a whole.
    pub rcode: Rcode,
    pub from: ServedFrom,
}

/// What to ask an upstream for.
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
    /// What was written says that the question's name does not exist, for the case that the outside one does not either.
    Complete {
        /// Bytes of that answer, at the start of the buffer.
        len: usize,
        /// Labels of the outside name.
        labels: usize,
    },
}
