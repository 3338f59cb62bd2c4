//! DNS over TLS: who is trusted, what upstreams are shown, and that connections are kept.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast::dns::forward::{Config, FailureKind, UpstreamSource, ZoneConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::world::{World, source, until, zone};
use crate::support::upstream::Upstream;

/// A TLS server for `dns.corp.example` and 127.0.0.1 that answers what `upstream` would, and counts connections.
pub async fn serve(upstream: Upstream, ca: &std::path::Path) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
    serve_clients(upstream, ca, WebPkiClientVerifier::no_client_auth(), Arc::default()).await
}

fn issuer() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The same for clients that `verifier` takes. Their certificates are noted in `shown`.
async fn serve_clients(
    upstream: Upstream,
    ca: &std::path::Path,
    verifier: Arc<dyn ClientCertVerifier>,
    shown: Arc<Mutex<Vec<Vec<u8>>>>,
) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
    let issuer = issuer();
    std::fs::write(ca, issuer.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["dns.corp.example".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (acceptor, address, shown) = (acceptor.clone(), upstream.address, Arc::clone(&shown));
            tokio::spawn(async move {
                let Ok(mut inside) = acceptor.accept(stream).await else { return };
                let certificates = inside.get_ref().1.peer_certificates().into_iter().flatten();
                shown.lock().unwrap().extend(certificates.map(|certificate| certificate.to_vec()));
                let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
                while let Ok(length) = inside.read_u16().await {
                    let mut message = vec![0; usize::from(length)];
                    inside.read_exact(&mut message).await.unwrap();
                    plain.write_u16(length).await.unwrap();
                    plain.write_all(&message).await.unwrap();
                    let length = plain.read_u16().await.unwrap();
                    let mut reply = vec![0; usize::from(length)];
                    plain.read_exact(&mut reply).await.unwrap();
                    inside.write_u16(length).await.unwrap();
                    inside.write_all(&reply).await.unwrap();
                    inside.flush().await.unwrap();
                }
            });
        }
    });
    (port, accepted)
}

#[tokio::test]
async fn tls_upstreams_are_verified_and_their_connections_kept() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let upstream = Upstream::with_a(0, [192, 0, 2, 1]).await;
    // The relay below answers in order: a question without an answer would hold up all others.
    upstream.hear_loop_probes();
    let (port, accepted) = serve(upstream, &ca).await;
    let world = |text: String| {
        let upstreams = vec![text.parse::<UpstreamSource>().unwrap()];
        World::with(vec![ZoneConfig { upstreams, tls_ca: Some(ca.clone()), ..zone(".", &[]) }])
    };
    for text in [format!("tls://127.0.0.1:{port}#dns.corp.example"), format!("tls://127.0.0.1:{port}")] {
        let before = accepted.load(std::sync::atomic::Ordering::Relaxed);
        let world = world(text);
        for nth in 0..5 {
            assert_eq!(world.a(&format!("n{nth}.example")).await, "NoError 192.0.2.1");
        }
        assert_eq!(accepted.load(std::sync::atomic::Ordering::Relaxed) - before, 1, "one connection for all");
        assert_eq!((world.metrics.queries_udp.get(), world.metrics.queries_tcp.get()), (0, 0), "nothing in the clear");
    }
    let other = world(format!("tls://127.0.0.1:{port}#dns.other.example"));
    assert_eq!(other.a("www.example").await, "ServFail ede=22");
    assert!(other.metrics.failures(FailureKind::Tls) > 0);
    assert_eq!(other.metrics.queries_udp.get(), 0, "never without TLS instead");
}

#[tokio::test]
async fn missing_authorities_are_waited_for_and_nothing_is_sent_in_the_clear_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other) = (folder.path().join("ca.pem"), folder.path().join("other.pem"));
    let upstream = Upstream::with_a(0, [192, 0, 2, 1]).await;
    upstream.hear_loop_probes();
    let (port, accepted) = serve(upstream, &other).await;
    let upstreams = vec![format!("tls://127.0.0.1:{port}#dns.corp.example").parse().unwrap()];
    let zone = ZoneConfig { upstreams, tls_ca: Some(ca.clone()), ..zone(".", &[]) };
    let world = World::with(vec![zone.clone()]);
    let told = || world.forwarder.status().zones[0].missing.clone();
    assert_eq!(world.a("www.example").await, "ServFail ede=22");
    assert_eq!(told(), Some(format!("{}: No such file or directory (os error 2)", ca.display())));
    assert_eq!(accepted.load(std::sync::atomic::Ordering::Relaxed), 0);
    std::fs::write(&ca, "no certificate").unwrap();
    world.forwarder.reload(&Config { zones: vec![zone], ..Config::default() }).unwrap();
    assert_eq!(told(), Some(format!("{}: no certificate in it", ca.display())));
    // As a secret that is mounted late is put in place.
    std::fs::rename(&other, &ca).unwrap();
    tokio::time::pause();
    world.elapse(Duration::from_secs(3)).await;
    tokio::time::resume();
    assert_eq!(told(), None);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    assert_eq!((world.metrics.queries_udp.get(), world.metrics.queries_tcp.get()), (0, 0), "nothing in the clear");
}

