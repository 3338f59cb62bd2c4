//! The certificate of encrypted DNS, opened before the sockets and followed while they are open.

use prometheus::Registry;
use tokio_util::task::AbortOnDropHandle;

use crate::{config::Config, dns, tls::ServerCertificate};

/// A certificate in use, whose files are looked at until this is dropped.
#[derive(Debug)]
pub(super) struct Certificate {
    pub current: ServerCertificate,
    _follow: AbortOnDropHandle<std::convert::Infallible>,
}

/// Opens the certificate, if anything encrypted is to be served.
///
/// # Errors
/// If its files cannot be read, or do not fit together.
pub(super) fn open(config: &Config, registry: &Registry) -> anyhow::Result<Option<Certificate>> {
    let is_served =
        !config.dns().encrypted.is_empty() || config.views().iter().any(|(dns, _)| !dns.encrypted.is_empty());
    let Some(directory) = config.settings.encrypted_certificate.clone().filter(|_| is_served) else { return Ok(None) };
    let current = ServerCertificate::open(directory, registry)?;
    let follow = AbortOnDropHandle::new(tokio::spawn(current.clone().follow_files()));
    Ok(Some(Certificate { current, _follow: follow }))
}

/// `config` with the certificate in it.
pub(super) fn with(mut config: dns::Config, certificate: Option<&Certificate>) -> dns::Config {
    config.encrypted.certificate = certificate.map(|certificate| std::sync::Arc::new(certificate.current.clone()) as _);
    config
}

/// How clients find the listeners: by the names in the certificate.
pub(super) fn discovery(
    listeners: &[(dns::Transport, std::net::SocketAddr)],
    certificate: Option<&Certificate>,
) -> std::sync::Arc<dns::Discovery> {
    let names = certificate.map(|certificate| certificate.current.names()).unwrap_or_default();
    std::sync::Arc::new(dns::Discovery::new(listeners, &names))
}
