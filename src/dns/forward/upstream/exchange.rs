//! A try: a question to an upstream until it has answered, over UDP, then TCP; with EDNS, then without.
//!
//! Waits without end for the true answer; the caller holds the clock.

use std::{io, time::Duration};

use hickory_proto::op::{Message, ResponseCode};
use tokio::{sync::Notify, time::Instant};

use super::{
    Upstream,
    message::{Query, Reply},
    udp::{Exchange, Received},
};
use crate::dns::{Question, forward::observe::Metrics};

#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct ExchangeOptions<'o> {
    /// Options of EDNS that go with the question, as they stand in an OPT record.
    pub edns_options: &'o [u8],
    pub force_tcp: bool,
    pub mix_case: bool,
    /// Without EDNS, for a server that may drop queries with it.
    pub plain: bool,
    /// RD is set.
    pub recursion: bool,
}

impl ExchangeOptions<'_> {
    fn query(self, question: &Question, edns: bool, mix_case: bool) -> Query {
        let query = Query::new(question, edns, mix_case).with_options(self.edns_options);
        if self.recursion { query } else { query.without_recursion() }
    }
}

/// How long TCP may take when a truncated answer is there to be given instead.
const TRUNCATED_WAIT: Duration = Duration::from_secs(1);

/// Asks `upstream`; updates what is known of it. Each notification of `again` sends the question once more over UDP.
///
/// # Errors
/// Errors of the network and of the TLS handshake.
pub async fn exchange(
    upstream: &Upstream,
    question: &Question,
    options: ExchangeOptions<'_>,
    again: &Notify,
    metrics: &Metrics,
) -> io::Result<Box<Message>> {
    let started = Instant::now();
    let answer = with_edns_or_without(upstream, question, options, again, metrics).await?;
    metrics.answered(upstream.label(), answer.response_code, started.elapsed());
    Ok(answer)
}

async fn with_edns_or_without(
    upstream: &Upstream,
    question: &Question,
    options: ExchangeOptions<'_>,
    again: &Notify,
    metrics: &Metrics,
) -> io::Result<Box<Message>> {
    // A question for DNSSEC records is nothing without EDNS, so it is tried each time.
    let edns = (upstream.takes_edns() || question.dnssec_ok) && !options.plain;
    let (message, edns_answered) = transfer(upstream, question, edns, options, again, metrics).await?;
    // RFC 6891, 7: a server without EDNS answers FORMERR; some answer NOTIMP or nothing.
    let refuses = |message: &Message| matches!(message.response_code, ResponseCode::FormErr | ResponseCode::NotImp);
    if !edns_answered {
        if edns || options.plain {
            upstream.answered_plain();
        }
        return Ok(message);
    }
    if !refuses(&message) {
        upstream.answered_edns(message.edns.is_some());
        return Ok(message);
    }
    let (plain, _) = transfer(upstream, question, false, options, again, metrics).await?;
    if !refuses(&plain) {
        upstream.refuses_edns(question.name.wire());
    }
    Ok(plain)
}

/// Asks over UDP, or over TCP or TLS where that is called for. Returns whether the answer is to a query with EDNS, too.
async fn transfer(
    upstream: &Upstream,
    question: &Question,
    edns: bool,
    options: ExchangeOptions<'_>,
    again: &Notify,
    metrics: &Metrics,
) -> io::Result<(Box<Message>, bool)> {
    let over_stream = |edns| {
        let query = options.query(question, edns, false);
        // RFC 7830: what is encrypted is not to be known by its length.
        let query = if upstream.server().tls.is_some() { query.padded() } else { query };
        async move { stream(upstream, &query).await.map(|(message, _)| (message, edns)) }
    };
    if options.force_tcp || upstream.server().tls.is_some() {
        return over_stream(edns).await;
    }
    let mix_case = options.mix_case && upstream.keeps_case();
    let mut exchange = datagram(upstream, question, edns, ExchangeOptions { mix_case, ..options }, metrics).await?;
    let received = match exchange.receive(again, metrics).await? {
        Received::Folded => {
            match after_folding(upstream, question, edns, options, &mut exchange, again, metrics).await? {
                Ok(message) => return Ok((message, edns)),
                Err(received) => received,
            }
        }
        received => received,
    };
    let edns = edns && !exchange.is_answered_plain();
    match received {
        Received::Reply(Reply::Whole(message)) => {
            note(upstream, upstream.sample(exchange.round_trip()));
            Ok((message, edns))
        }
        Received::Reply(Reply::Truncated(part)) => {
            let whole = over_stream(edns);
            let Some(part) = part.filter(|part| !part.answers.is_empty()) else { return whole.await };
            // A server that answers over UDP is not down because its TCP is closed.
            if let Ok(Ok(answer)) = tokio::time::timeout(TRUNCATED_WAIT, whole).await {
                return Ok(answer);
            }
            note(upstream, upstream.sample(exchange.round_trip()));
            Ok((part, edns))
        }
        Received::UnderAttack | Received::Folded => {
            let message = under_attack(upstream, question, edns, options, &mut exchange, again, metrics).await?;
            Ok((message, edns && !exchange.is_answered_plain()))
        }
    }
}

