//! Clients that lie to a hub that runs as a process: garbage in the place of each layer, greetings that are none, connects
//! as fast as this machine makes them. Each is counted once, and nobody who follows the hub notices.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt as _, future::join_all, stream};
use holdfast::{
    proto::{self, FOLLOW_PATH, Hello, framed},
    record::Snapshot,
    role::agent::Agent,
    source::hub::dial,
    stream::Status,
    sys::Clock,
    tls::{self, Tls},
};
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::{
    faults::{source, write},
    liar::{certified, headed},
};
use crate::{
    stream::metric,
    support::{
        fleet::{Asking, Home, agent_config, beside, in_time, until},
        process::Hub,
        unharmed::{Holds, whole},
    },
};

/// How often each of them comes, all at once.
const TIMES: usize = 10;
const CONNECTS: usize = 10_000;

/// Somebody who connects, and what the hub counts it as.
struct Case {
    what: &'static str,
    says: Says,
    counted: &'static str,
}

enum Says {
    /// These bytes where a TLS handshake should be.
    Plain(&'static [u8], Then),
    /// With a certificate, these where HTTP/2 should be.
    Inside(&'static [u8], Then),
    /// With a certificate and HTTP/2, a call with this body, and hears this status (grpc/doc/statuscodes.md).
    Call(Method, &'static str, fn() -> Bytes, Then, &'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It waits for what the hub says.
    Waits,
    Leaves,
}

fn hello(change: impl FnOnce(&mut Hello)) -> Bytes {
    let mut hello = proto::hello("client", "", &Snapshot::default());
    change(&mut hello);
    framed(&hello)
}

fn cases() -> Vec<Case> {
    use Says::{Call, Inside, Plain};
    use Then::{Leaves, Waits};
    let follow = |body, status| Call(Method::POST, FOLLOW_PATH, body, Leaves, status);
    let case = |what, says, counted| Case { what, says, counted };
    vec![
        case("garbage instead of TLS", Plain(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n", Waits), "handshake"),
        case(
            "the beginning of a handshake",
            Plain(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Leaves),
            "handshake",
        ),
        case("nothing", Plain(b"", Leaves), "handshake"),
        case("nothing, and staying", Plain(b"", Waits), "handshake"),
        case(
            "garbage instead of HTTP/2",
            Inside(b"GET / HTTP/1.1\r\nHost: hub\r\nAccept: */*\r\n\r\n", Waits),
            "request",
        ),
        case(
            "garbage after the preface",
            Inside(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff", Waits),
            "request",
        ),
        case("a handshake and no more", Inside(b"", Leaves), "request"),
        case("a handshake and no more, and staying", Inside(b"", Waits), "request"),
        case(
            "another path",
            Call(Method::POST, "/holdfast.v1.Records/Lead", || hello(|_| ()), Leaves, "12"),
            "request",
        ),
        case("another method", Call(Method::GET, FOLLOW_PATH, Bytes::new, Leaves, "12"), "request"),
        case("no greeting", follow(Bytes::new, "3"), "request"),
        case("a greeting that is no message", follow(|| headed(16, &[0xff; 16]), "3"), "request"),
        case("a greeting that says it is too long", follow(|| headed(100_000, &[0; 16]), "3"), "request"),
        case("a greeting that is too long", follow(|| hello(|hello| hello.node = "x".repeat(100_000)), "3"), "request"),
        case(
            "a greeting that never comes",
            Call(Method::POST, FOLLOW_PATH, || headed(100, &[]), Waits, "3"),
            "request",
        ),
        case(
            "an agent that would serve",
            follow(|| hello(|hello| hello.serves = "10.0.0.9:7443".into()), "9"),
            "request",
        ),
        case("a name of three hundred bytes", follow(|| hello(|hello| hello.node = "x".repeat(300)), "9"), "loop"),
        case("a protocol that never was", follow(|| hello(|hello| hello.protocol = 0), "9"), "loop"),
    ]
}

impl Case {
    async fn comes(&self, hub: SocketAddr, tls: &Tls) {
        match &self.says {
            Says::Plain(bytes, then) => say(TcpStream::connect(hub).await.unwrap(), bytes, *then).await,
            Says::Inside(bytes, then) => {
                say(dial(Some(tls.clone()))(hub.to_string()).await.unwrap(), bytes, *then).await;
            }
            Says::Call(method, path, body, then, status) => {
                let heard = call(hub, tls, method, path, body(), *then).await;
                assert_eq!(heard, *status, "{}", self.what);
            }
        }
    }
}

async fn say(mut io: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8], then: Then) {
    // The hub may have left already.
    let _ = io.write_all(bytes).await;
    let _ = io.flush().await;
    if then == Then::Waits {
        let _ = io.read_to_end(&mut Vec::new()).await;
    }
}

/// The status of a call.
async fn call(hub: SocketAddr, tls: &Tls, method: &Method, path: &str, body: Bytes, then: Then) -> String {
    let io = dial(Some(tls.clone()))(hub.to_string()).await.unwrap();
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await;
    let (mut sender, connection) = shaken.unwrap();
    let connection = tokio::spawn(connection);
    let whole = stream::once(async move { Ok::<_, std::convert::Infallible>(Frame::data(body)) });
    let body = match then {
        Then::Leaves => StreamBody::new(whole).boxed_unsync(),
        Then::Waits => StreamBody::new(whole.chain(stream::pending())).boxed_unsync(),
    };
    let request = http::Request::builder().method(method).uri(format!("http://hub{path}")).body(body).unwrap();
    let response = sender.send_request(request).await.unwrap();
    connection.abort();
    response.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// How the stream of the hub in this home stands, as its status says.
async fn serves(home: &Home) -> Status {
    let (status, _) = home.tool(&["status"]).await;
    serde_json::from_value(status["serves"].clone()).unwrap()
}

/// Waits until the hub has refused so many, by reason, and no more.
async fn until_refused(home: &Home, expected: &BTreeMap<String, u64>) {
    let refused = async || serves(home).await.refused;
    let counted = async { while refused().await.values().sum::<u64>() < expected.values().sum() {} };
    let counted = tokio::time::timeout(Duration::from_secs(60), counted).await;
    assert_eq!(refused().await, *expected, "{counted:?}");
}

/// Connects from an address of its own: a port that another test means to listen at again must not become one of these.
async fn connect(from: u8, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([127, 0, 1, from], 0)))?;
    socket.connect(target).await
}

/// Connects and hangs up, many at once, as fast as that goes; how many were let in. Says at what rate.
pub(super) async fn storm(target: SocketAddr) -> u32 {
    const AT_ONCE: u8 = 64;
    let (left, begun) = (Arc::new(AtomicUsize::new(CONNECTS)), Instant::now());
    let one = |from: u8| {
        let left = Arc::clone(&left);
        tokio::spawn(async move {
            let mut connected = 0;
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                connected += u32::from(connect(from, target).await.is_ok());
            }
            connected
        })
    };
    let connected: u32 = join_all((1..=AT_ONCE).map(one)).await.into_iter().map(Result::unwrap).sum();
    let took = begun.elapsed();
    println!(
        "{connected} of {CONNECTS} connects in {took:.1?}: {:.0} a second",
        f64::from(connected) / took.as_secs_f64()
    );
    connected
}

async fn follower(home: &Home, hub: SocketAddr, certificates: &Path) -> Agent {
    let arguments = ["--hub", &hub.to_string(), "--tls", certificates.to_str().unwrap()];
    Agent::start(agent_config(home.path(), &arguments), Clock::System).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_lie_cost_a_hub_their_connections_and_those_who_follow_it_nothing() {
    let certificates = tempfile::tempdir().unwrap();
    tls::issue(certificates.path(), "test", 1, Clock::System.now()).unwrap();
    let (hubs, agents) = (certificates.path().join("hub"), certificates.path().join("agent"));
    let homes: [Home; 4] = std::array::from_fn(|_| Home::new());
    let (home, manifests) = (homes[0].path().to_owned(), write(homes[0].path(), 200));
    let arguments = manifests.clone();
    let hub = beside(move || {
        let mut hub = Hub::start_secured(&home, "127.0.0.1:0", &hubs, &["--manifests", &arguments]);
        hub.wait_for("records complete");
        hub
    })
    .await;
    let address = hub.address();
    let mut followers = Vec::new();
    for home in &homes[1..3] {
        let agent = follower(home, address, &agents).await;
        until("live", agent.reader(), |reader| reader.load().counts().services == 200).await;
        followers.push(agent);
    }
    let asking = Asking::begin(followers[0].addresses().dns[0], "web-7.prod.svc.cluster.local.", "A 10.96.0.7");

    let (cases, tls) = (cases(), certified(&agents));
    let mut expected: BTreeMap<String, u64> = serves(&homes[0]).await.refused;
    assert_eq!(expected.values().sum::<u64>(), 0);
    for case in &cases {
        *expected.get_mut(case.counted).unwrap() += u64::try_from(TIMES).unwrap();
    }
    let all = cases.iter().flat_map(|case| std::iter::repeat_n(case, TIMES)).map(|case| case.comes(address, &tls));
    in_time("all have been refused", join_all(all)).await;
    until_refused(&homes[0], &expected).await;

    // A storm, and in it a change, and somebody new.
    let storm = tokio::spawn(storm(address));
    write(homes[0].path(), 201);
    for agent in &followers {
        until("the change", agent.reader(), |reader| reader.load().counts().services == 201).await;
    }
    let late = follower(&homes[3], address, &agents).await;
    until("somebody new", late.reader(), |reader| reader.load().counts().services == 201).await;
    followers.push(late);
    *expected.get_mut("handshake").unwrap() += u64::from(storm.await.unwrap());
    until_refused(&homes[0], &expected).await;

    let Status { subscribers, connections, resumed, .. } = serves(&homes[0]).await;
    assert_eq!((subscribers, connections, resumed.values().sum::<u64>()), (3, 3, 3), "no stream was begun again");
    for agent in &followers {
        assert_eq!(metric(agent.registry(), "holdfast_hub_attempts_total", ""), 0, "no connection has ended");
    }
    tokio::task::block_in_place(|| {
        let readers: Vec<&dyn Holds> = followers.iter().map(|agent| agent.reader() as &dyn Holds).collect();
        whole(&source(&manifests), &homes[0], &readers);
    });
    asking.all_answered().await;
    for agent in followers {
        agent.stop().await;
    }
    beside(move || hub.kill()).await;
}
