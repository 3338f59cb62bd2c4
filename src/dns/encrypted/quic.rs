//! DoQ (RFC 9250): a QUIC connection, a stream for each query.
//!
//! Owns the limits of connections and streams. Addresses are validated by Retry (RFC 9000, 8.1.2) as soon as more than a few
//! handshakes wait, so that forged ones cost little and are sent less than three times what they send.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use quinn::{
    Connecting, Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, RecvStream, SendStream, ServerConfig,
    TokioRuntime, TransportConfig, VarInt, crypto::rustls::QuicServerConfig,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::alone;
use crate::{
    dns::{
        CloseCause, TcpConfig, Transport,
        access::Guard,
        metrics::RefuseCause,
        tcp::{Shared, take_slot},
    },
    limits::{Activity, ConnectionSlot},
    wire,
};

/// Connections that the library holds and no client uses, before an address that is not validated has to prove itself: handshakes, and
/// those that are over, which it remembers for three probe timeouts (RFC 9000, 10.2).
const HALF_OPEN_MAX: usize = 32;
/// The same, before addresses that are validated are refused, too.
const HALF_OPEN_PROVEN_MAX: usize = 512;
/// The first estimate of a round trip. RFC 9002, 6.2.2, has 333 ms for a path of unknown length; here it ends in the same node or cluster.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// How long the library remembers a handshake that failed: three probe timeouts of three estimates each (RFC 9002, 6.2.1).
const REMEMBERED: Duration = INITIAL_RTT.saturating_mul(9);
/// Connections that wait to be looked at, and bytes kept of each and of all.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 16 * 1024;
const INCOMING_BYTES_TOTAL_MAX: u64 = 1024 * 1024;
/// The longest message with its length prefix.
const STREAM_BYTES_MAX: usize = 2 + wire::TCP_BYTES_MAX;
/// Bytes of queries that one connection may have under way, and of answers that wait for the client.
const WINDOW_BYTES: u32 = 256 * 1024;
/// How long a connection has to take its last answers when we leave.
const LINGER: Duration = Duration::from_millis(200);

/// Error codes of RFC 9250, 4.3.
const NO_ERROR: VarInt = VarInt::from_u32(0x0);
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(0x2);
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x4);

/// The QUIC settings: bounded windows, no unidirectional streams, no datagrams, no change of address. A pod keeps its address, and
/// who may ask is decided by it.
pub(super) fn server_config(tls: Arc<rustls::ServerConfig>, limits: &TcpConfig) -> ServerConfig {
    let crypto = QuicServerConfig::try_from(tls).expect("TLS 1.3 with a cipher suite of QUIC");
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(u32::try_from(limits.in_flight_max).unwrap_or(u32::MAX)))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(IdleTimeout::try_from(limits.idle).ok())
        .stream_receive_window(VarInt::from_u32(u32::try_from(STREAM_BYTES_MAX).unwrap_or(u32::MAX)))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(WINDOW_BYTES.into())
        .initial_rtt(INITIAL_RTT)
        .datagram_receive_buffer_size(None);
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport))
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    config
}

/// Begins to answer on `socket`.
///
/// # Panics
/// If not called on a tokio runtime.
pub(super) fn listen(shared: &Arc<Shared>, socket: UdpSocket, guard: Option<Arc<Guard>>, config: ServerConfig) {
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))
        .expect("a socket that does not block, on a runtime");
    shared.tasks.spawn(accept(Arc::clone(shared), endpoint, guard));
}

async fn accept(shared: Arc<Shared>, endpoint: Endpoint, guard: Option<Arc<Guard>>) {
    let established = Arc::new(AtomicUsize::new(0));
    let connections = TaskTracker::new();
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = shared.leaving.cancelled() => break,
        };
        let Some(incoming) = incoming else { break };
        let open = Open { all: endpoint.open_connections(), established: established.load(Relaxed) };
        if let Some((handshake, slot)) = admit(&shared, guard.as_deref(), open, incoming) {
            connections.spawn(connect(Arc::clone(&shared), handshake, slot, Arc::clone(&established)));
        }
    }
    endpoint.set_server_config(None);
    connections.close();
    connections.wait().await;
    let _ = timeout(LINGER, endpoint.wait_idle()).await;
}

