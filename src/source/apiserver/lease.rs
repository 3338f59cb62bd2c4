//! Which of several hubs watches the cluster: the holder of a Lease (`coordination.k8s.io/v1`).
//!
//! ```text
//!   Unknown ──▶ Holder { epoch }  ◀──▶  Follower { leader, address }
//! ```
//!
//! The holder renews; the others look every two seconds, and one of them takes the lease when it was not renewed for 15 s **of
//! a server that answered**. So an outage of the apiserver, however long, changes nothing: the holder goes on, and renews
//! when the server is back. No wall clock of another machine is looked at. The lease carries where the holder serves its
//! stream and which epoch it stamps, so that the next one's is higher whatever its clock says.
//!
//! Never decides what a holder or a follower does.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use super::{
    Config,
    request::{self, Ask},
    server::{Failure, Server},
};
use crate::{
    source::{Metrics, Resource, metrics::Verb},
    store::Reader,
    sys::{Clock, UnixMillis},
};

/// Where the holder serves its stream.
const SERVES: &str = "holdfast.io/serves";
/// The epoch the holder stamps.
const EPOCH: &str = "holdfast.io/epoch";
/// Largest answer read, in bytes: one lease.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long letting go may take when the process ends.
const LET_GO: Duration = Duration::from_millis(500);

/// Who stands for election, and how.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The Lease's name.
    pub lease: String,
    /// Our name, unique among the candidates.
    pub name: String,
    /// HOST:PORT where we serve the stream; empty if nobody can reach us.
    pub serves: String,
    /// After how long without a renewal another may take the lease.
    pub duration: Duration,
    /// Between two looks at the lease, less a jitter of up to a third. The holder renews at every other one.
    pub look: Duration,
}

impl Candidate {
    /// One that stands for the lease of this name with the usual times.
    #[must_use]
    pub fn new(lease: &str, name: &str, serves: &str) -> Self {
        Self {
            lease: lease.to_owned(),
            name: name.to_owned(),
            serves: serves.to_owned(),
            duration: Duration::from_secs(15),
            look: Duration::from_secs(2),
        }
    }
}

/// How the election stands, as far as this candidate knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Standing {
    /// Not known: the server was not reached since the start.
    #[default]
    Unknown,
    /// We watch the cluster, and stamp this epoch or a later one.
    Holder {
        /// The epoch.
        epoch: u64,
    },
    /// Another one does.
    Follower {
        /// Its name.
        leader: String,
        /// HOST:PORT where it serves its stream; empty if it did not say.
        address: String,
    },
}

/// A lease as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Lease {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    holder_identity: Option<String>,
    lease_transitions: Option<i64>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
}

impl Lease {
    fn holder(&self) -> Option<&str> {
        self.spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    fn annotation(&self, name: &str) -> &str {
        self.metadata.annotations.get(name).map_or("", String::as_str)
    }

    fn epoch(&self) -> u64 {
        self.annotation(EPOCH).parse().unwrap_or(0)
    }
}

/// What to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: another one has it.
    Follow,
    /// Say again that we have it.
    Renew,
    /// Make it ours.
    Take,
}

/// What was seen of the lease while the server answered.
#[derive(Debug, Default)]
struct Observed {
    /// The version that was last seen to be new, and when that was.
    version: Option<(String, Instant)>,
}

impl Observed {
    /// The server did not answer: nobody could renew, so nobody failed to.
    fn unanswered(&mut self) {
        self.version = None;
    }

    /// How long the lease was not renewed, as far as we could have seen it.
    fn unchanged_for(&mut self, version: &str, now: Instant) -> Duration {
        match &self.version {
            Some((seen, at)) if seen == version => now.saturating_duration_since(*at),
            _ => {
                self.version = Some((version.to_owned(), now));
                Duration::ZERO
            }
        }
    }

    /// What a candidate called `name` does about `lease`, which it thinks it has if `holding`.
    fn judge(&mut self, lease: &Lease, name: &str, holding: bool, duration: Duration, now: Instant) -> Step {
        let unchanged = self.unchanged_for(&lease.metadata.resource_version, now);
        match lease.holder() {
            // In an earlier life, if we do not think so: what we stamped then may be on no disk.
            Some(holder) if holder == name => {
                if holding {
                    Step::Renew
                } else {
                    Step::Take
                }
            }
            None => Step::Take,
            Some(_) if unchanged > duration => Step::Take,
            Some(_) => Step::Follow,
        }
    }
}

