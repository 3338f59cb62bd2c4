//! Trust for DNS over TLS and HTTPS: which authorities may vouch for an upstream, and for what name.
//!
//! Certificates are always verified; there is no way to turn that off (RFC 8310, strict profile).

use std::{io, net::IpAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, IpAddr as PkiIp, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use super::{Server, TlsName, tcp::TlsDial};

/// Where distributions keep their certificate authorities, in one file.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How TLS begins, by what is spoken over it.
#[derive(Clone)]
pub struct Connectors {
    dns: TlsConnector,
    https: TlsConnector,
}

/// Connectors that trust the authorities in `ca`, or those of the system. They resume sessions.
///
/// # Errors
/// If no authority can be read.
pub fn connectors(ca: Option<&Path>) -> io::Result<Connectors> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => add(&mut roots, path)?,
        None => SYSTEM.iter().find_map(|path| add(&mut roots, Path::new(path)).ok()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "none found on this system: set tls_ca to a PEM file")
        })?,
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Sessions are kept apart: a server may do one of the two only.
    let mut https = config.clone();
    https.resumption = Resumption::default();
    https.alpn_protocols = vec![b"h2".to_vec()];
    // RFC 7858 has no ALPN of its own; "dot" is registered and servers without ALPN ignore it.
    config.alpn_protocols = vec![b"dot".to_vec()];
    Ok(Connectors { dns: Arc::new(config).into(), https: Arc::new(https).into() })
}

/// How to reach `server`, if it is a TLS one.
pub fn dial(server: &Server, connectors: Option<&Connectors>) -> Option<TlsDial> {
    let name = match server.tls.as_ref()? {
        TlsName::Dns(name) => ServerName::try_from(name.clone()).ok()?,
        TlsName::Address => ServerName::IpAddress(match server.address.ip() {
            IpAddr::V4(ip) => PkiIp::V4(ip.into()),
            IpAddr::V6(ip) => PkiIp::V6(ip.into()),
        }),
    };
    let Connectors { dns, https } = connectors?;
    Some(TlsDial { connector: if server.https.is_some() { https } else { dns }.clone(), name })
}

fn add(roots: &mut RootCertStore, path: &Path) -> io::Result<()> {
    let text =
        std::fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{}: no certificate in it", path.display())));
    }
    Ok(())
}
