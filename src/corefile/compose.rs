//! The files of node-cache (Corefile, template, `ConfigMap`s, imported files) as an agent's configuration, read again when
//! they change. Gives no directive a meaning.

use std::{
    cell::RefCell,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use prometheus::{IntCounterVec, IntGauge, Registry};
use tracing::{error, info, warn};

use super::{
    Error, KubeDns, Note, Options, Surroundings, TemplateError, TemplateValues, Translation, Weight, fill, parse,
    source::{self, Imports},
    translate,
};
use crate::{
    config::{
        self, Config, ConfigErrors, Flags, Role,
        types::{Addr, Compat, InterfaceName},
    },
    sys::Registrar,
};

/// How often files are read again, as in node-cache.
const POLL: Duration = Duration::from_secs(10);

/// The flags of node-cache that are about configuration.
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
    /// The addresses of an interface of this machine, by its name.
    pub interface: fn(&str) -> Option<Vec<IpAddr>>,
    pub node: NodeSettings,
}

/// The flags of node-cache that are about the node itself.
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
    Template { path: PathBuf, error: TemplateError },
    #[error("{}", lines(path, errors))]
    Corefile {
        /// The file its places are in.
        path: PathBuf,
        /// Everything that is wrong with it.
        errors: Vec<Error>,
    },
    /// The settings it comes to are no configuration.
    #[error("{0}")]
    Config(ConfigErrors),
}

fn lines(path: &Path, errors: &[Error]) -> String {
    errors.iter().map(|error| error.shown(path)).collect::<Vec<_>>().join("\n")
}