/// A resolver of a company or a cloud that answers those alone who have a certificate.
#[tokio::test]
async fn upstreams_that_demand_a_certificate_are_shown_one_that_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let [ca, certificate, key] = ["ca.pem", "client.pem", "client.key"].map(|name| folder.path().join(name));
    let clients = issuer();
    let mut roots = RootCertStore::empty();
    roots.add(clients.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let upstream = Upstream::with_a(0, [192, 0, 2, 1]).await;
    upstream.hear_loop_probes();
    let shown = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let (port, accepted) = serve_clients(upstream, &ca, verifier, Arc::clone(&shown)).await;
    let upstreams = vec![format!("tls://127.0.0.1:{port}#dns.corp.example").parse().unwrap()];
    let without = ZoneConfig { upstreams, tls_ca: Some(ca), ..zone(".", &[]) };
    assert_eq!(World::with(vec![without.clone()]).a("www.example").await, "ServFail ede=22");
    let refused = accepted.load(std::sync::atomic::Ordering::Relaxed);
    assert!(refused > 0);

    let with = ZoneConfig { tls_certificate: Some((certificate.clone(), key.clone())), ..without };
    let world = World::with(vec![with]);
    let missing = || world.forwarder.status().zones[0].missing.clone();
    let elapse = async || {
        tokio::time::pause();
        world.elapse(Duration::from_secs(3)).await;
        tokio::time::resume();
    };
    assert_eq!(world.a("www.example").await, "ServFail ede=22");
    assert_eq!(missing(), Some(format!("{}: No such file or directory (os error 2)", certificate.display())));
    assert_eq!(accepted.load(std::sync::atomic::Ordering::Relaxed), refused, "not asked without");
    let mut issued = Vec::new();
    for nth in 0..2 {
        let pair = KeyPair::generate().unwrap();
        let new =
            CertificateParams::new(vec![format!("node{nth}.example")]).unwrap().signed_by(&pair, &clients).unwrap();
        issued.push(new.der().to_vec());
        // As a secret that is replaced file by file.
        std::fs::write(&certificate, new.pem()).unwrap();
        elapse().await;
        let reason = missing().unwrap_or_default();
        let (at, why) = if nth == 0 { (&key, "No such file") } else { (&certificate, "keys may not be consistent") };
        assert!(reason.starts_with(&format!("{}: {why}", at.display())), "{reason}");
        let meanwhile = if nth == 0 { "ServFail ede=22" } else { "NoError 192.0.2.1" };
        assert_eq!(world.a("www.example").await, meanwhile);
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        elapse().await;
        assert_eq!(missing(), None);
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
        let mut shown = shown.lock().unwrap().clone();
        shown.dedup();
        assert!(shown == issued, "{nth}");
    }
}

/// The certificate of an upstream that is given by name holds that name.
#[tokio::test]
async fn an_upstream_given_by_name_is_verified_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let upstream = Upstream::with_a(0, [192, 0, 2, 1]).await;
    upstream.hear_loop_probes();
    let (port, _) = serve(upstream, &ca).await;
    let resolver = Upstream::with_a(60, [127, 0, 0, 1]).await;
    for (text, expect) in [
        (format!("tls://dns.corp.example:{port}"), "NoError 192.0.2.1"),
        (format!("tls://other.example:{port}#dns.corp.example"), "NoError 192.0.2.1"),
        (format!("tls://other.example:{port}"), "ServFail ede=22"),
    ] {
        let (upstreams, resolvers) = (vec![source(&text)], vec![source(&resolver.address.to_string())]);
        let world = World::with(vec![ZoneConfig { upstreams, resolvers, tls_ca: Some(ca.clone()), ..zone(".", &[]) }]);
        until(|| !world.forwarder.zones()[0].upstreams.is_empty()).await;
        assert_eq!(world.a("www.example").await, expect, "{text}");
    }
}
