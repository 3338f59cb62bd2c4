//! Mutual TLS between hubs and agents: certificates on both sides of every stream, and names in them instead of addresses.
//!
//! A peer is known by the URI in its certificate, `spiffe://<trust domain>/holdfast/hub`, `…/agent` or `…/agent/<node>`,
//! signed by the CA both sides hold; host names and addresses play no part. Owns reading the files, re-reading them
//! when they change, the verifier, and issuing certificates for people without cert-manager. Never opens a connection.
//!
//! In an outage certificates cannot be renewed, so one that expired while the records' source was already silent is
//! accepted for [`GRACE`] more, counted and warned of. Nothing else is forgiven: signature, CA and name are checked as ever.

mod any;
mod files;
mod issue;
mod reload;
mod revoke;
mod server_certificate;
mod trusted;
mod verify;

pub use any::accepting_any;
pub use files::Material;
use files::Revoked;
pub use issue::{Issued, described, issue, issue_server, issued_in};
pub use reload::{Configs, Tls};
pub use revoke::{Revocations, revoke};
pub use server_certificate::ServerCertificate;
pub use trusted::Trusted;
pub use verify::{Stale, not_after};

use std::{fmt, path::PathBuf, time::Duration};

use prometheus::{IntCounter, IntGauge, Registry};

use crate::sys::{Registrar, UnixMillis, labels};

/// How long an expired certificate is still accepted if it expired while the source was silent.
pub const GRACE: Duration = Duration::from_secs(30 * 86_400);

/// How often the files are looked at again.
pub const REREAD: Duration = Duration::from_secs(10);

/// The end of a certificate, in seconds since 1970, as the end of a sentence about it.
fn valid_until(end: Option<u64>) -> String {
    let day_and_time = |end: u64| UnixMillis(end * 1_000).to_string().replace('T', " ").replace(".000Z", " UTC");
    end.map_or_else(String::new, |end| format!(", valid until {}", day_and_time(end)))
}

labels! {
    /// The part a peer plays, as its URI spells it.
    pub enum Part {
        /// Serves streams; may follow other hubs.
        Hub = "hub",
        Agent = "agent",
    }
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose holdfasts these are; both ends must have the same.
    pub trust_domain: String,
    /// The part of the certificate's owner: hub or agent.
    pub part: Part,
    /// The node, where the certificate names one.
    pub node: Option<String>,
}

impl Identity {
    /// Reads `spiffe://<trust domain>/holdfast/<part>[/<node>]`; `None` if it is anything else.
    pub fn parse(uri: &str) -> Option<Self> {
        let (trust_domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
        let mut parts = path.split('/');
        if trust_domain.is_empty() || parts.next() != Some("holdfast") {
            return None;
        }
        let part = parts.next()?.parse().ok()?;
        let node = parts.next().map(str::to_owned);
        if parts.next().is_some() || node.as_deref() == Some("") {
            return None;
        }
        Some(Self { trust_domain: trust_domain.to_owned(), part, node })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/holdfast/{}", self.trust_domain, self.part.as_str())?;
        self.node.iter().try_for_each(|node| write!(f, "/{node}"))
    }
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    /// A file has other content than its name says.
    #[error("{}: {reason}", path.display())]
    Content {
        path: PathBuf,
        /// The reason that the file cannot be used.
        reason: String,
    },
    /// The parts do not make a TLS configuration.
    #[error("tls in {}: {error}", path.display())]
    Config { path: PathBuf, error: rustls::Error },
    /// A file cannot be written.
    #[error("{}: {error}", path.display())]
    Write { path: PathBuf, error: std::io::Error },
    /// A certificate could not be made.
    #[error("making a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// A value of `--dns-name` is neither a DNS name nor an address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
    /// The name for the trust domain cannot stand in a URI.
    #[error("trust domain {0:?}: only lower-case letters, digits, dots, dashes and underscores")]
    TrustDomain(String),
}

/// Whether `directory` has certificates that can be read.
///
/// # Errors
/// The file that is missing or wrong.
pub fn check(directory: &std::path::Path) -> Result<(), Error> {
    Material::read(directory)?;
    Revoked::read(directory, &Revoked::default()).map(|_| ())
}

/// Metrics of certificates.
#[derive(Clone, Debug)]
pub struct Metrics {
    grace: [IntCounter; Part::ALL.len()],
    rereads: IntCounter,
    reread_errors: IntCounter,
    disconnected: IntCounter,
    expiry: IntGauge,
}

impl Metrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let made = Registrar(registry);
        Ok(Self {
            grace: made.counters(
                "holdfast_tls_grace_total",
                "Peers accepted with a certificate that expired while the source was lost, by role.",
                "peer",
                Part::ALL.map(Part::as_str),
            )?,
            rereads: made.counter("holdfast_tls_rereads_total", "Changed certificate files that were taken over.")?,
            reread_errors: made.counter(
                "holdfast_tls_reread_errors_total",
                "Changed certificate files that could not be used; the old ones stay in use.",
            )?,
            disconnected: made.counter(
                "holdfast_tls_disconnected_total",
                "Connections that ended because the peer's certificate was revoked, or its CA is not trusted any more.",
            )?,
            expiry: made.gauge(
                "holdfast_tls_certificate_expiry_timestamp_seconds",
                "When this process's own certificate expires, in seconds since 1970; 0 if not known.",
            )?,
        })
    }
}

#[cfg(test)]
mod handshake_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_strictly() {
        let cases = [
            ("spiffe://prod/holdfast/hub", Some((Part::Hub, None))),
            ("spiffe://prod.example/holdfast/agent", Some((Part::Agent, None))),
            ("spiffe://prod/holdfast/agent/node-1", Some((Part::Agent, Some("node-1")))),
            ("spiffe://prod/holdfast/agent/", None),
            ("spiffe://prod/holdfast/agent/a/b", None),
            ("spiffe:///holdfast/hub", None),
            ("spiffe://prod/holdfast", None),
            ("spiffe://prod/other/hub", None),
            ("spiffe://prod/holdfast/hubs", None),
            ("https://prod/holdfast/hub", None),
        ];
        for (uri, expected) in cases {
            let read = Identity::parse(uri);
            assert_eq!(read.as_ref().map(|id| (id.part, id.node.as_deref())), expected, "{uri}");
            if let Some(identity) = read {
                assert_eq!(identity.to_string(), uri);
            }
        }
    }
}
