//! Which of several hubs watches the cluster: the holder of a Lease (`coordination.k8s.io/v1`).
//!
//! ```text
//!   Unknown ──▶ Holder { epoch }  ◀──▶  Follower { leader, address } | Namesake { address }
//! ```
//!
//! The holder renews; the others look every two seconds, and one of them takes the lease when it was not renewed for 15 s **of
//! a server that answered**. So an outage of the apiserver, however long, changes nothing: the holder goes on, and renews
//! when the server is back. No wall clock of another machine is looked at. The lease carries where the holder serves its
//! stream and which epoch it stamps, so that the next one's is higher whatever its clock says.
//!
//! A hub without records does not wait for the lease of a hub that is gone: if no hub answers, it takes the lease at its first look.
//! A holder that is alive all the same finds out by its next write, as at any change of the holder.
//!
//! A renewal without an answer for as long as the lease lasts counts as unanswered, and is waited for all the same: to ask
//! again would be work for a slow server, and no news.
//!
//! A holder that was stopped for a while, or cut off alone, finds out by its next look. The [`Fence`] keeps updates
//! of its watches from being stamped before that look.
//!
//! A lease under our own name is ours if it was taken where we serve and with our store ([`identity()`]). Otherwise another hub
//! was given the same name by mistake, or we came back at another address: it is left to run out, as any other's.
//!
//! Never decides what a holder or a follower does.

mod identity;
mod object;
mod observed;
mod status;
mod succession;

pub use crate::report::{Failing, Standing};
pub use identity::identity;
pub use status::{Fence, Status, Verdict};
pub use succession::AskOthers;

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tracing::{info, warn};

use self::{
    object::{Lease, Whose, Written},
    observed::{Observed, Step},
};
use super::{
    Config,
    request::{self, Ask},
    server::{self, Failure, Server},
};
use crate::{
    source::{Metrics, Resource, metrics::Verb},
    store::Reader,
    sys::Clock,
};

/// Largest answer read, in bytes: one lease.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long letting go may take when the process ends: one request to a slow server.
const LET_GO: Duration = Duration::from_secs(2);

/// A candidate's settings.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub lease: String,
    /// Our name, unique among the candidates, but for a mistake in the configuration.
    pub name: String,
    /// Which hub we are, whatever we are called.
    pub hub: String,
    /// HOST:PORT where we serve the stream; empty if it is not known.
    pub serves: String,
    /// After how long without a renewal another may take the lease.
    pub duration: Duration,
    /// Between two looks at the lease, less a jitter of up to a third. The holder renews at about every other one.
    pub look: Duration,
}

impl Candidate {
    /// A candidate for the Lease of this name with the usual times.
    #[must_use]
    pub fn new(lease: &str, name: &str, serves: &str) -> Self {
        Self {
            lease: lease.to_owned(),
            name: name.to_owned(),
            hub: String::new(),
            serves: serves.to_owned(),
            duration: Duration::from_secs(15),
            look: Duration::from_secs(2),
        }
    }
}

/// The environment of an election.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The records, for the epoch they have.
    pub reader: Reader,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// An election that has not begun.
pub struct Election {
    config: watch::Receiver<Config>,
    candidate: Candidate,
    parts: Parts,
    status: Arc<watch::Sender<Status>>,
    others: Option<AskOthers>,
    ask: Arc<Notify>,
    server: Option<Server>,
    observed: Observed,
    /// The lease as we last wrote it: it is renewed without being read first.
    held: Option<Lease>,
    /// Another candidate was faster: look at once for its name.
    overtaken: bool,
    /// How long the latest request took, and for how long the server asked to be left alone.
    strained: Duration,
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Election").field("candidate", &self.candidate).finish_non_exhaustive()
    }
}

impl Election {
    /// Prepares to stand for election at the server of `config`, and at another one when that changes.
    #[must_use]
    pub fn new(config: watch::Receiver<Config>, candidate: Candidate, parts: Parts) -> Self {
        Self {
            config,
            candidate,
            parts,
            status: Arc::new(watch::Sender::new(Status::default())),
            others: None,
            ask: Arc::default(),
            server: None,
            observed: Observed::default(),
            held: None,
            overtaken: false,
            strained: Duration::ZERO,
        }
    }

