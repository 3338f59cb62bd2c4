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
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, RecvStream, SendStream, ServerConfig, TokioRuntime,
    TransportConfig, VarInt, crypto::rustls::QuicServerConfig,
};
use tokio::time::{Instant, sleep_until, timeout};
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

/// Handshakes with addresses that are not validated, before further ones are asked to prove theirs first.
const UNPROVEN_MAX: usize = 32;
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
    let unproven = Arc::new(AtomicUsize::new(0));
    let connections = TaskTracker::new();
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = shared.leaving.cancelled() => break,
        };
        let Some(incoming) = incoming else { break };
        admit(&shared, guard.as_deref(), &connections, &unproven, incoming);
    }
    endpoint.set_server_config(None);
    connections.close();
    connections.wait().await;
    let _ = timeout(LINGER, endpoint.wait_idle()).await;
}

fn admit(
    shared: &Arc<Shared>,
    guard: Option<&Guard>,
    connections: &TaskTracker,
    unproven: &Arc<AtomicUsize>,
    incoming: Incoming,
) {
    let client = incoming.remote_address();
    let metrics = &shared.core.metrics;
    if guard.is_some_and(|guard| !guard.allows(client.ip())) {
        metrics.connection_refused(RefuseCause::NotAllowed, client.ip());
        incoming.ignore();
        return;
    }
    let validated = incoming.remote_address_validated();
    if !validated && unproven.load(Relaxed) >= UNPROVEN_MAX && incoming.may_retry() {
        // It has not proven its address, and is answered with less than it sent.
        let _ = incoming.retry();
        return;
    }
    // A forged address must not take the place of a true one.
    let slot = if validated {
        match take_slot(shared, client) {
            Ok(slot) => Some(slot),
            Err(cause) => {
                metrics.connection_refused(cause, client.ip());
                incoming.refuse();
                return;
            }
        }
    } else {
        None
    };
    let proof = (!validated).then(|| Unproven::new(unproven));
    connections.spawn(connect(Arc::clone(shared), incoming, client, slot, proof));
}

/// Counts a handshake with an address that is not validated.
struct Unproven(Arc<AtomicUsize>);

impl Unproven {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Unproven {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn connect(
    shared: Arc<Shared>,
    incoming: Incoming,
    client: SocketAddr,
    slot: Option<ConnectionSlot>,
    proof: Option<Unproven>,
) {
    let Ok(handshake) = incoming.accept() else {
        return shared.core.metrics.connection_closed(CloseCause::Broken);
    };
    let connection = tokio::select! {
        connection = timeout(shared.config.partial, handshake) => connection,
        () = shared.core.expired.cancelled() => return,
    };
    drop(proof);
    let connection = match connection {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) => return shared.core.metrics.connection_closed(CloseCause::Broken),
        Err(_) => return shared.core.metrics.connection_closed(CloseCause::Partial),
    };
    let slot = match slot.map_or_else(|| take_slot(&shared, client), Ok) {
        Ok(slot) => slot,
        Err(cause) => {
            shared.core.metrics.connection_refused(cause, client.ip());
            connection.close(EXCESSIVE_LOAD, b"too many connections");
            return;
        }
    };
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
