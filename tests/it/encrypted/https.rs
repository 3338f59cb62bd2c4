//! DoH: what HTTP can get wrong.

use std::{future::poll_fn, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use holdfast::{
    dns::{TcpConfig, Transport},
    simulate::encrypted::{Connection, Protocol, client_config},
};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Encrypted, web};

const DNS: &str = "application/dns-message";

async fn send(connection: &mut Connection, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let Connection::Https(send, _) = connection else { unreachable!() };
    poll_fn(|context| send.poll_ready(context)).await.unwrap();
    send.send_request(request).await.unwrap()
}

fn request(method: Method, path: &str, media: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(format!("https://127.0.0.1{path}"));
    builder.header("content-type", media).body(Full::new(body.into())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_gets_the_status_it_deserves() {
    let server = Encrypted::impatient();
    let mut connection = server.connect(Protocol::Https).await;
    let get = |query: &str| request(Method::GET, &format!("/dns-query{query}"), "", vec![]);
    let encoded = URL_SAFE_NO_PAD.encode(web());
    let response = {
        let mut response = web();
        response[2] |= 0x80;
        response
    };
    for (request, status) in [
        (request(Method::POST, "/dns-query", DNS, web()), 200),
        (request(Method::POST, "/dns-query", "Application/DNS-Message", web()), 200),
        (get(&format!("?dns={encoded}")), 200),
        (get(&format!("?a=b&dns={encoded}")), 200),
        (get(""), 400),
        (get("?dns="), 400),
        (get("?dns=%%%"), 400),
        (get("?name=web.prod.svc.cluster.local&type=A"), 400),
        (request(Method::POST, "/", DNS, web()), 404),
        (request(Method::POST, "/dns-query/", DNS, web()), 404),
        (request(Method::PUT, "/dns-query", DNS, web()), 405),
        (request(Method::POST, "/dns-query", "text/plain", web()), 415),
        (request(Method::POST, "/dns-query", "", web()), 415),
        (request(Method::POST, "/dns-query", DNS, vec![]), 400),
        (request(Method::POST, "/dns-query", DNS, vec![0; 11]), 400),
        (request(Method::POST, "/dns-query", DNS, response), 400),
        (request(Method::POST, "/dns-query", DNS, vec![0; 70_000]), 413),
        // Malformed DNS is answered by DNS.
        (request(Method::POST, "/dns-query", DNS, vec![0; 12]), 200),
    ] {
        let asked = format!("{} {}", request.method(), request.uri());
        assert_eq!(send(&mut connection, request).await.status(), status, "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_be_kept_as_long_as_its_ttl() {
    let server = Encrypted::impatient();
    let mut connection = server.connect(Protocol::Https).await;
    let missing = super::query(0, "nope.prod.svc.cluster.local.", super::RecordType::A);
    for (query, max_age) in [(web(), "max-age=5"), (missing, "max-age=5"), (vec![0; 12], "max-age=0")] {
        let response = send(&mut connection, request(Method::POST, "/dns-query", DNS, query)).await;
        assert_eq!(response.headers()["content-type"], DNS);
        assert_eq!(response.headers()["cache-control"], max_age);
        assert!(!response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}

/// The bytes of a connection before HTTP.
async fn tls(server: &Encrypted) -> TlsStream<TcpStream> {
    let address = server.at(Transport::Https);
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    TlsConnector::from(Arc::new(client_config(b"h2"))).connect(name, stream).await.unwrap()
}

/// A connection of raw HTTP/2, to break its rules with.
async fn raw(server: &Encrypted) -> h2::client::SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(tls(server).await).await.unwrap();
    tokio::spawn(connection);
    send
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_opens_and_resets_streams_keeps_nobody_out() {
    let server = Encrypted::impatient();
    let mut send = raw(&server).await;
    // The connection ends at the latest when more resets wait than the server has taken up.
    for _ in 0..1_000 {
        let Ok(mut ready) = send.ready().await else { break };
        let request = Request::post("https://127.0.0.1/dns-query").header("content-type", DNS).body(()).unwrap();
        let Ok((_, mut stream)) = ready.send_request(request, false) else { break };
        stream.send_reset(h2::Reason::CANCEL);
        tokio::task::yield_now().await;
        send = ready;
    }
    server.answers_everybody().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_end_has_its_time_and_no_more() {
    let server = Encrypted::impatient();
    let mut ready = raw(&server).await.ready().await.unwrap();
    let request = Request::post("https://127.0.0.1/dns-query").header("content-type", DNS).body(()).unwrap();
    let (response, mut stream) = ready.send_request(request, false).unwrap();
    stream.send_data(web()[..10].to_vec().into(), false).unwrap();
    assert_eq!(response.await.unwrap().status(), 408);
    server.answers_everybody().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_have_a_bound() {
    let server = Encrypted::impatient();
    let mut ready = raw(&server).await.ready().await.unwrap();
    let request = Request::post("https://127.0.0.1/dns-query").header("x-long", "a".repeat(20_000)).body(()).unwrap();
    let (response, _) = ready.send_request(request, true).unwrap();
    // Refused by status or by reset, as hyper likes.
    assert!(response.await.map_or(true, |response| response.status().is_client_error()));
    server.answers_everybody().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_ended() {
    let idle = std::time::Duration::from_millis(50);
    let server = Encrypted::start(TcpConfig { idle, ..TcpConfig::default() });
    let mut connections = vec![];
    for protocol in [Protocol::Tls, Protocol::Https, Protocol::Quic] {
        let mut connection = server.connect(protocol).await;
        let _ = connection.ask(&web()).await;
        connections.push(connection);
    }
    // QUIC's own timer may be first, and ends a connection in silence.
    server.server.wait_for_sum(&["holdfast_dns_tcp_connections"], &[], 0).await;
}

/// A frame (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// The preface and empty settings of a client.
fn hello() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, b"")].concat()
}

/// `POST /dns-query` in HPACK (RFC 7541), with the media type.
fn post() -> Vec<u8> {
    let text = |index: u8, value: &[u8]| [&[index, u8::try_from(value.len()).unwrap()], value].concat();
    [vec![0x83, 0x87], text(0x44, b"/dns-query"), text(0x41, b"dns.example"), text(0x5F, DNS.as_bytes())].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_streams_is_refused_beyond_those_a_connection_may_have() {
    const STREAMS: u32 = 300;
    let config = TcpConfig { partial: std::time::Duration::from_secs(60), ..TcpConfig::default() };
    let server = Encrypted::start(config.clone());
    let (mut receive, mut send) = tokio::io::split(tls(&server).await);
    let mut flood = hello();
    for number in 0..STREAMS {
        flood.extend(frame(HEADERS, END_HEADERS, 2 * number + 1, &post()));
    }
    let flooding = tokio::spawn(async move {
        let _ = send.write_all(&flood).await;
        send
    });
    // Each stream beyond is refused, or the connection ends.
    let mut refused = 0;
    while refused < STREAMS as usize - config.in_flight_max {
        let mut head = [0; 9];
        if receive.read_exact(&mut head).await.is_err() || head[3] == GOAWAY {
            break;
        }
        refused += usize::from(head[3] == RST_STREAM);
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        receive.read_exact(&mut payload).await.unwrap();
    }
    server.answers_everybody().await;
    drop(flooding.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_an_end_end_the_connection() {
    let server = Encrypted::start(TcpConfig::default());
    let (mut receive, mut send) = tokio::io::split(tls(&server).await);
    // A header that is never complete (CVE-2024-27316): a literal of 127 bytes, again and again.
    let part = [&[0x40, 1, b'a', 127][..], &[b'b'; 127]].concat().repeat(100);
    let flooding = tokio::spawn(async move {
        let begun = [hello(), frame(HEADERS, 0, 1, &post())].concat();
        let mut open = send.write_all(&begun).await.is_ok();
        while open {
            open = send.write_all(&frame(CONTINUATION, 0, 1, &part)).await.is_ok();
        }
    });
    let _ = receive.read_to_end(&mut Vec::new()).await;
    drop(receive);
    flooding.await.unwrap();
    server.answers_everybody().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_answer_loses_its_connection() {
    let brief = std::time::Duration::from_millis(50);
    let server = Encrypted::start(TcpConfig { write: brief, idle: brief, ..TcpConfig::default() });
    let mut settings = h2::client::Builder::new();
    settings.initial_window_size(0);
    let (send, connection) = settings.handshake::<_, Bytes>(tls(&server).await).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::post("https://127.0.0.1/dns-query").header("content-type", DNS).body(()).unwrap();
    let (_response, mut stream) = send.ready().await.unwrap().send_request(request, false).unwrap();
    stream.send_data(web().into(), true).unwrap();
    server.wait_for_closed("write", 1).await;
    let _ = driver.await.unwrap();
    Encrypted::impatient().answers_everybody().await;
}