/// The texts a configuration is made of; equal inputs make equal configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Inputs {
    template: String,
    stub_domains: Option<String>,
    upstreams: Option<String>,
    imports: Imports,
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

    /// The Corefile in effect, which is written again when a file it is made of changes.
    pub fn corefile(&self) -> &Path {
        &self.node_cache.corefile
    }

    /// How often [`reload`](Self::reload) is to be called; `None` for never.
    pub fn poll(&self) -> Option<Duration> {
        let forced = self.node_cache.always_reload.then_some(POLL);
        self.reload.map(|interval| interval.min(POLL)).or(forced)
    }

    /// Counts in `registry` from now on.
    ///
    /// # Errors
    /// If a name is taken there.
    pub fn register(&mut self, registry: &Registry) -> Result<(), prometheus::Error> {
        let made = Registrar(registry);
        let errors = made.counter_vec(
            "holdfast_corefile_errors_total",
            "Changed Corefiles or kube-dns ConfigMaps that could not be used; the old one stays in effect.",
            &["what"],
        )?;
        let unhonoured = made.gauge(
            "holdfast_corefile_unhonoured",
            "Directives of the Corefile in effect that are not honoured and change answers; the log names each.",
        )?;
        errors.with_label_values(&["corefile"]);
        errors.with_label_values(&["configmap"]).inc_by(self.early_errors);
        self.metrics = Some(Metrics { errors, unhonoured });
        self.tell_notes();
        Ok(())
    }

    /// The configuration that the files ask for now.
    ///
    /// # Errors
    /// The errors of the files.
    pub fn compose(&mut self, environment: impl Fn(&'static str) -> Option<String>) -> Result<Config, ComposeError> {
        let (path, inputs, from_base) = self.read()?;
        self.read_kube_dns(&inputs);
        let values = TemplateValues {
            local: self.node_cache.local_ips.clone(),
            cluster_dns: self.node_cache.cluster_dns,
            port: self.node_cache.port,
        };
        let kube_dns = if from_base { self.kube_dns.clone() } else { KubeDns::default() };
        let text = fill(&inputs.template, &values, &kube_dns);
        self.seen = Some(inputs);
        let text = text.map_err(|error| ComposeError::Template { path: path.clone(), error })?;
        let path = if from_base { self.write(&text, path) } else { path };
        let hub = self.node_cache.flags.given.iter().any(|given| given.key.starts_with("source."));
        let NodeCache { port, cluster_dns, interface, .. } = self.node_cache;
        let options = Options { port, hub, cluster_dns, interface };
        let wrong = |errors| ComposeError::Corefile { path: path.clone(), errors };
        let imports = RefCell::new(Imports::default());
        let surroundings = Surroundings {
            environment: &|name| std::env::var(name).ok(),
            import: &|folder, pattern| imports.borrow_mut().read(folder, pattern),
        };
        let parsed = parse(&path, &text, &surroundings);
        if let Some(seen) = &mut self.seen {
            seen.imports = imports.into_inner();
        }
        let file = parsed.map_err(|error| wrong(vec![error]))?;
        let Translation { yaml, notes, reload } = translate(&file, &options).map_err(wrong)?;
        let flags = &self.node_cache.flags;
        let loaded = config::load_str(Role::Agent, (&path, &yaml), flags, environment);
        let mut config = loaded.map_err(ComposeError::Config)?;
        self.complete(&mut config);
        (self.notes, self.reload) = (notes, reload);
        self.tell_notes();
        Ok(config)
    }

    /// Adds the settings that flags of node-cache give and no Corefile has.
    fn complete(&self, config: &mut Config) {
        let node_cache = &self.node_cache;
        let settings = &mut config.settings;
        settings.node_interface = node_cache.node.interface.clone();
        settings.node_setup_interface = node_cache.node.setup_interface;
        settings.node_setup_notrack = node_cache.node.setup_notrack;
        settings.node_skip_teardown = node_cache.node.skip_teardown;
        settings.node_local_ips.clone_from(&node_cache.local_ips);
        // Names of the cluster are asked of it as well, by the Corefile.
        let upstream = node_cache.cluster_dns.filter(|ip| !node_cache.local_ips.contains(ip));
        if settings.node_fallback.is_empty()
            && let Some(ip) = upstream
        {
            settings.node_fallback = vec![Addr((ip, 53).into())];
        }
        settings.metrics_more.extend(node_cache.setup_metrics.map(Addr));
        if !node_cache.flags.given.iter().any(|given| given.key == "metrics_compat") {
            settings.metrics_compat = Compat::CoreDns;
        }
    }

    /// The configuration if its files changed, or if it is `forced`; `None` if they did not. Errors are logged and counted.
    ///
    /// # Errors
    /// The files are wrong.
    pub fn reload(
        &mut self,
        forced: bool,
        environment: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Option<Config>, String> {
        let changed = match self.read() {
            Ok((_, inputs, _)) => self.seen.as_ref().is_none_or(|seen| {
                let imports = seen.imports.again();
                *seen != Inputs { imports, ..inputs }
            }),
            Err(_) => true,
        };
        if !forced && !changed {
            return Ok(None);
        }
        match self.compose(environment) {
            Ok(config) => Ok(Some(config)),
            Err(error) => {
                for line in error.to_string().lines() {
                    error!(error = line, "new Corefile refused: the old one stays in effect");
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
        let text =
            |path: &Path| source::read(path).map_err(|error| ComposeError::Read { path: path.to_owned(), error });
        let (path, template) = match source::read(base) {
            Ok(template) => (base, template),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (corefile, text(corefile)?),
            Err(error) => return Err(ComposeError::Read { path: base.clone(), error }),
        };
        // A ConfigMap that is not there, and keys it does not have, say nothing.
        let key = |name| source::read(&kube_dns.as_ref()?.join(name)).ok();
        let inputs = Inputs {
            template,
            stub_domains: key("stubDomains"),
            upstreams: key("upstreamNameservers"),
            imports: Imports::default(),
        };
        Ok((path.clone(), inputs, path == base))
    }

    fn read_kube_dns(&mut self, inputs: &Inputs) {
        match KubeDns::read(inputs.stub_domains.as_deref(), inputs.upstreams.as_deref()) {
            Ok(read) => self.kube_dns = read,
            Err(error) => {
                error!(%error, "the ConfigMap kube-dns is wrong: its old values stay in effect");
                self.count("configmap");
            }
        }
    }

    /// Writes the Corefile for people to see, as node-cache does. Gives the path its places are to be named in.
    fn write(&self, text: &str, base: PathBuf) -> PathBuf {
        let path = &self.node_cache.corefile;
        if source::read(path).is_ok_and(|known| known == text) {
            return path.clone();
        }
        match fs::write(path, text) {
            Ok(()) => path.clone(),
            Err(error) => {
                info!(path = %path.display(), %error, "cannot write the Corefile in effect");
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
                Weight::Answers => {
                    warn!(at = %note.place(), directive = note.directive, note = note.text, "not honoured");
                }
                Weight::Manner => {
                    info!(at = %note.place(), directive = note.directive, note = note.text, "done otherwise");
                }
                Weight::Met => {}
            }
        }
    }
}
