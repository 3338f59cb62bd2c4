//! Trust for DNS over TLS and HTTPS: the authorities that vouch for upstreams, and the certificate that upstreams are shown.
//!
//! Certificates are always verified; there is no way to turn that off (RFC 8310, strict profile).

use std::{
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, IpAddr as PkiIp, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;
use xxhash_rust::xxh3::Xxh3;

use super::{
    Server, TlsName,
    https::Endpoint,
    tcp::{Dial, TlsDial},
};
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
    /// Of the bytes of its files.
    pub digest: u64,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// The files of a zone for TLS to its upstreams.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'f> {
    /// The authorities; those of the system if `None`.
    pub ca: Option<&'f Path>,
    /// The certificate that upstreams are shown, and its key.
    pub client: Option<(&'f Path, &'f Path)>,
}

impl<'f> TlsFiles<'f> {
    /// All that are read.
    pub fn paths(self) -> impl Iterator<Item = &'f Path> {
        let system = if self.ca.is_none() { &SYSTEM[..] } else { &[] };
        let client = self.client.into_iter().flat_map(|(certificate, key)| [certificate, key]);
        self.ca.into_iter().chain(system.iter().map(Path::new)).chain(client)
    }
}

/// Trusts the authorities in `files`, or those of the system.
///
/// # Errors
/// If no authority can be read, or a certificate of ours that is named; with the file at fault.
pub fn trust(files: TlsFiles<'_>) -> Result<Trust, (PathBuf, io::Error)> {
    let (mut roots, mut digest) = (RootCertStore::empty(), Xxh3::new());
    let ours = files.client.map(|(certificate, key)| client(certificate, key, &mut digest)).transpose()?;
    if let Some(path) = files.ca {
        add(&mut roots, path, &mut digest).map_err(|error| (path.to_owned(), error))?;
    } else if !SYSTEM.iter().any(|path| add(&mut roots, Path::new(path), &mut digest).is_ok()) {
        let error = "no certificate authorities: set tls_ca to a PEM file";
        return Err((SYSTEM[0].into(), io::Error::new(io::ErrorKind::NotFound, error)));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| (PathBuf::new(), io::Error::other(error)))?
        .with_root_certificates(roots);
    let mut config = match (files.client, ours) {
        (Some((certificate, _)), Some((chain, private))) => {
            // Fails too while only one of the two has been replaced.
            let with_ours = config.with_client_auth_cert(chain, private);
            with_ours.map_err(|error| (certificate.to_owned(), io::Error::new(io::ErrorKind::InvalidData, error)))?
        }
        _ => config.with_no_client_auth(),
    };
    // Sessions are kept apart: a server may do one of the two only.
    let mut https = config.clone();
    https.resumption = Resumption::default();
    https.alpn_protocols = vec![b"h2".to_vec()];
    // RFC 7858 has no ALPN of its own; "dot" is registered and servers without ALPN ignore it.
    config.alpn_protocols = vec![b"dot".to_vec()];
    Ok(Trust { dns: Arc::new(config).into(), https: Arc::new(https).into(), digest: digest.digest() })
}

/// How connections to `server` are made; `get` for HTTPS with the method GET. Over TLS only with `trust`.
pub fn dial(server: &Server, trust: Option<&Trust>, get: bool) -> Dial {
    let Some(tls) = tls(server, trust) else { return Dial::Tcp };
    match Endpoint::of(server, get) {
        Some(endpoint) => Dial::Https(tls, endpoint),
        None => Dial::Tls(tls),
    }
}

fn tls(server: &Server, trust: Option<&Trust>) -> Option<TlsDial> {
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

/// Adds the authorities in `path`, and its bytes to `digest`.
fn add(roots: &mut RootCertStore, path: &Path, digest: &mut Xxh3) -> io::Result<()> {
    let text = read_file(path, BYTES_MAX)?;
    let (added, _) = roots.add_parsable_certificates(certificates(&text));
    if added == 0 {
        return Err(no_certificate());
    }
    digest.update(&text);
    Ok(())
}

/// Reads the certificate that upstreams are shown, with its chain, and its key.
fn client(
    certificate: &Path,
    key: &Path,
    digest: &mut Xxh3,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    let text = read_file(certificate, BYTES_MAX).map_err(at(certificate))?;
    let chain = certificates(&text);
    if chain.is_empty() {
        return Err(at(certificate)(no_certificate()));
    }
    digest.update(&text);
    let text = read_file(key, BYTES_MAX).map_err(at(key))?;
    let private = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| at(key)(io::Error::new(io::ErrorKind::InvalidData, "no private key in it")))?;
    digest.update(&text);
    Ok((chain, private))
}

fn certificates(text: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text).filter_map(Result::ok).collect()
}

fn no_certificate() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no certificate in it")
}
