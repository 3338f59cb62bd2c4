//! The place of NodeLocal `DNSCache`'s node-cache: its Corefile, template and `ConfigMap`s as an agent's configuration, and
//! what changes of them while it runs.
//!
//! Composes and watches; what a directive means is for `corefile` to say.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tracing::{error, info, warn};

use super::{Reread, Why};
use crate::{
    config::{
        self, Config, ConfigErrors, Flags, Role,
        types::{Addr, Compat, InterfaceName},
    },
    corefile::{self, KubeDns, Note, PillarError, Pillars, Translation, Weight},
};

/// How often files are looked at, as node-cache does.
const POLL: Duration = Duration::from_secs(10);
/// Larger ones are no files of ours; a `ConfigMap` has 1 MiB at most.
const BYTES_MAX: u64 = 1 << 20;

/// What node-cache is told by its flags, as far as it is about configuration.
#[derive(Clone, Debug)]
pub struct NodeCache {
    /// The addresses to listen on.
    pub local_ips: Vec<IpAddr>,
    /// The port to listen on.
    pub port: u16,
    /// The template of the Corefile.
    pub base: PathBuf,
    /// The Corefile: made of the template, or read if there is none.
    pub corefile: PathBuf,
    /// Where the kube-dns `ConfigMap` is mounted, if anywhere.
    pub kube_dns: Option<PathBuf>,
    /// The address of the cluster's DNS service.
    pub cluster_dns: Option<IpAddr>,
    /// Where metrics of the set-up are served beside those the Corefile speaks of.
    pub setup_metrics: Option<SocketAddr>,
    /// Look at files whether the Corefile asks for it or not.
    pub always_reload: bool,
    /// Settings given by holdfast's own flags.
    pub flags: Flags,
    /// What the flags say of the node.
    pub node: NodeSettings,
}

/// What the flags say of the node itself.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The name of the interface.
    pub interface: InterfaceName,
    /// Make the interface and give it the addresses.
    pub setup_interface: bool,
    /// Keep the kernel from tracking connections.
    pub setup_notrack: bool,
    /// Leave both behind at the end.
    pub skip_teardown: bool,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    /// The template cannot be filled in.
    #[error("{path}: {error}")]
    Pillar { path: PathBuf, error: PillarError },
    #[error("{}", lines(path, errors))]
    Corefile {
        /// The file its places are in.
        path: PathBuf,
        /// Everything that is wrong with it.
        errors: Vec<corefile::Error>,
    },
    /// What it comes to is no configuration.
    #[error("{0}")]
    Config(ConfigErrors),
}

