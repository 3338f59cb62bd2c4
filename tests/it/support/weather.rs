//! What lines do to the bytes on them, in memory and between sockets: hold them back, lose them one way, let them trickle,
//! break off.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What a line does to the bytes on it, those of connections that are open included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Holds them back for good, both ways.
    Hung,
    /// Loses what the server sends.
    Deaf,
    /// Loses what the client sends.
    Mute,
    /// Lets this many bytes a second through to the client.
    Slow(u32),
    /// Breaks the connection after this many bytes to the client.
    Breaks(usize),
}

/// Carries bytes between a client and a server, as the weather allows, until one of them ends.
pub async fn wire(
    client: impl AsyncRead + AsyncWrite,
    server: impl AsyncRead + AsyncWrite,
    weather: watch::Receiver<Weather>,
) {
    let (client, server) = (tokio::io::split(client), tokio::io::split(server));
    let down = carry(server.0, client.1, weather.clone(), Weather::Deaf);
    let up = carry(client.0, server.1, weather, Weather::Mute);
    tokio::select! {
        () = down => {}
        () = up => {}
    }
}

async fn carry(
    mut from: ReadHalf<impl AsyncRead + AsyncWrite>,
    mut to: WriteHalf<impl AsyncRead + AsyncWrite>,
    mut weather: watch::Receiver<Weather>,
    loses: Weather,
) {
    let mut buffer = [0; 1024];
    let mut carried = 0;
    loop {
        let read = from.read(&mut buffer).await;
        let Some(count) = read.ok().filter(|count| *count > 0) else { return };
        let now = *weather.borrow_and_update();
        match now {
            Weather::Hung => {
                let _ = weather.wait_for(|weather| *weather != Weather::Hung).await;
            }
            Weather::Slow(bytes) if loses == Weather::Deaf => {
                tokio::time::sleep(Duration::from_secs(1) * u32::try_from(count).unwrap() / bytes).await;
            }
            Weather::Breaks(after) if loses == Weather::Deaf && carried + count > after => return,
            _ => {}
        }
        if weather.has_changed().is_err() {
            // Another line leads there now; this one is left hanging.
            std::future::pending::<()>().await;
        }
        carried += count;
        if now != loses && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// A way to a server that has a weather of its own. Ends when dropped.
pub struct Way {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    taken: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Way {
    /// A way to `server` over a port of its own.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, sky) = watch::channel(Weather::Fair);
        let taken: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&taken);
        let accepting = tokio::spawn(async move {
            let mut lines = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (client, _) = accepted.unwrap();
                        count.fetch_add(1, Ordering::SeqCst);
                        lines.spawn(line(client, server, sky.clone()));
                    }
                    Some(_) = lines.join_next(), if !lines.is_empty() => {}
                }
            }
        });
        Self { address, weather, taken, accepting }
    }

    /// From now on it does this.
    pub fn weather(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// How many connections took it.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

async fn line(client: TcpStream, server: SocketAddr, mut weather: watch::Receiver<Weather>) {
    // A reset, not a polite end, is what a break is.
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    if weather.wait_for(|weather| *weather != Weather::Hung).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    wire(client, server, weather).await;
}
