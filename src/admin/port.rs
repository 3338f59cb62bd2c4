//! A port for probes or scrapers, which can be given away to a successor and taken back.
//!
//! It stays bound for as long as the process lives and only listens or does not, so that taking it back needs no right that
//! was given up meanwhile. (One that was asked for as port 0 the kernel lets go of: those are never handed over.) Never answers
//! anything itself.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{
    Readiness,
    serve::{self, Limits, Listener},
};

/// Connections that may queue until they are accepted; `net.core.somaxconn` caps it.
const BACKLOG: i32 = 1_024;
/// Between two looks at whether another process listens, while this one does not.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The time the kernel may take to refuse a connection.
const LOOK: Duration = Duration::from_millis(500);

/// How a port is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Share it with the process we take over from, and listen only once we are ready, or no other process does.
    pub join: bool,
    /// The address may come later.
    pub early: bool,
}

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {address}: {error}; give {flag} another address, or none")]
pub struct PortError {
    /// The flag that moves it.
    flag: &'static str,
    address: SocketAddr,
    error: io::Error,
}

#[derive(Debug)]
pub struct Port {
    socket: Arc<Socket>,
    address: SocketAddr,
    /// Whether it waits for us to be ready.
    joined: bool,
}

/// Orders to a port while it is served.
#[derive(Clone)]
pub struct Signals {
    /// When this process is ready.
    pub readiness: Readiness,
    /// Whether a successor is, which has the port then.
    pub given_away: watch::Receiver<bool>,
    pub stop: CancellationToken,
}

impl Port {
    /// Binds a port. It is taken alone unless we join another, and open to a successor then.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn open(flag: &'static str, address: SocketAddr, manner: Manner) -> Result<Self, PortError> {
        let open = || -> io::Result<Self> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(manner.join)?;
            match address {
                SocketAddr::V4(_) => socket.set_freebind_v4(manner.early)?,
                SocketAddr::V6(_) => socket.set_freebind_v6(manner.early)?,
            }
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.set_reuse_port(true)?;
            if !manner.join {
                socket.listen(BACKLOG)?;
            }
            let address = socket.local_addr()?.as_socket().unwrap_or(address);
            Ok(Self { socket: Arc::new(socket), address, joined: manner.join })
        };
        open().map_err(|error| PortError { flag, address, error })
    }

    /// Its address, with the port that was found for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens and answers until `stop`, whenever the port is ours: once we are ready if another process had it before, not
    /// while a ready successor has it, and whenever no other process listens.
    pub async fn serve(self, router: Router, limits: Limits, signals: Signals) {
        let Signals { readiness, mut given_away, stop } = signals;
        let mut waits = self.joined.then_some(readiness);
        while !stop.is_cancelled() {
            let given = *given_away.borrow_and_update();
            if given || waits.is_some() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = ours(waits.take(), &mut given_away) => {}
                    // The last order stands until the next.
                    () = vacant(self.address) => info!(address = %self.address, "listening here again: the other process left this port"),
                }
            }
            let listener = match self.listen() {
                Ok(listener) => listener,
                Err(error) => {
                    error!(address = %self.address, %error, "cannot listen on this port, trying again: DNS is not affected");
                    sleep(LOOK).await;
                    continue;
                }
            };
            let end = stop.child_token();
            let serving = serve::serve(listener, router.clone(), limits.clone(), end.clone());
            let mut serving = std::pin::pin!(serving);
            tokio::select! {
                () = &mut serving => return,
                () = until(&mut given_away, true) => end.cancel(),
            }
            serving.await;
        }
    }

    /// Listens, if it does not yet. The port stays bound when the listener is dropped.
    fn listen(&self) -> io::Result<Listener> {
        self.socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(self.socket.try_clone()?.into())?;
        Ok(Listener::Tcp(Listening { listener, socket: Arc::clone(&self.socket) }))
    }
}

/// Waits until the port is ours: we are ready, if that is waited for, else the successor is gone.
async fn ours(waits: Option<Readiness>, given_away: &mut watch::Receiver<bool>) {
    match waits {
        Some(readiness) => readiness.ready().await,
        None => until(given_away, false).await,
    }
}

/// Waits for the next order that a successor has the port (`given`), or has it no longer.
async fn until(given_away: &mut watch::Receiver<bool>, given: bool) {
    loop {
        if given_away.changed().await.is_err() {
            return std::future::pending().await;
        }
        if *given_away.borrow() == given {
            return;
        }
    }
}