/// Stands for election until dropped, and lets go of the lease then if `leave` says so first.
///
/// `reader` tells which epoch is held; `standing` is told how it goes.
pub async fn run(
    config: Config,
    candidate: Candidate,
    parts: Parts,
    standing: watch::Sender<Standing>,
    leave: tokio_util::sync::CancellationToken,
) {
    let mut election = Election {
        config,
        candidate,
        parts,
        standing,
        server: None,
        observed: Observed::default(),
        told: None,
        looks: 0,
    };
    loop {
        tokio::select! {
            () = leave.cancelled() => break,
            () = election.look() => {}
        }
        let pause = election.candidate.look.mul_f64(rand::random_range(0.67..=1.0));
        tokio::select! {
            () = leave.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    if tokio::time::timeout(LET_GO, election.let_go()).await.is_err() {
        warn!("the lease could not be let go in time; it ends by itself");
    }
}

/// What an election works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The records, for the epoch they have.
    pub reader: Reader,
    /// Wall-clock time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
}

struct Election {
    config: Config,
    candidate: Candidate,
    parts: Parts,
    standing: watch::Sender<Standing>,
    server: Option<Server>,
    observed: Observed,
    /// The failure last told of.
    told: Option<String>,
    looks: u64,
}

impl Election {
    /// Looks at the lease once, and does what is to be done about it.
    async fn look(&mut self) {
        if self.server.is_none() {
            match Server::connect(&self.config).await {
                Ok(server) => self.server = Some(server),
                Err(error) => return self.tell(&error.to_string()),
            }
        }
        let Some(server) = self.server.clone() else { return };
        self.looks += 1;
        let outcome = match self.read(&server).await {
            Ok(Some(lease)) => self.act(&server, &lease).await,
            Ok(None) => self.take(&server, None).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(()) => self.told = None,
            // Somebody else was faster; the next look says who.
            Err(Failure::Refused { code: 409, .. }) => {}
            Err(failure) => self.failed(&server, &failure),
        }
    }

    async fn act(&mut self, server: &Server, lease: &Lease) -> Result<(), Failure> {
        let holding = matches!(*self.standing.borrow(), Standing::Holder { .. });
        let duration = self.candidate.duration.mul_f64(rand::random_range(1.0..=1.15));
        match self.observed.judge(lease, &self.candidate.name, holding, duration, Instant::now()) {
            Step::Take => self.take(server, Some(lease)).await,
            Step::Renew if self.looks.is_multiple_of(2) => self.renew(server, lease).await,
            Step::Renew => Ok(()),
            Step::Follow => {
                let leader = lease.holder().unwrap_or_default().to_owned();
                self.stand(Standing::Follower { leader, address: lease.annotation(SERVES).to_owned() });
                Ok(())
            }
        }
    }

    fn failed(&mut self, server: &Server, failure: &Failure) {
        self.observed.unanswered();
        // Credentials may have been renewed.
        self.server = None;
        let mut reason = server.describe(Verb::Get, Resource::Leases, failure);
        let refused = matches!(failure, Failure::Refused { code: 403..=405, .. });
        if refused && *self.standing.borrow() == Standing::Unknown {
            // Better a hub that watches without having been elected than none.
            reason.push_str("; watching without an election");
            self.stand(Standing::Holder { epoch: self.next_epoch(None) });
        }
        self.tell(&reason);
    }

    fn tell(&mut self, reason: &str) {
        if self.told.as_deref() != Some(reason) {
            warn!(lease = %self.candidate.lease, %reason, "the lease cannot be looked at; things stay as they are");
            self.told = Some(reason.to_owned());
        }
    }

    fn stand(&self, next: Standing) {
        self.standing.send_if_modified(|standing| {
            let changed = *standing != next;
            if changed {
                match &next {
                    Standing::Unknown => {}
                    Standing::Holder { epoch } => info!(epoch, "this hub watches the cluster"),
                    Standing::Follower { leader, address } => info!(leader, address, "another hub watches the cluster"),
                }
                *standing = next;
            }
            changed
        });
    }

    /// Later than every epoch we know of.
    fn next_epoch(&self, lease: Option<&Lease>) -> u64 {
        let known = lease.map_or(0, Lease::epoch).max(self.parts.reader.load().version().epoch);
        self.parts.clock.now().0.max(known.saturating_add(1))
    }

    async fn read(&self, server: &Server) -> Result<Option<Lease>, Failure> {
        let ask = self.ask(server, Verb::Get, None);
        match self.send(server, ask).await {
            // 404 of the lease, not of its API, says so by name.
            Err(Failure::Refused { code: 404, reason, .. }) if reason.contains(&self.candidate.lease) => Ok(None),
            Err(failure) => Err(failure),
            Ok(body) => serde_json::from_slice(&body).map(Some).map_err(|error| Failure::Garbage(error.to_string())),
        }
    }

    async fn take(&mut self, server: &Server, lease: Option<&Lease>) -> Result<(), Failure> {
        let epoch = self.next_epoch(lease);
        let transitions = lease.map_or(0, |lease| lease.spec.lease_transitions.unwrap_or(0).saturating_add(1));
        let now = micro_time(self.parts.clock.now());
        let verb = if lease.is_some() { Verb::Update } else { Verb::Create };
        let body = self.body(lease, &self.candidate.name, epoch, transitions, &now);
        self.send(server, self.ask(server, verb, Some(&body))).await?;
        self.stand(Standing::Holder { epoch });
        Ok(())
    }

    async fn renew(&mut self, server: &Server, lease: &Lease) -> Result<(), Failure> {
        let transitions = lease.spec.lease_transitions.unwrap_or(0);
        let acquired = lease.spec.acquire_time.clone().unwrap_or_default();
        let epoch = lease.epoch().max(self.parts.reader.load().version().epoch);
        let body = self.body(Some(lease), &self.candidate.name, epoch, transitions, &acquired);
        self.send(server, self.ask(server, Verb::Update, Some(&body))).await.map(|_| ())
    }

    /// Gives the lease back if it is ours, so that another takes it at its next look.
    async fn let_go(&mut self) {
        if !matches!(*self.standing.borrow(), Standing::Holder { .. }) {
            return;
        }
        let Some(server) = self.server.clone() else { return };
        let Ok(Some(lease)) = self.read(&server).await else { return };
        if lease.holder() != Some(&self.candidate.name) {
            return;
        }
        let epoch = lease.epoch().max(self.parts.reader.load().version().epoch);
        let transitions = lease.spec.lease_transitions.unwrap_or(0);
        let acquired = lease.spec.acquire_time.clone().unwrap_or_default();
        let body = self.body(Some(&lease), "", epoch, transitions, &acquired);
        match self.send(&server, self.ask(&server, Verb::Update, Some(&body))).await {
            Ok(_) => info!("the lease is let go"),
            Err(failure) => self.tell(&server.describe(Verb::Update, Resource::Leases, &failure)),
        }
    }

    fn body(&self, lease: Option<&Lease>, holder: &str, epoch: u64, transitions: i64, acquired: &str) -> Value {
        let mut metadata = json!({
            "name": self.candidate.lease,
            "annotations": { SERVES: if holder.is_empty() { "" } else { &self.candidate.serves }, EPOCH: epoch.to_string() },
        });
        if let Some(lease) = lease {
            metadata["resourceVersion"] = lease.metadata.resource_version.as_str().into();
        }
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": self.candidate.duration.as_secs(),
                "leaseTransitions": transitions,
                "acquireTime": acquired,
                "renewTime": micro_time(self.parts.clock.now()),
            },
        })
    }

    fn ask(&self, server: &Server, verb: Verb, body: Option<&Value>) -> Ask {
        request::lease(verb, server.namespace(), &self.candidate.lease, body)
    }

    async fn send(&self, server: &Server, ask: Ask) -> Result<Vec<u8>, Failure> {
        let within = self.config.timing.probe_answer;
        server.send(ask, within, &self.parts.metrics).await?.whole(ANSWER_BYTES_MAX, within).await
    }
}

