//! The one function that answers every query, whichever way it came.
//!
//! Owns how a [`Lookup`] becomes a message. No allocation, no lock, no clock, no formatting: what
//! it needs to know is handed in, once for each batch of queries.

mod outcome;
mod response;
mod view;

pub use outcome::{Forward, Outcome, Reply};
pub use view::{Batch, Config, Context, Rotation, View};

use std::net::IpAddr;

use super::{ServedFrom, Transport};
use crate::{
    wire::{self, Class, EdeCode, NoQuery, Query, Rcode, Reject, Rtype},
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
    answer_client(context, view, message, transport, None, out)
}

/// Answers one message of a `client` that is known, as [`answer`] does: with a cookie, if it sent one and they are answered.
///
/// # Panics
/// If `out` is too short.
#[inline]
pub fn answer_client(
    context: &Context,
    view: &View<'_>,
    message: &[u8],
    transport: Transport,
    client: Option<IpAddr>,
    out: &mut [u8],
) -> Outcome {
    let mut query = Query::default();
    match read(context, view, message, client, &mut query) {
        Ok(()) => answer_query(context, view, &query, transport, out),
        Err(NoQuery::Reject(reject)) => Outcome::Reply(refuse(&reject, out)),
        Err(NoQuery::Drop(reason)) => Outcome::Drop(reason),
    }
}

/// Reads one message, and sets the cookie of its answer.
#[inline]
pub(super) fn read<'m>(
    context: &Context,
    view: &View<'_>,
    message: &'m [u8],
    client: Option<IpAddr>,
    query: &mut Query<'m>,
) -> Result<(), NoQuery<'m>> {
    match (context.cookies(), client) {
        (Some(cookies), Some(client)) => cookies.read(message, query, client, view.now),
        _ => query.read(message),
    }
}

/// Answers one message that is a question, as [`answer`] does.
#[inline]
pub(super) fn answer_query(
    context: &Context,
    view: &View<'_>,
    query: &Query<'_>,
    transport: Transport,
    out: &mut [u8],
) -> Outcome {
    if query.qclass != Class::IN || query.qtype.is_transfer() {
        return Outcome::Reply(refuse(&query.reject(Rcode::REFUSED, None), out));
    }
    if let Some(pin) = view.pins.and_then(|pins| pins.get(&query.name, view.now))
        && let Ok(Some(pinned)) = response::pinned(context, view, query, transport, out, pin)
    {
        return pinned;
    }
    if context.is_forward_only() {
        return Outcome::Forward(Forward::Whole);
    }
    let lookup = context.zone().lookup(view.snapshot, view.synced, &query.name, query.qtype);
    let written = match &lookup {
        Lookup::Hit(set) => response::hit(context, view, query, transport, out, set),
        Lookup::Cname(chain) => response::alias(context, view, query, transport, out, chain),
        Lookup::NoData(apex) => response::negative(context, view, query, transport, out, (Rcode::NOERROR, *apex)),
        Lookup::NxDomain(apex) => {
            let written = response::negative(context, view, query, transport, out, (Rcode::NXDOMAIN, *apex));
            if context.completes() { written.map(|outcome| complete(context, view, query, outcome)) } else { written }
        }
        Lookup::NotOurs => return Outcome::Forward(Forward::Whole),
        Lookup::NotReady if context.has_fallback() => return Outcome::Forward(Forward::Fallback),
        Lookup::NotReady => {
            return Outcome::Reply(refuse(&query.reject(Rcode::SERVFAIL, Some(EdeCode::NOT_READY)), out));
        }
    };
    // A record that cannot be written is no fault of the question.
    written.unwrap_or_else(|_| Outcome::Reply(refuse(&query.reject(Rcode::SERVFAIL, Some(EdeCode::OTHER)), out)))
}

/// Sends the outside name in a name that a search path made upstream, after all.
#[cold]
fn complete(context: &Context, view: &View<'_>, query: &Query<'_>, outcome: Outcome) -> Outcome {
    let asks_address = matches!(query.qtype, Rtype::A | Rtype::AAAA);
    match (outcome, context.zone().search_path_target(view.snapshot, &query.name)) {
        (Outcome::Reply(Reply { len, .. }), Some(labels)) if asks_address => {
            Outcome::Forward(Forward::Complete { len, labels })
        }
        _ => outcome,
    }
}

/// Writes an answer without data.
#[cold]
pub(super) fn refuse(reject: &Reject<'_>, out: &mut [u8]) -> Reply {
    let len = wire::write_reject(reject, out);
    Reply { len, rcode: reject.rcode, from: ServedFrom::Cluster }
}
