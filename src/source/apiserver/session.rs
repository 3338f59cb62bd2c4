//! A session with an apiserver: gathers the events of its watches, probes, and sends the updates.

mod probing;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tracing::{debug, info, warn};

use self::probing::{Failing, Probing, Refusal};
use super::{
    Config,
    health::Unanswered,
    request,
    server::{Failure, Server},
    watch::{Follower, Gate, Said},
};
use crate::{
    source::{
        Metrics,
        assemble::{Assembler, Part},
        metrics::Verb,
    },
    store::{Origin, Update, What},
    sys::{Clock, UnixMillis},
};

/// Maximum messages of followers in the queue.
const SAID_MAX: usize = 1024;
/// Events that go into one update at most.
const BATCH_MAX: usize = 256;
/// The cluster's name where it has no `kube-system`.
const CLUSTER: &str = "apiserver";

#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The next list belongs to another history.
    new_epoch: bool,
    /// Versions of different kinds count the same thing, as they do in one etcd.
    comparable: bool,
    /// That was put to the test by a probe after a list.
    tested: bool,
}

impl Default for Known {
    fn default() -> Self {
        Self { new_epoch: false, comparable: true, tested: false }
    }
}

pub(super) enum Ended {
    Unwanted,
    /// Everything must be listed again.
    Restart(Known),
}

struct Unwanted;

/// The state of one list.
#[derive(Debug, Default)]
struct Followed {
    listed: bool,
    open: bool,
    /// When it last gave a sign of life.
    heard: UnixMillis,
    version: Option<u64>,
    /// Failures since it was last open.
    downs: u32,
}

pub(super) struct Session<'a> {
    config: &'a Config,
    clock: &'a Clock,
    metrics: &'a Metrics,
    updates: &'a mpsc::Sender<Update>,
    server: watch::Sender<Server>,
    connected: Instant,
    gate: watch::Sender<Gate>,
    known: Known,
    assembler: Assembler,
    /// The UID of `kube-system` when everything was listed first.
    cluster: Option<Arc<str>>,
    parts: HashMap<Part, Followed>,
    /// Everything was listed and published.
    published: bool,
    rejected: crate::store::Rejections,
    /// Why the source was last said to be lost.
    lost: Option<String>,
    /// When that was, if nothing came in before the first lists were complete: a piece of a list after it ends the loss.
    silent: Option<Instant>,
    /// The last `as_of` sent.
    vouched: UnixMillis,
    failing: Option<Failing>,
    /// When a request last found no server; one that comes back answers before it has read its RBAC rules.
    away: Option<Instant>,
    probe_at: Instant,
    /// When the probe under way began, and the version the answer must not be below.
    probe_begun: (UnixMillis, Option<u64>),
}

impl<'a> Session<'a> {
    pub(super) fn new(
        config: &'a Config,
        clock: &'a Clock,
        metrics: &'a Metrics,
        updates: &'a mpsc::Sender<Update>,
        server: Server,
        known: Known,
    ) -> Self {
        let parts = request::parts(config.endpoints).iter().map(|part| (*part, Followed::default())).collect();
        let now = Instant::now();
        Self {
            config,
            clock,
            metrics,
            updates,
            server: watch::Sender::new(server),
            connected: now,
            // Followers begin at once; the first probe runs beside them.
            gate: watch::Sender::new(Gate { open: true, ..Gate::default() }),
            known,
            assembler: Assembler::new(config.endpoints),
            cluster: None,
            parts,
            published: false,
            rejected: crate::store::Rejections::default(),
            lost: None,
            silent: None,
            vouched: UnixMillis(0),
            failing: None,
            away: None,
            probe_at: now + config.timing.probe,
            probe_begun: (UnixMillis(0), None),
        }
    }

