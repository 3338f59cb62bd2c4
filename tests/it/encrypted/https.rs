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
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

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

/// A connection of raw HTTP/2, to break its rules with.
async fn raw(server: &Encrypted) -> h2::client::SendRequest<Bytes> {
    let address = server.at(Transport::Https);
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(Arc::new(client_config(b"h2"))).connect(name, stream).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
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
