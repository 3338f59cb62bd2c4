//! Whether anybody answers DNS at an address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::UdpSocket, time::timeout};

/// The time an answer may take. It takes no upstream: every name server says itself what it thinks of this class.
const PATIENCE: Duration = Duration::from_millis(400);
const ID: [u8; 2] = [0x48, 0x46];

/// `id.server. CH TXT` (RFC 4892), which is answered or refused on the spot.
fn question() -> Vec<u8> {
    let mut message = ID.to_vec();
    message.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(b"\x02id\x06server\0");
    message.extend([0, 16, 0, 3]);
    message
}

/// Whether there is any answer from `server`.
pub(super) async fn answers(server: SocketAddr) -> bool {
    let asked = async {
        let own: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((own, 0)).await?;
        socket.connect(server).await?;
        socket.send(&question()).await?;
        let mut answer = [0; 64];
        loop {
            let length = socket.recv(&mut answer).await?;
            if length > 2 && answer[..2] == ID && answer[2] & 0x80 != 0 {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    matches!(timeout(PATIENCE, asked).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_told_from_silence_and_from_a_closed_port() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let answer = async {
            let mut query = [0; 64];
            let (length, client) = server.recv_from(&mut query).await.unwrap();
            // A query sent back is no answer; one with QR set is.
            server.send_to(&query[..length], client).await.unwrap();
            query[2] |= 0x80;
            server.send_to(&query[..length], client).await.unwrap();
        };
        assert!(tokio::join!(answers(address), answer).0);
        assert!(!answers(address).await, "nobody answers");
        drop(server);
        assert!(!answers(address).await, "nobody is there");
    }
}