    /// The same, which asks the other hubs so when it cannot hold the Lease.
    #[must_use]
    pub fn asking(mut self, others: AskOthers) -> Self {
        self.others = Some(others);
        self
    }

    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// The state that decides whether this process may make versions.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence { status: self.status.subscribe(), duration: self.candidate.duration, ask: Arc::clone(&self.ask) }
    }

    /// Stands for election until dropped; if `leave` says so first, lets go of the lease.
    pub async fn run(mut self, leave: tokio_util::sync::CancellationToken) {
        let succession = self.others.clone().map(|others| {
            let (candidate, parts) = (self.candidate.clone(), self.parts.clone());
            succession::run(candidate, parts, Arc::clone(&self.status), others)
        });
        let succession = async {
            match succession {
                Some(succession) => succession.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = leave.cancelled() => {}
            () = self.stand_for_election() => {}
            () = succession => {}
        }
        if tokio::time::timeout(LET_GO, self.let_go()).await.is_err() {
            warn!("could not release the leader lease in time; it ends by itself");
        }
    }

    async fn stand_for_election(&mut self) {
        let ask = Arc::clone(&self.ask);
        loop {
            self.look().await;
            let pause = if std::mem::take(&mut self.overtaken) { Duration::ZERO } else { self.pause() };
            tokio::select! {
                () = ask.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// How long to leave the server alone: less often when it is slow or asks for it, in time for the lease all the same.
    fn pause(&self) -> Duration {
        let look = if self.holds() { self.candidate.look * 2 } else { self.candidate.look };
        look.max(self.strained.min(self.candidate.duration / 3)).mul_f64(rand::random_range(0.67..=1.0))
    }

    /// Looks at the lease once, and takes, renews or follows it.
    async fn look(&mut self) {
        let begun = Instant::now();
        if self.config.has_changed().unwrap_or(false) {
            self.config.mark_unchanged();
            self.server = None;
            // Observations of a Lease of another apiserver do not count.
            self.observed.unanswered();
            self.held = None;
        }
        if self.server.is_none() {
            let config = self.config.borrow().clone();
            match config.shared.server(&config, &self.parts.metrics, true).await {
                Ok(server) => self.server = Some(server),
                Err(error) => return self.unanswered(begun, error.to_string(), false),
            }
        }
        let Some(server) = self.server.clone() else { return };
        let held = self.held.take().filter(|_| self.holds());
        let mut missing = false;
        let outcome = match held {
            Some(lease) => self.renew(&server, &lease).await.map(|()| None),
            None => match self.read(&server).await {
                Ok(Some(lease)) => {
                    // An answer this late says that the holder may not have got through either.
                    if begun.elapsed() > self.candidate.duration / 2 {
                        self.observed.unanswered();
                    }
                    self.act(&server, &lease).await
                }
                Ok(None) => {
                    missing = true;
                    self.take(&server, None).await.map(Some)
                }
                Err(failure) => Err(failure),
            },
        };
        self.strained = begun.elapsed();
        match outcome {
            Ok(standing) => self.answered(begun, standing),
            // Another one wrote it, or it was deleted.
            Err(Failure::Refused { code: 409, .. }) => self.overtaken = true,
            Err(Failure::Refused { code: 404, reason, .. }) if reason.contains(&self.candidate.lease) => {
                self.overtaken = true;
            }
            Err(failure) => self.failed(begun, &server, &failure, missing),
        }
    }

    /// The next step for a Lease, and the new standing if it changed.
    async fn act(&mut self, server: &Server, lease: &Lease) -> Result<Option<Standing>, Failure> {
        let standing = self.status.borrow().standing.clone();
        let duration = self.candidate.duration.mul_f64(rand::random_range(1.0..=1.15));
        match self.observed.judge(lease, &self.candidate, &standing, duration, Instant::now()) {
            Step::Take => self.take(server, Some(lease)).await.map(Some),
            Step::Renew => {
                self.renew(server, lease).await?;
                Ok(None)
            }
            Step::Follow if self.is_left_alone(lease).await => self.take(server, Some(lease)).await.map(Some),
            Step::Follow => {
                let leader = lease.holder().unwrap_or_default().to_owned();
                Ok(Some(Standing::Follower { leader, address: lease.serves().to_owned() }))
            }
            Step::GiveWay { renews } => {
                let name = self.candidate.name.clone();
                Ok(Some(Standing::Namesake { name, address: lease.serves().to_owned(), renews }))
            }
        }
    }

    /// Whether this hub has just started without records, and no hub answers that could give it some.
    async fn is_left_alone(&self, lease: &Lease) -> bool {
        let unknown = self.status.borrow().standing == Standing::Unknown;
        let Some(others) = self.others.as_ref().filter(|_| unknown && self.parts.reader.as_of().is_none()) else {
            return false;
        };
        let answers = others(Some(lease.serves().to_owned())).await;
        // The Service of the hubs may lead back here.
        let alone = answers.iter().all(|(_, state)| state.path.contains(&self.candidate.name));
        if alone {
            let leader = lease.holder().unwrap_or_default();
            info!(
                leader,
                address = lease.serves(),
                "no hub answers and this one has no records: taking the leader lease"
            );
        }
        alone
    }

    fn holds(&self) -> bool {
        matches!(self.status.borrow().standing, Standing::Holder { .. })
    }

    fn answered(&self, begun: Instant, standing: Option<Standing>) {
        if let Some(failing) = &self.status.borrow().failing {
            info!(lease = %self.candidate.lease, since = %failing.since, "the leader lease can be read again");
        }
        self.stand(standing, |status| status.answered(begun));
    }

    fn failed(&mut self, begun: Instant, server: &Server, failure: &Failure, missing: bool) {
        // Credentials may have been renewed.
        self.server = None;
        if let Failure::Refused { retry_after: Some(asked), .. } = failure {
            self.strained = self.strained.max(*asked);
        }
        let mut reason = if missing {
            let (name, namespace) = (&self.candidate.lease, server.namespace());
            let why = server.describe(Verb::Create, Resource::Leases, failure);
            format!("the Lease {namespace}/{name} does not exist and cannot be created: {why}")
        } else {
            server.describe(Verb::Get, Resource::Leases, failure)
        };
        let refused = matches!(failure, Failure::Refused { code: 403..=405, .. });
        let unelected = refused && !self.status.borrow().standing.gives_way();
        if unelected {
            reason.push_str("; watching without an election");
        }
        self.unanswered(begun, reason, unelected);
    }

    /// Nothing changes by that, but for a hub without the right to leases: better one that watches without having been
    /// elected than none.
    fn unanswered(&mut self, begun: Instant, reason: String, unelected: bool) {
        self.observed.unanswered();
        self.note_unanswered(begun, reason, unelected);
    }

    fn note_unanswered(&self, begun: Instant, reason: String, unelected: bool) {
        if self.status.borrow().failing.as_ref().is_none_or(|failing| failing.reason != reason) {
            warn!(lease = %self.candidate.lease, %reason, "cannot read the leader lease; roles unchanged");
        }
        let now = self.parts.clock.now();
        let begins = unelected && !self.holds() && !self.status.borrow().gave_way();
        let standing = begins.then(|| Standing::Holder { epoch: next_epoch(&self.parts, None) });
        self.stand(standing, |status| status.unanswered(begun, now, reason, unelected));
    }

    fn stand(&self, next: Option<Standing>, note: impl FnOnce(&mut Status)) {
        self.status.send_modify(|status| {
            if let Some(next) = next.filter(|next| *next != status.standing) {
                match &next {
                    Standing::Unknown => {}
                    Standing::Holder { epoch } => info!(epoch, "this hub watches the cluster"),
                    Standing::Follower { leader, address } => info!(leader, address, "another hub watches the cluster"),
                    Standing::Namesake { name, address, renews: false } => {
                        info!(name, address, "the lease has this hub's name, from an earlier start or another hub; taken if it is not renewed");
                    }
                    Standing::Namesake { name, address, renews: true } => {
                        warn!(
                            name,
                            address,
                            "another hub has this one's name and the lease: give each its own --name; until then this one does \
                             not watch"
                        );
                    }
                }
                status.standing = next;
                status.taking = false;
            }
            note(status);
        });
    }

    async fn read(&self, server: &Server) -> Result<Option<Lease>, Failure> {
        match self.send(server, self.ask(server, Verb::Get, None)).await {
            // 404 of the lease, not of its API, says so by name.
            Err(Failure::Refused { code: 404, reason, .. }) if reason.contains(&self.candidate.lease) => Ok(None),
            Err(failure) => Err(failure),
            Ok(body) => serde_json::from_slice(&body).map(Some).map_err(|error| Failure::Garbage(error.to_string())),
        }
    }

    async fn take(&mut self, server: &Server, lease: Option<&Lease>) -> Result<Standing, Failure> {
        self.status.send_if_modified(|status| !std::mem::replace(&mut status.taking, true));
        let epoch = next_epoch(&self.parts, lease);
        self.held = self.write(server, lease, &self.candidate.name, epoch, true).await?;
        self.note_renewal();
        Ok(Standing::Holder { epoch })
    }

    async fn renew(&mut self, server: &Server, lease: &Lease) -> Result<(), Failure> {
        let epoch = lease.epoch().max(self.parts.reader.load().version().epoch);
        self.held = self.write(server, Some(lease), &self.candidate.name, epoch, false).await?;
        self.note_renewal();
        Ok(())
    }

    fn note_renewal(&self) {
        let now = self.parts.clock.now();
        self.status.send_if_modified(|status| {
            status.renewed = Some(now);
            false
        });
    }

    /// Gives the lease back if it is ours, so that another takes it at its next look.
    async fn let_go(&mut self) {
        let Some(server) = self.server.clone() else { return };
        if let Some(lease) = self.held.take().filter(|_| self.holds())
            && !matches!(self.release(&server, &lease).await, Err(Failure::Refused { code: 409, .. }))
        {
            return;
        }
        // Also if we do not know that we have it: taking it may have been cut short.
        let Ok(Some(lease)) = self.read(&server).await else { return };
        if lease.whose(&self.candidate) == Whose::Ours {
            let _ = self.release(&server, &lease).await;
        }
    }

    async fn release(&self, server: &Server, lease: &Lease) -> Result<(), Failure> {
        let epoch = lease.epoch().max(self.parts.reader.load().version().epoch);
        let released = self.write(server, Some(lease), "", epoch, false).await.map(|_| ());
        match &released {
            Ok(()) => info!("leader lease released"),
            Err(Failure::Refused { code: 409, .. }) => {}
            Err(failure) => {
                let reason = server.describe(Verb::Update, Resource::Leases, failure);
                warn!(%reason, "could not release the leader lease; it ends by itself");
            }
        }
        released
    }

    async fn write(
        &self,
        server: &Server,
        before: Option<&Lease>,
        holder: &str,
        epoch: u64,
        taken: bool,
    ) -> Result<Option<Lease>, Failure> {
        let Candidate { lease: name, hub, serves, duration, .. } = &self.candidate;
        let now = self.parts.clock.now();
        let body = Written { name, holder, serves, hub, epoch, duration: *duration, now, taken }.body(before);
        let verb = if before.is_some() { Verb::Update } else { Verb::Create };
        let body = self.send(server, self.ask(server, verb, Some(&body))).await?;
        Ok(serde_json::from_slice(&body).ok())
    }

    fn ask(&self, server: &Server, verb: Verb, body: Option<&serde_json::Value>) -> Ask {
        request::lease(verb, server.namespace(), &self.candidate.lease, body)
    }

    async fn send(&self, server: &Server, ask: Ask) -> Result<Vec<u8>, Failure> {
        let (begun, patience) = (Instant::now(), server.patience());
        let answer = pin!(async { server.send(ask, patience).await?.whole(ANSWER_BYTES_MAX, patience).await });
        let late = async {
            let Candidate { duration, .. } = self.candidate;
            tokio::time::sleep(duration).await;
            loop {
                self.late(begun, server);
                tokio::time::sleep(duration / 2).await;
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            never = late => never,
        }
    }

    /// A request that began then is unanswered for as long as the lease lasts, and still waited for.
    fn late(&self, begun: Instant, asked: &Server) {
        if self.holds() {
            let reason = format!("timed out ({:?}), still waiting", self.candidate.duration);
            let failure = Failure::Unreachable { step: server::Step::Answer, reason };
            let reason = asked.describe(Verb::Update, Resource::Leases, &failure);
            self.note_unanswered(begun, reason, false);
        }
    }
}

/// Later than every epoch we know of.
fn next_epoch(parts: &Parts, lease: Option<&Lease>) -> u64 {
    let known = lease.map_or(0, Lease::epoch).max(parts.reader.load().version().epoch);
    parts.clock.now().0.max(known.saturating_add(1))
}
