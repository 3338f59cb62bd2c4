//! The listeners of the stream, from binding to the end of serving.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Parts, Server};
use crate::stream::{Config, Error};

/// Unsent bytes that the kernel holds for a client.
const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// Listeners that are bound and not served yet.
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<TcpListener>,
    config: Config,
}

/// Binds the listeners.
///
/// # Errors
/// If an address cannot be bound, or one beyond loopback is to be served without TLS.
pub fn bind(config: Config, tls: bool) -> Result<Bound, Error> {
    let mut listeners = Vec::new();
    for address in &config.listen {
        if !tls && !address.ip().is_loopback() {
            return Err(Error::Insecure(*address));
        }
        let listener = listen(*address, &config).map_err(|error| Error::Bind { address: *address, error })?;
        listeners.push(listener);
    }
    Ok(Bound { listeners, config })
}

fn listen(address: SocketAddr, config: &Config) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted connections inherit both.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(config.unacknowledged_max))?;
    // A client that takes nothing must not fill the send buffer, which grows to megabytes.
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.bind(&address.into())?;
    socket.listen(4_096)?;
    TcpListener::from_std(socket.into())
}

impl Bound {
    /// The addresses bound; ports that were asked for as 0 are known here.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The hub's name and the addresses for clients, which may depend on the bound ports.
    pub fn identify(&mut self, node: String, advertise: Vec<String>) {
        self.config.node = node;
        self.config.advertise = advertise;
    }

    /// Closes every connection at once, so that clients go to another hub. Never ends.
    pub async fn turn_away(&self) {
        let turn_away = |listener| async move {
            loop {
                if TcpListener::accept(listener).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        futures::future::join_all(self.listeners.iter().map(turn_away)).await;
    }

    /// Serves until `stop`, then tells clients to go elsewhere and waits for them, at most the drain's window.
    pub async fn serve(self, parts: Parts, stop: CancellationToken) {
        let server = Server::new(self.config, parts);
        let pumping = tokio::spawn({
            let server = server.clone();
            async move { server.pump().await }
        });
        let accepting = self.listeners.into_iter().map(|listener| server.accept(listener, stop.clone()));
        futures::future::join_all(accepting).await;
        server.drain().await;
        pumping.abort();
    }
}
