//! The verifier of peers, the same on both sides.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::{CertRevocationList, EndEntityCert, KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy};

use super::{GRACE, Identity, Metrics, Part, files::Revoked};
use crate::sys::{Clock, UnixMillis};

/// Since when the source of the records has been silent; `None` while it is not.
pub type Stale = Arc<dyn Fn() -> Option<UnixMillis> + Send + Sync>;

/// Expiry may lie this much before the source's last word: the two clocks may disagree by a little.
const SLACK: Duration = Duration::from_secs(300);
/// Maximum characters shown of a name that was not verified.
const NAME_CHARS_MAX: usize = 100;

/// Checks a peer's certificate: our CA, our trust domain, a part it may play, in time or within the grace.
pub(super) struct PeerVerifier {
    pub roots: Arc<RootCertStore>,
    pub revoked: Arc<Revoked>,
    pub hints: Vec<DistinguishedName>,
    pub algorithms: WebPkiSupportedAlgorithms,
    pub trust_domain: String,
    pub parts: &'static [Part],
    pub clock: Clock,
    pub stale: Stale,
    pub metrics: Metrics,
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// A certificate without the expected identity.
#[derive(thiserror::Error)]
#[error(
    "its certificate names {}, expected {} of trust domain {trust_domain}",
    found.as_deref().unwrap_or("no holdfast identity"), words(parts)
)]
struct UnexpectedIdentity {
    /// The name, shortened and escaped: it comes from the network and is not verified.
    found: Option<String>,
    parts: &'static [Part],
    trust_domain: String,
}

impl fmt::Debug for UnexpectedIdentity {
    /// As it is displayed, for this is what rustls shows of errors that are not its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn words(parts: &[Part]) -> String {
    let words: Vec<&str> = parts.iter().map(|part| part.as_str()).collect();
    words.join(" or ")
}

fn refused(error: CertificateError) -> rustls::Error {
    rustls::Error::InvalidCertificate(error)
}

