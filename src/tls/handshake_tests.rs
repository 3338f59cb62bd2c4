//! Handshakes: accepted and refused peers.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Configs, Metrics, Part, Tls, Trusted, issue};
use crate::sys::{Clock, ManualClock, UnixMillis};

const DAY: u64 = 24 * 3_600 * 1_000;
const START: u64 = 1_700_000_000_000;
const NEVER: u64 = u64::MAX;

struct Side {
    clock: ManualClock,
    stale_since: Arc<AtomicU64>,
    metrics: Metrics,
    tls: Tls,
}

fn side(dir: &Path) -> Side {
    let clock = ManualClock::new(UnixMillis(START));
    let stale_since = Arc::new(AtomicU64::new(NEVER));
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let since = Arc::clone(&stale_since);
    let stale = Arc::new(move || Some(since.load(Ordering::Relaxed)).filter(|at| *at != NEVER).map(UnixMillis));
    let tls = Tls::open(dir.to_owned(), Clock::Manual(clock.clone()), stale, metrics.clone()).unwrap();
    Side { clock, stale_since, metrics, tls }
}

fn certificates(days: u32) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    issue(dir.path(), "prod", days, UnixMillis(START)).unwrap();
    dir
}

/// The results of a handshake at the server and at the client.
async fn handshake(server: &Configs, client: &Configs) -> (Result<(), String>, Result<(), String>) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let accept = async {
        let mut stream = TlsAcceptor::from(Arc::clone(&server.server)).accept(ours).await?;
        stream.write_all(b"!").await?;
        stream.shutdown().await
    };
    let connect = async {
        let name = ServerName::try_from("holdfast").unwrap();
        let mut stream = TlsConnector::from(Arc::clone(&client.client)).connect(name, theirs).await?;
        // A TLS 1.3 client learns of its refusal with the first bytes.
        stream.read_u8().await.map(|_| ())
    };
    let (server, client) = tokio::join!(accept, connect);
    (server.map_err(|error| error.to_string()), client.map_err(|error| error.to_string()))
}

#[tokio::test]
async fn agents_and_hubs_get_in_and_only_hubs_are_followed() {
    let dir = certificates(30);
    let (hub, agent) = (side(&dir.path().join("hub")), side(&dir.path().join("agent")));
    assert_eq!(handshake(&hub.tls.current(), &agent.tls.current()).await, (Ok(()), Ok(())));
    assert_eq!(handshake(&hub.tls.current(), &hub.tls.current()).await, (Ok(()), Ok(())));
    let (_, client) = handshake(&agent.tls.current(), &agent.tls.current()).await;
    let reason = client.unwrap_err();
    assert!(
        reason.contains("its certificate names spiffe://prod/holdfast/agent, expected hub of trust domain prod"),
        "{reason}"
    );
    assert_eq!(hub.tls.current().identity.to_string(), "spiffe://prod/holdfast/hub");
}

