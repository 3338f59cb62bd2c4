//! The certificate by which clients of encrypted DNS know this server: `tls.crt` and `tls.key` in a directory, as a Kubernetes
//! TLS secret holds them, read again when they change.
//!
//! Clients are not asked for certificates, and nothing is forgiven here: an expired certificate is the client's to judge.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use prometheus::{IntCounter, IntGauge, Registry};
use rustls::{
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use webpki::EndEntityCert;

use super::{Error, REREAD, files, valid_until, verify};
use crate::sys::Registrar;

/// How long before its end a certificate is warned of.
const WARN_BEFORE: Duration = Duration::from_secs(7 * 86_400);

/// The certificate in use. Cheap to clone; every handshake takes the current one.
#[derive(Clone, Debug)]
pub struct ServerCertificate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    /// `None` until the files can be used.
    current: ArcSwapOption<Current>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    /// Seconds since 1970.
    end: Option<u64>,
    raw: [Vec<u8>; 2],
}

#[derive(Clone, Debug)]
struct Metrics {
    expiry: IntGauge,
    rereads: IntCounter,
    reread_errors: IntCounter,
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let made = Registrar(registry);
        Ok(Self {
            expiry: made.gauge(
                "holdfast_dns_certificate_expiry_timestamp_seconds",
                "When the certificate of encrypted DNS expires, in seconds since 1970; 0 if not known.",
            )?,
            rereads: made.counter(
                "holdfast_dns_certificate_rereads_total",
                "Changed certificates of encrypted DNS that were taken over.",
            )?,
            reread_errors: made.counter(
                "holdfast_dns_certificate_reread_errors_total",
                "Changed certificates of encrypted DNS that could not be used; the old one stays in use.",
            )?,
        })
    }
}

impl ServerCertificate {
    /// Reads `tls.crt` and `tls.key` in `directory`. While they cannot be used, handshakes are refused and the files are looked at
    /// again.
    ///
    /// # Errors
    /// If a metric is registered already.
    pub fn open(directory: PathBuf, registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::register(registry)?;
        let current = read(&directory).inspect_err(|error| {
            metrics.reread_errors.inc();
            tracing::error!(
                %error,
                "encrypted DNS: no certificate, every handshake is refused until its files can be used; DNS over UDP and TCP is not affected"
            );
        });
        let current = ArcSwapOption::from(current.ok().map(Arc::new));
        let certificate = Self(Arc::new(Inner { directory, current, metrics }));
        certificate.tell_expiry();
        Ok(certificate)
    }

    /// The DNS names and the end of the certificate in `directory`, in words; `None` if it cannot be used.
    pub fn described(directory: &Path) -> Option<String> {
        let Current { names, end, .. } = read(directory).ok()?;
        let names = if names.is_empty() { "no DNS name".to_owned() } else { names.join(", ") };
        Some(format!("{names}{}", valid_until(end)))
    }

    /// The DNS names in the certificate, in its order; wildcards left out.
    pub fn names(&self) -> Vec<String> {
        self.0.current.load().as_ref().map(|current| current.names.clone()).unwrap_or_default()
    }

    /// When it expires, in seconds since 1970.
    pub fn end(&self) -> Option<u64> {
        self.0.current.load().as_ref()?.end
    }

    /// Reads the files again if they changed; true if they did. On an error the certificate in use stays in use.
    ///
    /// # Errors
    /// If the changed files cannot be used.
    pub fn reread(&self) -> Result<bool, Error> {
        let inner = &*self.0;
        let made = raw(&inner.directory).and_then(|raw| {
            let is_same = inner.current.load().as_ref().is_some_and(|current| current.raw == raw);
            if is_same { Ok(None) } else { parse(&inner.directory, raw).map(Some) }
        });
        match made {
            Ok(None) => Ok(false),
            Ok(Some(current)) => {
                inner.current.store(Some(Arc::new(current)));
                inner.metrics.rereads.inc();
                self.tell_expiry();
                Ok(true)
            }
            Err(error) => {
                inner.metrics.reread_errors.inc();
                Err(error)
            }
        }
    }

