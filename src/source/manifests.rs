//! Records from files: a file or a directory of Kubernetes manifests, re-read whenever it changes.
//!
//! `kubectl get ns,svc,endpointslices -A -o yaml > cluster.yaml` is an input, as JSON is, as is what `holdfast dump`
//! prints. Of a directory, the files named `*.yaml`, `*.yml` and `*.json` are read that stand directly in it and do not
//! begin with a dot, in the order of their names; of an object defined twice, the last definition counts. Links are
//! followed, so a mounted `ConfigMap` works.
//!
//! Files are looked at every half second. How a half-written file is told from a change:
//! - A change is read only when two looks in a row find the same files, sizes, times and inodes (or when the last write
//!   is two seconds past), and is dropped if they changed while being read.
//! - A file that has no content is never an answer: it is half-written, whatever it held before. To say that there is
//!   nothing, write `{kind: List, items: []}`, or delete the file from the directory.
//! - A file that read well before and does not parse now keeps the objects it had, and the source counts as lost, with
//!   the file and line, until it parses.
//! - A path that is gone, and a directory without manifests, keep everything that was read.
//! - A file cut off exactly between two documents cannot be told from a change. The store's guard is what holds a mass
//!   deletion.
//!
//! A dump says how old its records are, and which namespaces it has: they stay as old as that, and where the dump has some
//! namespaces only, the records of others stand if they are of the same cluster, else nothing is known of them.
//!
//! After a start with records from disk, nothing is deleted before every file was read well once.
//!
//! Never writes, and never decides what is held.

mod document;
mod files;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::{info, warn};

use self::files::{Files, Look};
use super::{EndpointsMode, Metrics};
use crate::{
    record::{Change, PARTIAL},
    store::{Origin, Reader, Records, Rejections, Update, What},
    sys::{Clock, UnixMillis},
};

/// The cluster the records are said to be of where the files do not tell.
const CLUSTER: &str = "manifests";

/// Where manifests are, and how they are followed.
#[derive(Clone, Debug)]
pub struct Config {
    /// A file or a directory.
    pub path: PathBuf,
    pub endpoints: EndpointsMode,
    /// Between two looks at the files.
    pub poll: Duration,
    /// Between the two looks that must find the same.
    pub settle: Duration,
    /// Between two assurances that the files still say what was read.
    pub vouch: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            endpoints: EndpointsMode::default(),
            poll: Duration::from_millis(500),
            settle: Duration::from_millis(250),
            vouch: Duration::from_secs(5),
        }
    }
}

/// Why manifests cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not there, or no permission.
    #[error("manifests {}: {error}; give --manifests a file or directory that can be read", path.display())]
    Open { path: PathBuf, error: std::io::Error },
    /// A directory without a single manifest.
    #[error("manifests {}: no *.yaml, *.yml or *.json file in this directory", path.display())]
    NoFiles { path: PathBuf },
    /// More files than a directory of manifests has.
    #[error("manifests {}: more than {max} files in this directory", path.display())]
    TooManyFiles { path: PathBuf, max: usize },
    /// A file that does not read, and nothing was read from it before.
    #[error("manifests {0}")]
    Unreadable(String),
}

/// Checks that there is something to read, without reading it.
///
/// # Errors
/// If the path is missing, unreadable, or a directory without manifests.
pub fn check(path: &Path) -> Result<(), Error> {
    files::scan(path).map(|_| ())
}

/// The content of the manifests at one moment.
#[derive(Debug)]
pub struct Reading {
    pub records: Records,
    /// The UID of `kube-system` if it is among them, else `manifests`.
    pub cluster: Arc<str>,
    /// The objects that could not be used.
    pub rejections: Rejections,
    /// Why this is not all there is: the first file that did not read.
    pub incomplete: Option<String>,
    /// When the records of a dump were last confirmed; `None` if the files are no dump, and say what is now.
    pub as_of: Option<UnixMillis>,
}

/// Reads manifests once, as they stand. Blocks.
///
/// # Errors
/// If the path is missing or unreadable, or not one file in it reads.
pub fn read(path: &Path, endpoints: EndpointsMode) -> Result<Reading, Error> {
    let mut files = Files::new(path.to_owned(), endpoints);
    files.read()?;
    let reading = files.reading();
    match &reading.incomplete {
        Some(reason) if files.read_well() == 0 => Err(Error::Unreadable(reason.clone())),
        _ => Ok(reading),
    }
}

/// Reads one manifest that is in memory already, such as a dump that came over a socket; `name` is what errors call it.
///
/// # Errors
/// If it does not read.
pub fn parse(name: &Path, text: Vec<u8>, endpoints: EndpointsMode) -> Result<Reading, Error> {
    let reading = Files::of_text(name, text, endpoints).reading();
    match reading.incomplete {
        Some(reason) => Err(Error::Unreadable(reason)),
        None => Ok(reading),
    }
}

