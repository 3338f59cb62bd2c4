//! Upstreams over HTTPS: what is sent, who is trusted, and what a server can get wrong.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use hickory_proto::{
    op::{Message, MessageType, OpCode},
    rr::{RecordType, rdata::opt::EdnsCode},
};
use holdfast::dns::forward::{DohMethod, FailureKind, UpstreamSource, ZoneConfig};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    HandshakeKind, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{net::TcpListener, sync::Notify, time::Instant};
use tokio_rustls::TlsAcceptor;

use super::world::{World, at_once, secs, settle, until, zone};
use crate::support::upstream::a;

const DNS: &str = "application/dns-message";

/// A request as it arrived.
#[derive(Clone, Debug)]
struct Asked {
    /// The connection, by its number.
    connection: usize,
    method: Method,
    path: String,
    authority: String,
    headers: HeaderMap,
    bytes: usize,
    message: Message,
}

impl Asked {
    fn reply(&self) -> Message {
        let mut reply = Message::new(self.message.id, MessageType::Response, OpCode::Query);
        reply.metadata.recursion_available = true;
        reply.queries.clone_from(&self.message.queries);
        reply
    }

    fn answer(&self) -> Http {
        let mut reply = self.reply();
        let query = &self.message.queries[0];
        if query.query_type() == RecordType::A {
            reply.answers = vec![a(&query.name().to_ascii(), 60, [192, 0, 2, 1])];
        }
        Http::Response(200, DNS, reply.to_vec().unwrap())
    }
}

