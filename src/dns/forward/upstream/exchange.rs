//! One question to one upstream until it has answered: over UDP, then TCP; with EDNS, then without.
//!
//! Waits without end for the true answer; the caller has the deadline.

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

/// How long TCP may take when a truncated answer is there to be given instead.
const TRUNCATED_WAIT: Duration = Duration::from_secs(1);

/// A question to an upstream.
#[derive(Clone, Copy)]
pub struct Try<'t> {
    pub upstream: &'t Upstream,
    pub question: &'t Question,
    pub options: ExchangeOptions<'t>,
    /// Each notification sends the question once more over UDP.
    pub again: &'t Notify,
    pub metrics: &'t Metrics,
}

impl Try<'_> {
    /// Asks; updates what is known of the upstream.
    ///
    /// # Errors
    /// Errors of the network and of the TLS handshake.
    pub async fn answer(&self) -> io::Result<Box<Message>> {
        let started = Instant::now();
        let answer = self.with_edns_or_without().await?;
        self.metrics.answered(self.upstream.label(), answer.response_code, started.elapsed());
        Ok(answer)
    }

    async fn with_edns_or_without(&self) -> io::Result<Box<Message>> {
        let Self { upstream, question, options, .. } = self;
        // A question for DNSSEC records is nothing without EDNS, so it is tried each time.
        let edns = (upstream.takes_edns() || question.dnssec_ok) && !options.plain;
        let (message, edns_answered) = self.transfer(edns).await?;
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
        let (plain, _) = self.transfer(false).await?;
        if !refuses(&plain) {
            upstream.refuses_edns(question.name.wire());
        }
        Ok(plain)
    }

    /// Asks over UDP, or over TCP or TLS where that is called for. Returns whether the answer is to a query with EDNS, too.
    async fn transfer(&self, edns: bool) -> io::Result<(Box<Message>, bool)> {
        let is_tls = self.upstream.server().tls.is_some();
        let over_stream = |edns| {
            let query = self.query(edns, false);
            // RFC 7830: what is encrypted is not to be known by its length.
            let query = if is_tls { query.padded() } else { query };
            async move { self.stream(&query).await.map(|(message, _)| (message, edns)) }
        };
        if self.options.force_tcp || is_tls {
            return over_stream(edns).await;
        }
        let mix_case = self.options.mix_case && self.upstream.keeps_case();
        let mut exchange = self.datagram(edns, mix_case).await?;
        let received = match self.receive(&mut exchange).await? {
            Received::Folded => match self.after_folding(edns, &mut exchange).await? {
                Ok(message) => return Ok((message, edns)),
                Err(received) => received,
            },
            received => received,
        };
        let edns = edns && !exchange.is_answered_plain();
        match received {
            Received::Reply(Reply::Whole(message)) => {
                self.note_answer(Some(&exchange));
                Ok((message, edns))
            }
            Received::Reply(Reply::Truncated(part)) => {
                let whole = over_stream(edns);
                let Some(part) = part.filter(|part| !part.answers.is_empty()) else { return whole.await };
                // A server that answers over UDP is not down because its TCP is closed.
                if let Ok(Ok(answer)) = tokio::time::timeout(TRUNCATED_WAIT, whole).await {
                    return Ok(answer);
                }
                self.note_answer(Some(&exchange));
                Ok((part, edns))
            }
            Received::UnderAttack | Received::Folded => {
                let message = self.under_attack(edns, &mut exchange).await?;
                Ok((message, edns && !exchange.is_answered_plain()))
            }
        }
    }

    /// Wrong answers keep coming. TCP decides, while UDP stays open for the true answer: an upstream may have no TCP.
    async fn under_attack(&self, edns: bool, exchange: &mut Exchange) -> io::Result<Box<Message>> {
        let query = self.query(edns, false);
        let mut over_tcp = std::pin::pin!(self.stream(&query));
        let mut tcp_failed = None;
        loop {
            tokio::select! {
                answer = &mut over_tcp, if tcp_failed.is_none() => match answer {
                    Ok((message, _)) => return Ok(message),
                    Err(error) => tcp_failed = Some(error),
                },
                received = exchange.receive(self.again, self.metrics), if !exchange.is_hopeless() => match received? {
                    Received::Reply(Reply::Whole(message)) => {
                        self.note_answer(Some(exchange));
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
    async fn after_folding(&self, edns: bool, exchange: &mut Exchange) -> io::Result<Result<Box<Message>, Received>> {
        let query = self.query(edns, true);
        let over_tcp = tokio::select! {
            received = self.past_folded(exchange) => return received.map(Err),
            answer = self.stream(&query) => answer,
        };
        if let Ok((message, same_case)) = over_tcp {
            if !same_case {
                self.upstream.folds_case();
            }
            return Ok(Ok(message));
        }
        // No TCP there. A second socket with plain case is what every forwarder without this protection uses always.
        let mut plain = self.datagram(edns, false).await?;
        let once = Notify::new();
        tokio::select! {
            received = self.past_folded(exchange) => received.map(Err),
            received = plain.receive(&once, self.metrics) => received.map(Err),
        }
    }

    async fn past_folded(&self, exchange: &mut Exchange) -> io::Result<Received> {
        loop {
            match self.receive(exchange).await? {
                Received::Folded => {}
                received => return Ok(received),
            }
        }
    }

    async fn receive(&self, exchange: &mut Exchange) -> io::Result<Received> {
        exchange.receive(self.again, self.metrics).await
    }

    async fn datagram(&self, edns: bool, mix_case: bool) -> io::Result<Exchange> {
        self.metrics.queries_udp.inc();
        // Every second query is without EDNS until the server is known to take it.
        let plain = (edns && self.upstream.may_drop_edns()).then(|| self.query(false, mix_case));
        Exchange::start(self.upstream.address(), self.upstream.source, self.query(edns, mix_case), plain).await
    }

    async fn stream(&self, query: &Query) -> io::Result<(Box<Message>, bool)> {
        let answer = self.upstream.pool.ask(query).await?;
        match answer.reply {
            Reply::Whole(message) => {
                self.note_answer(None);
                Ok((message, answer.same_case))
            }
            Reply::Truncated(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "truncated over TCP")),
        }
    }

    fn query(&self, edns: bool, mix_case: bool) -> Query {
        let query = Query::new(self.question, edns, mix_case).with_options(self.options.edns_options);
        if self.options.recursion { query } else { query.without_recursion() }
    }

    /// Notes an answer, and the round trip that it shows if it came over UDP.
    fn note_answer(&self, over_udp: Option<&Exchange>) {
        let rtt = over_udp.and_then(|exchange| self.upstream.sample(exchange.round_trip()));
        if self.upstream.answered(rtt) {
            tracing::info!(upstream = %self.upstream.server(), "upstream answers again");
        }
    }
}