/// Waits until no process listens at an address.
async fn vacant(address: SocketAddr) {
    let local: IpAddr = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let ip = if address.ip().is_unspecified() { local } else { address.ip() };
    loop {
        sleep(LOOK_EVERY).await;
        let looked = timeout(LOOK, TcpStream::connect((ip, address.port()))).await;
        if matches!(looked, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused) {
            return;
        }
    }
}

/// A port that listens. Dropped, it does no longer, and stays bound.
#[derive(Debug)]
pub struct Listening {
    pub listener: TcpListener,
    socket: Arc<Socket>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // The only error there is says that it did not listen.
        let _ = self.socket.shutdown(Shutdown::Read);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Served {
        address: SocketAddr,
        readiness: Readiness,
        given_away: watch::Sender<bool>,
        _stop: tokio_util::sync::DropGuard,
    }

    /// A port that says `word`.
    fn serve(address: SocketAddr, manner: Manner, word: &'static str) -> Served {
        let port = Port::open("--http", address, manner).unwrap();
        let (readiness, given_away, stop) = (Readiness::default(), watch::Sender::new(false), CancellationToken::new());
        let limits = crate::admin::limits_for_tests(8, Duration::from_secs(5));
        let address = port.address();
        let signals = Signals { readiness: readiness.clone(), given_away: given_away.subscribe(), stop: stop.clone() };
        let router = Router::new().route("/", axum::routing::get(async move || word));
        tokio::spawn(port.serve(router, limits, signals));
        Served { address, readiness, given_away, _stop: stop.drop_guard() }
    }

    async fn answer(address: SocketAddr) -> String {
        let Ok(mut stream) = TcpStream::connect(address).await else { return "nobody".into() };
        let mut answer = String::new();
        if stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.is_err() {
            return "nobody".into();
        }
        let _ = stream.read_to_string(&mut answer).await;
        answer.rsplit_once("\r\n").map_or("nobody", |(_, body)| body).to_owned()
    }

    /// Asks until it is this that answers, and says nothing else in between but `before`.
    async fn until_answers(address: SocketAddr, before: &[&str], word: &str) {
        let asking = async {
            loop {
                let answer = answer(address).await;
                if answer == word {
                    return;
                }
                assert!(before.contains(&answer.as_str()), "{answer}");
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), asking).await.unwrap_or_else(|_| panic!("never {word}"));
    }

    /// A free port.
    fn free() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    const JOIN: Manner = Manner { join: true, early: false };

    #[tokio::test]
    async fn a_newcomer_says_nothing_before_it_is_ready_and_everything_after() {
        let old = serve(free(), Manner::default(), "old");
        let new = serve(old.address, JOIN, "new");
        let latch = new.readiness.latch("first records");
        for _ in 0..50 {
            assert_eq!(answer(old.address).await, "old");
        }
        drop(latch);
        until_answers(old.address, &["old"], "new").await;
        old.given_away.send_replace(true);
        // Connections that were with the old one already are answered; from then on the new one alone is asked.
        for _ in 0..50 {
            answer(old.address).await;
        }
        for _ in 0..50 {
            assert_eq!(answer(old.address).await, "new");
        }
        // It is told that the new one is gone, and has the port again; and gives it away to the next one.
        old.given_away.send_replace(false);
        drop(new);
        until_answers(old.address, &["new", "nobody"], "old").await;
        let next = serve(old.address, JOIN, "next");
        until_answers(old.address, &["old"], "next").await;
        assert!(next.readiness.ready().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_at_is_taken_whatever_was_told() {
        let old = serve(free(), Manner::default(), "old");
        let address = old.address;
        let new = serve(address, JOIN, "new");
        let _never = new.readiness.latch("first records");
        drop(old);
        until_answers(address, &["old", "nobody"], "new").await;
        new.given_away.send_replace(true);
        until_answers(address, &["new", "nobody"], "nobody").await;
        until_answers(address, &["nobody"], "new").await;
    }

    #[tokio::test]
    async fn an_address_that_comes_later_is_bound_already() {
        let early = Manner { join: false, early: true };
        let port = Port::open("--http", "192.0.2.77:0".parse().unwrap(), early).unwrap();
        assert_ne!(port.address().port(), 0);
        let now = Port::open("--http", "192.0.2.77:0".parse().unwrap(), Manner::default());
        assert!(now.unwrap_err().to_string().starts_with("--http 192.0.2.77:0: "));
    }
}
