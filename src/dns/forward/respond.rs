//! The message that a client gets.
//!
//! A client always gets one, at worst SERVFAIL with the reason, unless a rule of the zone drops its question.

mod additional;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use self::additional::add_records;
use super::{
    Failure, Inner,
    lookup::Found,
    observe,
    resolve::{Reach, Resolver, Source},
    route::{Reason, Via},
};
use crate::{
    dns::{
        Forward, Question,
        cache::Kind,
        request::{Asker, ForwardRequest, Resolved, ServedFrom, Transport},
    },
    wire::{Ede, HEADER_BYTES, Parsed, Query, Rcode, Reject, UDP_BYTES_MIN, parse, write_reject},
};

const FORMERR: u8 = 1;
/// AA in the third byte of a header.
const AUTHORITATIVE: u8 = 0x04;
/// TC, in the same byte.
const TRUNCATED: u8 = 0x02;

/// The whole answer to `request`.
pub async fn respond(inner: &Arc<Inner>, request: &ForwardRequest) -> Resolved {
    let Parsed::Query(client) = parse(&request.query) else {
        return Resolved { message: unparsed(&request.query), from: ServedFrom::Cluster };
    };
    let client = Query { cookie: request.cookie, ..client };
    let question = Question::of(&client).to_owned();
    let routes = inner.routes.load_full();
    let via = if request.forward == Forward::Fallback { Via::Fallback } else { Via::Zone };
    let budget = routes.via(via, &question.name).map_or(Duration::ZERO, |route| route.config.budget);
    inner.cache_load.over().await;
    let answer = if request.forward == Forward::Whole && inner.note_loop_probe(&routes, &question) {
        Err(Failure::looped())
    } else {
        let records = Source::Live(&inner.environment.records, inner.now());
        let reach = Reach::Upstreams { inner, routes: &routes, deadline: request.received + budget };
        Resolver { records, reach, asker: Some(&asker(request, &client)) }.resolve(&question).await
    };
    let denied = |found: &Found| found.from == ServedFrom::Cluster && found.entry.kind() == Kind::NxDomain;
    let (message, from) = match (answer, request.forward) {
        // The records written already are the same, in the case of the client's question.
        (Err(_), Forward::Chase { .. } | Forward::Complete { .. }) => (request.written.clone(), ServedFrom::Cluster),
        (Ok(found), Forward::Complete { .. }) if denied(&found) => (request.written.clone(), ServedFrom::Cluster),
        (Ok(found), _) if found.entry.is_truncated() && request.transport != Transport::Udp => {
            inner.metrics().servfail.inc();
            (servfail(&client, &Failure::truncated()), ServedFrom::Upstream)
        }
        (Ok(found), _) => {
            let mut out = vec![0; request.transport.limit(&client)];
            let write = |out: &mut [u8]| found.entry.write(&client, request.transport, inner.now(), found.age, out);
            let length = match routes.find(&question.name) {
                Some(route) if !found.ours => route.names.written(&client, request.transport, &mut out, write),
                _ => write(&mut out),
            };
            let limit = out.len();
            out.truncate(length);
            add_records(&mut out, limit, &found.additionals);
            if found.entry.is_truncated() {
                out[2] |= TRUNCATED;
            }
            if found.ours {
                // AA is about the first owner (RFC 1035, 4.1.1).
                out[2] |= AUTHORITATIVE;
            }
            (out, found.from)
        }
        (Err(Failure::Dropped), _) => return Resolved { message: Vec::new(), from: ServedFrom::Cluster },
        (Err(Failure::Fixed(answer, reason)), Forward::Whole) => {
            let mut reject = client.reject(answer, None);
            reject.ede = reason.as_ref().map(|Reason { code, text }| Ede { code: *code, text });
            (written(&reject), ServedFrom::Cluster)
        }
        (Err(failure), _) => {
            inner.metrics().servfail.inc();
            (servfail(&client, &failure), ServedFrom::Upstream)
        }
    };
    let classes = inner.query_classes.load(Ordering::Relaxed);
    if inner.query_log.take() && (classes == 0 || classes & observe::AnswerClass::of(&message).bit() != 0) {
        observe::log(&client, request.client, from, request.received.elapsed());
    }
    inner.tap.note(request, &message, inner.now(), inner.metrics());
    Resolved { message, from }
}

fn asker(request: &ForwardRequest, query: &Query<'_>) -> Asker {
    let ForwardRequest { client, server, transport, .. } = *request;
    Asker {
        client,
        server,
        transport,
        id: query.id,
        recursion_desired: query.rd,
        bytes: request.query.len(),
        payload: query.edns.map(|edns| edns.payload_size),
    }
}

fn servfail(client: &Query<'_>, failure: &Failure) -> Vec<u8> {
    let mut reject = client.reject(Rcode::SERVFAIL, None);
    let (code, text) = failure.ede();
    reject.ede = Some(Ede { code, text: &text });
    written(&reject)
}

fn written(reject: &Reject<'_>) -> Vec<u8> {
    let mut out = vec![0; UDP_BYTES_MIN];
    let length = write_reject(reject, &mut out);
    out.truncate(length);
    out
}

/// FORMERR for a message that cannot be read, which `answer()` never hands on.
fn unparsed(query: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    for (to, from) in out.iter_mut().zip(query.iter().take(2)) {
        *to = *from;
    }
    out[2] = 0x80;
    out[3] = 0x80 | FORMERR;
    out
}
