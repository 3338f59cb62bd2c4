//! A hub that cannot hold the Lease asks the other hubs it knows: if one of them watches the cluster in a later epoch, or is
//! fresh while this one is cut off, it is followed. So one hub watches, with a Lease or without.
//!
//! Never opens a connection itself; the questions are handed in.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{Candidate, Parts, Standing, Status, next_epoch};
use crate::{record::Version, source::hub::HubState, store::SourceState};

/// Asks all known hubs and the one at the address given; returns their states by address.
pub type AskOthers = Arc<dyn Fn(Option<String>) -> BoxFuture<'static, Vec<(String, HubState)>> + Send + Sync>;

/// Rounds of questions without a fresh hub after which this one watches again.
const MISSED_MAX: u32 = 3;

/// Looks for a successor while the Lease can be neither held nor looked at, until dropped.
pub(super) async fn run(candidate: Candidate, parts: Parts, status: Arc<watch::Sender<Status>>, ask: AskOthers) {
    let mut changed = status.subscribe();
    let mut missed = 0;
    loop {
        // Nothing to do while the Lease can be looked at.
        if changed.wait_for(|status| status.failing.is_some()).await.is_err() {
            return;
        }
        let doubtful = {
            let status = status.borrow();
            status.gave_way() || status.is_cut_off(candidate.duration)
        };
        if doubtful {
            let answers = ask(None).await;
            let records = parts.reader.load().version().clone();
            let lost = parts.reader.freshness().source != SourceState::Up;
            let us = Us { name: &candidate.name, version: &records, lost };
            status.send_if_modified(|status| match &status.gave_way {
                None if status.is_cut_off(candidate.duration) => match us.successor(&answers) {
                    Some((leader, address)) => {
                        warn!(
                            leader,
                            address,
                            "this hub cannot hold the leader lease: it follows the hub that watches in its place"
                        );
                        status.give_way(leader, address);
                        missed = 0;
                        true
                    }
                    None => false,
                },
                None => false,
                Some(before) => {
                    missed = if us.is_served(&answers) { 0 } else { missed + 1 };
                    if missed < MISSED_MAX {
                        return false;
                    }
                    info!("no other hub is fresh: this hub watches the cluster again");
                    status.standing = match before {
                        Standing::Holder { .. } => Standing::Holder { epoch: next_epoch(&parts, None) },
                        before => before.clone(),
                    };
                    status.gave_way = None;
                    true
                }
            });
        }
        sleep(pause(candidate.duration)).await;
    }
}

/// Between two rounds of questions: three of them before another could take a Lease.
fn pause(duration: Duration) -> Duration {
    (duration / 3).mul_f64(rand::random_range(1.0..=1.5))
}

/// The hub that asks.
#[derive(Debug)]
struct Us<'a> {
    name: &'a str,
    version: &'a Version,
    /// Its own source is out of reach.
    lost: bool,
}

