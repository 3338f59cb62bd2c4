//! What a candidate does about a lease, by what it saw of it. No wall clock is looked at, least of all another machine's.

use std::time::Duration;

use tokio::time::Instant;

use super::object::Lease;

/// What to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: another one has it.
    Follow,
    /// Say again that we have it.
    Renew,
    /// Make it ours.
    Take,
}

/// What was seen of the lease while the server answered.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The version that was last seen to be new, and when that was.
    version: Option<(String, Instant)>,
}

impl Observed {
    /// The server did not answer: nobody could renew, so nobody failed to.
    pub(super) fn unanswered(&mut self) {
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
    pub(super) fn judge(&mut self, lease: &Lease, name: &str, holding: bool, duration: Duration, now: Instant) -> Step {
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

#[cfg(test)]
mod tests {
    use super::{
        super::object::{Metadata, Spec},
        *,
    };

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
}
