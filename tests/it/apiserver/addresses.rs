//! The apiserver's own addresses: the way to it while its service address leads nowhere.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use holdfast::{
    source::{
        Learnt,
        apiserver::{Config, OwnAddresses, endpoints},
    },
    store::Reader,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use super::{Feed, Following, timing};
use crate::support::{
    apiserver::{Apiserver, Slow, service, slice},
    fleet::{Home, until, until_file},
    weather::Way,
};

/// An address that refuses connections, as a service address without endpoints. No other test gets it: it is bound till the end.
fn dead() -> SocketAddr {
    let socket = Box::leak(Box::new(unheard()));
    socket.local_addr().unwrap().as_socket().unwrap()
}

/// A socket that is bound and does not listen.
fn unheard() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

/// An address that answers no connection, as a machine that is gone; for as long as what comes with it is kept.
fn silent() -> (SocketAddr, (socket2::Socket, std::net::TcpStream)) {
    let socket = unheard();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    // Its queue of one is full from now on.
    let first = std::net::TcpStream::connect(address).unwrap();
    (address, (socket, first))
}

/// The slice of `default/kubernetes` with this one address.
fn own(address: SocketAddr) -> Value {
    let mut own = slice("default", "kubernetes", "kubernetes", &[&address.ip().to_string()]);
    own["ports"] = serde_json::json!([{"name": "https", "port": address.port(), "protocol": "TCP"}]);
    own
}

/// A server that is among its own records.
async fn server() -> Apiserver {
    let server = Apiserver::start_tls().await;
    server.put_all([service("default", "kubernetes", "10.96.0.1"), service("prod", "a", "10.0.0.1")]);
    server.put(own(server.address()));
    server
}

/// A source that is configured with the server at `configured`, and knows the addresses in `records` and `known`.
fn feed(server: &Apiserver, configured: SocketAddr, records: &Reader, known: &[SocketAddr]) -> (Feed, TempDir) {
    let home = tempfile::tempdir().unwrap();
    let learnt = Learnt { known: known.iter().map(ToString::to_string).collect(), ..Learnt::nothing() };
    let feed = Feed::start(Config {
        kubeconfig: Some(server.kubeconfig_by(home.path(), configured)),
        timing: timing(),
        own_addresses: Some(OwnAddresses::new(records.clone(), learnt)),
        ..Config::default()
    });
    (feed, home)
}

fn no_records() -> Reader {
    holdfast::store::open().1
}

async fn until_listed(feed: &mut Feed) {
    feed.until("listed", |reader| reader.snapshot().service(b"prod", b"a").is_some()).await;
}

#[tokio::test]
async fn they_are_dialled_when_the_service_address_refuses_or_is_silent() {
    let following = Following::synced(server().await).await;
    let address = following.server.address();
    assert_eq!(endpoints(&following.reader.snapshot()), [address], "though only headless endpoints are kept");
    let (mut lost, _home) = feed(&following.server, dead(), &no_records(), &[]);
    lost.until_lost("Connection refused").await;
    let (silent, _kept) = silent();
    for configured in [dead(), silent] {
        let (mut found, _home) = feed(&following.server, configured, &following.reader, &[]);
        until_listed(&mut found).await;
    }
}

#[tokio::test]
async fn those_of_before_are_kept_when_the_records_name_others() {
    let server = server().await;
    let way = Way::to(server.address()).await;
    let (keep, mut kept) = watch::channel(Vec::new());
    let dir = tempfile::tempdir().unwrap();
    // The records a source makes are those it reads the addresses in.
    let (mut writer, reader) = holdfast::store::open();
    let learnt = Learnt {
        known: Vec::new(),
        keep: Arc::new(move |addresses| {
            keep.send_replace(addresses.to_vec());
        }),
    };
    let config = Config {
        kubeconfig: Some(server.kubeconfig(dir.path())),
        timing: timing(),
        own_addresses: Some(OwnAddresses::new(reader.clone(), learnt)),
        ..Config::default()
    };
    let (sender, mut updates) = tokio::sync::mpsc::channel(8);
    let metrics = holdfast::source::Metrics::unregistered();
    let run = tokio::spawn(holdfast::source::apiserver::run(config, holdfast::sys::Clock::System, metrics, sender));
    let apply = tokio::spawn(async move {
        while let Some(update) = updates.recv().await {
            writer.apply(update).unwrap();
        }
    });
    let gone = dead();
    let mut expected: Vec<SocketAddr> = Vec::new();
    for address in [server.address(), way.address, gone] {
        server.put(own(address));
        expected.insert(0, address);
        let wanted: Vec<String> = expected.iter().map(ToString::to_string).collect();
        let as_wanted = kept.wait_for(|kept| *kept == wanted);
        assert!(tokio::time::timeout(super::PATIENCE, as_wanted).await.is_ok(), "{wanted:?}");
    }
    assert_eq!(endpoints(&reader.snapshot()), [gone]);
    run.abort();
    apply.abort();

    // Neither the service address nor the one in the records leads to it any more.
    let (mut found, _home) = feed(&server, dead(), &reader, &expected);
    until_listed(&mut found).await;
    assert!(way.taken() > 0, "the latest of those that work");
}