impl Us<'_> {
    /// The name and the address of the hub to follow. Of two that watch, both fresh, the one of the earlier epoch gives way:
    /// nodes that hold the later one never go back.
    fn successor(&self, answers: &[(String, HubState)]) -> Option<(String, String)> {
        let later = |state: &HubState| {
            let rank = (state.version.epoch, state.path.last().map_or("", String::as_str));
            self.lost || rank > (self.version.epoch, self.name)
        };
        let fresh = answers.iter().filter(|(_, state)| self.may_follow(state) && later(state));
        let best = fresh
            .max_by_key(|(_, state)| (state.version.epoch, state.version.rev, std::cmp::Reverse(state.path.len())));
        best.map(|(asked, state)| {
            let leader = state.path.last().cloned().unwrap_or_default();
            // An address of its own, where the one asked may be a balancer's.
            (leader, state.serves.clone().unwrap_or_else(|| asked.clone()))
        })
    }

    /// Whether there is a fresh hub still.
    fn is_served(&self, answers: &[(String, HubState)]) -> bool {
        answers.iter().any(|(_, state)| self.may_follow(state))
    }

    fn may_follow(&self, state: &HubState) -> bool {
        let same_history = self.version.cluster.is_empty() || self.version.cluster == state.version.cluster;
        let usable = !state.version.cluster.is_empty() && same_history && state.version.epoch >= self.version.epoch;
        usable && state.lost.is_none() && !state.path.iter().any(|hub| hub == self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::UnixMillis;

    fn version(cluster: &str, epoch: u64) -> Version {
        Version { cluster: cluster.into(), epoch, rev: 1 }
    }

    fn state(epoch: u64, path: &[&str]) -> HubState {
        HubState {
            version: version("uid", epoch),
            as_of: UnixMillis(5),
            lost: None,
            path: path.iter().map(ToString::to_string).collect(),
            serves: None,
        }
    }

    #[test]
    fn of_two_hubs_that_watch_the_one_of_the_earlier_epoch_follows_the_other() {
        let held = version("uid", 5);
        let us = Us { name: "b", version: &held, lost: false };
        let cut_off = Us { name: "b", version: &held, lost: true };
        // the answer, followed by a hub that is fresh, followed by one that is cut off
        let cases = [
            ("later", state(6, &["a"]), true, true),
            ("later, behind a relay", state(6, &["r", "a"]), true, true),
            ("earlier", state(4, &["a"]), false, false),
            ("the same epoch, an earlier name", state(5, &["a"]), false, true),
            ("the same epoch, a later name", state(5, &["c"]), true, true),
            ("our follower", state(5, &["c", "b"]), false, false),
            ("ourselves", state(5, &["b"]), false, false),
            ("lost", HubState { lost: Some("cut off".into()), ..state(6, &["a"]) }, false, false),
            ("another cluster", HubState { version: version("other", 9), ..state(6, &["a"]) }, false, false),
            ("no records", HubState { version: version("", 0), ..state(6, &["a"]) }, false, false),
        ];
        for (what, state, fresh, lost) in cases {
            let answers = [("10.0.0.1:7443".to_owned(), state)];
            assert_eq!(us.successor(&answers).is_some(), fresh, "{what}");
            assert_eq!(cut_off.successor(&answers).is_some(), lost, "{what}, cut off");
        }
        let answers = [
            ("vip:7443".to_owned(), HubState { serves: Some("10.0.0.2:7443".into()), ..state(7, &["c"]) }),
            ("10.0.0.3:7443".to_owned(), state(7, &["r", "c"])),
            ("10.0.0.1:7443".to_owned(), state(6, &["a"])),
        ];
        assert_eq!(
            us.successor(&answers),
            Some(("c".into(), "10.0.0.2:7443".into())),
            "the latest, by the shortest way"
        );
    }

    #[test]
    fn a_hub_without_records_follows_any_that_has_some() {
        let none = Version::default();
        let us = Us { name: "a", version: &none, lost: true };
        assert!(us.successor(&[("x".into(), state(1, &["b"]))]).is_some());
    }

    /// A hub of the course below.
    #[derive(Clone, Debug)]
    struct Hub {
        name: String,
        epoch: u64,
        /// The hub it follows; none if it watches.
        follows: Option<usize>,
        missed: u32,
    }

    /// The answer of hub `at`, if the hubs `up` run.
    fn says(hubs: &[Hub], at: usize, up: &[bool]) -> HubState {
        let mut path = vec![hubs[at].name.clone()];
        let mut lost = None;
        let mut next = hubs[at].follows;
        while let Some(leader) = next.filter(|_| path.len() <= hubs.len()) {
            path.push(hubs[leader].name.clone());
            if !up[leader] {
                lost = Some("connection refused".to_owned());
            }
            next = hubs[leader].follows;
        }
        HubState { version: version("uid", hubs[at].epoch), as_of: UnixMillis(5), lost, path, serves: None }
    }

    #[test]
    fn whatever_happens_one_hub_watches_once_all_hear_of_each_other_again() {
        use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
        for seed in 0..300 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut clock = 10;
            let mut hubs: Vec<Hub> = (0..3)
                .map(|n| Hub { name: format!("hub{n}"), epoch: rng.random_range(1..4), follows: None, missed: 0 })
                .collect();
            for round in 0..30 {
                // Hubs come and go, and hear of each other or not; in the last rounds all is well.
                let well = round >= 18;
                let up: [bool; 3] = std::array::from_fn(|_| well || rng.random_bool(0.8));
                let heard: [[bool; 3]; 3] =
                    std::array::from_fn(|_| std::array::from_fn(|_| well || rng.random_bool(0.7)));
                for us in (0..3).filter(|us| up[*us]) {
                    let others = (0..3).filter(|other| *other != us && up[*other] && heard[us][*other]);
                    let answers: Vec<_> =
                        others.map(|other| (hubs[other].name.clone(), says(&hubs, other, &up))).collect();
                    let held = version("uid", hubs[us].epoch);
                    let name = hubs[us].name.clone();
                    let asks = Us { name: &name, version: &held, lost: false };
                    if hubs[us].follows.is_none() {
                        if let Some((leader, _)) = asks.successor(&answers) {
                            let leader = hubs.iter().position(|hub| hub.name == leader).unwrap();
                            (hubs[us].follows, hubs[us].epoch, hubs[us].missed) = (Some(leader), hubs[leader].epoch, 0);
                        }
                    } else {
                        hubs[us].missed = if asks.is_served(&answers) { 0 } else { hubs[us].missed + 1 };
                        if hubs[us].missed == MISSED_MAX {
                            clock += 1;
                            (hubs[us].follows, hubs[us].epoch) = (None, clock);
                        }
                    }
                }
                // Records arrive over the streams.
                for us in 0..3 {
                    if let Some(leader) = hubs[us].follows.filter(|leader| up[us] && up[*leader]) {
                        hubs[us].epoch = hubs[us].epoch.max(hubs[leader].epoch);
                    }
                }
            }
            let watching = hubs.iter().filter(|hub| hub.follows.is_none()).count();
            assert_eq!(watching, 1, "seed {seed}: {hubs:#?}");
        }
    }
}
