//! A forwarder between a client and scripted upstreams.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::RecordType,
};
use holdfast::{
    dns::{
        ForwardRequest, Resolve, Resolved, Transport,
        forward::{Config, Forwarder, Metrics, OwnAnswer, Surroundings, UpstreamSource, ZoneConfig},
    },
    sys::{Clock, ManualClock, UnixMillis},
};
use tokio::time::Instant;

use crate::support::upstream::{Upstream, name};

pub const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);

pub struct World {
    pub forwarder: Forwarder,
    pub metrics: Metrics,
    pub clock: ManualClock,
}

/// `zone` asked of `upstreams`, everything else as by default.
pub fn zone(zone: &str, upstreams: &[&Upstream]) -> ZoneConfig {
    let sources = upstreams.iter().map(|upstream| source(&upstream.address.to_string())).collect();
    ZoneConfig { zone: name(zone), upstreams: sources, ..ZoneConfig::default() }
}

pub fn source(text: &str) -> UpstreamSource {
    text.parse().expect("an upstream")
}

impl World {
    /// Everything goes to `upstreams`.
    pub fn new(upstreams: &[&Upstream]) -> Self {
        Self::with(vec![zone(".", upstreams)])
    }

    pub fn with(zones: Vec<ZoneConfig>) -> Self {
        Self::build(Config { zones, ..Config::default() }, Arc::new(|_| None))
    }

    pub fn build(config: Config, own: OwnAnswer) -> Self {
        let metrics = Metrics::register(&prometheus::Registry::new()).expect("a fresh registry");
        let clock = ManualClock::new(UnixMillis(1_733_941_800_000));
        let surroundings =
            Surroundings { clock: Clock::Manual(clock.clone()), metrics: metrics.clone(), listen: Vec::new(), own };
        let forwarder = Forwarder::new(config, surroundings).expect("a good config");
        Self { forwarder, metrics, clock }
    }

    /// Lets time pass for everybody.
    pub async fn elapse(&self, time: Duration) {
        self.clock.advance(time);
        tokio::time::advance(time).await;
    }

    pub async fn resolve(&self, query: Vec<u8>, transport: Transport) -> Resolved {
        let received = Instant::now();
        self.forwarder
            .resolve(ForwardRequest {
                query,
                transport,
                client: CLIENT,
                received,
                cluster_fallback: false,
                chase: None,
            })
            .await
    }

    /// Asks over TCP with EDNS.
    pub async fn ask(&self, owner: &str, qtype: RecordType) -> Message {
        let resolved = self.resolve(query(owner, qtype, Some(1232)), Transport::Tcp).await;
        Message::from_vec(&resolved.message).expect("a well-formed answer")
    }

    /// Asks for A and returns what was said in short: `NoError 10.0.0.1`.
    pub async fn a(&self, owner: &str) -> String {
        short(&self.ask(owner, RecordType::A).await)
    }
}

/// A query with RD, the id 0x4242, and EDNS if `payload` says so.
pub fn query(owner: &str, qtype: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0x4242, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(owner), qtype));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().expect("a query fits")
}

/// The code, each answer's data and the EDE code.
pub fn short(message: &Message) -> String {
    let mut words = vec![format!("{:?}", message.response_code)];
    words.extend(message.answers.iter().map(|record| record.data.to_string()));
    words.extend(ede(message).map(|code| format!("ede={code}")));
    words.join(" ")
}

/// INFO-CODE of the first EDE option, RFC 8914.
pub fn ede(message: &Message) -> Option<u16> {
    let options = message.edns.as_ref()?.options().as_ref();
    options.iter().find(|(code, _)| u16::from(*code) == 15).map(|(_, option)| {
        let bytes = Vec::<u8>::try_from(option).expect("an option is bytes");
        u16::from_be_bytes([bytes[0], bytes[1]])
    })
}
