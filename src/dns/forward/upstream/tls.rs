//! Trust for DNS over TLS: which authorities may vouch for an upstream, and for what name.
//!
//! Certificates are always verified; there is no way to turn that off (RFC 8310, strict profile).

use std::{io, net::IpAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
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

/// A connector that trusts the authorities in `ca`, or those of the system.
///
/// # Errors
/// If no authority can be read.
pub fn connector(ca: Option<&Path>) -> io::Result<TlsConnector> {
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
    // RFC 7858 has no ALPN of its own; "dot" is registered and servers without ALPN ignore it.
    config.alpn_protocols = vec![b"dot".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// How to reach `server`, if it is a TLS one.
pub fn dial(server: &Server, connector: Option<&TlsConnector>) -> Option<TlsDial> {
    let name = match server.tls.as_ref()? {
        TlsName::Dns(name) => ServerName::try_from(name.clone()).ok()?,
        TlsName::Address => ServerName::IpAddress(match server.address.ip() {
            IpAddr::V4(ip) => PkiIp::V4(ip.into()),
            IpAddr::V6(ip) => PkiIp::V6(ip.into()),
        }),
    };
    Some(TlsDial { connector: connector?.clone(), name })
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