/// Wrong answers keep coming. TCP decides, while UDP stays open for the true answer: an upstream may have no TCP.
async fn under_attack(
    upstream: &Upstream,
    question: &Question,
    edns: bool,
    options: ExchangeOptions<'_>,
    exchange: &mut Exchange,
    again: &Notify,
    metrics: &Metrics,
) -> io::Result<Box<Message>> {
    let query = options.query(question, edns, false);
    let mut over_tcp = std::pin::pin!(stream(upstream, &query));
    let mut tcp_failed = None;
    loop {
        tokio::select! {
            answer = &mut over_tcp, if tcp_failed.is_none() => match answer {
                Ok((message, _)) => return Ok(message),
                Err(error) => tcp_failed = Some(error),
            },
            received = exchange.receive(again, metrics), if !exchange.is_hopeless() => match received? {
                Received::Reply(Reply::Whole(message)) => {
                    note(upstream, upstream.sample(exchange.round_trip()));
                    return Ok(message);
                }
                Received::Reply(Reply::Truncated(_)) => return match tcp_failed {
                    Some(error) => Err(error),
                    None => over_tcp.await.map(|(message, _)| message),
                },
                Received::UnderAttack | Received::Folded => {}
            },
            else => return Err(tcp_failed.unwrap_or_else(|| io::ErrorKind::InvalidData.into())),
        }
    }
}

/// An answer came that is right but for its case. TCP tells forgery from a server that folds case, while UDP goes on
/// waiting for the true answer: whichever comes first.
async fn after_folding(
    upstream: &Upstream,
    question: &Question,
    edns: bool,
    options: ExchangeOptions<'_>,
    exchange: &mut Exchange,
    again: &Notify,
    metrics: &Metrics,
) -> io::Result<Result<Box<Message>, Received>> {
    let query = options.query(question, edns, true);
    let over_tcp = tokio::select! {
        received = past_folded(exchange, again, metrics) => return received.map(Err),
        answer = stream(upstream, &query) => answer,
    };
    if let Ok((message, same_case)) = over_tcp {
        if !same_case {
            upstream.folds_case();
        }
        return Ok(Ok(message));
    }
    // No TCP there. A second socket with plain case is what every forwarder without this protection uses always.
    let mut plain = datagram(upstream, question, edns, ExchangeOptions { mix_case: false, ..options }, metrics).await?;
    let once = Notify::new();
    tokio::select! {
        received = past_folded(exchange, again, metrics) => received.map(Err),
        received = plain.receive(&once, metrics) => received.map(Err),
    }
}

async fn past_folded(exchange: &mut Exchange, again: &Notify, metrics: &Metrics) -> io::Result<Received> {
    loop {
        match exchange.receive(again, metrics).await? {
            Received::Folded => {}
            received => return Ok(received),
        }
    }
}

async fn datagram(
    upstream: &Upstream,
    question: &Question,
    edns: bool,
    options: ExchangeOptions<'_>,
    metrics: &Metrics,
) -> io::Result<Exchange> {
    metrics.queries_udp.inc();
    // Every second query is without EDNS until the server is known to take it.
    let query = |edns| options.query(question, edns, options.mix_case);
    let plain = (edns && upstream.may_drop_edns()).then(|| query(false));
    Exchange::start(upstream.address(), upstream.source, query(edns), plain).await
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