#[tokio::test]
async fn a_server_that_is_back_is_followed_before_its_service_address_leads_to_it() {
    let following = Following::synced(server().await).await;
    let server = &following.server;
    let service_address = Way::to(server.address()).await;
    let (mut feed, _home) = feed(server, service_address.address, &following.reader, &[]);
    until_listed(&mut feed).await;
    assert!(service_address.taken() > 0);
    // kube-proxy has no endpoint for it, and refuses connections long after the server is back.
    drop(service_address);
    server.stop();
    feed.until_lost("").await;
    let back = std::time::Instant::now();
    server.start_again().await;
    feed.until_up().await;
    server.put(service("prod", "b", "10.0.0.2"));
    feed.until("followed", |reader| reader.load().service(b"prod", b"b").is_some()).await;
    println!("followed {:?} after the server is back, with nothing at the service address", back.elapsed());
}

#[tokio::test]
async fn an_address_with_another_certificate_is_sent_nothing() {
    let (server, stranger) = (server().await, Apiserver::start_tls().await);
    let (mut lost, _home) = feed(&server, dead(), &no_records(), &[stranger.address()]);
    lost.until_lost("Connection refused").await;
    let dialled = async {
        while stranger.connections() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::PATIENCE, dialled).await.expect("the stranger is dialled");
    let (mut found, _home) = feed(&server, dead(), &no_records(), &[stranger.address(), server.address()]);
    until_listed(&mut found).await;
    assert!(stranger.seen().is_empty(), "{:?}", stranger.seen());
    // Without TLS nothing would tell a stranger from the server.
    let clear = Apiserver::start().await;
    let dialled = clear.connections();
    let (mut lost, _home) = feed(&clear, dead(), &no_records(), &[clear.address()]);
    lost.until_lost("Connection refused").await;
    assert_eq!(clear.connections(), dialled);
}

#[tokio::test]
async fn a_server_that_took_the_connection_gets_no_second_handshake() {
    let following = Following::synced(server().await).await;
    let server = &following.server;
    server.slow(Slow { tls: Duration::from_millis(300), ..Slow::default() });
    let before = server.connections();
    let home = tempfile::tempdir().unwrap();
    let mut config = Config { kubeconfig: Some(server.kubeconfig(home.path())), timing: timing(), ..Config::default() };
    config.timing.head_start = Duration::from_millis(20);
    config.timing.silence = Duration::from_secs(60);
    config.own_addresses = Some(OwnAddresses::new(following.reader.clone(), Learnt::nothing()));
    let mut slow = Feed::start(config);
    until_listed(&mut slow).await;
    assert_eq!(server.connections(), before + 1);
}

#[tokio::test]
async fn a_hub_that_starts_again_finds_them_on_disk() {
    let server = server().await;
    let home = Home::new();
    let start = async |configured: SocketAddr| {
        let kubeconfig = server.kubeconfig_by(home.path(), configured);
        home.hub(None, &["--kubeconfig", kubeconfig.to_str().unwrap()]).await
    };
    let hub = start(server.address()).await;
    until("listed", hub.reader(), |reader| reader.as_of().is_some()).await;
    let address = server.address().to_string();
    until_file(&home.path().join("store/apiservers.json"), |text| text.contains(&address)).await;
    hub.stop().await;
    // A server that stops cleanly takes its address out of the records; the others may never come back.
    server.put(own(dead()));
    server.put(service("prod", "b", "10.0.0.2"));
    let hub = start(dead()).await;
    until("listed again", hub.reader(), |reader| reader.load().service(b"prod", b"b").is_some()).await;
    hub.stop().await;
}

#[tokio::test]
async fn without_any_the_service_address_is_waited_for() {
    let server = server().await;
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("apiservers.json"), "[\"10.0.0.").unwrap();
    assert!(Learnt::apiservers(home.path()).known.is_empty(), "a file that was cut off");
    server.stop();
    let (mut waiting, _home) = feed(&server, server.address(), &no_records(), &[]);
    waiting.until_lost("Connection refused").await;
    server.start_again().await;
    until_listed(&mut waiting).await;
}
