//! What clients that check certificates make of them.

use std::{path::Path, sync::Arc};

use holdfast::{
    dns::{TcpConfig, Transport},
    simulate::encrypted::{Client, Protocol, Trust},
    sys::{Clock, UnixMillis},
    tls::{ServerCertificate, issue_server},
};
use prometheus::Registry;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::{Encrypted, web};

const NAME: &str = "dns.example";
const TRANSPORTS: [(Protocol, Transport); 3] =
    [(Protocol::Tls, Transport::Tls), (Protocol::Https, Transport::Https), (Protocol::Quic, Transport::Quic)];

/// A certificate made `days_ago`, for two days.
fn issue(out: &Path, days_ago: u64) {
    let now = UnixMillis(Clock::System.now().0 - days_ago * 86_400_000);
    issue_server(out, "test", &[NAME.to_owned(), "127.0.0.1".to_owned()], 2, now).unwrap();
}

fn trust(out: &Path, name: &'static str) -> Trust {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(out.join("ca/ca.crt")).unwrap()).unwrap();
    Trust::Authority { roots: Arc::new(roots), name: ServerName::try_from(name).unwrap() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_check_refuse_an_expired_certificate_until_it_is_renewed() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path();
    issue(out, 10);
    let certificate = ServerCertificate::open(out.join("dns"), &Registry::new()).unwrap();
    let server = Encrypted::with(TcpConfig::default(), Arc::new(certificate.clone()));
    for (protocol, transport) in TRANSPORTS {
        let at = server.at(transport);
        let error = Client::new(protocol, at, &trust(out, NAME)).connect().await.unwrap_err().to_string();
        assert!(error.contains("expired"), "{protocol:?}: {error}");
        // It is the client's to judge.
        assert!(Client::new(protocol, at, &Trust::Any).connect().await.unwrap().ask(&web()).await.is_ok());
    }
    issue(out, 0);
    assert!(certificate.reread().unwrap());
    for (protocol, transport) in TRANSPORTS {
        for name in [NAME, "127.0.0.1"] {
            let client = Client::new(protocol, server.at(transport), &trust(out, name));
            assert!(client.connect().await.unwrap().ask(&web()).await.is_ok(), "{protocol:?} {name}");
        }
        let other = Client::new(protocol, server.at(transport), &trust(out, "other.example"));
        assert!(other.connect().await.is_err(), "{protocol:?}: another name");
    }
}

#[test]
fn names_of_servers_are_checked() {
    let home = tempfile::tempdir().unwrap();
    for (name, good) in [
        ("dns.example", true),
        ("DNS.example.", true),
        ("*.example", true),
        ("fd00::53", true),
        ("", false),
        ("a b", false),
        ("*.*.example", false),
        ("dns.example:853", false),
    ] {
        let made = issue_server(home.path(), "test", &[name.to_owned()], 1, Clock::System.now());
        assert_eq!(made.is_ok(), good, "{name}");
        assert!(!good || ServerCertificate::described(&home.path().join("dns")).is_some(), "{name}");
    }
}
