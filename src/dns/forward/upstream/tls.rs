//! Trust for DNS over TLS and HTTPS: which authorities may vouch for an upstream, and for what name.
//!
//! Certificates are always verified; there is no way to turn that off (RFC 8310, strict profile).

use std::{fmt, io, net::IpAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, IpAddr as PkiIp, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;
use xxhash_rust::xxh3::xxh3_64;

use super::{Server, TlsName, tcp::TlsDial};
use crate::sys::read_file;

/// Longer files are no bundles of certificates.
const BYTES_MAX: u64 = 16 << 20;

/// Where distributions keep their certificate authorities, in one file.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How TLS begins, by what is spoken over it, with the authorities of a zone. Sessions are resumed.
pub struct Trust {
    dns: TlsConnector,
    https: TlsConnector,
    /// Of the bytes of the file with the authorities.
    pub digest: u64,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// The files that are read for `ca`.
pub fn trust_paths(ca: Option<&Path>) -> impl Iterator<Item = &Path> {
    let system = if ca.is_none() { &SYSTEM[..] } else { &[] };
    ca.into_iter().chain(system.iter().map(Path::new))
}

/// Trusts the authorities in `ca`, or those of the system.
///
/// # Errors
/// If no authority can be read; the text does not name `ca`.
pub fn trust(ca: Option<&Path>) -> io::Result<Trust> {
    let mut roots = RootCertStore::empty();
    let digest = match ca {
        Some(path) => add(&mut roots, path)?,
        None => SYSTEM.iter().find_map(|path| add(&mut roots, Path::new(path)).ok()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "no certificate authorities: set tls_ca to a PEM file")
        })?,
    };
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
    Ok(Trust { dns: Arc::new(config).into(), https: Arc::new(https).into(), digest })
}

/// How to reach `server`, if it is a TLS one.
pub fn dial(server: &Server, trust: Option<&Trust>) -> Option<TlsDial> {
    let name = match server.tls.as_ref()? {
        TlsName::Dns(name) => ServerName::try_from(name.clone()).ok()?,
        TlsName::Address => ServerName::IpAddress(match server.address.ip() {
            IpAddr::V4(ip) => PkiIp::V4(ip.into()),
            IpAddr::V6(ip) => PkiIp::V6(ip.into()),
        }),
    };
    let Trust { dns, https, .. } = trust?;
    Some(TlsDial { connector: if server.https.is_some() { https } else { dns }.clone(), name })
}

/// Adds the authorities in `path`; returns the digest of its bytes.
fn add(roots: &mut RootCertStore, path: &Path) -> io::Result<u64> {
    let text = read_file(path, BYTES_MAX)?;
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no certificate in it"));
    }
    Ok(xxh3_64(&text))
}
