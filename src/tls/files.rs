//! `ca.crt`, `tls.crt` and `tls.key`, as a Kubernetes TLS secret holds them, and `ca.crl` beside them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
};
use webpki::{CertRevocationList, EndEntityCert, OwnedCertRevocationList};

use super::{Error, Identity};

/// Largest file read: a CA bundle of hundreds of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The contents of the three files.
#[derive(Debug)]
pub struct Material {
    /// The trusted certificate authorities.
    pub roots: RootCertStore,
    /// Our certificate, then those between it and the CA.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// Our name, from the certificate.
    pub identity: Identity,
    /// The bytes it was read from, to see a change.
    pub(super) raw: [Vec<u8>; 3],
}

impl Material {
    /// Reads `ca.crt`, `tls.crt` and `tls.key` in `dir`.
    ///
    /// # Errors
    /// If a file cannot be read, or has other content than its name says.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let paths = ["ca.crt", "tls.crt", "tls.key"].map(|name| dir.join(name));
        let [ca_path, chain_path, key_path] = &paths;
        let raw = [read(ca_path)?, read(chain_path)?, read(key_path)?];
        let [ca, chain, key] = &raw;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca_path, ca)? {
            roots.add(certificate).map_err(|error| content(ca_path, &error))?;
        }
        let chain = certificates(chain_path, chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| content(key_path, &error))?;
        let parsed = EndEntityCert::try_from(&chain[0]).map_err(|error| content(chain_path, &error))?;
        let Some(identity) = parsed.valid_uri_names().find_map(Identity::parse) else {
            let reason = "the certificate has no URI of the form spiffe://<trust domain>/holdfast/hub or …/agent";
            return Err(content(chain_path, &reason));
        };
        Ok(Self { roots, chain, key, identity, raw })
    }
}

/// Revoked certificates: the lists of `ca.crl`, one for each CA. None without that file.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    pub lists: Vec<CertRevocationList<'static>>,
    raw: Option<Vec<u8>>,
}

impl Revoked {
    /// Path of the file in `dir`.
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("ca.crl")
    }

    /// Reads `ca.crl` in `dir`; `None` if it holds the same as in `before`.
    ///
    /// # Errors
    /// If it cannot be read, is not there any more, or does not hold lists.
    pub(super) fn read(dir: &Path, before: &Self) -> Result<Option<Self>, Error> {
        let path = Self::path(dir);
        let raw = match read(&path) {
            Err(Error::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound && before.raw.is_none() => {
                return Ok(None);
            }
            raw => raw?,
        };
        if before.raw.as_ref() == Some(&raw) {
            return Ok(None);
        }
        let lists = CertificateRevocationListDer::pem_slice_iter(&raw).map(|der| {
            let der = der.map_err(|error| content(&path, &error))?;
            OwnedCertRevocationList::from_der(&der).map(Into::into).map_err(|error| content(&path, &error))
        });
        let lists: Vec<_> = lists.collect::<Result<_, _>>()?;
        if lists.is_empty() {
            return Err(content(&path, &"holds no revocation list in PEM"));
        }
        Ok(Some(Self { lists, raw: Some(raw) }))
    }
}

pub(super) fn read(path: &PathBuf) -> Result<Vec<u8>, Error> {
    let fail = |error| Error::Read { path: path.clone(), error };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(fail)?;
    io::Read::read_to_end(&mut io::Read::take(file, FILE_BYTES_MAX), &mut bytes).map_err(fail)?;
    Ok(bytes)
}

pub(super) fn content(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Content { path: path.to_owned(), reason: reason.to_string() }
}

pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| content(path, &error))?;
    if read.is_empty() {
        return Err(content(path, &"holds no certificate"));
    }
    Ok(read)
}