fn lines(path: &Path, errors: &[corefile::Error]) -> String {
    let line = |error: &corefile::Error| format!("{}:{error}", path.display());
    errors.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What went into a configuration; equal inputs make equal ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Inputs {
    template: String,
    stub_domains: Option<String>,
    upstreams: Option<String>,
}

/// Makes configurations of the files as they are.
#[derive(Debug)]
pub struct Composer {
    node_cache: NodeCache,
    seen: Option<Inputs>,
    /// The last `ConfigMap` that could be used.
    kube_dns: KubeDns,
    reload: Option<Duration>,
    notes: Vec<Note>,
    metrics: Option<Metrics>,
    early_errors: u64,
}

#[derive(Debug)]
struct Metrics {
    errors: IntCounterVec,
    unhonoured: IntGauge,
}

impl Composer {
    /// For a process with these flags.
    #[must_use]
    pub fn new(node_cache: NodeCache) -> Self {
        Self {
            node_cache,
            seen: None,
            kube_dns: KubeDns::default(),
            reload: None,
            notes: Vec::new(),
            metrics: None,
            early_errors: 0,
        }
    }

    /// The Corefile in effect, which is written anew when what it is made of changes.
    pub fn corefile(&self) -> &Path {
        &self.node_cache.corefile
    }

    /// How often [`reload`](Self::reload) is to be asked; `None` if nobody asked for that.
    pub fn poll(&self) -> Option<Duration> {
        let forced = self.node_cache.always_reload.then_some(POLL);
        self.reload.map(|interval| interval.min(POLL)).or(forced)
    }

    /// Counts in `registry` from now on.
    ///
    /// # Errors
    /// If a name is taken there.
    pub fn register(&mut self, registry: &Registry) -> Result<(), prometheus::Error> {
        let errors = IntCounterVec::new(
            Opts::new(
                "holdfast_corefile_errors_total",
                "Times the Corefile or the kube-dns ConfigMap could not be used; what was in effect stays.",
            ),
            &["what"],
        )?;
        let unhonoured = IntGauge::new(
            "holdfast_corefile_unhonoured",
            "Directives of the Corefile in effect that are not honoured and change answers; the log names each.",
        )?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(unhonoured.clone()))?;
        errors.with_label_values(&["corefile"]);
        errors.with_label_values(&["configmap"]).inc_by(self.early_errors);
        self.metrics = Some(Metrics { errors, unhonoured });
        self.tell_notes();
        Ok(())
    }

    /// The configuration that the files ask for now.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn compose(&mut self, environment: impl Fn(&'static str) -> Option<String>) -> Result<Config, ComposeError> {
        let (path, inputs, from_base) = self.read()?;
        self.read_kube_dns(&inputs);
        let pillars = Pillars {
            local: self.node_cache.local_ips.clone(),
            cluster_dns: self.node_cache.cluster_dns,
            port: self.node_cache.port,
        };
        let kube_dns = if from_base { self.kube_dns.clone() } else { KubeDns::default() };
        let text = corefile::fill(&inputs.template, &pillars, &kube_dns);
        self.seen = Some(inputs);
        let text = text.map_err(|error| ComposeError::Pillar { path: path.clone(), error })?;
        let path = if from_base { self.write(&text, path) } else { path };
        let hub = self.node_cache.flags.given.iter().any(|given| given.key.starts_with("source."));
        let options = corefile::Options { port: self.node_cache.port, hub, cluster_dns: self.node_cache.cluster_dns };
        let wrong = |errors| ComposeError::Corefile { path: path.clone(), errors };
        let file = corefile::parse(&text, &|name| std::env::var(name).ok()).map_err(|error| wrong(vec![error]))?;
        let Translation { yaml, notes, reload } = corefile::translate(&file, &options).map_err(wrong)?;
        let flags = &self.node_cache.flags;
        let loaded = config::load_str(Role::Agent, (&path, &yaml), flags, environment);
        let mut config = loaded.map_err(ComposeError::Config)?;
        self.complete(&mut config);
        (self.notes, self.reload) = (notes, reload);
        self.tell_notes();
        Ok(config)
    }

    /// What the flags of node-cache say that no Corefile does.
    fn complete(&self, config: &mut Config) {
        let node_cache = &self.node_cache;
        let settings = &mut config.settings;
        settings.node_interface = node_cache.node.interface.clone();
        settings.node_setup_interface = node_cache.node.setup_interface;
        settings.node_setup_notrack = node_cache.node.setup_notrack;
        settings.node_skip_teardown = node_cache.node.skip_teardown;
        settings.node_local_ips.clone_from(&node_cache.local_ips);
        settings.metrics_more.extend(node_cache.setup_metrics.map(Addr));
        if !node_cache.flags.given.iter().any(|given| given.key == "metrics_compat") {
            settings.metrics_compat = Compat::CoreDns;
        }
    }

    /// The configuration, if it may have changed and can be used. What is wrong is logged and counted.
    pub fn reload(&mut self, why: Why, environment: impl Fn(&'static str) -> Option<String>) -> Reread {
        let changed = match self.read() {
            Ok((_, inputs, _)) => Some(&inputs) != self.seen.as_ref(),
            Err(_) => true,
        };
        if why == Why::Time && !changed {
            return Ok(None);
        }
        match self.compose(environment) {
            Ok(config) => Ok(Some(config)),
            Err(error) => {
                for line in error.to_string().lines() {
                    error!(error = line, "Corefile refused: the one before stays in effect");
                }
                self.count("corefile");
                Err(error.to_string())
            }
        }
    }

    fn count(&mut self, what: &'static str) {
        match &self.metrics {
            Some(metrics) => metrics.errors.with_label_values(&[what]).inc(),
            None => self.early_errors += 1,
        }
    }

    /// The template or the Corefile, with its path and whether it is the template, and the `ConfigMap`.
    fn read(&self) -> Result<(PathBuf, Inputs, bool), ComposeError> {
        let NodeCache { base, corefile, kube_dns, .. } = &self.node_cache;
        let text = |path: &Path| read(path).map_err(|error| ComposeError::Read { path: path.to_owned(), error });
        let (path, template) = match read(base) {
            Ok(template) => (base, template),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (corefile, text(corefile)?),
            Err(error) => return Err(ComposeError::Read { path: base.clone(), error }),
        };
        // A ConfigMap that is not there, and keys it does not have, say nothing.
        let key = |name| read(&kube_dns.as_ref()?.join(name)).ok();
        let inputs = Inputs { template, stub_domains: key("stubDomains"), upstreams: key("upstreamNameservers") };
        Ok((path.clone(), inputs, path == base))
    }

    fn read_kube_dns(&mut self, inputs: &Inputs) {
        match KubeDns::read(inputs.stub_domains.as_deref(), inputs.upstreams.as_deref()) {
            Ok(read) => self.kube_dns = read,
            Err(error) => {
                error!(%error, "the ConfigMap is not taken over, what it said before stays");
                self.count("configmap");
            }
        }
    }

    /// Writes the Corefile for people to see, as node-cache does. Gives the path its places are to be named in.
    fn write(&self, text: &str, base: PathBuf) -> PathBuf {
        let path = &self.node_cache.corefile;
        if read(path).is_ok_and(|known| known == text) {
            return path.clone();
        }
        match fs::write(path, text) {
            Ok(()) => path.clone(),
            Err(error) => {
                info!(path = %path.display(), %error, "the Corefile in effect is not written");
                base
            }
        }
    }

    fn tell_notes(&self) {
        let Some(metrics) = &self.metrics else { return };
        let weighty = |note: &&Note| note.weight == Weight::Answers;
        metrics.unhonoured.set(i64::try_from(self.notes.iter().filter(weighty).count()).unwrap_or(i64::MAX));
        for note in &self.notes {
            match note.weight {
                Weight::Answers => warn!(at = %note.at, directive = note.directive, note = note.text, "not honoured"),
                Weight::Manner => info!(at = %note.at, directive = note.directive, note = note.text, "done otherwise"),
            }
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    fs::File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {BYTES_MAX} bytes")));
    }
    Ok(text)
}