#[tokio::test]
async fn another_ca_and_another_trust_domain_stay_out() {
    let ours = certificates(30);
    let foreign = certificates(30);
    let hub = side(&ours.path().join("hub"));
    let (server, client) = handshake(&hub.tls.current(), &side(&foreign.path().join("agent")).tls.current()).await;
    assert!(server.is_err() && client.is_err());

    // Same CA, another trust domain.
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("ca")).unwrap();
    for name in ["ca.crt", "ca.key"] {
        std::fs::copy(ours.path().join("ca").join(name), other.path().join("ca").join(name)).unwrap();
    }
    issue(other.path(), "staging", 30, UnixMillis(START)).unwrap();
    let (server, client) = handshake(&hub.tls.current(), &side(&other.path().join("agent")).tls.current()).await;
    assert!(server.is_err());
    let reason = client.unwrap_err();
    assert!(
        reason.contains("its certificate names spiffe://prod/holdfast/hub, expected hub of trust domain staging"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_in_the_handshake() {
    let dir = certificates(30);
    let hub = side(&dir.path().join("hub")).tls.current();
    let mut anonymous = hub.clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(super::Material::read(&dir.path().join("hub")).unwrap().roots.roots);
    anonymous.client = Arc::new(
        rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    );
    let (server, client) = handshake(&hub, &anonymous).await;
    assert!(server.is_err() && client.is_err(), "{server:?} {client:?}");
}

#[tokio::test]
async fn an_expired_certificate_is_accepted_only_if_it_expired_in_an_outage_and_for_thirty_days() {
    let dir = certificates(30);
    // Days after the start; the certificate ends on day 30.
    let cases = [
        ("in time", 29, None, true),
        ("expired, source fresh", 31, None, false),
        ("expired after the source fell silent", 31, Some(20), true),
        ("expired before the source fell silent", 35, Some(32), false),
        ("last day of the grace", 59, Some(20), true),
        ("beyond the grace", 61, Some(20), false),
    ];
    for (name, today, silent_since, accepted) in cases {
        let hub = side(&dir.path().join("hub"));
        let agent = side(&dir.path().join("agent"));
        for side in [&hub, &agent] {
            side.clock.advance(std::time::Duration::from_millis(today * DAY));
            side.stale_since.store(silent_since.map_or(NEVER, |day| START + day * DAY), Ordering::Relaxed);
        }
        let (server, client) = handshake(&hub.tls.current(), &agent.tls.current()).await;
        assert_eq!(client.is_ok(), accepted, "{name}: {client:?}");
        let forgiven = u64::from(accepted && today > 30);
        assert_eq!(hub.metrics.grace[Part::Agent as usize].get(), forgiven, "{name}: {server:?}");
        assert_eq!(agent.metrics.grace[Part::Hub as usize].get(), forgiven, "{name}");
    }
}

#[tokio::test]
async fn changed_files_are_put_to_use_and_broken_ones_are_not() {
    let dir = certificates(30);
    let (hub, agent) = (side(&dir.path().join("hub")), side(&dir.path().join("agent")));
    let end = |side: &Side| side.metrics.expiry.get();
    assert_eq!(end(&hub), i64::try_from((START + 30 * DAY) / 1_000).unwrap());
    assert!(!hub.tls.reread().unwrap(), "nothing changed");
    issue(dir.path(), "prod", 60, UnixMillis(START)).unwrap();
    assert!(hub.tls.reread().unwrap());
    assert_eq!(end(&hub), i64::try_from((START + 60 * DAY) / 1_000).unwrap());
    assert_eq!(handshake(&hub.tls.current(), &agent.tls.current()).await, (Ok(()), Ok(())), "the CA is the same");

    let cases = [
        ("tls.crt", "", "holds no certificate"),
        ("tls.key", "garbage", "no items found"),
        ("ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "invalid peer certificate"),
    ];
    for (file, text, expected) in cases {
        let path = dir.path().join("hub").join(file);
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        let error = hub.tls.reread().unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(expected), "{error}");
        std::fs::write(&path, before).unwrap();
    }
    assert_eq!(handshake(&hub.tls.current(), &agent.tls.current()).await, (Ok(()), Ok(())));
    assert_eq!(hub.metrics.reread_errors.get(), 3);
}

#[test]
fn a_trust_domain_that_cannot_stand_in_a_uri_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["", "a/b", "Prod", "a b"] {
        assert!(issue(dir.path(), bad, 1, UnixMillis(START)).is_err(), "{bad:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_ca_that_is_there_signs_again_and_one_without_its_key_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let make = || issue(dir.path(), "prod", 1, UnixMillis(START));
    assert!(!make().unwrap().ca_was_there);
    assert!(make().unwrap().ca_was_there);
    let key = dir.path().join("ca/ca.key");
    let other = certificates(1);
    std::fs::copy(other.path().join("ca/ca.key"), &key).unwrap();
    let expect = format!("{}: is not the key of ca.crt beside it", key.display());
    assert_eq!(make().unwrap_err().to_string(), expect);
    for file in ["ca.key", "ca.crt"] {
        let path = dir.path().join("ca").join(file);
        std::fs::write(&path, "garbage").unwrap();
        let error = make().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
        std::fs::copy(other.path().join("ca").join(file), &path).unwrap();
    }
    std::fs::remove_file(&key).unwrap();
    assert!(make().unwrap_err().to_string().starts_with(&format!("{}: No such file", key.display())));
}

#[test]
fn keys_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = certificates(1);
    for key in ["ca/ca.key", "hub/tls.key", "agent/tls.key"] {
        assert_eq!(std::fs::metadata(dir.path().join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
    }
}

/// A CA that made certificates twice: those of `old`, then those in the directory itself.
fn made_twice() -> TempDir {
    let dir = certificates(30);
    let old = dir.path().join("old");
    for part in ["hub", "agent"] {
        let (from, to) = (dir.path().join(part), old.join(part));
        std::fs::create_dir_all(&to).unwrap();
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
    issue(dir.path(), "prod", 30, UnixMillis(START)).unwrap();
    dir
}

fn revoke(dir: &Path, certificate: &str) -> usize {
    super::revoke(dir, &dir.join(certificate).join("tls.crt"), UnixMillis(START)).unwrap().revoked
}

#[tokio::test]
async fn revoked_peers_are_refused_by_name_and_others_are_not() {
    let dir = made_twice();
    let path = dir.path();
    let [hub, agent, old_hub, old_agent] = ["hub", "agent", "old/hub", "old/agent"].map(|name| side(&path.join(name)));
    assert_eq!(handshake(&hub.tls.current(), &old_agent.tls.current()).await, (Ok(()), Ok(())));
    assert_eq!([revoke(path, "old/agent"), revoke(path, "old/agent"), revoke(path, "old/hub")], [1, 1, 2]);
    assert!(hub.tls.reread().unwrap() && agent.tls.reread().unwrap());
    assert!(!hub.tls.reread().unwrap(), "nothing changed");

    let (server, client) = handshake(&hub.tls.current(), &old_agent.tls.current()).await;
    assert!(server.unwrap_err().contains("Revoked") && client.unwrap_err().contains("CertificateRevoked"));
    let (_, client) = handshake(&old_hub.tls.current(), &agent.tls.current()).await;
    assert!(client.unwrap_err().contains("Revoked"));
    assert_eq!(handshake(&hub.tls.current(), &agent.tls.current()).await, (Ok(()), Ok(())));
    // Neither the grace nor a list that is long overdue changes that.
    for side in [&hub, &agent, &old_agent] {
        side.clock.advance(std::time::Duration::from_millis(40 * DAY));
        side.stale_since.store(START + 20 * DAY, Ordering::Relaxed);
    }
    assert_eq!(handshake(&hub.tls.current(), &agent.tls.current()).await, (Ok(()), Ok(())));
    let (server, _) = handshake(&hub.tls.current(), &old_agent.tls.current()).await;
    assert!(server.unwrap_err().contains("Revoked"));
}

#[tokio::test]
async fn a_list_that_cannot_be_used_changes_nothing() {
    let dir = made_twice();
    let path = dir.path();
    let (hub, old_agent) = (side(&path.join("hub")), side(&path.join("old/agent")));
    revoke(path, "old/agent");
    assert!(hub.tls.reread().unwrap());
    let list = path.join("hub/ca.crl");
    // Of another CA that has the name of ours.
    let foreign = certificates(30);
    revoke(foreign.path(), "agent");
    let foreign = std::fs::read(foreign.path().join("ca/ca.crl")).unwrap();
    let truncated = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let cases: [(Option<&[u8]>, &str); 5] = [
        (None, "No such file"),
        (Some(b""), "holds no revocation list in PEM"),
        (Some(b"garbage"), "holds no revocation list in PEM"),
        (Some(truncated.as_bytes()), "CertRevocationList"),
        (Some(&foreign), "not by the CA of tls.crt"),
    ];
    for (text, expected) in cases {
        match text {
            None => std::fs::remove_file(&list).unwrap(),
            Some(text) => std::fs::write(&list, text).unwrap(),
        }
        let error = hub.tls.reread().unwrap_err().to_string();
        assert!(error.starts_with(&list.display().to_string()) && error.contains(expected), "{error}");
        let (server, _) = handshake(&hub.tls.current(), &old_agent.tls.current()).await;
        assert!(server.unwrap_err().contains("Revoked"), "{expected}");
        // At a start it is an error, unless there is no file or one of another CA.
        assert_eq!(super::check(&path.join("hub")).is_err(), text.is_some_and(|text| text != foreign), "{expected}");
    }
    assert_eq!(hub.metrics.reread_errors.get(), 5);
    // Certificates are renewed beside it.
    issue(path, "prod", 60, UnixMillis(START)).unwrap();
    std::fs::write(&list, "garbage").unwrap();
    assert!(hub.tls.reread().is_err());
    assert_eq!(hub.metrics.expiry.get(), i64::try_from((START + 60 * DAY) / 1_000).unwrap());
}

/// While a CA is replaced by one of the same name, the list of the new one says nothing of certificates of the old one.
#[tokio::test]
async fn a_list_of_the_next_ca_keeps_no_peer_of_the_last_one_out() {
    let (last, next) = (certificates(30), certificates(30));
    let both = [last.path(), next.path()].map(|dir| std::fs::read_to_string(dir.join("ca/ca.crt")).unwrap()).concat();
    for dir in [next.path().join("hub"), last.path().join("agent")] {
        std::fs::write(dir.join("ca.crt"), &both).unwrap();
    }
    let (hub, agent) = (side(&next.path().join("hub")), side(&last.path().join("agent")));
    revoke(next.path(), "agent");
    assert!(hub.tls.reread().unwrap());
    assert_eq!(handshake(&hub.tls.current(), &agent.tls.current()).await, (Ok(()), Ok(())));
    let (server, _) = handshake(&hub.tls.current(), &side(&next.path().join("agent")).tls.current()).await;
    assert!(server.unwrap_err().contains("Revoked"));
}

#[test]
fn a_certificate_of_another_ca_is_not_revoked() {
    let dir = certificates(30);
    let other = tempfile::tempdir().unwrap();
    issue(other.path(), "staging", 30, UnixMillis(START)).unwrap();
    let stranger = other.path().join("agent/tls.crt");
    let error = super::revoke(dir.path(), &stranger, UnixMillis(START)).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: is not signed by the CA in", stranger.display())), "{error}");
}

/// Both ends of a connection after its handshake.
async fn connected(server: &Side, client: &Side) -> [Trusted<tokio::io::DuplexStream>; 2] {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("holdfast").unwrap();
    let trusts = [server.tls.trusting(), client.tls.trusting()];
    let (accepted, opened) = tokio::join!(
        TlsAcceptor::from(server.tls.current().server).accept(ours),
        TlsConnector::from(client.tls.current().client).connect(name, theirs)
    );
    let accepted = Trusted::new(server.tls.clone(), trusts[0], accepted.unwrap());
    [accepted, Trusted::new(client.tls.clone(), trusts[1], opened.unwrap())]
}

async fn works(from: &mut Trusted<tokio::io::DuplexStream>, to: &mut Trusted<tokio::io::DuplexStream>) -> bool {
    let sent = async {
        from.write_u8(1).await?;
        from.flush().await
    };
    sent.await.is_ok() && to.read_u8().await.is_ok()
}

#[tokio::test]
async fn a_connection_ends_when_its_peer_is_not_accepted_any_more() {
    let dir = made_twice();
    let path = dir.path();
    let [hub, agent, old_hub, old_agent] = ["hub", "agent", "old/hub", "old/agent"].map(|name| side(&path.join(name)));
    let mut stays = connected(&hub, &agent).await;
    let mut of_agent = connected(&hub, &old_agent).await;
    let mut of_hub = connected(&old_hub, &agent).await;
    for [server, client] in [&mut stays, &mut of_agent, &mut of_hub] {
        assert!(works(server, client).await && works(client, server).await);
    }
    revoke(path, "old/agent");
    revoke(path, "old/hub");
    assert!(hub.tls.reread().unwrap() && agent.tls.reread().unwrap());
    let [server, client] = &mut stays;
    assert!(works(server, client).await && works(client, server).await);
    let [server, _] = &mut of_agent;
    assert_eq!(server.write_u8(1).await.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    assert!(server.read_u8().await.is_err());
    let [server, client] = &mut of_hub;
    assert!(server.write_u8(1).await.is_ok(), "the old hub knows of no list");
    assert_eq!(client.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    assert_eq!([hub.metrics.disconnected.get(), agent.metrics.disconnected.get()], [1, 1]);

    // The same when a CA is not trusted any more.
    let other = certificates(30);
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        std::fs::copy(other.path().join("hub").join(file), path.join("hub").join(file)).unwrap();
    }
    std::fs::copy(other.path().join("ca/ca.crt"), path.join("hub/ca.crt")).unwrap();
    hub.tls.reread().unwrap();
    let [server, _] = &mut stays;
    assert!(server.write_u8(1).await.is_err());
}
