//! TCP: connections that carry several queries at once (RFC 7766), on tokio.
//!
//! Owns accepting them and the bounds on how many there are. Never lets one client hold up another.

mod connection;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockFilter, SockRef};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::connection::Connection;
use super::{
    TcpConfig,
    access::Guard,
    metrics::{Fault, RefuseCause},
    server::Core,
};
use crate::limits::{Capacity, ConnectionTable, Origin, Refused};

/// How long accepting rests when the system has no file descriptor or memory left for a connection.
const EXHAUSTED_REST: Duration = Duration::from_millis(50);
/// Connections that are told to go then.
const EXHAUSTED_EVICTED: usize = 16;

/// How long handshakes that have begun may take when we leave: the way to a client and back, and then some.
const HANDSHAKES: Duration = Duration::from_millis(200);

/// What every connection works with.
#[derive(Debug)]
struct Shared {
    core: Arc<Core>,
    config: TcpConfig,
    table: Arc<ConnectionTable>,
    /// Cancelled when we leave: connections finish what they have received.
    leaving: CancellationToken,
    tasks: TaskTracker,
}

/// The listeners and their connections. Dropped, they stop taking in queries.
#[derive(Debug)]
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
        table: Arc::new(ConnectionTable::new(capacity(&config))),
        config,
        leaving: CancellationToken::new(),
        tasks: TaskTracker::new(),
    });
    for (listener, guard) in listeners.into_iter().zip(guards) {
        let listener = TcpListener::from_std(listener).expect("a listener that does not block, on a runtime");
        shared.tasks.spawn(accept(Arc::clone(&shared), listener, guard));
    }
    shared.tasks.close();
    Listeners(shared)
}

impl Listeners {
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

async fn accept(shared: Arc<Shared>, listener: TcpListener, guard: Option<Arc<Guard>>) {
    let guard = guard.as_deref();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.leaving.cancelled() => break,
        };
        match accepted {
            Ok((stream, client)) => admit(&shared, guard, stream, client),
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
                    admit(&shared, guard, stream, client);
                }
            }
        };
        tokio::select! {
            _ = timeout(HANDSHAKES, handshakes) => {}
            () = shared.core.expired.cancelled() => {}
        }
    }
    // What the kernel has completed so far was promised an answer; closing the listener would reset it. The kernel is
    // asked itself, as it may not have been announced to the runtime yet.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, client)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            admit(&shared, guard, stream, client);
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

fn admit(shared: &Arc<Shared>, guard: Option<&Guard>, stream: TcpStream, client: SocketAddr) {
    if guard.is_some_and(|guard| !guard.allows(client.ip())) {
        shared.core.metrics.connection_refused(RefuseCause::NotAllowed);
        return;
    }
    match shared.table.admit(client.ip(), Origin::Elsewhere) {
        Ok(slot) => {
            let connection = Connection::new(Arc::clone(shared), stream, client, slot);
            shared.tasks.spawn(connection.run());
        }
        Err(refused) => shared.core.metrics.connection_refused(match refused {
            Refused::Total => RefuseCause::Total,
            Refused::Source => RefuseCause::Source,
        }),
    }
}

fn capacity(config: &TcpConfig) -> Capacity {
    Capacity {
        total: config.connections_max,
        per_source: config.connections_per_source_max,
        node: 0,
        answering_max: None,
    }
}

/// Whether the error lasts until something is given back, rather than being that of one connection.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
