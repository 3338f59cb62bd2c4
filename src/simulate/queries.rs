//! Questions to one DNS server at a steady rate, each of them accounted for: the rehearsal of an upgrade.
//!
//! Over UDP a question is sent once, as the clock says and whatever became of those before, and is lost if it has no answer
//! in time. Over the others a connection asks one question after the other; one that is closed before it answers is opened
//! again and the question is asked once more (RFC 7766, 6.2.4), which is counted, and is lost if that fails too.

mod client;
mod count;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use client::{Dial, Plan};
use count::Count;
pub use count::{Kind, Report};

#[cfg(feature = "encrypted")]
use super::encrypted;
use crate::wire::{Name, Rtype};

/// UDP sockets at work at any moment; each is replaced after a while, so that the kernel spreads queries over other workers.
const SOCKETS: u32 = 64;

/// Transport of the questions.
#[derive(Clone, Debug)]
pub enum Transport {
    Udp,
    Tcp,
    #[cfg(feature = "encrypted")]
    Encrypted(encrypted::Protocol, encrypted::Trust),
}

/// The queries and their rate.
#[derive(Clone, Debug)]
pub struct Options {
    pub server: SocketAddr,
    /// The name asked for, with type A for a v4 server and AAAA for a v6 one.
    pub name: String,
    pub transport: Transport,
    /// Questions a second over that, which connections share evenly.
    pub qps: u32,
    pub connections: u32,
    /// Every question has a connection of its own, with a full handshake.
    pub new_connections: bool,
    /// TCP connections beside, each of which is replaced after 100 questions.
    pub tcp: u32,
    /// Between two questions on one of them.
    pub tcp_every: Duration,
    pub watch: Duration,
    /// How long an answer may take.
    pub patience: Duration,
}

/// Why nothing could be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not a domain name.
    #[error("{0:?} is no domain name")]
    Name(String),
}

/// Asks for as long as the options say or until `stop`, and waits for the last answers.
///
/// # Errors
/// If the name is none.
pub async fn run(options: &Options, stop: impl Future<Output = ()>) -> Result<Report, Error> {
    let question =
        question(&options.name, options.server.is_ipv6()).ok_or_else(|| Error::Name(options.name.clone()))?;
    let began = Instant::now();
    let count = Arc::new(Count::new(began));
    let end = began + options.watch;
    let mut clients = JoinSet::new();
    let sockets = if matches!(options.transport, Transport::Udp) { options.qps.min(SOCKETS) } else { 0 };
    for number in 0..sockets {
        let every = Duration::from_secs(1) * sockets / options.qps;
        // Spread over the first interval, so that they do not all ask at once.
        let first = began + every * number / sockets;
        let client =
            client::Client { options: options.clone(), question: question.clone(), count: Arc::clone(&count), end };
        clients.spawn(client.udp(first, every));
    }
    let tcp = Dial::Tcp(options.server);
    let chosen = match &options.transport {
        Transport::Udp => None,
        Transport::Tcp => Some(tcp.clone()),
        #[cfg(feature = "encrypted")]
        Transport::Encrypted(protocol, trust) => {
            Some(Dial::Encrypted(*protocol, encrypted::Client::new(*protocol, options.server, trust)))
        }
    };
    let every = Duration::from_secs(1) * options.connections / options.qps.max(1);
    let most = options.new_connections.then_some(1);
    let chosen = chosen.map(|dial| (dial, options.connections, every, most));
    for (dial, connections, every, queries_max) in
        chosen.into_iter().chain([(tcp, options.tcp, options.tcp_every, Some(client::PER_SOCKET))])
    {
        for number in 0..connections {
            let first = began + every * number / connections;
            let client =
                client::Client { options: options.clone(), question: question.clone(), count: Arc::clone(&count), end };
            clients.spawn(client.stream(Plan { dial: dial.clone(), every, queries_max }, first));
        }
    }
    tokio::select! {
        () = sleep_until(end) => {}
        () = stop => count.stop(),
    }
    let asked_for = began.elapsed();
    // A question over a connection may be asked twice.
    let last = options.patience * 3;
    let _ = timeout(last, async { while clients.join_next().await.is_some() {} }).await;
    Ok(count.report(asked_for))
}

/// A message that asks for `name`, with an id to be filled in.
fn question(name: &str, v6: bool) -> Option<Vec<u8>> {
    let name = Name::from_labels(name.trim_end_matches('.').split('.').map(str::as_bytes)).ok()?;
    let header = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let rtype = if v6 { Rtype::AAAA } else { Rtype::A };
    Some([&header[..], name.wire(), &rtype.0.to_be_bytes(), &[0, 1]].concat())
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;

    #[test]
    fn a_text_that_is_no_name_is_not_asked() {
        assert_eq!(question("a.b.", false).unwrap()[12..], *b"\x01a\x01b\0\0\x01\0\x01");
        for name in ["", "a..b", &"a".repeat(64), &"abc.".repeat(64)] {
            assert_eq!(question(name, false), None, "{name}");
        }
    }

    #[tokio::test]
    async fn every_question_without_an_answer_is_counted() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let options = Options {
            server: server.local_addr().unwrap(),
            name: "a.test".into(),
            transport: Transport::Udp,
            qps: 200,
            connections: 0,
            new_connections: false,
            tcp: 0,
            tcp_every: Duration::from_secs(1),
            watch: Duration::from_millis(500),
            patience: Duration::from_millis(300),
        };
        let answering = tokio::spawn(async move {
            let mut message = [0; 512];
            for number in 0.. {
                let (length, client) = server.recv_from(&mut message).await.unwrap();
                message[2] |= 0x80;
                // SERVFAIL, or no record where there should be one: neither is a good answer.
                message[3] = if number % 2 == 0 { 2 } else { 0 };
                if number % 10 != 9 {
                    server.send_to(&message[..length], client).await.unwrap();
                }
            }
        });
        let report = run(&options, std::future::pending()).await.unwrap();
        answering.abort();
        assert!(report.udp.asked >= 90, "{report:?}");
        assert_eq!(report.udp.answered + report.udp.lost, report.udp.asked, "{report:?}");
        let Kind { answered, good, failed, wrong, rcodes, .. } = &report.udp;
        assert_eq!((*good, failed + wrong), (0, *answered), "{report:?}");
        assert!(
            *failed > 0 && *wrong > 0 && rcodes["SERVFAIL"] == *failed && rcodes["NOERROR"] == *wrong,
            "{report:?}"
        );
        assert!(report.udp.lost.abs_diff(report.udp.asked / 10) <= 1, "{report:?}");
    }
}
