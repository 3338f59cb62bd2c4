//! One try: a question to one upstream until it has answered, over whatever that takes (UDP, then TCP; with EDNS, then without).
//!
//! Waits without end for the true answer; the caller holds the clock.

use std::{io, time::Duration};

use hickory_proto::op::{Message, ResponseCode};
use tokio::time::Instant;

use super::{
    Upstream,
    message::{Query, Reply},
    udp::{Exchange, Received},
};
use crate::dns::{Question, forward::observe::Metrics};

#[derive(Clone, Copy, Debug)]
pub struct ExchangeOptions {
    pub force_tcp: bool,
    pub mix_case: bool,
    /// Without EDNS, for a server that may drop queries with it.
    pub plain: bool,
}

/// How long TCP may take when a truncated answer is there to be given instead.
const TRUNCATED_WAIT: Duration = Duration::from_secs(1);

/// Asks `upstream`; updates what is known of it.
///
/// # Errors
/// What the network or the TLS handshake says.
pub async fn exchange(
    upstream: &Upstream,
    question: &Question,
    options: ExchangeOptions,
    metrics: &Metrics,
) -> io::Result<Box<Message>> {
    let started = Instant::now();
    let answer = with_edns_or_without(upstream, question, options, metrics).await?;
    metrics.answered(upstream.label(), answer.response_code, started.elapsed());
    Ok(answer)
}

async fn with_edns_or_without(
    upstream: &Upstream,
    question: &Question,
    options: ExchangeOptions,
    metrics: &Metrics,
) -> io::Result<Box<Message>> {
    // RFC 6891, 7: a server without EDNS answers FORMERR; some answer NOTIMP or nothing.
    let refuses = |message: &Message| matches!(message.response_code, ResponseCode::FormErr | ResponseCode::NotImp);
    let edns = upstream.takes_edns() && !options.plain;
    let message = transfer(upstream, question, edns, options, metrics).await?;
    match (edns, refuses(&message)) {
        (true, true) => {
            let plain = transfer(upstream, question, false, options, metrics).await?;
            if !refuses(&plain) {
                upstream.refuses_edns();
            }
            Ok(plain)
        }
        (true, false) => {
            upstream.answered_edns();
            Ok(message)
        }
        (false, _) => {
            if options.plain {
                upstream.answered_plain();
            }
            Ok(message)
        }
    }
}

async fn transfer(
    upstream: &Upstream,
    question: &Question,
    edns: bool,
    options: ExchangeOptions,
    metrics: &Metrics,
) -> io::Result<Box<Message>> {
    if options.force_tcp || upstream.server().tls.is_some() {
        return stream(upstream, &Query::new(question, edns, false)).await.map(|(message, _)| message);
    }
    let mix_case = options.mix_case && upstream.keeps_case();
    let started = Instant::now();
    let mut exchange = datagram(upstream, question, edns, mix_case, metrics).await?;
    let received = match exchange.receive(metrics).await? {
        Received::Folded => match after_folding(upstream, question, edns, &mut exchange, metrics).await? {
            Ok(message) => return Ok(message),
            Err(received) => received,
        },
        received => received,
    };
    match received {
        Received::Reply(Reply::Whole(message)) => {
            note(upstream, Some(started.elapsed()));
            Ok(message)
        }
        Received::Reply(Reply::Truncated(part)) => {
            let query = Query::new(question, edns, false);
            let whole = stream(upstream, &query);
            let Some(part) = part.filter(|part| !part.answers.is_empty()) else {
                return whole.await.map(|(message, _)| message);
            };
            // A server that answers over UDP is not down because its TCP is closed.
            if let Ok(Ok((message, _))) = tokio::time::timeout(TRUNCATED_WAIT, whole).await {
                return Ok(message);
            }
            note(upstream, Some(started.elapsed()));
            Ok(part)
        }
        Received::UnderAttack | Received::Folded => {
            stream(upstream, &Query::new(question, edns, false)).await.map(|(message, _)| message)
        }
    }
}

/// An answer came that is right but for its case. TCP tells forgery from a server that folds case, while UDP goes on
/// waiting for the true answer: whichever comes first.
async fn after_folding(
    upstream: &Upstream,
    question: &Question,
    edns: bool,
    exchange: &mut Exchange,
    metrics: &Metrics,
) -> io::Result<Result<Box<Message>, Received>> {
    let query = Query::new(question, edns, true);
    let over_tcp = tokio::select! {
        received = past_folded(exchange, metrics) => return received.map(Err),
        answer = stream(upstream, &query) => answer,
    };
    if let Ok((message, same_case)) = over_tcp {
        if !same_case {
            upstream.folds_case();
        }
        return Ok(Ok(message));
    }
    // No TCP there. A second socket with plain case is what every forwarder without this protection uses always.
    let mut plain = datagram(upstream, question, edns, false, metrics).await?;
    tokio::select! {
        received = past_folded(exchange, metrics) => received.map(Err),
        received = plain.receive(metrics) => received.map(Err),
    }
}

async fn past_folded(exchange: &mut Exchange, metrics: &Metrics) -> io::Result<Received> {
    loop {
        match exchange.receive(metrics).await? {
            Received::Folded => {}
            received => return Ok(received),
        }
    }
}

async fn datagram(
    upstream: &Upstream,
    question: &Question,
    edns: bool,
    mix_case: bool,
    metrics: &Metrics,
) -> io::Result<Exchange> {
    metrics.queries_udp.inc();
    Exchange::start(upstream.address(), Query::new(question, edns, mix_case)).await
}

async fn stream(upstream: &Upstream, query: &Query) -> io::Result<(Box<Message>, bool)> {
    let answer = upstream.pool.ask(query).await?;
    match answer.reply {
        Reply::Whole(message) => {
            note(upstream, None);
            Ok((message, answer.same_case))
        }
        Reply::Truncated(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "truncated over TCP")),
    }
}

fn note(upstream: &Upstream, rtt: Option<Duration>) {
    if upstream.answered(rtt) {
        tracing::info!(upstream = %upstream.server(), "upstream answers again");
    }
}
