//! Any bytes as what a client sends over TCP, TLS, HTTPS and QUIC: no panic, the connection is answered or ended, and the next client is
//! served.

#![no_main]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, LazyLock},
};

use futures::future::{BoxFuture, FutureExt, ready};
use hickory_proto::rr::RecordType;
use holdfast::{
    dns::{Config, EncryptedConfig, ForwardRequest, Metrics, Resolve, Resolved, Running, ServedFrom, Transport, bind},
    simulate::encrypted::{Connection, Protocol, framed},
    sys::Clock,
};
use holdfast_fuzz::{
    oracle::Choices,
    support::certificate::certificate,
    world::{own_cluster, query},
};
use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
};

/// Answers a forward with the header of its query.
struct Bare;

impl Resolve for Bare {
    fn resolve(&self, request: ForwardRequest) -> BoxFuture<'static, Resolved> {
        let message = [&request.query[..2], &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        ready(Resolved { message, from: ServedFrom::Upstream }).boxed()
    }
}

struct Server {
    runtime: Runtime,
    plain: SocketAddr,
    encrypted: Vec<(Transport, SocketAddr)>,
    _running: Running,
}

/// One for all runs: connections come and go.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let any = || vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let encrypted = EncryptedConfig { tls: any(), https: any(), quic: any(), certificate: Some(certificate()) };
    let (plain, encrypted, running) = runtime.block_on(async {
        let bound = bind(Config { listen: any(), encrypted, workers: 1, ..Config::default() }).expect("free ports");
        let (plain, encrypted) = (bound.addresses()[0], bound.encrypted_addresses());
        let metrics = Metrics::register(&prometheus::Registry::new()).expect("a fresh registry");
        (plain, encrypted, bound.serve(own_cluster(), Arc::new(Bare), Clock::System, metrics))
    });
    Server { runtime, plain, encrypted, _running: running }
});

impl Server {
    fn at(&self, transport: Transport) -> SocketAddr {
        self.encrypted.iter().find(|(other, _)| *other == transport).expect("it is served").1
    }

    /// Sends everything, ends, and reads what comes back.
    fn tcp(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.plain).expect("it takes connections");
        let mut answers = Vec::new();
        if stream.write_all(bytes).is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
            // It may be reset.
            let _ = stream.read_to_end(&mut answers);
        }
        answers
    }

    async fn tls(&self, bytes: &[u8]) {
        let opened = Connection::open(Protocol::Tls, self.at(Transport::Tls)).await.expect("it shakes hands");
        let Connection::Tls(mut stream) = opened else { unreachable!("it is TLS") };
        if stream.write_all(bytes).await.is_ok() && stream.shutdown().await.is_ok() {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }

    async fn https(&self, request: Request<Full<bytes::Bytes>>) {
        let opened = Connection::open(Protocol::Https, self.at(Transport::Https)).await.expect("it shakes hands");
        let Connection::Https(mut send, _) = opened else { unreachable!("it is HTTPS") };
        if let Ok(response) = send.send_request(request).await {
            let _ = response.into_body().collect().await;
        }
    }

    async fn quic(&self, bytes: &[u8]) {
        let opened = Connection::open(Protocol::Quic, self.at(Transport::Quic)).await.expect("it shakes hands");
        let Connection::Quic(connection, _endpoint) = opened else { unreachable!("it is QUIC") };
        let Ok((mut send, mut receive)) = connection.open_bi().await else { return };
        if send.write_all(bytes).await.is_ok() && send.finish().is_ok() {
            let _ = receive.read_to_end(1 << 17).await;
        }
    }
}

/// A request whose query or body is `bytes`; `None` if HTTP cannot carry it.
fn request(choices: &mut Choices<'_>, bytes: &[u8]) -> Option<Request<Full<bytes::Bytes>>> {
    let post = choices.one_in(2);
    let path = if choices.one_in(8) { "/other" } else { "/dns-query" };
    let media = if choices.one_in(8) { "text/plain" } else { "application/dns-message" };
    let (uri, body) = if post {
        (format!("https://dns.example{path}"), bytes.to_vec())
    } else {
        let visible: String = bytes.iter().map(|byte| char::from(byte % 94 + 33)).collect();
        (format!("https://dns.example{path}?dns={visible}"), Vec::new())
    };
    let request = if post { Request::post(uri) } else { Request::get(uri) };
    request.header(CONTENT_TYPE, media).body(Full::new(body.into())).ok()
}

fuzz_target!(|bytes: &[u8]| {
    let server = &*SERVER;
    let choices = &mut Choices::new(bytes);
    let transport = choices.below(4);
    let length = choices.u16() % 2_048;
    let sent = choices.bytes(length.into()).to_vec();
    // Mostly in the form of a message behind its length, or the reader would stop there.
    let message = if choices.one_in(4) { sent.clone() } else { framed(&sent) };
    match transport {
        0 => drop(server.tcp(&message)),
        1 => server.runtime.block_on(server.tls(&message)),
        2 => {
            if let Some(request) = request(choices, &sent) {
                server.runtime.block_on(server.https(request));
            }
        }
        _ => server.runtime.block_on(server.quic(&message)),
    }
    let asked = query("db.default.svc.cluster.local", RecordType::A, None);
    let answer = server.tcp(&framed(&asked));
    assert!(answer.len() > 2 && answer[2..4] == asked[..2] && answer[9] == 1, "the next client gets its answer");
});