/// Follows the files until the receiver of the updates is gone.
///
/// Never gives up: while the path is missing the source is lost, and every poll looks for it. [`check`] makes a missing path an
/// error at start.
pub async fn run(config: Config, clock: Clock, metrics: Metrics, reader: Reader, updates: mpsc::Sender<Update>) {
    let Config { path, endpoints, poll, settle, vouch } = config;
    let mut follower = Follower {
        restored: reader.as_of().is_some(),
        reader,
        clock: clock.clone(),
        metrics,
        said: None,
        vouched: None,
        beside: None,
    };
    let mut files = Files::new(path, endpoints);
    loop {
        let now = clock.now();
        let looked = tokio::task::spawn_blocking(move || {
            let look = files.look(now);
            (files, look)
        });
        let Ok((back, look)) = looked.await else { return };
        files = back;
        let wait = if matches!(look, Ok(Look::Settling)) { settle } else { poll };
        for update in follower.updates(&mut files, look, vouch) {
            if updates.send(update.into()).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(wait).await;
    }
}

struct Follower {
    /// The store had records from disk before the first reading.
    restored: bool,
    reader: Reader,
    clock: Clock,
    metrics: Metrics,
    /// The errors logged last.
    said: Option<String>,
    /// When the files last were all read well and the store was told: for the timer, and as the store has it.
    vouched: Option<(tokio::time::Instant, UnixMillis)>,
    /// When the records beside those of a partial dump were confirmed.
    beside: Option<UnixMillis>,
}

impl Follower {
    fn updates(&mut self, files: &mut Files, look: Result<Look, Error>, vouch: Duration) -> Vec<What> {
        match look {
            Err(error) => self.lost(error.to_string()).into_iter().collect(),
            Ok(Look::Settling) => Vec::new(),
            Ok(Look::Same) => match files.problem() {
                Some(problem) => self.lost(problem).into_iter().collect(),
                None if self.said.is_none() && self.vouched.is_some_and(|(at, _)| at.elapsed() < vouch) => Vec::new(),
                None => vec![What::Fresh { as_of: self.vouch(files.as_of()) }],
            },
            Ok(Look::Changed) => self.changed(files),
        }
    }

    /// Notes that the files were all read well, and says when the records were last confirmed: `dumped` is the age of a dump.
    fn vouch(&mut self, dumped: Option<UnixMillis>) -> UnixMillis {
        let now = self.clock.now();
        let as_of = [dumped, self.beside].into_iter().flatten().fold(now, UnixMillis::min);
        self.said = None;
        self.vouched = Some((tokio::time::Instant::now(), as_of));
        as_of
    }

    /// Records of the namespaces that a partial dump does not have, if those held are of its cluster.
    fn beside(&mut self, records: &mut Records, cluster: &Arc<str>) {
        let held = self.reader.snapshot();
        let Some(mark) = records.namespaces.iter().position(|name| &**name == PARTIAL) else {
            self.beside = None;
            return;
        };
        if held.version().cluster != *cluster || self.reader.as_of().is_none() {
            self.beside = None;
            return;
        }
        if !held.is_partial() {
            records.namespaces.swap_remove(mark);
        }
        let mut dumped: HashSet<Arc<str>> = records.namespaces.iter().cloned().collect();
        dumped.extend(records.services.keys().map(|key| Arc::from(key.namespace())));
        let others = held.services().filter(|service| !dumped.contains(service.namespace()));
        let before = records.services.len();
        records.services.extend(others.map(|service| (service.key().clone(), Arc::clone(service))));
        let has_others = records.services.len() > before;
        records.namespaces.extend(held.listed_namespaces().filter(|name| !dumped.contains(*name)).cloned());
        self.beside = if has_others { self.beside.or_else(|| self.reader.as_of()) } else { None };
    }

    fn lost(&mut self, reason: String) -> Option<What> {
        if self.said.as_ref() == Some(&reason) {
            return None;
        }
        warn!(%reason, "cannot read manifests; keeping the last good version");
        self.said = Some(reason.clone());
        Some(What::Lost { reason })
    }

    fn changed(&mut self, files: &mut Files) -> Vec<What> {
        for of in files.take_newly_rejected() {
            self.metrics.rejected(of);
        }
        let Reading { mut records, cluster, rejections, incomplete, as_of: dumped } = files.reading();
        self.beside(&mut records, &cluster);
        let (services, rejected) = (records.services.len(), rejections.total);
        let mut updates = vec![What::Rejected(rejections)];
        // The records kept of an unreadable file are as old as its last good read.
        let as_of = match (&incomplete, self.vouched) {
            (None, _) => self.vouch(dumped),
            (Some(_), Some((_, at))) => at,
            (Some(_), None) => dumped.unwrap_or_else(|| self.clock.now()),
        };
        if files.read_well() > 0 {
            info!(services, rejected, others = files.others(), files = files.read_well(), "manifests read");
            // A file that never read in this process may be the one whose records came from disk.
            if self.restored && !files.all_read_well_once() {
                updates.extend(self.additions(records, as_of));
            } else {
                let origin = Origin::Watched { cluster, new_epoch: false };
                updates.push(What::Reset { origin, records, as_of });
            }
        }
        if let Some(reason) = incomplete {
            // The records make the source count as up, so the loss is sent once more.
            self.said = None;
            updates.extend(self.lost(reason));
        }
        updates
    }

    /// The records that are new or differ from those held, as changes to them: nothing is deleted.
    fn additions(&self, records: Records, as_of: UnixMillis) -> Option<What> {
        let held = self.reader.snapshot();
        let differs = |service: &Arc<crate::record::Service>| {
            held.service_by_key(service.key()).is_none_or(|held| held.digest() != service.digest())
        };
        let services = records.services.into_values().filter(differs).map(Change::Put);
        let listed: HashSet<&Arc<str>> = held.listed_namespaces().collect();
        let namespaces = records.namespaces.into_iter().filter(|name| !listed.contains(name)).map(Change::PutNamespace);
        let changes: Vec<Change> = services.chain(namespaces).collect();
        let origin = Origin::Watched { cluster: Arc::clone(&held.version().cluster), new_epoch: false };
        (!changes.is_empty()).then_some(What::Changes { origin, changes, as_of })
    }
}

#[cfg(test)]
mod tests;
