//! Asks a DNS server for a name of the cluster, as pods do.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::SockRef;
use tokio::{net::UdpSocket, time::timeout};

use crate::node::nft::PROBE_MARK;

const ID: [u8; 2] = [0x48, 0x46];
/// Every cluster has this service.
pub(super) const KUBERNETES: &str = "kubernetes.default.svc";

/// A server's answer for the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// NOERROR.
    Good,
    /// NXDOMAIN: it knows no such cluster.
    Denied,
    /// An error, or nothing in time.
    Bad,
    /// The same, and no process listens there; never an answer of [`ask`].
    Closed,
}

impl Answer {
    /// Whether there is no answer that is of use to pods.
    pub(super) fn is_missing(self) -> bool {
        matches!(self, Self::Bad | Self::Closed)
    }
}

/// A name of the cluster that no cache has, as it was never asked before. No service has it.
pub(super) fn unknown() -> String {
    format!("holdfast-probe-{:016x}.default.svc", rand::random::<u64>())
}

fn question(name: &str, zone: &str) -> Vec<u8> {
    let mut message = ID.to_vec();
    // Recursion desired, one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').chain(zone.split('.')).filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The answer of `server` to `name` in `zone` within `patience`.
pub(super) async fn ask(server: SocketAddr, name: &str, zone: &str, patience: Duration) -> Answer {
    let asked = async {
        let own: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((own, 0)).await?;
        // Not redirected while queries go elsewhere. Without the capability, there are no rules that would.
        let _ = SockRef::from(&socket).set_mark(PROBE_MARK);
        socket.connect(server).await?;
        socket.send(&question(name, zone)).await?;
        let mut answer = [0; 512];
        loop {
            let length = socket.recv(&mut answer).await?;
            if length > 3 && answer[..2] == ID && answer[2] & 0x80 != 0 {
                return Ok::<_, std::io::Error>(match answer[3] & 0x0F {
                    0 => Answer::Good,
                    3 => Answer::Denied,
                    _ => Answer::Bad,
                });
            }
        }
    };
    timeout(patience, asked).await.ok().and_then(Result::ok).unwrap_or(Answer::Bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn a_true_answer_is_told_from_an_error_silence_and_a_closed_port() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        for (rcode, expected) in [(0, Answer::Good), (3, Answer::Denied), (2, Answer::Bad), (5, Answer::Bad)] {
            let answer = async {
                let mut query = [0; 512];
                let (length, client) = server.recv_from(&mut query).await.unwrap();
                assert_eq!(query[12..length], *b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01");
                // A query sent back is no answer; one with QR set is.
                server.send_to(&query[..length], client).await.unwrap();
                (query[2], query[3]) = (0x81, rcode);
                server.send_to(&query[..length], client).await.unwrap();
            };
            assert_eq!(
                tokio::join!(ask(address, KUBERNETES, "cluster.local", PATIENCE), answer).0,
                expected,
                "{rcode}"
            );
        }
        assert_eq!(ask(address, KUBERNETES, "cluster.local.", Duration::from_millis(1)).await, Answer::Bad, "silence");
        drop(server);
        assert_eq!(ask(address, KUBERNETES, "cluster.local", PATIENCE).await, Answer::Bad, "a closed port");
    }
}