/// RFC 3339 with six digits, as `MicroTime` takes it.
fn micro_time(at: UnixMillis) -> String {
    let text = at.to_string();
    text.strip_suffix('Z').map_or(text.clone(), |text| format!("{text}000Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn lease(holder: &str, version: &str) -> Lease {
        let spec = Spec { holder_identity: Some(holder.to_owned()), ..Spec::default() };
        Lease { metadata: Metadata { resource_version: version.to_owned(), ..Metadata::default() }, spec }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_taken_when_it_was_not_renewed_for_its_duration_and_never_while_nobody_could() {
        let mut observed = Observed::default();
        let judge = |observed: &mut Observed, version: &str| {
            observed.judge(&lease("other", version), "us", false, DURATION, Instant::now())
        };
        assert_eq!(judge(&mut observed, "1"), Step::Follow);
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(judge(&mut observed, "2"), Step::Follow, "renewed");
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(judge(&mut observed, "2"), Step::Follow);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(judge(&mut observed, "2"), Step::Take);
        // An outage of a day: the first look after it begins to count anew.
        observed.unanswered();
        tokio::time::advance(Duration::from_secs(86_400)).await;
        assert_eq!(judge(&mut observed, "2"), Step::Follow);
        tokio::time::advance(Duration::from_secs(16)).await;
        assert_eq!(judge(&mut observed, "2"), Step::Take);
    }

    #[tokio::test(start_paused = true)]
    async fn ours_is_renewed_and_that_of_an_earlier_life_or_of_nobody_is_taken() {
        let mut observed = Observed::default();
        let now = Instant::now();
        assert_eq!(observed.judge(&lease("us", "1"), "us", true, DURATION, now), Step::Renew);
        assert_eq!(observed.judge(&lease("us", "1"), "us", false, DURATION, now), Step::Take);
        assert_eq!(observed.judge(&lease("", "1"), "us", false, DURATION, now), Step::Take);
        assert_eq!(observed.judge(&lease("other", "1"), "us", true, DURATION, now), Step::Follow);
    }

    #[test]
    fn times_are_written_as_kubernetes_reads_them() {
        assert_eq!(micro_time(UnixMillis(1_733_941_800_123)), "2024-12-11T18:30:00.123000Z");
    }
}
