//! The one function that answers every query, whichever way it came.
//!
//! Owns how a [`Lookup`](crate::zone::Lookup) becomes a message. No allocation, no lock, no clock, no formatting: what
//! it needs to know is handed in, once for each batch of queries.

mod outcome;
mod response;
mod view;

pub use outcome::{Forward, Outcome, Reply};
pub use view::{Batch, Config, Context, Rotation, View};

use super::{ServedFrom, Transport};
use crate::{
    wire::{self, Class, EdeCode, Parsed, Rcode, Reject},
    zone::Lookup,
};

/// Answers one message.
///
/// `message` is a datagram, or what stands behind a TCP length prefix. What is to be sent back is written to the start
/// of `out`, which holds at least [`UDP_BYTES_MIN`](wire::UDP_BYTES_MIN) bytes and limits the answer; over UDP the
/// client's limit and ours ([`UDP_BYTES_MAX`](wire::UDP_BYTES_MAX)) do too.
///
/// # Panics
/// If `out` is too short.
pub fn answer(context: &Context, view: &View<'_>, message: &[u8], transport: Transport, out: &mut [u8]) -> Outcome {
    let query = match wire::parse(message) {
        Parsed::Query(query) => query,
        Parsed::Reject(reject) => return refuse(&reject, out),
        Parsed::Drop(reason) => return Outcome::Drop(reason),
    };
    if query.qclass != Class::IN || query.qtype.is_transfer() {
        return refuse(&query.reject(Rcode::REFUSED, None), out);
    }
    let lookup = context.zone().lookup(view.snapshot, view.synced, &query.name, query.qtype);
    let written = match &lookup {
        Lookup::Hit(set) => response::hit(context, view, &query, transport, out, set),
        Lookup::Cname(chain) => response::alias(context, view, &query, transport, out, chain),
        Lookup::NoData(apex) => response::negative(context, view, &query, transport, out, (Rcode::NOERROR, *apex)),
        Lookup::NxDomain(apex) => response::negative(context, view, &query, transport, out, (Rcode::NXDOMAIN, *apex)),
        Lookup::NotOurs => return Outcome::Forward(Forward::Whole),
        Lookup::NotReady if context.has_fallback() => return Outcome::Forward(Forward::Fallback),
        Lookup::NotReady => return refuse(&query.reject(Rcode::SERVFAIL, Some(EdeCode::NOT_READY)), out),
    };
    // A record that cannot be written is no fault of the question.
    written.unwrap_or_else(|_| refuse(&query.reject(Rcode::SERVFAIL, Some(EdeCode::OTHER)), out))
}

/// Writes an answer without data.
#[cold]
fn refuse(reject: &Reject<'_>, out: &mut [u8]) -> Outcome {
    let len = wire::write_reject(reject, out);
    Outcome::Reply(Reply { len, rcode: reject.rcode, from: ServedFrom::Cluster })
}