    /// Looks at the files for as long as the process lives.
    pub async fn follow_files(self) -> std::convert::Infallible {
        let mut failing = self.0.current.load().is_none();
        loop {
            tokio::time::sleep(REREAD).await;
            let outcome = self.reread();
            let directory = self.0.directory.display();
            match &outcome {
                Ok(true) => tracing::info!(%directory, "encrypted DNS: new certificate in use"),
                Err(error) if !failing => tracing::warn!(
                    %error,
                    "encrypted DNS: the changed certificate cannot be used, the one before stays in use; check the files"
                ),
                Ok(false) | Err(_) => {}
            }
            failing = outcome.is_err();
        }
    }

    fn tell_expiry(&self) {
        let end = self.end();
        self.0.metrics.expiry.set(end.and_then(|end| i64::try_from(end).ok()).unwrap_or(0));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        if end.is_some_and(|end| end < (now + WARN_BEFORE).as_secs()) {
            tracing::warn!(
                directory = %self.0.directory.display(),
                "encrypted DNS: the certificate expires within 7 days; clients that check it will refuse it then. Renew it"
            );
        }
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.current.load().as_ref().map(|current| Arc::clone(&current.key))
    }
}

fn paths(directory: &Path) -> [PathBuf; 2] {
    ["tls.crt", "tls.key"].map(|name| directory.join(name))
}

fn raw(directory: &Path) -> Result<[Vec<u8>; 2], Error> {
    let [chain, key] = paths(directory);
    Ok([files::read(&chain)?, files::read(&key)?])
}

fn read(directory: &Path) -> Result<Current, Error> {
    parse(directory, raw(directory)?)
}

fn parse(directory: &Path, raw: [Vec<u8>; 2]) -> Result<Current, Error> {
    let [chain_path, key_path] = paths(directory);
    let chain = files::certificates(&chain_path, &raw[0])?;
    let key = PrivateKeyDer::from_pem_slice(&raw[1]).map_err(|error| files::content(&key_path, &error))?;
    let parsed = EndEntityCert::try_from(&chain[0]).map_err(|error| files::content(&chain_path, &error))?;
    let is_host = |name: &&str| name.parse::<IpAddr>().is_err() && !name.contains('*');
    let names = parsed.valid_dns_names().filter(is_host).map(str::to_ascii_lowercase).collect();
    let end = verify::not_after(&chain[0]);
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider)
        .map_err(|error| Error::Config { path: directory.to_owned(), error })?;
    Ok(Current { key: Arc::new(key), names, end, raw })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(directory.join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(directory.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        write(path, &["dns.example", "10.96.0.10", "*.example"]);
        let certificate = ServerCertificate::open(path.to_owned(), &Registry::new()).unwrap();
        assert_eq!(certificate.names(), ["dns.example"]);
        assert!(certificate.end().is_some());
        assert!(!certificate.reread().unwrap());

        write(path, &["new.example"]);
        assert!(certificate.reread().unwrap());
        assert_eq!(certificate.names(), ["new.example"]);

        std::fs::write(path.join("tls.key"), "no key").unwrap();
        let error = certificate.reread().unwrap_err().to_string();
        assert!(error.contains("tls.key"), "{error}");
        assert_eq!(certificate.names(), ["new.example"]);
    }

    #[test]
    fn a_missing_certificate_is_put_to_use_when_it_appears() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let certificate = ServerCertificate::open(path.to_owned(), &Registry::new()).unwrap();
        assert_eq!((certificate.names(), certificate.end()), (Vec::new(), None));
        assert!(certificate.reread().is_err());
        write(path, &["dns.example"]);
        assert!(certificate.reread().unwrap());
        assert_eq!(certificate.names(), ["dns.example"]);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        write(path, &["a.example"]);
        let key = std::fs::read(path.join("tls.key")).unwrap();
        write(path, &["b.example"]);
        std::fs::write(path.join("tls.key"), key).unwrap();
        assert!(ServerCertificate::described(path).is_none());
    }
}