    /// Follows until the session must end. The followers end with it.
    pub(super) async fn run(mut self) -> Ended {
        self.metrics.health().asks(self.server.borrow().name());
        let (sender, mut said) = mpsc::channel(SAID_MAX);
        let mut followers = JoinSet::new();
        for part in request::parts(self.config.endpoints) {
            let follower = Follower {
                part: *part,
                mode: self.config.endpoints,
                timing: self.config.timing,
                metrics: self.metrics.clone(),
                server: self.server.subscribe(),
                gate: self.gate.subscribe(),
                said: sender.clone(),
            };
            followers.spawn(follower.run());
        }
        drop(sender);
        match self.follow(&mut said).await {
            Ok(known) => Ended::Restart(known),
            Err(Unwanted) => Ended::Unwanted,
        }
    }

    async fn follow(&mut self, said: &mut mpsc::Receiver<(Part, Said)>) -> Result<Known, Unwanted> {
        let mut probing: Option<Probing> = None;
        let mut batch = Vec::new();
        loop {
            let mut due = self.probe_due().filter(|_| probing.is_none());
            if due.take_if(|due| *due <= Instant::now()).is_some() {
                probing = Some(self.begin_probe());
            }
            tokio::select! {
                () = self.updates.closed() => return Err(Unwanted),
                count = said.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return Err(Unwanted);
                    }
                    self.take(&mut batch).await?;
                }
                probed = async { probing.as_mut().expect("guarded").await }, if probing.is_some() => {
                    probing = None;
                    if let Some(known) = self.probed(probed).await? {
                        return Ok(known);
                    }
                }
                () = async { tokio::time::sleep_until(due.expect("guarded")).await }, if due.is_some() => {}
                () = tokio::time::sleep_until(self.silence_check()), if self.lost.is_none() => self.note_silence().await?,
                () = tokio::time::sleep(self.config.timing.silence / 4), if self.silent.is_some() => {}
            }
            self.note_life().await?;
        }
    }

    /// When to probe. Not while the first lists are under way: the server has enough to do, and the probe has nothing to say.
    fn probe_due(&self) -> Option<Instant> {
        let wanted = self.published || self.parts.values().any(|part| part.downs > 0);
        wanted.then_some(self.probe_at)
    }

    /// When to look whether the server has been silent for too long.
    fn silence_check(&self) -> Instant {
        let silence = self.config.timing.silence;
        let unanswered = self.metrics.health().unanswered();
        unanswered.map_or(Instant::now() + silence / 4, |unanswered| unanswered.since + silence)
    }

    /// Says that the server is not reachable if requests wait and not a byte comes in. The requests go on.
    async fn note_silence(&mut self) -> Result<(), Unwanted> {
        let silence = self.config.timing.silence;
        let Some(unanswered) = self.metrics.health().unanswered().filter(|it| it.since.elapsed() >= silence) else {
            return Ok(());
        };
        let Unanswered { step, verb, of, since } = unanswered;
        let waited = Duration::from_secs(since.elapsed().as_secs().max(silence.as_secs()));
        let failure = Failure::Unreachable { step, reason: format!("timed out ({waited:?})") };
        let reason = self.server.borrow().describe(verb, of, &failure);
        self.failing.get_or_insert(Failing { times: 2, kind: Refusal::Unreachable, alive: false }).alive = false;
        self.gate.send_modify(|gate| gate.open = false);
        self.lose(reason).await?;
        self.silent = (!self.published).then(Instant::now);
        Ok(())
    }

    /// Ends a loss by silence when pieces of the first lists come in. Later on, events and the probe do.
    async fn note_life(&mut self) -> Result<(), Unwanted> {
        let came_in = |silent: Instant| self.metrics.health().life().is_some_and(|life| life > silent);
        if !self.silent.is_some_and(came_in) {
            return Ok(());
        }
        self.failing = None;
        self.gate.send_modify(|gate| gate.open = true);
        self.found();
        self.send(What::Listing).await
    }

    /// Takes in what followers said, as one update where it is about single objects.
    async fn take(&mut self, batch: &mut Vec<(Part, Said)>) -> Result<(), Unwanted> {
        let (mut changes, mut moments) = (Vec::new(), Vec::new());
        for (part, said) in batch.drain(..) {
            let now = self.clock.now();
            if !matches!(said, Said::Down(..))
                && let Some(failing) = &mut self.failing
            {
                failing.alive = true;
            }
            let followed = self.parts.get_mut(&part).expect("every follower has an entry");
            match said {
                Said::Listed { objects, broken, version } => {
                    changes.clear();
                    moments.clear();
                    for _ in &broken {
                        self.metrics.rejected(Some(part.objects()));
                    }
                    debug!(list = ?part, objects = objects.len(), %version, "listed");
                    *followed =
                        Followed { listed: true, open: true, heard: now, version: version.parse().ok(), downs: 0 };
                    self.assembler.replace(part, objects, broken);
                    self.listed().await?;
                }
                Said::Open => {
                    followed.open = true;
                    if self.lost.is_some() && self.parts.values().all(|part| part.open) {
                        self.probe_at = Instant::now();
                    }
                }
                Said::Put(object, version) => {
                    followed.hear(now, version.as_deref());
                    match object {
                        Ok(object) => {
                            let (noted, before) = (object.changed(), changes.len());
                            self.assembler.put(part, *object, &mut changes);
                            if changes.len() > before {
                                moments.push(noted.unwrap_or(now));
                            }
                        }
                        Err(broken) => {
                            self.metrics.rejected(Some(part.objects()));
                            self.assembler.reject(part, broken);
                        }
                    }
                }
                Said::Deleted(key, version) => {
                    followed.hear(now, version.as_deref());
                    self.assembler.delete(part, &key, &mut changes);
                }
                Said::Bookmark(version) => followed.hear(now, Some(&version)),
                Said::Down(verb, failure) => self.down(part, verb, &failure).await?,
            }
        }
        if !self.published {
            return Ok(());
        }
        self.tell_rejections().await?;
        let as_of = self.as_of();
        let ending = self.assembler.take_ending();
        if !changes.is_empty() || !ending.is_empty() {
            let origin = Origin::Watched { cluster: self.cluster_name(), new_epoch: false };
            let what = What::Changes { origin, changes, as_of };
            self.send(Update { changed_at: moments, ending, ..what.into() }).await?;
            self.vouched = as_of;
            // Records make the source count as up again, which it is not.
            if let Some(reason) = self.lost.clone() {
                self.send(What::Lost { reason }).await?;
            }
        }
        self.vouch().await
    }

    /// Publishes everything if everything was listed.
    async fn listed(&mut self) -> Result<(), Unwanted> {
        if !self.parts.values().all(|part| part.listed) {
            return Ok(());
        }
        // A list older than what others saw, or of another cluster, is looked into at once.
        self.probe_at = Instant::now();
        let cluster = self.assembler.cluster();
        if self.published && self.cluster.is_some() && cluster != self.cluster.as_deref() {
            return Ok(());
        }
        if !self.published {
            self.cluster = cluster.map(Into::into);
        }
        let records = self.assembler.records();
        let (services, namespaces) = (records.services.len(), records.namespaces.len());
        let origin = Origin::Watched { cluster: self.cluster_name(), new_epoch: self.known.new_epoch };
        let as_of = self.as_of();
        info!(services, namespaces, new_epoch = self.known.new_epoch, "full list loaded");
        self.send(What::Reset { origin, records, as_of }).await?;
        self.vouched = as_of;
        self.known.new_epoch = false;
        self.published = true;
        self.silent = None;
        self.tell_rejections().await?;
        match self.lost.clone() {
            Some(reason) if !self.all_open() => self.send(What::Lost { reason }).await,
            _ => {
                self.found();
                Ok(())
            }
        }
    }

    async fn down(&mut self, part: Part, verb: Verb, failure: &Failure) -> Result<(), Unwanted> {
        let followed = self.parts.get_mut(&part).expect("every follower has an entry");
        followed.open = false;
        followed.downs = followed.downs.saturating_add(1);
        let again = followed.downs > 1;
        if matches!(failure, Failure::Unreachable { .. }) {
            self.away = Some(Instant::now());
        }
        let tell = match failure {
            Failure::Expired => false,
            Failure::Refused { code: 401 | 403, .. } if self.is_restarting() => false,
            Failure::Refused { code: 401, .. } => {
                self.reconnect();
                true
            }
            Failure::Refused { code: 403 | 404, .. } => true,
            // The server's version may be behind ours, for good if etcd was restored.
            Failure::Refused { code: 504, .. } | Failure::Unreachable { .. } | Failure::Garbage(_) => {
                self.probe_at = self.probe_at.min(Instant::now());
                again
            }
            Failure::Refused { .. } => again,
        };
        if tell && self.reachable() {
            let reason = self.server.borrow().describe(verb, part.objects(), failure);
            self.lose(reason).await?;
        }
        Ok(())
    }

    /// Whether the server was away a moment ago.
    fn is_restarting(&self) -> bool {
        self.away.is_some_and(|away| away.elapsed() < self.config.timing.restarting)
    }

    /// Reads the configuration and credentials again, which may have been renewed. Beside everything else: a plugin may
    /// take its time.
    fn reconnect(&mut self) {
        if self.connected.elapsed() < self.config.timing.reconnect {
            return;
        }
        self.connected = Instant::now();
        let (config, metrics, server) = (self.config.clone(), self.metrics.clone(), self.server.clone());
        tokio::spawn(async move {
            match config.shared.server(&config, &metrics, true).await {
                Ok(connected) => {
                    server.send_replace(connected);
                }
                Err(error) => warn!(%error, "cannot read the credentials again; keeping the old ones"),
            }
        });
    }

    async fn lose(&mut self, reason: String) -> Result<(), Unwanted> {
        if self.lost.as_ref() == Some(&reason) {
            return Ok(());
        }
        debug!(%reason, "lost");
        self.metrics.health().lost(Some(&reason), self.clock.now());
        self.silent = None;
        self.lost = Some(reason.clone());
        self.send(What::Lost { reason }).await
    }

    fn found(&mut self) {
        (self.lost, self.silent) = (None, None);
        self.metrics.health().lost(None, self.clock.now());
    }

    fn all_open(&self) -> bool {
        self.parts.values().all(|part| part.open)
    }

    /// The latest sign of life on the list heard of longest ago.
    fn as_of(&self) -> UnixMillis {
        let oldest = self.parts.values().map(|part| part.heard).min().unwrap_or_default();
        oldest.max(self.vouched)
    }

    /// Says that what was published is true as of now, if that is news.
    async fn vouch(&mut self) -> Result<(), Unwanted> {
        let as_of = self.as_of();
        let news = as_of > self.vouched || self.lost.is_some();
        if !self.published || !self.all_open() || !self.reachable() || !news {
            return Ok(());
        }
        self.found();
        self.vouched = as_of;
        self.send(What::Fresh { as_of }).await
    }

    async fn tell_rejections(&mut self) -> Result<(), Unwanted> {
        let rejections = self.assembler.rejections();
        if rejections == self.rejected {
            return Ok(());
        }
        self.rejected = rejections.clone();
        self.send(What::Rejected(rejections)).await
    }

    fn cluster_name(&self) -> Arc<str> {
        self.cluster.clone().unwrap_or_else(|| CLUSTER.into())
    }

    async fn send(&self, update: impl Into<Update>) -> Result<(), Unwanted> {
        self.updates.send(update.into()).await.map_err(|_| Unwanted)
    }
}

impl Followed {
    fn hear(&mut self, now: UnixMillis, version: Option<&str>) {
        self.open = true;
        self.downs = 0;
        self.heard = now;
        if let Some(version) = version.and_then(|version| version.parse().ok()) {
            self.version = self.version.max(Some(version));
        }
    }
}
