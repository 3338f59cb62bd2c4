//! TLS configurations made from the files, and made again when the files change.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig, version::TLS13};

use super::{
    Error, Identity, Material, Metrics, Part, REREAD, Stale,
    verify::{PeerVerifier, not_after},
};
use crate::sys::Clock;

/// Both sides' configuration, and our own name.
#[derive(Clone, Debug)]
pub struct Configs {
    /// For streams we serve: lets in agents and hubs.
    pub server: Arc<ServerConfig>,
    /// For hubs we follow: lets us talk to hubs only.
    pub client: Arc<ClientConfig>,
    pub identity: Identity,
}

/// The configuration in use. Cheap to clone; every new connection takes what is current.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    clock: Clock,
    stale: Stale,
    metrics: Metrics,
    current: ArcSwap<(Configs, [Vec<u8>; 3])>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("dir", &self.0.dir).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files in `dir`. `stale` says since when the records' source has been silent, for the grace.
    ///
    /// # Errors
    /// If the files cannot be read or do not fit together.
    pub fn open(dir: PathBuf, clock: Clock, stale: Stale, metrics: Metrics) -> Result<Self, Error> {
        let material = Material::read(&dir)?;
        let current = ArcSwap::from_pointee(configs(&dir, material, &clock, &stale, &metrics)?);
        Ok(Self(Arc::new(Inner { dir, clock, stale, metrics, current })))
    }

    #[must_use]
    pub fn current(&self) -> Configs {
        self.0.current.load().0.clone()
    }

    /// Reads the files again if they changed; true if they did. On an error what was in use stays in use.
    ///
    /// # Errors
    /// If the changed files cannot be used.
    pub fn reread(&self) -> Result<bool, Error> {
        let inner = &*self.0;
        let made = Material::read(&inner.dir).and_then(|material| {
            if material.raw == inner.current.load().1 {
                return Ok(None);
            }
            configs(&inner.dir, material, &inner.clock, &inner.stale, &inner.metrics).map(Some)
        });
        match made {
            Ok(None) => Ok(false),
            Ok(Some(configs)) => {
                inner.current.store(Arc::new(configs));
                inner.metrics.rereads.inc();
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
        let mut failing = false;
        loop {
            tokio::time::sleep(REREAD).await;
            let outcome = self.reread();
            match &outcome {
                Ok(true) => tracing::info!(dir = %self.0.dir.display(), "new certificates in use"),
                Err(error) if !failing => {
                    tracing::warn!(%error, "changed certificates cannot be used: the old ones stay in effect");
                }
                Ok(false) | Err(_) => {}
            }
            failing = outcome.is_err();
        }
    }
}

fn configs(
    dir: &std::path::Path,
    material: Material,
    clock: &Clock,
    stale: &Stale,
    metrics: &Metrics,
) -> Result<(Configs, [Vec<u8>; 3]), Error> {
    let fail = |error| Error::Config { path: dir.to_owned(), error };
    let Material { roots, chain, key, identity, raw } = material;
    let end = not_after(&chain[0]).and_then(|end| i64::try_from(end).ok());
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = |parts| {
        Arc::new(PeerVerifier {
            hints: roots.subjects(),
            roots: Arc::clone(&roots),
            algorithms: provider.signature_verification_algorithms,
            trust_domain: identity.trust_domain.clone(),
            parts,
            clock: clock.clone(),
            stale: Arc::clone(stale),
            metrics: metrics.clone(),
        })
    };
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(fail)?
        .with_client_cert_verifier(verifier(&[Part::Agent, Part::Hub]))
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(fail)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not be checked again; a stream lives for days, so there is little to save.
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(fail)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(&[Part::Hub]))
        .with_client_auth_cert(chain, key)
        .map_err(fail)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    metrics.expiry.set(end.unwrap_or(0));
    Ok((Configs { server: Arc::new(server), client: Arc::new(client), identity }, raw))
}
