//! The target of a tool: the admin socket of a process, or a store on disk with or without a process.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde::de::DeserializeOwned;

use super::{
    Failed, Output,
    client::{self, ClientError, HEALTH_PATIENCE, PATIENCE},
};
use crate::{
    admin::view::{Dump, RecordsView},
    config::{Settings, kept},
    dns::{
        self,
        forward::Names,
        pins::{self, PinSet},
    },
    record::{Change, Snapshot, Version},
    report::{Time, Waiting},
    source::{EndpointsMode, manifests},
    store::{Freshness, SourceState, disk, guard::Held},
    sys::Clock,
    zone::{self, Zone},
};

/// Where the records are looked for. Without either flag: the default socket, then the default store.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false)]
pub struct Where {
    /// Admin socket to ask [default: `HOLDFAST_ADMIN`, else /run/holdfast/agent.sock; if no process answers, the default store]
    #[arg(long, value_name = "SOCKET")]
    pub admin: Option<PathBuf>,
    /// Read the store in this directory; no process is needed, and the store is not changed
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// Something that answers.
#[derive(Debug)]
pub enum Reached {
    /// A process behind this socket.
    Process(PathBuf),
    /// A store that was read.
    Store(Box<Stored>),
}

/// A store that was read.
#[derive(Debug)]
pub struct Stored {
    /// The records of the store.
    pub loaded: disk::Loaded,
    /// Its age.
    pub freshness: Freshness,
    /// Holds are the process's and not on disk.
    pub held: Held,
    /// The pins when a process last had it open.
    pub pins: PinSet,
    /// The rules its records are looked at by: those of the process that last had it, else the defaults.
    pub settings: Settings,
    /// Why the process does not answer that was to be asked; `None` if the store was.
    pub no_process: Option<String>,
}

/// The process to ask for what only a process can do, and how its answer is printed.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// Admin socket of the agent or hub [default: `HOLDFAST_ADMIN`, else /run/holdfast/agent.sock]
    #[arg(long, value_name = "SOCKET")]
    pub admin: Option<PathBuf>,
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

impl Target {
    /// Asks with a body of JSON, or without one.
    ///
    /// # Errors
    /// If no process answers. One that hangs is noticed after [`HEALTH_PATIENCE`], long before the answer would be late.
    pub fn ask<T: DeserializeOwned>(&self, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<T> {
        let socket = self.admin.clone().unwrap_or_else(default_socket);
        understood(&socket, &ask_living(&socket, path, body, HEALTH_PATIENCE)?)
    }
}

impl Where {
    /// Finds something that answers.
    ///
    /// # Errors
    /// If nothing does, with what was tried.
    pub fn reach(&self) -> anyhow::Result<Reached> {
        match (&self.admin, &self.store) {
            (Some(socket), _) => {
                client::get(socket, "/health", HEALTH_PATIENCE).map_err(|error| {
                    let error = with_remedy(error);
                    match silence(socket) {
                        Some(told) => error.context(told),
                        None => error,
                    }
                })?;
                Ok(Reached::Process(socket.clone()))
            }
            (None, Some(store)) => read_store(store),
            (None, None) => {
                let store = Settings::default().store_path;
                reach_default(&default_socket(), store.as_deref(), HEALTH_PATIENCE)
            }
        }
    }
}

/// The socket to ask when none is given: `HOLDFAST_ADMIN`, else the default of the configuration.
pub fn default_socket() -> PathBuf {
    std::env::var_os("HOLDFAST_ADMIN").map_or_else(|| Settings::default().admin, PathBuf::from)
}

/// The reason why no agent answers at this socket, as its parent or a start that waits wrote it beside.
pub fn silence(socket: &Path) -> Option<String> {
    deaths(socket).or_else(|| waiting(socket))
}

fn deaths(socket: &Path) -> Option<String> {
    let text = std::fs::read_to_string(socket.with_extension("deaths")).ok()?;
    let deaths: serde_json::Value = serde_json::from_str(&text).ok()?;
    let (count, how) = (deaths["count"].as_u64()?, deaths["how"].as_str()?);
    let error = deaths["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default();
    Some(format!("the agent died {count} times and does not start again; the last process {how}{error}"))
}

fn waiting(socket: &Path) -> Option<String> {
    let text = std::fs::read_to_string(socket.with_extension("waiting")).ok()?;
    let Waiting { since, reason, port } = serde_json::from_str(&text).ok()?;
    let since = since.lasting(Time(Clock::System.now()));
    // A container of the agent sees no process of others; the node does.
    let holder = port.and_then(|port| dns::holder("udp", port).or_else(|| dns::holder("tcp", port)));
    let holder = holder.map(|holder| format!(", {holder}")).unwrap_or_default();
    Some(format!("the agent waits beside another process{holder}, which goes on answering, for {since}: {reason}"))
}

/// The socket if a process answers there, else the store: the records of a process that hangs are read from its store.
fn reach_default(socket: &Path, store: Option<&Path>, patience: Duration) -> anyhow::Result<Reached> {
    let Err(no_process) = client::get(socket, "/health", patience) else {
        return Ok(Reached::Process(socket.to_owned()));
    };
    let Some(store) = store else { return Err(no_process.into()) };
    let told = match silence(socket) {
        Some(silence) => format!("{no_process}: {silence}"),
        None => no_process.to_string(),
    };
    let mut reached = read_store(store).with_context(|| format!("{told}. Give --admin SOCKET or --store DIR"))?;
    if let Reached::Store(stored) = &mut reached {
        eprintln!("holdfast: {told}. This is what its store {} has", store.display());
        stored.no_process = Some(told);
    }
    Ok(reached)
}

/// Reads a store. One that is being written too fast to be copied is asked for at its owner's socket.
fn read_store(path: &Path) -> anyhow::Result<Reached> {
    match disk::read(path) {
        Ok(loaded) => {
            let freshness = Freshness { as_of: Some(loaded.as_of), source: SourceState::Starting };
            let path = if path.is_file() { path.parent().unwrap_or(path) } else { path };
            let settings = kept::read(path).unwrap_or_else(|errors| {
                eprintln!("holdfast: {errors}; names, TTLs and limits here are the defaults");
                None
            });
            let settings = settings.unwrap_or_default();
            let pins = pins::read(path).unwrap_or_else(|error| {
                eprintln!("holdfast: pins in {}: {error}", path.display());
                PinSet::default()
            });
            Ok(Reached::Store(Box::new(Stored {
                loaded,
                freshness,
                held: Held::default(),
                pins,
                settings,
                no_process: None,
            })))
        }
        Err(disk::ReadError::Busy { owner: disk::Owner { admin: Some(socket), .. }, .. }) => {
            Ok(Reached::Process(socket))
        }
        Err(error) => Err(error.into()),
    }
}

impl Stored {
    /// The rules that its agent answers by.
    pub fn rules(&self) -> dns::Rules {
        dns::Rules::new(Zone::new(&self.zone()), self.settings.answers(self.settings.source_none))
    }

    /// Hosts, fixed answers and rewrites.
    pub fn names(&self) -> Names {
        Names::new(&self.settings.forwarding())
    }

    /// The rules its records are looked at by.
    pub fn zone(&self) -> zone::Config {
        self.settings.zone_rules(&self.settings.listen_addresses())
    }

    /// The records now.
    pub fn moment(&self) -> RecordsView<'_> {
        RecordsView {
            snapshot: &self.loaded.snapshot,
            held: &self.held,
            pins: &self.pins,
            freshness: &self.freshness,
            source: None,
            lost_since: None,
            stale_after: self.settings.stale_after,
            now: Clock::System.now(),
        }
    }
}

impl Reached {
    /// A document of a process.
    ///
    /// # Errors
    /// If it does not answer, or with something else.
    pub fn document<T: DeserializeOwned>(socket: &Path, target: &str) -> anyhow::Result<T> {
        understood(socket, &client::get(socket, target, PATIENCE).map_err(with_remedy)?)
    }

