//! A hub that lies: it has a hub's certificate and a port, and says what it is told to, once.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use holdfast::{proto::GRPC_HEADER_BYTES, sys::Clock, tls};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

/// What it says to whoever comes.
#[derive(Clone, Debug)]
pub enum Lie {
    /// These bytes where a TLS handshake should be, and the end.
    Plain(&'static [u8]),
    /// These where HTTP/2 should be, and the end.
    Inside(&'static [u8]),
    /// These in answer to a greeting, frames or not.
    Answer(Vec<Bytes>, End),
}

/// What comes after the answer.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Never,
    /// An end as if all had been said.
    Polite,
    Reset,
}

/// The hub. Ends when dropped, its connections with it.
pub struct Liar {
    pub address: SocketAddr,
    next: Arc<Mutex<Option<Lie>>>,
    hung_up: watch::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Bytes with the header of a frame that is `length` bytes long.
pub fn headed(length: usize, bytes: &[u8]) -> Bytes {
    let mut frame = vec![0; GRPC_HEADER_BYTES - 4];
    frame.extend(u32::try_from(length).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame.into()
}

/// Either side of TLS with the certificates in `dir`.
pub fn certified(dir: &Path) -> tls::Tls {
    let metrics = tls::Metrics::register(&prometheus::Registry::new()).unwrap();
    tls::Tls::open(dir.to_owned(), Clock::System, Arc::new(|| None), metrics).unwrap()
}

impl Liar {
    /// Begins to listen with the certificates of a hub.
    pub async fn start(certificates: &Path) -> Self {
        let acceptor = TlsAcceptor::from(certified(certificates).current().server);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (hung_up, hanging_up) = watch::channel(());
        let next: Arc<Mutex<Option<Lie>>> = Arc::default();
        let told = Arc::clone(&next);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, mut hanging_up) = (acceptor.clone(), hanging_up.clone());
                hanging_up.mark_unchanged();
                // Who comes when it has nothing to say is hung up on at once.
                let lie = told.lock().unwrap().take().unwrap_or(Lie::Plain(b""));
                connections.spawn(async move {
                    tokio::select! {
                        _ = tell(acceptor, socket, lie) => {}
                        _ = hanging_up.changed() => {}
                    }
                });
            }
        });
        Self { address, next, hung_up, accepting }
    }

    /// The next one who comes is told this.
    pub fn says(&self, lie: Lie) {
        *self.next.lock().unwrap() = Some(lie);
    }

    pub fn hangs_up(&self) {
        self.hung_up.send_replace(());
    }
}

async fn tell(acceptor: TlsAcceptor, socket: TcpStream, lie: Lie) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    if let Lie::Plain(bytes) = lie {
        return last_words(socket, bytes).await;
    }
    let inside = acceptor.accept(socket).await?;
    let (frames, end) = match lie {
        Lie::Answer(frames, end) => (frames, end),
        Lie::Inside(bytes) | Lie::Plain(bytes) => return last_words(inside, bytes).await,
    };
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let frames = frames.clone();
        async move {
            // The greeting is heard out, whatever it says.
            let _ = request.into_body().collect().await;
            let answer = http::Response::builder().header("content-type", "application/grpc").body(body(frames, end));
            Ok::<_, Infallible>(answer.unwrap())
        }
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    serving.serve_connection(TokioIo::new(inside), service).await.map_err(std::io::Error::other)
}

/// Says this and no more. Who listens hangs up then: a reset would come before the words.
async fn last_words(mut io: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> std::io::Result<()> {
    io.write_all(bytes).await?;
    io.shutdown().await?;
    tokio::io::copy(&mut io, &mut tokio::io::sink()).await.map(|_| ())
}

fn body(frames: Vec<Bytes>, end: End) -> UnsyncBoxBody<Bytes, std::io::Error> {
    let frames = stream::iter(frames).map(|bytes| Ok(Frame::data(bytes)));
    let reset = async {
        // What was said before is to be on its way: a reset would overtake it.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    };
    match end {
        End::Never => StreamBody::new(frames.chain(stream::pending())).boxed_unsync(),
        End::Polite => StreamBody::new(frames).boxed_unsync(),
        End::Reset => StreamBody::new(frames.chain(stream::once(reset))).boxed_unsync(),
    }
}
