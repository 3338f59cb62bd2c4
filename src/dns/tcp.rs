//! TCP: connections that carry several queries at once (RFC 7766), on tokio.
//!
//! Owns accepting them and the bounds on how many there are. Never lets one client hold up another.

mod connection;
mod stream;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockFilter, SockRef};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{connection::Connection, stream::Stream};
use super::{
    TcpConfig,
    access::Guard,
    metrics::{Fault, RefuseCause},
    server::Core,
};
use crate::limits::{ByteBudget, Capacity, ConnectionSlot, ConnectionTable, Origin, Refused};

/// The pause in accepting when the system has no file descriptor or memory left for a connection.
const EXHAUSTED_REST: Duration = Duration::from_millis(50);
/// Idle connections that are closed then.
const EXHAUSTED_EVICTED: usize = 16;

/// Bytes of queries and answers that all connections together may hold beyond 8 KiB each.
const BUFFERED_BYTES_MAX: usize = 16 << 20;

/// How long handshakes that have begun may take when we leave: more than the way to a client and back.
const HANDSHAKES: Duration = Duration::from_millis(200);

/// The state that all connections share.
pub(super) struct Shared {
    pub core: Arc<Core>,
    pub config: TcpConfig,
    pub table: Arc<ConnectionTable>,
    /// Bytes of buffers beyond what each connection has.
    pub buffers: Arc<ByteBudget>,
    /// Cancelled when we leave: connections finish what they have received.
    pub leaving: CancellationToken,
    pub tasks: TaskTracker,
}

/// The protocol of a listener's connections.
#[derive(Clone)]
pub(super) enum Acceptor {
    Plain,
    #[cfg(feature = "encrypted")]
    Tls(Arc<rustls::ServerConfig>),
    #[cfg(feature = "encrypted")]
    Https(tokio_rustls::TlsAcceptor),
}

/// The listeners and their connections. Dropped, they stop taking in queries.
pub(super) struct Listeners(Arc<Shared>);

/// Begins to accept on each of `listeners`, whose guards are in the same order.
///
/// # Panics
/// If not called on a tokio runtime.
pub(super) fn start(
    core: &Arc<Core>,
    config: TcpConfig,
    listeners: Vec<std::net::TcpListener>,
    guards: Vec<Option<Arc<Guard>>>,
) -> Listeners {
    let shared = Arc::new(Shared {
        core: Arc::clone(core),
        buffers: Arc::new(ByteBudget::new(BUFFERED_BYTES_MAX)),
        table: Arc::new(ConnectionTable::new(capacity(&config))),
        config,
        leaving: CancellationToken::new(),
        tasks: TaskTracker::new(),
    });
    for (listener, guard) in listeners.into_iter().zip(guards) {
        listen(&shared, listener, guard, Acceptor::Plain);
    }
    shared.tasks.close();
    Listeners(shared)
}

/// Begins to accept on one listener.
///
/// # Panics
/// If not called on a tokio runtime.
pub(super) fn listen(
    shared: &Arc<Shared>,
    listener: std::net::TcpListener,
    guard: Option<Arc<Guard>>,
    acceptor: Acceptor,
) {
    let listener = TcpListener::from_std(listener).expect("a listener that does not block, on a runtime");
    shared.tasks.spawn(accept(Arc::clone(shared), listener, guard, acceptor));
}

impl Listeners {
    #[cfg(feature = "encrypted")]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Stops taking in connections and queries. What was received is still answered.
    pub(super) fn stop(&self) {
        self.0.leaving.cancel();
    }

    /// Ends when everything is answered and closed.
    pub(super) fn tracker(&self) -> TaskTracker {
        self.0.tasks.clone()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, guard: Option<Arc<Guard>>, acceptor: Acceptor) {
    let guard = guard.as_deref();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.leaving.cancelled() => break,
        };
        match accepted {
            Ok((stream, client)) => admit(&shared, guard, &acceptor, stream, client),
            Err(error) => {
                shared.core.metrics.fault(Fault::Accept);
                if is_exhausted(&error) {
                    // The connection stays in the queue, so that accepting again at once would spin. Idle ones
                    // give back what it and the next few need.
                    shared.table.evict(EXHAUSTED_EVICTED);
                    tokio::select! {
                        () = sleep(EXHAUSTED_REST) => {}
                        () = shared.leaving.cancelled() => break,
                    }
                }
            }
        }
    }
    if refuse_new(&listener).is_ok() {
        let handshakes = async {
            loop {
                if let Ok((stream, client)) = listener.accept().await {
                    admit(&shared, guard, &acceptor, stream, client);
                }
            }
        };
        tokio::select! {
            _ = timeout(HANDSHAKES, handshakes) => {}
            () = shared.core.expired.cancelled() => {}
        }
    }
    // Connections that the kernel has accepted so far are answered; closing the listener would reset them. The kernel is
    // asked itself, as it may not have been announced to the runtime yet.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, client)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            admit(&shared, guard, &acceptor, stream, client);
        }
    }
}

/// Keeps connections that have not begun away from a listener that is about to close: their first packet gets no reply, and
/// is sent again after a second, to whoever has the port then. Handshakes that have begun go on.
fn refuse_new(listener: &TcpListener) -> io::Result<()> {
    // The filter sees a segment from its TCP header on; SYN without ACK in the flags at byte 13 (RFC 9293, 3.1).
    let filter = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x54, 0, 0, 0x12),
        SockFilter::new(0x15, 0, 1, 0x02),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    SockRef::from(listener).attach_filter(&filter)
}

fn admit(shared: &Arc<Shared>, guard: Option<&Guard>, acceptor: &Acceptor, stream: TcpStream, client: SocketAddr) {
    if guard.is_some_and(|guard| !guard.allows(client.ip())) {
        shared.core.metrics.connection_refused(RefuseCause::NotAllowed, client.ip());
        return;
    }
    let slot = match take_slot(shared, client) {
        Ok(slot) => slot,
        Err(cause) => return shared.core.metrics.connection_refused(cause, client.ip()),
    };
    // Answers leave whole; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let stream = match acceptor {
        Acceptor::Plain => Stream::Plain(stream),
        #[cfg(feature = "encrypted")]
        Acceptor::Tls(config) => match Stream::tls(stream, Arc::clone(config)) {
            Ok(stream) => stream,
            Err(_) => return shared.core.metrics.fault(Fault::Accept),
        },
        #[cfg(feature = "encrypted")]
        Acceptor::Https(acceptor) => {
            let serve = super::encrypted::https(Arc::clone(shared), acceptor.clone(), stream, client, slot);
            shared.tasks.spawn(serve);
            return;
        }
    };
    shared.tasks.spawn(Connection::new(Arc::clone(shared), stream, client, slot).run());
}

/// A slot in the table for a connection of `client`.
///
/// # Errors
/// Why there is none.
pub(super) fn take_slot(shared: &Shared, client: SocketAddr) -> Result<ConnectionSlot, RefuseCause> {
    shared.table.admit(client.ip(), Origin::Elsewhere).map_err(|refused| match refused {
        Refused::Total => RefuseCause::Total,
        Refused::Source => RefuseCause::Source,
    })
}

fn capacity(config: &TcpConfig) -> Capacity {
    Capacity {
        total: config.connections_max,
        per_source: config.connections_per_source_max,
        node: 0,
        answering_max: None,
    }
}

/// Whether the error lasts until a resource is free again; other errors concern one connection.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
