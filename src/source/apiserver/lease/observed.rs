//! A candidate's next step for a lease, from its observations. Never reads a wall clock, neither its own nor another machine's.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Candidate, Standing,
    object::{Lease, Whose},
};

/// The next step for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: another one has it.
    Follow,
    /// Nothing: one of our own name has it, which we cannot follow. Whether it `renews`, or is but what is left of our own
    /// life elsewhere, is not known at first.
    GiveWay {
        renews: bool,
    },
    /// Say again that we have it.
    Renew,
    Take,
}

/// The lease as last seen while the server answered.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The version that was last seen to be new, and when that was.
    version: Option<(String, Instant)>,
    /// It was seen to change.
    changed: bool,
}

impl Observed {
    /// The server did not answer: the holder could not renew, so it did not fail to.
    pub(super) fn unanswered(&mut self) {
        *self = Self::default();
    }

    /// How long the lease was not renewed, as far as we could have seen it.
    fn unchanged_for(&mut self, version: &str, now: Instant) -> Duration {
        match &self.version {
            Some((seen, at)) if seen == version => now.saturating_duration_since(*at),
            seen => {
                self.changed |= seen.is_some();
                self.version = Some((version.to_owned(), now));
                Duration::ZERO
            }
        }
    }

    /// The step of the candidate `us`, in this standing, for `lease`.
    pub(super) fn judge(
        &mut self,
        lease: &Lease,
        us: &Candidate,
        standing: &Standing,
        duration: Duration,
        now: Instant,
    ) -> Step {
        let unchanged = self.unchanged_for(&lease.metadata.resource_version, now);
        match lease.whose(us) {
            Whose::Ours if matches!(standing, Standing::Holder { .. }) => Step::Renew,
            // Free, or ours from before a restart: versions we stamped then may be on no disk.
            Whose::Free | Whose::Ours => Step::Take,
            // At our first look, too. Later it was taken from us, by one that thinks the same of itself.
            Whose::Here if *standing == Standing::Unknown => Step::Take,
            Whose::Other | Whose::Namesake | Whose::Here if unchanged > duration => Step::Take,
            Whose::Other => Step::Follow,
            Whose::Namesake | Whose::Here => {
                // A candidate that held it, or saw another hold it, did not leave it behind.
                let taken = matches!(standing, Standing::Holder { .. } | Standing::Follower { .. });
                Step::GiveWay {
                    renews: taken || self.changed || matches!(standing, Standing::Namesake { renews: true, .. }),
                }
            }
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
    const FOLLOWER: Standing = Standing::Follower { leader: String::new(), address: String::new() };

    fn lease(holder: &str, version: &str) -> Lease {
        let spec = Spec { holder_identity: Some(holder.to_owned()), ..Spec::default() };
        Lease { metadata: Metadata { resource_version: version.to_owned(), ..Metadata::default() }, spec }
    }

    fn us(serves: &str) -> Candidate {
        Candidate::new("hub", "us", serves)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_taken_when_it_was_not_renewed_for_its_duration_and_never_while_nobody_could() {
        // The holder is another hub, or a hub with our name.
        for (holder, serves, waits) in
            [("other", "", Step::Follow), ("us", "10.0.0.1:7443", Step::GiveWay { renews: true })]
        {
            let mut observed = Observed::default();
            let judge = |observed: &mut Observed, version: &str| {
                observed.judge(&lease(holder, version), &us(serves), &FOLLOWER, DURATION, Instant::now())
            };
            assert_eq!(judge(&mut observed, "1"), waits);
            tokio::time::advance(Duration::from_secs(14)).await;
            assert_eq!(judge(&mut observed, "2"), waits, "renewed");
            tokio::time::advance(Duration::from_secs(14)).await;
            assert_eq!(judge(&mut observed, "2"), waits);
            tokio::time::advance(Duration::from_secs(2)).await;
            assert_eq!(judge(&mut observed, "2"), Step::Take);
            // An outage of a day: the first look after it starts the count again.
            observed.unanswered();
            tokio::time::advance(Duration::from_secs(86_400)).await;
            assert_eq!(judge(&mut observed, "2"), waits);
            tokio::time::advance(Duration::from_secs(16)).await;
            assert_eq!(judge(&mut observed, "2"), Step::Take);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ours_is_renewed_and_that_of_an_earlier_life_or_of_nobody_is_taken() {
        let mut observed = Observed::default();
        let now = Instant::now();
        let holder = Standing::Holder { epoch: 7 };
        let mut judge =
            |name: &str, standing: &Standing| observed.judge(&lease(name, "1"), &us(""), standing, DURATION, now);
        assert_eq!(judge("us", &holder), Step::Renew);
        assert_eq!(judge("us", &Standing::Unknown), Step::Take);
        assert_eq!(judge("", &Standing::Unknown), Step::Take);
        assert_eq!(judge("other", &holder), Step::Follow);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_of_our_name_is_another_hub_once_it_renews_or_takes_the_lease_from_us() {
        let waiting = Standing::Namesake { name: String::new(), address: String::new(), renews: false };
        let told = Standing::Namesake { name: String::new(), address: String::new(), renews: true };
        for (standing, versions, renews, why) in [
            (&Standing::Unknown, &["1"][..], false, "our own earlier life, elsewhere, for all we know"),
            (&waiting, &["1", "1"], false, "nobody has renewed it"),
            (&waiting, &["1", "2"], true, "somebody has"),
            (&told, &["2"], true, "known already, after an outage, too"),
            (&Standing::Holder { epoch: 7 }, &["1"], true, "we had it"),
            (&FOLLOWER, &["1"], true, "another one had it"),
        ] {
            let mut observed = Observed::default();
            let mut step = Step::Take;
            for version in versions {
                step = observed.judge(&lease("us", version), &us("10.0.0.1:7443"), standing, DURATION, Instant::now());
            }
            assert_eq!(step, Step::GiveWay { renews }, "{why}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_taken_where_we_serve_is_ours_at_the_start_and_lost_later() {
        let mut ours = lease("us", "1");
        let annotations = [("holdfast.io/serves", "10.0.0.1:7443"), ("holdfast.io/hub", "2e")];
        ours.metadata.annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let us = Candidate { hub: "1f".into(), ..us("10.0.0.1:7443") };
        let waits = Step::GiveWay { renews: true };
        for (standing, expected, why) in [
            (Standing::Unknown, Step::Take, "our own, before we lost our store"),
            (Standing::Holder { epoch: 7 }, waits, "another one took it from us"),
            (FOLLOWER, waits, "another one took it from whom we followed"),
        ] {
            let step = Observed::default().judge(&ours, &us, &standing, DURATION, Instant::now());
            assert_eq!(step, expected, "{why}");
        }
    }
}
