//! hickory's resolver, as applications in Rust use it, over TLS, HTTPS and QUIC.

use std::{net::IpAddr, sync::Arc};

use hickory_resolver::{
    Resolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
};
use holdfast::{
    dns::{TcpConfig, Transport},
    simulate::encrypted::client_config,
};

use super::Encrypted;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hickory_resolves_over_every_encrypted_transport() {
    let server = Encrypted::start(TcpConfig::default());
    let mut tls = client_config(b"");
    tls.alpn_protocols.clear();
    let name: Arc<str> = "dns.example".into();
    for (transport, mut connection) in [
        (Transport::Tls, ConnectionConfig::tls(Arc::clone(&name))),
        (Transport::Https, ConnectionConfig::https(Arc::clone(&name), None)),
        (Transport::Quic, ConnectionConfig::quic(Arc::clone(&name))),
    ] {
        let at = server.at(transport);
        connection.port = at.port();
        let servers = vec![NameServerConfig::new(at.ip(), true, vec![connection])];
        let mut options = ResolverOpts::default();
        options.attempts = 1;
        let resolver = Resolver::builder_with_config(
            ResolverConfig::from_parts(None, vec![], servers),
            TokioRuntimeProvider::default(),
        )
        .with_options(options)
        .with_tls_config(tls.clone())
        .build()
        .unwrap();
        for _ in 0..2 {
            let found = resolver.lookup_ip("web.prod.svc.cluster.local.").await.unwrap();
            assert!(
                found.iter().all(|address: IpAddr| address.is_ipv4()) && found.iter().count() == 1,
                "{transport:?}"
            );
        }
    }
}
