//! Whether another hub is better off than the one followed: asks others while there is a reason to, and chooses among their
//! answers. Never leaves the hub itself.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::OptionFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::{Asks, Dial, HubState, ask, spread};
use crate::{record::Version, sys::UnixMillis};

/// Over how long followers spread their first question to other hubs, when they come to doubt their own.
const ASK_SPREAD: Duration = Duration::from_secs(1);
/// Between two rounds of questions, plus up to half as much again.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long hubs that have not answered are waited for when one has that is fresh.
const ASK_OTHERS_LEFT: Duration = Duration::from_millis(300);
/// Most hubs asked in one round.
pub(super) const ASKED_MAX: usize = 4;

type Asking = Pin<Box<dyn Future<Output = Vec<(String, HubState)>> + Send>>;

/// The reasons to doubt the hub followed, and the questions under way.
#[derive(Default)]
pub(super) struct Doubt {
    /// The hub has no records for us: any other that has some will do.
    pub waiting: bool,
    /// The hub that said it is better off.
    pub target: Option<String>,
    ask_at: Option<Instant>,
    asking: Option<Asking>,
}

impl Doubt {
    pub(super) fn is_idle(&self) -> bool {
        self.ask_at.is_none() && self.asking.is_none()
    }

    /// Begins to ask others, unless that is under way.
    pub(super) fn begin(&mut self) {
        if self.is_idle() {
            self.ask_at = Some(Instant::now() + spread(ASK_SPREAD));
        }
    }

    /// No answer helped: asks again later.
    pub(super) fn again(&mut self) {
        self.ask_at = Some(Instant::now() + ASK_EVERY + spread(ASK_EVERY / 2));
    }

    /// Resolves when others are to be asked, or have answered. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Next {
        match (&mut self.asking, self.ask_at) {
            (Some(asking), _) => {
                let answers = asking.await;
                self.asking = None;
                Next::Answers(answers)
            }
            (None, Some(at)) => {
                sleep_until(at).await;
                self.ask_at = None;
                Next::Ask
            }
            (None, None) => std::future::pending().await,
        }
    }

    pub(super) fn ask(&mut self, asking: impl Future<Output = Vec<(String, HubState)>> + Send + 'static) {
        self.asking = Some(Box::pin(asking));
    }
}

/// The next step of a follower in doubt.
pub(super) enum Next {
    Ask,
    Answers(Vec<(String, HubState)>),
}

/// Asks these hubs for their versions, all at once; returns the answers. Ends soon after the first hub that is fresh.
pub async fn ask_all(dial: Dial, who: Asks, now: UnixMillis, addresses: Vec<String>) -> Vec<(String, HubState)> {
    let questions = addresses.into_iter().map(|address| {
        let (dial, who) = (Arc::clone(&dial), who.clone());
        async move { ask(&dial, &address, &who, now).await.ok().map(|state| (address, state)) }
    });
    let mut questions: FuturesUnordered<_> = questions.collect();
    let (mut answers, mut end) = (Vec::new(), None);
    loop {
        tokio::select! {
            answer = questions.next() => match answer {
                Some(Some((address, state))) => {
                    if state.lost.is_none() && end.is_none() {
                        end = Some(Instant::now() + ASK_OTHERS_LEFT);
                    }
                    answers.push((address, state));
                }
                Some(None) => {}
                None => return answers,
            },
            Some(()) = OptionFuture::from(end.map(sleep_until)) => return answers,
        }
    }
}

/// The follower that looks for a better hub.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    pub node: &'a str,
    /// The version it holds.
    pub held: &'a Version,
    /// How old its records are.
    pub as_of: UnixMillis,
    /// It has no records: age does not matter.
    pub waiting: bool,
}

impl Asker<'_> {
    /// The freshest hub that is better off than the one followed.
    pub(super) fn better(&self, answers: Vec<(String, HubState)>) -> Option<String> {
        let better = |state: &HubState| {
            let same_history = self.held.cluster.is_empty() || self.held.cluster == state.version.cluster;
            let usable = !state.version.cluster.is_empty() && same_history && !self.held.follows(&state.version);
            let fresh = state.lost.is_none() && state.as_of > self.as_of;
            usable && (fresh || self.waiting) && !state.path.iter().any(|hub| hub == self.node)
        };
        let best = answers.into_iter().filter(|(_, state)| better(state)).max_by_key(|(_, state)| state.as_of);
        best.map(|(address, _)| address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(cluster: &str, epoch: u64) -> Version {
        Version { cluster: cluster.into(), epoch, rev: 1 }
    }

    fn state(version: Version, as_of: u64, lost: bool, path: &[&str]) -> HubState {
        HubState {
            version,
            as_of: UnixMillis(as_of),
            lost: lost.then(|| "cut off".to_owned()),
            path: path.iter().map(ToString::to_string).collect(),
            serves: None,
        }
    }

    #[test]
    fn the_freshest_hub_of_the_same_history_that_is_not_behind_is_better() {
        let held = version("uid", 5);
        let asker = Asker { node: "us", held: &held, as_of: UnixMillis(100), waiting: false };
        let waiting = Asker { node: "us", held: &held, as_of: UnixMillis(100), waiting: true };
        // the answer, better than a hub with records of 100, better than one without records
        let cases = [
            ("fresher", state(version("uid", 5), 101, false, &["a"]), true, true),
            ("of a later epoch", state(version("uid", 9), 101, false, &["a"]), true, true),
            ("as old", state(version("uid", 5), 100, false, &["a"]), false, true),
            ("lost", state(version("uid", 5), 101, true, &["a"]), false, true),
            ("behind", state(version("uid", 4), 101, false, &["a"]), false, false),
            ("of another cluster", state(version("other", 9), 101, false, &["a"]), false, false),
            ("without records", state(version("", 0), 101, false, &["a"]), false, false),
            ("a follower of ours", state(version("uid", 9), 101, false, &["a", "us"]), false, false),
        ];
        for (name, state, better, with_none) in cases {
            assert_eq!(asker.better(vec![("a".into(), state.clone())]).is_some(), better, "{name}");
            assert_eq!(waiting.better(vec![("a".into(), state)]).is_some(), with_none, "{name}, waiting");
        }
        let answers = [("a", 101), ("b", 103), ("c", 102)];
        let answers = answers.map(|(name, as_of)| (name.to_owned(), state(held.clone(), as_of, false, &[name])));
        assert_eq!(asker.better(answers.into()).as_deref(), Some("b"));
        let empty = version("", 0);
        let fresh = Asker { node: "us", held: &empty, as_of: UnixMillis(0), waiting: false };
        assert!(fresh.better(vec![("a".into(), state(held, 1, false, &["a"]))]).is_some());
    }
}