    /// The dump of everything, or of one namespace.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn dump(&self, namespace: Option<&str>) -> anyhow::Result<Dump> {
        match self {
            Self::Process(socket) => {
                let query = namespace.map_or_else(String::new, |name| format!("?namespace={}", client::encode(name)));
                Self::document(socket, &format!("/dump{query}"))
            }
            Self::Store(stored) => Ok(Dump::of(&stored.moment(), &stored.zone(), namespace)),
        }
    }
}

/// Says what to do about it.
pub(super) fn with_remedy(error: ClientError) -> anyhow::Error {
    let instead = "To read its disk: --store DIR";
    remedied(error, instead, instead)
}

fn understood<T: DeserializeOwned>(socket: &Path, text: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(text).with_context(|| format!("admin socket {}: not understood", socket.display()))
}

fn ask_living(socket: &Path, target: &str, body: Option<Vec<u8>>, patience: Duration) -> anyhow::Result<Vec<u8>> {
    let answer = client::get(socket, "/health", patience).and_then(|_| match body {
        Some(body) => client::post(socket, target, body, PATIENCE),
        None => client::get(socket, target, PATIENCE),
    });
    answer.map_err(of_process)
}

fn of_process(error: ClientError) -> anyhow::Error {
    remedied(error, "Only a running process can do that: give its --admin SOCKET", "Only a running process can do that")
}

fn remedied(error: ClientError, not_running: &str, hangs: &str) -> anyhow::Error {
    let remedy = match &error {
        ClientError::Connect { error, .. } if error.kind() == ErrorKind::PermissionDenied => {
            "Only the user of the process may ask it: run this as that user or root"
        }
        ClientError::Connect { .. } => not_running,
        ClientError::Exchange { .. } => hangs,
        ClientError::Refused(reason) => return Failed::Usage(reason.clone()).into(),
        ClientError::Unknown { .. } => return error.into(),
    };
    anyhow::anyhow!("{error}. {remedy}")
}

/// The records of a dump.
///
/// # Errors
/// If there are objects in it that are none.
pub fn snapshot_of(dump: &Dump) -> anyhow::Result<Snapshot> {
    if dump.holdfast.source.as_of.is_none() {
        return Ok(Snapshot::default());
    }
    let text = serde_json::to_vec(dump)?;
    let reading = manifests::parse(Path::new("dump"), text, EndpointsMode::All)?;
    let version = &dump.holdfast.version;
    let version = Version { cluster: version.cluster.as_str().into(), epoch: version.epoch, rev: version.rev };
    Ok(into_snapshot(reading.records, version))
}

pub fn into_snapshot(records: crate::store::Records, version: Version) -> Snapshot {
    let namespaces = records.namespaces.into_iter().map(Change::PutNamespace);
    let services = records.services.into_values().map(Change::Put);
    Snapshot::default().apply(namespaces.chain(services), version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_hangs_is_told_from_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, store) = (dir.path().join("agent.sock"), dir.path().join("store"));
        let patience = Duration::from_millis(20);
        let nobody = format!("{:#}", reach_default(&socket, Some(&store), patience).unwrap_err());
        let gone = format!("no process is running at {}: No such file or directory (os error 2)", socket.display());
        let missing = format!("no store in {}", store.display());
        assert_eq!(nobody, format!("{gone}. Give --admin SOCKET or --store DIR: {missing}"));
        // It takes connections into its backlog and never answers, as a stopped process does.
        let _hanging = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let hangs = format!("{:#}", reach_default(&socket, Some(&store), patience).unwrap_err());
        let told = "accepts connections but does not answer (20ms): it hangs";
        assert!(hangs.contains(told) && hangs.ends_with(&missing), "{hangs}");
        let hangs = format!("{:#}", ask_living(&socket, "/pin", None, patience).unwrap_err());
        assert!(hangs.contains(told) && hangs.ends_with("Only a running process can do that"), "{hangs}");
    }
}
