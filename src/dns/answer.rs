//! The one function that answers every query, whichever way it came.
//!
//! Owns how a [`Local`] becomes a message. No allocation, no lock, no clock, no formatting: records and time
//! are handed in, once for each batch of queries.

mod local;
mod outcome;
mod response;
mod sections;
mod view;

pub use local::Local;
pub use outcome::{Forward, Outcome, Reply};
pub use sections::Sections;
pub use view::{Batch, Config, Context, Records, Rotation, Rules, View};

use std::net::IpAddr;

use self::response::Response;
use super::{Question, ServedFrom, Transport};
use crate::wire::{self, EdeCode, NoQuery, Query, Rcode, Reject};

/// Answers one message: a datagram, or the message behind a TCP length prefix.
///
/// The response is written to the start of `out`, which holds at least [`UDP_BYTES_MIN`](wire::UDP_BYTES_MIN) bytes and
/// limits it; over UDP the client's limit and ours ([`UDP_BYTES_MAX`](wire::UDP_BYTES_MAX)) do too. The response has a
/// cookie only if the address of the `client` is known, the query has one, and `context` has cookies (RFC 7873).
///
/// # Panics
/// If `out` is too short.
#[inline]
pub fn answer(
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
        (Some(cookies), Some(client)) => cookies.read(message, query, client, view.records.now),
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
    let local = context.rules().local(&view.records, Question::of(query));
    let written = match &local {
        Local::Hit(set) => Response::new(context, view, query, transport, out).hit(set),
        Local::Alias(chain) => Response::new(context, view, query, transport, out).alias(chain),
        Local::NoData(apex) => Response::new(context, view, query, transport, out).negative(Rcode::NOERROR, *apex),
        Local::NxDomain(apex) => Response::new(context, view, query, transport, out).negative(Rcode::NXDOMAIN, *apex),
        Local::Completion { labels } => Response::new(context, view, query, transport, out).completion(*labels),
        Local::Pinned(pin) => Response::new(context, view, query, transport, out).pinned(pin),
        Local::Designated(discovery) => {
            let (len, rcode) = discovery.answer(query, transport.limit(query), out);
            return Outcome::Reply(Reply { len, rcode, from: ServedFrom::Cluster });
        }
        Local::Outside => return Outcome::Forward(Forward::Whole),
        Local::Fallback => return Outcome::Forward(Forward::Fallback),
        Local::Refused => return Outcome::Reply(refuse(&query.reject(Rcode::REFUSED, None), out)),
        Local::NotReady => {
            return Outcome::Reply(refuse(&query.reject(Rcode::SERVFAIL, Some(EdeCode::NOT_READY)), out));
        }
    };
    // A record that cannot be written is no fault of the question.
    written.unwrap_or_else(|_| Outcome::Reply(refuse(&query.reject(Rcode::SERVFAIL, Some(EdeCode::OTHER)), out)))
}

/// Writes an answer without data.
#[cold]
pub(super) fn refuse(reject: &Reject<'_>, out: &mut [u8]) -> Reply {
    let len = wire::write_reject(reject, out);
    Reply { len, rcode: reject.rcode, from: ServedFrom::Cluster }
}