/// What the server makes of a request.
enum Http {
    /// Status, media type and body.
    Response(u16, &'static str, Vec<u8>),
    /// An answer with an `Age`.
    Aged(u32, Vec<u8>),
    Hang,
    /// Ends the connection, streams first.
    Leave,
}

/// A server that answers no question.
type Wrong = fn(&Asked) -> Http;

type Script = Arc<dyn Fn(&Asked) -> Http + Send + Sync>;

struct Doh {
    address: SocketAddr,
    /// A folder with `ca.pem`.
    folder: tempfile::TempDir,
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<Asked>>>,
    /// How the handshake of each connection went.
    handshakes: Arc<Mutex<Vec<HandshakeKind>>>,
}

/// A certificate for `dns.corp.example` and 127.0.0.1, by an authority that is written to `ca`.
fn server_config(ca: &Path, alpn: &[u8]) -> ServerConfig {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(ca, issuer.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["dns.corp.example".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

impl Doh {
    async fn start(script: impl Fn(&Asked) -> Http + Send + Sync + 'static) -> Self {
        Self::with_alpn(b"h2", script).await
    }

    async fn with_alpn(alpn: &[u8], script: impl Fn(&Asked) -> Http + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = server_config(&folder.path().join("ca.pem"), alpn);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            folder,
            script: Arc::new(Mutex::new(Arc::new(script))),
            seen: Arc::default(),
            handshakes: Arc::default(),
        };
        tokio::spawn(accept(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            Arc::clone(&this.script),
            Arc::clone(&this.seen),
            Arc::clone(&this.handshakes),
        ));
        this
    }

    fn now(&self, script: impl Fn(&Asked) -> Http + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// The requests for `name`; probes and the like do not count.
    fn seen(&self, name: &str) -> Vec<Asked> {
        let is = |asked: &&Asked| asked.message.queries[0].name().to_ascii() == format!("{name}.");
        self.seen.lock().unwrap().iter().filter(is).cloned().collect()
    }

    fn zone(&self, name: &str) -> ZoneConfig {
        let text = format!("https://{}{name}", self.address);
        let upstreams = vec![text.parse::<UpstreamSource>().unwrap()];
        ZoneConfig { upstreams, tls_ca: Some(self.folder.path().join("ca.pem")), ..zone(".", &[]) }
    }

    fn world(&self) -> World {
        World::with(vec![self.zone("#dns.corp.example")])
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<Asked>>>,
    handshakes: Arc<Mutex<Vec<HandshakeKind>>>,
) {
    let mut connection = 0;
    while let Ok((stream, _)) = listener.accept().await {
        connection += 1;
        let (acceptor, script, seen, handshakes) =
            (acceptor.clone(), Arc::clone(&script), Arc::clone(&seen), Arc::clone(&handshakes));
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { return };
            handshakes.lock().unwrap().push(stream.get_ref().1.handshake_kind().unwrap());
            let leave = Arc::new(Notify::new());
            let leaving = Arc::clone(&leave);
            let service = service_fn(move |request: Request<Incoming>| {
                let (script, seen, leave) = (Arc::clone(&script), Arc::clone(&seen), Arc::clone(&leave));
                async move {
                    let asked = read(connection, request).await;
                    seen.lock().unwrap().push(asked.clone());
                    let script = Arc::clone(&*script.lock().unwrap());
                    let say = script(&asked);
                    let (status, media, age, body) = match say {
                        Http::Response(status, media, body) => (status, media, 0, body),
                        Http::Aged(age, body) => (200, DNS, age, body),
                        Http::Hang => std::future::pending().await,
                        Http::Leave => {
                            leave.notify_one();
                            std::future::pending().await
                        }
                    };
                    let response = Response::builder().status(status).header("content-type", media).header("age", age);
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
                }
            });
            let serve = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = serve => {}
                () = leaving.notified() => {}
            }
        });
    }
}

async fn read(connection: usize, request: Request<Incoming>) -> Asked {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let query = parts.uri.query().and_then(|query| query.strip_prefix("dns="));
    let wire = query.map_or_else(|| body.to_vec(), |encoded| URL_SAFE_NO_PAD.decode(encoded).unwrap());
    Asked {
        connection,
        method: parts.method,
        path: parts.uri.path().to_owned(),
        authority: parts.uri.authority().unwrap().to_string(),
        headers: parts.headers,
        bytes: wire.len(),
        message: Message::from_vec(&wire).unwrap(),
    }
}

/// What a client gets for `www.example` if the question fails; the clock stands still until the first try has, by `kind`.
async fn failing(world: &World, kind: FailureKind) -> String {
    let mut answer = std::pin::pin!(world.a("www.example"));
    let early = at_once(async {
        tokio::select! {
            answer = &mut answer => Some(answer),
            () = until(|| world.metrics.failures(kind) > 0) => None,
        }
    })
    .await;
    match early {
        Some(answer) => answer,
        None => answer.await,
    }
}

#[tokio::test(start_paused = true)]
async fn questions_go_by_post_or_get_padded_and_on_one_connection() {
    for (method, path) in [(DohMethod::Post, ""), (DohMethod::Get, "/secret/q")] {
        let server = Doh::start(Asked::answer).await;
        let world =
            World::with(vec![ZoneConfig { doh_method: method, ..server.zone(&format!("{path}#dns.corp.example")) }]);
        for nth in 0..5 {
            assert_eq!(at_once(world.a(&format!("n{nth}.example"))).await, "NoError 192.0.2.1");
        }
        let seen: Vec<Asked> = (0..5).flat_map(|nth| server.seen(&format!("n{nth}.example"))).collect();
        assert_eq!(seen.len(), 5);
        for asked in &seen {
            let expect = if method == DohMethod::Get { Method::GET } else { Method::POST };
            assert_eq!(asked.method, expect);
            assert_eq!(asked.path, if path.is_empty() { "/dns-query" } else { path });
            assert_eq!(asked.authority, format!("dns.corp.example:{}", server.address.port()));
            assert_eq!(asked.headers["accept"], DNS);
            assert_eq!(asked.headers.get("content-type").is_some(), method == DohMethod::Post);
            assert_eq!(asked.message.id, 0, "RFC 8484, 4.1");
            assert_eq!(asked.bytes % 128, 0, "RFC 8467, 4.1");
            assert!(asked.message.edns.as_ref().unwrap().option(EdnsCode::Padding).is_some());
            assert_eq!(asked.connection, seen[0].connection, "one connection for all");
        }
        assert_eq!((world.metrics.queries_udp.get(), world.metrics.queries_tcp.get()), (0, 0), "nothing in the clear");
        assert!(world.metrics.queries_https.get() >= 5);
    }
}

#[tokio::test(start_paused = true)]
async fn the_certificate_is_checked_by_name_or_by_address() {
    let server = Doh::start(Asked::answer).await;
    let by_address = World::with(vec![server.zone("")]);
    assert_eq!(at_once(by_address.a("www.example")).await, "NoError 192.0.2.1");
    let other = World::with(vec![server.zone("#dns.other.example")]);
    assert_eq!(failing(&other, FailureKind::Tls).await, "ServFail ede=22");
    assert!(server.seen("www.example").len() == 1, "nothing is asked of a server that cannot prove its name");
    let old = Doh::with_alpn(b"http/1.1", Asked::answer).await;
    assert_eq!(failing(&old.world(), FailureKind::Tls).await, "ServFail ede=22", "HTTP/2 only");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_no_answer_is_a_failure_and_the_next_server_is_asked() {
    let good = Doh::start(Asked::answer).await;
    let wrong: [(&str, Wrong); 8] = [
        ("status", |_| Http::Response(503, DNS, Vec::new())),
        ("redirect", |_| Http::Response(302, DNS, Vec::new())),
        ("media type", |asked| match asked.answer() {
            Http::Response(status, _, body) => Http::Response(status, "text/html", body),
            other => other,
        }),
        ("too long", |_| Http::Response(200, DNS, vec![0; 70_000])),
        ("empty", |_| Http::Response(200, DNS, Vec::new())),
        ("garbage", |_| Http::Response(200, DNS, vec![0xFF; 40])),
        ("other question", |asked| {
            let mut reply = asked.reply();
            reply.queries = vec![hickory_proto::op::Query::query("other.example.".parse().unwrap(), RecordType::A)];
            Http::Response(200, DNS, reply.to_vec().unwrap())
        }),
        ("truncated", |asked| {
            let mut reply = asked.reply();
            reply.metadata.truncation = true;
            Http::Response(200, DNS, reply.to_vec().unwrap())
        }),
    ];
    for (name, script) in wrong {
        let server = Doh::start(script).await;
        let alone = server.world();
        assert_eq!(failing(&alone, FailureKind::Http).await, "ServFail ede=22", "{name}");
        assert!(alone.metrics.failures(FailureKind::Http) > 0, "{name}");
        assert_eq!(server.seen("www.example").len(), 1, "{name}: it would say the same again");
        // Each has an authority of its own.
        let cas: String = [&server, &good]
            .map(|server| std::fs::read_to_string(server.folder.path().join("ca.pem")).unwrap())
            .concat();
        let ca = server.folder.path().join("both.pem");
        std::fs::write(&ca, cas).unwrap();
        let mut zone =
            ZoneConfig { tls_ca: Some(ca), policy: holdfast::dns::forward::Policy::Sequential, ..server.zone("") };
        zone.upstreams.extend(good.zone("").upstreams);
        assert_eq!(at_once(World::with(vec![zone]).a("www.example")).await, "NoError 192.0.2.1", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_in_a_cache_on_the_way_counts() {
    let server = Doh::start(|asked| match asked.answer() {
        Http::Response(_, _, body) => Http::Aged(25, body),
        other => other,
    })
    .await;
    let answer = at_once(server.world().ask("www.example", RecordType::A)).await;
    assert_eq!(answer.answers[0].ttl, 35, "60 s, and 25 of them over");
}

/// A connection that dies unseen costs a second, not the whole time of a question.
#[tokio::test(start_paused = true)]
async fn a_dead_connection_holds_up_a_question_for_a_second() {
    let server = Doh::start(Asked::answer).await;
    let world = server.world();
    assert_eq!(at_once(world.a("first.example")).await, "NoError 192.0.2.1");
    settle().await;
    let dead = server.seen("first.example")[0].connection;
    server.now(move |asked| if asked.connection == dead { Http::Hang } else { asked.answer() });
    let answer = at_once(async {
        let later = async {
            until(|| !server.seen("second.example").is_empty()).await;
            tokio::time::advance(secs(1)).await;
        };
        tokio::join!(world.a("second.example"), later).0
    })
    .await;
    assert_eq!(answer, "NoError 192.0.2.1", "a second of silence is enough");
    let seen = server.seen("second.example");
    assert_eq!(seen[0].connection, dead);
    assert_ne!(seen.last().unwrap().connection, dead);
    assert_eq!(at_once(world.a("third.example")).await, "NoError 192.0.2.1");
    assert_ne!(server.seen("third.example")[0].connection, dead, "the dead one is left");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_leaves_is_dialled_again_and_the_session_resumed() {
    let server = Doh::start(Asked::answer).await;
    let world = server.world();
    assert_eq!(at_once(world.a("first.example")).await, "NoError 192.0.2.1");
    let first = server.seen("first.example")[0].connection;
    server.now(move |asked| if asked.connection == first { Http::Leave } else { asked.answer() });
    let second = at_once(world.a("second.example")).await;
    assert_eq!(second, "NoError 192.0.2.1", "asked on the old connection, and on a new one without a wait");
    let handshakes = server.handshakes.lock().unwrap().clone();
    assert_eq!(handshakes.first(), Some(&HandshakeKind::Full));
    assert_eq!(handshakes.last(), Some(&HandshakeKind::Resumed), "{handshakes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_given_up_in_time_and_the_next_one_asked() {
    let server = Doh::start(|_| Http::Hang).await;
    let world = server.world();
    let started = Instant::now();
    assert_eq!(world.a("www.example").await, "ServFail ede=22");
    assert!(started.elapsed() <= secs(5), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let server = Doh::start(Asked::answer).await;
    let world = World::with(vec![ZoneConfig { connection_idle_max: secs(3), ..server.zone("#dns.corp.example") }]);
    assert_eq!(at_once(world.a("first.example")).await, "NoError 192.0.2.1");
    world.elapse(secs(10)).await;
    assert_eq!(at_once(world.a("second.example")).await, "NoError 192.0.2.1");
    assert_ne!(server.seen("first.example")[0].connection, server.seen("second.example")[0].connection);
}