/// Connections of an endpoint.
#[derive(Clone, Copy)]
struct Open {
    all: usize,
    established: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Admission {
    Accept,
    /// The address has to prove itself, and is answered with less than it sent.
    Retry,
    Refuse,
}

impl Open {
    fn admission(self, validated: bool) -> Admission {
        // A connection ends in our count before it does in the library's.
        let half_open = self.all.saturating_sub(self.established);
        match validated {
            false if half_open >= HALF_OPEN_MAX => Admission::Retry,
            true if half_open >= HALF_OPEN_PROVEN_MAX => Admission::Refuse,
            _ => Admission::Accept,
        }
    }
}

/// Begins a handshake. Only an address that is validated gets a slot: a forged one must not take the place of a true one.
fn admit(
    shared: &Shared,
    guard: Option<&Guard>,
    open: Open,
    incoming: Incoming,
) -> Option<(Connecting, Option<ConnectionSlot>)> {
    let client = incoming.remote_address();
    let metrics = &shared.core.metrics;
    if guard.is_some_and(|guard| !guard.allows(client.ip())) {
        metrics.connection_refused(RefuseCause::NotAllowed, client.ip());
        incoming.ignore();
        return None;
    }
    let validated = incoming.remote_address_validated();
    let slot = match open.admission(validated) {
        Admission::Retry => {
            let _ = incoming.retry();
            return None;
        }
        Admission::Refuse => Err(RefuseCause::Total),
        Admission::Accept => validated.then(|| take_slot(shared, client)).transpose(),
    };
    match slot {
        Ok(slot) => {
            let handshake = incoming.accept();
            if handshake.is_err() {
                metrics.connection_closed(CloseCause::Broken);
            }
            handshake.ok().map(|handshake| (handshake, slot))
        }
        Err(cause) => {
            metrics.connection_refused(cause, client.ip());
            incoming.refuse();
            None
        }
    }
}

/// Counts a connection that a client uses.
struct Established(Arc<AtomicUsize>);

impl Established {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Established {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn connect(
    shared: Arc<Shared>,
    handshake: Connecting,
    slot: Option<ConnectionSlot>,
    established: Arc<AtomicUsize>,
) {
    let client = handshake.remote_address();
    if let Some(slot) = &slot {
        // A handshake that gave way to the next is remembered beside it: an address could have any number.
        slot.set(Activity::Answering);
    }
    let connection = tokio::select! {
        connection = timeout(shared.config.partial, handshake) => connection,
        () = shared.core.expired.cancelled() => return,
    };
    let connection = match connection {
        Ok(Ok(connection)) => connection,
        failed => {
            let cause = if failed.is_err() { CloseCause::Partial } else { CloseCause::Broken };
            shared.core.metrics.connection_closed(cause);
            if slot.is_some() {
                tokio::select! {
                    () = sleep(REMEMBERED) => {}
                    () = shared.leaving.cancelled() => {}
                }
            }
            return;
        }
    };
    let slot = match slot.map_or_else(|| take_slot(&shared, client), Ok) {
        Ok(slot) => slot,
        Err(cause) => {
            shared.core.metrics.connection_refused(cause, client.ip());
            connection.close(EXCESSIVE_LOAD, b"too many connections");
            return;
        }
    };
    let _established = Established::new(established);
    shared.core.metrics.connections().inc();
    let cause = serve(&shared, &connection, client, &slot).await;
    connection.close(if cause == CloseCause::Broken { PROTOCOL_ERROR } else { NO_ERROR }, b"");
    shared.core.metrics.connections().dec();
    shared.core.metrics.connection_closed(cause);
}

/// Answers the streams of a connection until it ends.
async fn serve(shared: &Arc<Shared>, connection: &Connection, client: SocketAddr, slot: &ConnectionSlot) -> CloseCause {
    // How a stream ended: in peace, or with the reason to end the connection. Streams are as few as a connection may have.
    let (ended, mut ends) = tokio::sync::mpsc::channel(1);
    let mut in_flight = 0_usize;
    let mut active = Instant::now();
    let mut leaving = false;
    loop {
        slot.set(if in_flight == 0 { Activity::Idle } else { Activity::Answering });
        tokio::select! {
            biased;
            () = slot.evicted().cancelled() => return CloseCause::Evicted,
            () = shared.core.expired.cancelled() => return CloseCause::Drain,
            () = shared.leaving.cancelled(), if !leaving => {
                leaving = true;
                active = Instant::now();
            }
            Some(fault) = ends.recv() => {
                in_flight -= 1;
                active = Instant::now();
                if let Some(cause) = fault {
                    return cause;
                }
            }
            stream = connection.accept_bi() => {
                let Ok((send, receive)) = stream else { return CloseCause::Client };
                in_flight += 1;
                active = Instant::now();
                let (shared, ended) = (Arc::clone(shared), ended.clone());
                tokio::spawn(async move {
                    let fault = answer(&shared, client, send, receive).await.err();
                    // The connection may be gone already.
                    let _ = ended.send(fault).await;
                });
            }
            () = sleep_until(active + if leaving { LINGER } else { shared.config.idle }), if in_flight == 0 => {
                return if leaving { CloseCause::Drain } else { CloseCause::Idle };
            }
        }
    }
}

/// Answers the one query of a stream.
///
/// # Errors
/// Why the whole connection has to end (RFC 9250, 4.3.3).
async fn answer(
    shared: &Arc<Shared>,
    client: SocketAddr,
    mut send: SendStream,
    mut receive: RecvStream,
) -> Result<(), CloseCause> {
    let config = &shared.config;
    let Ok(read) = timeout(config.partial, receive.read_to_end(STREAM_BYTES_MAX)).await else {
        // Dropped, it would end as if there were an answer of no bytes.
        let _ = send.reset(PROTOCOL_ERROR);
        return Err(CloseCause::Partial);
    };
    let Ok(framed) = read else {
        // Longer than a message, or given up by the client.
        let _ = send.reset(PROTOCOL_ERROR);
        return Ok(());
    };
    let message = match query(&framed) {
        Ok(message) => message,
        Err(cause) => {
            let _ = send.reset(PROTOCOL_ERROR);
            return Err(cause);
        }
    };
    let Some(answer) = alone::answer(&shared.core, message, Transport::Quic, client).await else {
        let _ = send.reset(PROTOCOL_ERROR);
        return Ok(());
    };
    let length = u16::try_from(answer.len()).expect("a message has at most 65,535 bytes").to_be_bytes();
    let delivered = timeout(config.write, async {
        let mut chunks = [Bytes::copy_from_slice(&length), Bytes::from(answer)];
        send.write_all_chunks(&mut chunks).await?;
        let _ = send.finish();
        // Until the client has it: the connection must not close before.
        let _ = send.stopped().await;
        Ok::<_, quinn::WriteError>(())
    });
    match delivered.await {
        Ok(_) => Ok(()),
        Err(_) => Err(CloseCause::Write),
    }
}

/// The query of a stream.
///
/// # Errors
/// Why the whole connection has to end.
fn query(framed: &[u8]) -> Result<&[u8], CloseCause> {
    let (prefix, message) = framed.split_first_chunk::<2>().ok_or(CloseCause::Broken)?;
    if usize::from(u16::from_be_bytes(*prefix)) != message.len() || message.len() < wire::HEADER_BYTES {
        return Err(CloseCause::Length);
    }
    // The id is for UDP; a stream needs none (RFC 9250, 4.2.1).
    if message[..2] == [0, 0] { Ok(message) } else { Err(CloseCause::Broken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_and_what_is_left_of_them_are_bounded_and_connections_in_use_are_not_counted_among_them() {
        let admission = |all, established, validated| Open { all, established }.admission(validated);
        for (all, established, validated, expected) in [
            (0, 0, false, Admission::Accept),
            (31, 0, false, Admission::Accept),
            (32, 0, false, Admission::Retry),
            (32, 0, true, Admission::Accept),
            (511, 0, true, Admission::Accept),
            (512, 0, true, Admission::Refuse),
            (1_000, 969, false, Admission::Accept),
            (1_000, 968, false, Admission::Retry),
            (1_000, 488, true, Admission::Refuse),
            (0, 1, false, Admission::Accept),
        ] {
            assert_eq!(admission(all, established, validated), expected, "{all} {established} {validated}");
        }
    }
}
