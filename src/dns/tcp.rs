//! TCP: connections that carry several queries at once (RFC 7766), on tokio.
//!
//! Owns accepting them and the bounds on how many there are. Never lets one client hold up another.

mod connection;
mod table;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{connection::Connection, table::Table};
use super::{TcpConfig, metrics::Fault, server::Core};

/// How long accepting rests when the system has no file descriptor or memory left for a connection.
const EXHAUSTED_REST: Duration = Duration::from_millis(50);
/// Connections that are told to go then.
const EXHAUSTED_EVICTED: usize = 16;

/// What every connection works with.
#[derive(Debug)]
struct Shared {
    core: Arc<Core>,
    config: TcpConfig,
    table: Arc<Table>,
    /// Cancelled when we leave: connections finish what they have received.
    leaving: CancellationToken,
    tasks: TaskTracker,
}

/// The listeners and their connections. Dropped, they stop taking in queries.
#[derive(Debug)]
pub(super) struct Listeners(Arc<Shared>);

/// Begins to accept on each of `listeners`.
///
/// # Panics
/// If not called on a tokio runtime.
pub(super) fn start(core: &Arc<Core>, config: TcpConfig, listeners: Vec<std::net::TcpListener>) -> Listeners {
    let shared = Arc::new(Shared {
        core: Arc::clone(core),
        table: Arc::new(Table::new(&config)),
        config,
        leaving: CancellationToken::new(),
        tasks: TaskTracker::new(),
    });
    for listener in listeners {
        let listener = TcpListener::from_std(listener).expect("a listener that does not block, on a runtime");
        shared.tasks.spawn(accept(Arc::clone(&shared), listener));
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

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.leaving.cancelled() => break,
        };
        match accepted {
            Ok((stream, client)) => admit(&shared, stream, client),
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
    // What the kernel has completed so far was promised an answer; closing the listener would reset it. The kernel is
    // asked itself, as it may not have been announced to the runtime yet.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, client)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            admit(&shared, stream, client);
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, client: SocketAddr) {
    match shared.table.admit(client.ip()) {
        Ok(seat) => {
            let connection = Connection::new(Arc::clone(shared), stream, client, seat);
            shared.tasks.spawn(connection.run());
        }
        Err(cause) => shared.core.metrics.connection_refused(cause),
    }
}

/// Whether the error lasts until something is given back, rather than being that of one connection.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