impl PeerVerifier {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: KeyUsage,
    ) -> Result<(), rustls::Error> {
        let certificate = EndEntityCert::try_from(certificate).map_err(|_| refused(CertificateError::BadEncoding))?;
        // The name first: it costs nothing, a signature does.
        let names = || certificate.valid_uri_names().filter_map(Identity::parse);
        let identity = names()
            .next()
            .filter(|identity| identity.trust_domain == self.trust_domain && self.parts.contains(&identity.part))
            .ok_or_else(|| self.unexpected(names().next().as_ref()))?;
        let now = self.clock.now();
        let verify = |at| self.verify(&certificate, intermediates, usage, at);
        match verify(unix_time(now)) {
            Ok(()) => Ok(()),
            Err(webpki::Error::CertExpired { not_after, .. }) if self.in_grace(not_after, now) => {
                verify(not_after).map_err(verdict)?;
                self.metrics.grace[identity.part as usize].inc();
                let expired_s = now.0 / 1_000 - not_after.as_secs();
                tracing::warn!(peer = %identity, expired_s, "peer's certificate is expired, accepted because the source is lost: renew it");
                Ok(())
            }
            Err(error) => Err(verdict(error)),
        }
    }

    /// Whether a certificate that was accepted still is, its end aside.
    ///
    /// # Errors
    /// If its CA is not trusted any more, or it is revoked.
    pub(super) fn check_again(&self, chain: &[CertificateDer<'_>], usage: KeyUsage) -> Result<(), webpki::Error> {
        let [certificate, intermediates @ ..] = chain else { return Err(webpki::Error::UnknownIssuer) };
        let certificate = EndEntityCert::try_from(certificate)?;
        let verify = |at| self.verify(&certificate, intermediates, usage, at);
        match verify(unix_time(self.clock.now())) {
            Err(webpki::Error::CertExpired { not_after, .. }) => verify(not_after),
            verdict => verdict,
        }
    }

    /// The verdict of the revocation lists on a chain of ours, valid until `end`.
    ///
    /// # Errors
    /// If it is revoked, or its CA did not sign its list.
    pub(super) fn check_own(&self, chain: &[CertificateDer<'_>], end: Option<u64>) -> Result<(), webpki::Error> {
        let [certificate, intermediates @ ..] = chain else { return Ok(()) };
        let certificate = EndEntityCert::try_from(certificate)?;
        let now = self.clock.now().0 / 1_000;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(end.map_or(now, |end| now.min(end))));
        match self.path(&certificate, intermediates, KeyUsage::client_auth(), at, &self.lists()) {
            Err(error) if error == webpki::Error::CertRevoked || is_of_list(&error) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn verify(
        &self,
        certificate: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: KeyUsage,
        at: UnixTime,
    ) -> Result<(), webpki::Error> {
        match self.path(certificate, intermediates, usage, at, &self.lists()) {
            // The list of another CA with the same name, such as the one that replaces it.
            Err(error) if is_of_list(&error) => self.path(certificate, intermediates, usage, at, &[]),
            verdict => verdict,
        }
    }

    fn lists(&self) -> Vec<&CertRevocationList<'static>> {
        self.revoked.lists.iter().collect()
    }

    fn path(
        &self,
        certificate: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: KeyUsage,
        at: UnixTime,
        lists: &[&CertRevocationList<'_>],
    ) -> Result<(), webpki::Error> {
        // A CA without a list, or with an overdue one, revokes nothing more: in an outage there are no new lists.
        let unknown = UnknownStatusPolicy::Allow;
        let revocation =
            RevocationOptionsBuilder::new(lists).ok().map(|lists| lists.with_status_policy(unknown).build());
        let anchors = &self.roots.roots;
        let path =
            certificate.verify_for_usage(self.algorithms.all, anchors, intermediates, at, usage, revocation, None);
        path.map(|_| ())
    }

    fn unexpected(&self, found: Option<&Identity>) -> rustls::Error {
        let shown = |name: &Identity| name.to_string().chars().take(NAME_CHARS_MAX).collect::<String>();
        let found = found.map(|name| shown(name).escape_debug().to_string());
        let error = UnexpectedIdentity { found, parts: self.parts, trust_domain: self.trust_domain.clone() };
        refused(CertificateError::Other(rustls::OtherError(Arc::new(error))))
    }

    /// True if a certificate that ended at `not_after` ended while the source was lost, so that it could not be renewed.
    fn in_grace(&self, not_after: UnixTime, now: UnixMillis) -> bool {
        let ended = UnixMillis(not_after.as_secs().saturating_mul(1_000));
        let silent_since = (self.stale)();
        silent_since.is_some_and(|since| ended.age(since) <= SLACK) && ended.age(now) <= GRACE
    }
}

/// Whether a verdict is about a revocation list and not about a certificate.
fn is_of_list(error: &webpki::Error) -> bool {
    use webpki::Error::{
        InvalidCrlSignatureForPublicKey, IssuerNotCrlSigner, UnsupportedCrlSignatureAlgorithmContext,
        UnsupportedCrlSignatureAlgorithmForPublicKeyContext,
    };
    matches!(
        error,
        InvalidCrlSignatureForPublicKey
            | IssuerNotCrlSigner
            | UnsupportedCrlSignatureAlgorithmContext(_)
            | UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_)
    )
}

fn unix_time(at: UnixMillis) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(at.0))
}

fn verdict(error: webpki::Error) -> rustls::Error {
    refused(match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        // Of a CA that has the name of ours, and is another one.
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    })
}

/// The methods on signatures, which both traits of rustls ask for in the same words.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}
pub(super) use signatures;

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

/// The identity in a verified chain.
pub(super) fn identity(chain: &[CertificateDer<'_>]) -> Option<Identity> {
    let certificate = EndEntityCert::try_from(chain.first()?).ok()?;
    certificate.valid_uri_names().find_map(Identity::parse)
}

/// When a certificate ends, in seconds since 1970.
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}
