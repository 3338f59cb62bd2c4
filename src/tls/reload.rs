//! TLS configurations made from the files, and made again when the files change.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig, pki_types::CertificateDer, version::TLS13};
use webpki::KeyUsage;

use super::{
    Error, Identity, Material, Metrics, Part, REREAD, Stale,
    files::{Revoked, content},
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

/// The configuration in use. Cheap to clone; every new connection takes the current one.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    environment: Environment,
    current: ArcSwap<Current>,
    /// Changes after `current` when other certificates are accepted than before.
    trust: AtomicU64,
}

/// All that a configuration depends on besides the files.
struct Environment {
    clock: Clock,
    stale: Stale,
    metrics: Metrics,
}

/// The files in use.
struct Current {
    configs: Configs,
    peers: Arc<PeerVerifier>,
    raw: [Vec<u8>; 3],
}

impl Tls {
    /// Reads the files in `dir`. `stale` says since when the records' source has been silent, for the grace.
    ///
    /// # Errors
    /// If the files cannot be read or do not fit together.
    pub fn open(dir: PathBuf, clock: Clock, stale: Stale, metrics: Metrics) -> Result<Self, Error> {
        let environment = Environment { clock, stale, metrics };
        let material = Material::read(&dir)?;
        let none = Arc::new(Revoked::default());
        let revoked = Revoked::read(&dir, &none)?.map(Arc::new);
        let (current, problem) = environment.configure(&dir, material, revoked.as_ref(), &none)?;
        if let Some(error) = problem {
            tracing::error!(%error, "the revocation list cannot be used: no certificate counts as revoked");
        }
        let current = ArcSwap::from_pointee(current);
        Ok(Self(Arc::new(Inner { dir, environment, current, trust: AtomicU64::new(0) })))
    }

    pub fn current(&self) -> Configs {
        self.0.current.load().configs.clone()
    }

    /// A number that changes when other certificates are accepted than before. To be read before [`current`](Self::current).
    pub(super) fn trust(&self) -> u64 {
        self.0.trust.load(Ordering::Acquire)
    }

    /// Whether a peer that was accepted still is.
    pub(super) fn check_again(&self, chain: &[CertificateDer<'_>], usage: KeyUsage) -> Result<(), webpki::Error> {
        let verdict = self.0.current.load().peers.check_again(chain, usage);
        if verdict.is_err() {
            self.0.environment.metrics.disconnected.inc();
        }
        verdict
    }

    /// Reads the files again if they changed; true if they did. On an error what was in use stays in use; an error of `ca.crl` does
    /// not keep the other files from being put to use.
    ///
    /// # Errors
    /// If the changed files cannot be used.
    pub fn reread(&self) -> Result<bool, Error> {
        let outcome = self.take_up();
        match &outcome {
            Ok(false) => {}
            Ok(true) => self.0.environment.metrics.rereads.inc(),
            Err(_) => self.0.environment.metrics.reread_errors.inc(),
        }
        outcome
    }

    fn take_up(&self) -> Result<bool, Error> {
        let Inner { dir, environment, current, trust } = &*self.0;
        let before = current.load();
        let last = &before.peers.revoked;
        let (revoked, unreadable) = match Revoked::read(dir, last) {
            Ok(revoked) => (revoked.map(Arc::new), None),
            Err(error) => (None, Some(error)),
        };
        let material = Material::read(dir)?;
        let changed = material.raw != before.raw;
        if !changed && revoked.is_none() {
            return unreadable.map_or(Ok(false), Err);
        }
        let (made, unusable) = environment.configure(dir, material, revoked.as_ref(), last)?;
        let other_list = !Arc::ptr_eq(&made.peers.revoked, last);
        if changed || other_list {
            let trusts = made.raw[0] != before.raw[0] || other_list;
            current.store(Arc::new(made));
            trust.fetch_add(u64::from(trusts), Ordering::Release);
        }
        unreadable.or(unusable).map_or(Ok(true), Err)
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

impl Environment {
    /// The configuration of these files. If the CA of our certificate did not sign `revoked`, `last` is used and the error told.
    fn configure(
        &self,
        dir: &Path,
        material: Material,
        revoked: Option<&Arc<Revoked>>,
        last: &Arc<Revoked>,
    ) -> Result<(Current, Option<Error>), Error> {
        let fail = |error| Error::Config { path: dir.to_owned(), error };
        let Material { roots, chain, key, identity, raw } = material;
        let end = not_after(&chain[0]);
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = |parts: &'static [Part], revoked: &Arc<Revoked>| {
            Arc::new(PeerVerifier {
                hints: roots.subjects(),
                roots: Arc::clone(&roots),
                revoked: Arc::clone(revoked),
                algorithms: provider.signature_verification_algorithms,
                trust_domain: identity.trust_domain.clone(),
                parts,
                clock: self.clock.clone(),
                stale: Arc::clone(&self.stale),
                metrics: self.metrics.clone(),
            })
        };
        let of_clients: &'static [Part] = &[Part::Agent, Part::Hub];
        let mut peers = verifier(of_clients, revoked.unwrap_or(last));
        let mut unusable = None;
        match peers.check_own(&chain, end) {
            Err(webpki::Error::CertRevoked) => {
                tracing::error!(%identity, "this process's own certificate is revoked: other hubs and agents refuse it, renew it");
            }
            // A list that was in use is of the CA before.
            Err(error) if revoked.is_some() => {
                unusable = Some(content(&Revoked::path(dir), &format!("not by the CA of tls.crt: {error}")));
                peers = verifier(of_clients, last);
            }
            Ok(()) | Err(_) => {}
        }
        let revoked = Arc::clone(&peers.revoked);
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(fail)?
            .with_client_cert_verifier(Arc::clone(&peers) as _)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(fail)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would not be checked again; a stream lives for days, so there is little to save.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(fail)?
            .dangerous()
            .with_custom_certificate_verifier(verifier(&[Part::Hub], &revoked))
            .with_client_auth_cert(chain, key)
            .map_err(fail)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        self.metrics.expiry.set(end.and_then(|end| i64::try_from(end).ok()).unwrap_or(0));
        let configs = Configs { server: Arc::new(server), client: Arc::new(client), identity };
        Ok((Current { configs, peers, raw }, unusable))
    }
}
