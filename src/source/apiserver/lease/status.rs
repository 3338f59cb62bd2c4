//! How an election stands, how well that is known, and whether a holder may stamp by it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    report::{ElectionStatus, Failing, Standing, Time},
    sys::UnixMillis,
};

/// How the election stands, and how well that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub standing: Standing,
    /// The lease is free, and being taken: the records may be listed meanwhile, not stamped.
    pub taking: bool,
    /// When a holder last renewed the lease.
    pub renewed: Option<UnixMillis>,
    /// Since when the lease can neither be looked at nor renewed; `None` while it can.
    pub failing: Option<Failing>,
    /// How things stood before this hub gave way to one that watches without the Lease, or that took it unseen.
    pub(super) gave_way: Option<Standing>,
    /// The latest look, whatever came of it.
    looked: Option<Looked>,
}

/// The result of the latest request for the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Looked {
    /// When it began: its result was true no earlier.
    begun: Instant,
    ended: Instant,
    /// When those that went unanswered began to.
    unanswered_since: Option<Instant>,
    /// We have no right to leases, and watch without one.
    unelected: bool,
}

impl Status {
    /// The row for `status`.
    #[must_use]
    pub fn report(&self) -> ElectionStatus {
        ElectionStatus {
            standing: self.standing.clone(),
            renewed: self.renewed.map(Time),
            failing: self.failing.clone(),
        }
    }

    pub(super) fn gave_way(&self) -> bool {
        self.gave_way.is_some()
    }

    /// Another hub may watch by now: there is no right to the Lease, or for longer than it lasts no look was answered.
    pub(super) fn is_cut_off(&self, duration: Duration) -> bool {
        let watches = matches!(self.standing, Standing::Unknown | Standing::Holder { .. });
        let unheard = |since: Instant| since.elapsed() > duration;
        watches && self.looked.is_some_and(|looked| looked.unelected || looked.unanswered_since.is_some_and(unheard))
    }

    /// Follows this hub until the Lease can be looked at, or it is gone.
    pub(super) fn give_way(&mut self, leader: String, address: String) {
        let before = std::mem::replace(&mut self.standing, Standing::Follower { leader, address });
        self.gave_way = Some(before);
    }

    /// A look that began then was answered.
    pub(super) fn answered(&mut self, begun: Instant) {
        self.failing = None;
        self.gave_way = None;
        self.looked = Some(Looked { begun, ended: Instant::now(), unanswered_since: None, unelected: false });
    }

    /// A look that began then was not, for this reason; for good if we watch `unelected`.
    pub(super) fn unanswered(&mut self, begun: Instant, now: UnixMillis, reason: String, unelected: bool) {
        let since = self.failing.take().map_or(Time(now), |failing| failing.since);
        self.failing = Some(Failing { since, reason });
        let unanswered_since = self.looked.and_then(|looked| looked.unanswered_since).or(Some(begun));
        self.looked = Some(Looked { begun, ended: Instant::now(), unanswered_since, unelected });
    }
}

/// Whether a hub may stamp its own updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The lease is ours, as of a moment ago.
    Stamp,
    /// We think so, but have not seen it lately: this process may have been stopped meanwhile, or cut off alone.
    Wait,
    Drop,
}

/// Keeps a holder from stamping by a lease that another one may have by now.
///
/// No other candidate takes the lease before it saw it unrenewed for the whole of its duration, so a look that found it
/// ours holds for half of that, this machine's clock being the only one that counts. A process that was stopped finds its
/// latest look to be old when it goes on, one that was cut off finds it unanswered: whatever their watches have for them,
/// they look again first. If that look goes unanswered too, for longer than a lease lasts, then no hub can take it, and the
/// holder goes on.
#[derive(Clone, Debug)]
pub struct Fence {
    pub(super) status: watch::Receiver<Status>,
    /// For how long the lease lasts.
    pub(super) duration: Duration,
    /// Asks for a look at once.
    pub(super) ask: Arc<Notify>,
}

impl Fence {
    /// The verdict on a change seen in `epoch`, the last one begun by this process.
    #[must_use]
    pub fn verdict(&self, epoch: Option<u64>) -> Verdict {
        let status = self.status.borrow();
        match (&status.standing, status.looked) {
            (Standing::Holder { epoch: held }, Some(looked)) if epoch == Some(*held) => {
                let answered = looked.unanswered_since.is_none() && !self.is_old(looked);
                if answered || looked.unelected { Verdict::Stamp } else { Verdict::Wait }
            }
            // Listed meanwhile; the order to begin the epoch follows.
            (Standing::Holder { .. }, _) if epoch.is_none() => Verdict::Wait,
            (Standing::Unknown, _) if status.taking => Verdict::Wait,
            _ => Verdict::Drop,
        }
    }

    /// Looks, and waits for what is to be done about something that was seen at `seen`: never [`Verdict::Wait`].
    ///
    /// May be dropped and begun again.
    pub async fn decided(&mut self, epoch: Option<u64>, seen: Instant) -> Verdict {
        loop {
            self.status.mark_unchanged();
            match self.verdict(epoch) {
                Verdict::Wait => {}
                verdict => return verdict,
            }
            let (looked, taken) = {
                let status = self.status.borrow();
                (status.looked, matches!(status.standing, Standing::Holder { epoch: held } if epoch == Some(held)))
            };
            match looked
                .filter(|_| taken)
                .filter(|looked| looked.begun >= seen && looked.ended.elapsed() <= self.duration / 2)
            {
                Some(Looked { unanswered_since: Some(since), .. }) if since.elapsed() > self.duration => {
                    return Verdict::Stamp;
                }
                // A slow server's answer: no hub takes the lease before it ends.
                Some(Looked { unanswered_since: None, begun, .. }) if begun.elapsed() < self.duration => {
                    return Verdict::Stamp;
                }
                None if taken => self.ask.notify_one(),
                // Such looks go on at their own pace.
                Some(_) | None => {}
            }
            if self.status.changed().await.is_err() {
                // The candidate is gone: the process ends.
                return Verdict::Drop;
            }
        }
    }

    fn is_old(&self, looked: Looked) -> bool {
        looked.begun.elapsed() > self.duration / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn fence() -> (watch::Sender<Status>, Fence) {
        let (sender, status) = watch::channel(Status::default());
        (sender, Fence { status, duration: DURATION, ask: Arc::default() })
    }

    fn hold(status: &watch::Sender<Status>, epoch: u64) {
        status.send_modify(|status| {
            status.standing = Standing::Holder { epoch };
            status.answered(Instant::now());
        });
    }

    fn unanswered(status: &watch::Sender<Status>, unelected: bool) {
        status.send_modify(|status| status.unanswered(Instant::now(), UnixMillis(0), "refused".into(), unelected));
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_stamps_for_half_of_its_lease_after_a_look_and_looks_again_first_later() {
        let (status, fence) = fence();
        assert_eq!(fence.verdict(Some(5)), Verdict::Drop, "not known");
        status.send_modify(|status| status.taking = true);
        assert_eq!(fence.verdict(None), Verdict::Wait, "listed meanwhile");
        hold(&status, 5);
        assert_eq!(fence.verdict(Some(5)), Verdict::Stamp);
        assert_eq!(fence.verdict(Some(4)), Verdict::Drop, "seen in an earlier life");
        assert_eq!(fence.verdict(None), Verdict::Wait, "listed while the lease was taken");
        tokio::time::advance(DURATION / 2).await;
        assert_eq!(fence.verdict(Some(5)), Verdict::Stamp);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(fence.verdict(Some(5)), Verdict::Wait);
        hold(&status, 5);
        assert_eq!(fence.verdict(Some(5)), Verdict::Stamp);
        status.send_modify(|status| {
            status.standing = Standing::Follower { leader: "other".into(), address: String::new() };
        });
        assert_eq!(fence.verdict(Some(5)), Verdict::Drop);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_holds_nothing_up_for_longer_than_a_lease_lasts() {
        let (status, mut fence) = fence();
        hold(&status, 5);
        let (begun, ask) = (Instant::now(), Arc::clone(&fence.ask));
        let looking = tokio::spawn(async move {
            loop {
                unanswered(&status, false);
                tokio::select! {
                    () = ask.notified() => {}
                    () = tokio::time::sleep(Duration::from_secs(2)) => {}
                }
            }
        });
        tokio::task::yield_now().await;
        assert_eq!(fence.verdict(Some(5)), Verdict::Wait);
        assert_eq!(fence.decided(Some(5), Instant::now()).await, Verdict::Stamp);
        let took = begun.elapsed();
        assert!((DURATION..DURATION + Duration::from_secs(3)).contains(&took), "{took:?}");
        // From then on it takes one look, begun after whatever was seen.
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        let begun = Instant::now();
        assert_eq!(fence.verdict(Some(5)), Verdict::Wait, "the outage may be over, and another one have it");
        assert_eq!(fence.decided(Some(5), Instant::now()).await, Verdict::Stamp);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(fence.status.borrow().failing.as_ref().map(|failing| failing.since), Some(Time(UnixMillis(0))));
        looking.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_is_answered_late_is_enough_for_what_was_seen_before_it_began() {
        for seconds in [8, 14] {
            let (status, mut fence) = fence();
            hold(&status, 5);
            tokio::time::advance(DURATION).await;
            let ask = Arc::clone(&fence.ask);
            let looking = tokio::spawn(async move {
                loop {
                    ask.notified().await;
                    let begun = Instant::now();
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    status.send_modify(|status| status.answered(begun));
                }
            });
            let seen = Instant::now();
            assert_eq!(fence.decided(Some(5), seen).await, Verdict::Stamp);
            assert_eq!(seen.elapsed(), Duration::from_secs(seconds), "by the first look");
            looking.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_right_to_leases_nothing_is_waited_for() {
        let (status, fence) = fence();
        hold(&status, 5);
        unanswered(&status, true);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(fence.verdict(Some(5)), Verdict::Stamp);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_update_asks_for_a_look_and_gets_its_verdict() {
        let (status, mut fence) = fence();
        hold(&status, 5);
        tokio::time::advance(Duration::from_secs(30)).await;
        let ask = Arc::clone(&fence.ask);
        let waiting = tokio::spawn(async move { fence.decided(Some(5), Instant::now()).await });
        ask.notified().await;
        assert!(!waiting.is_finished());
        status.send_modify(|status| {
            status.standing = Standing::Follower { leader: "other".into(), address: String::new() };
            status.answered(Instant::now());
        });
        assert_eq!(waiting.await.unwrap(), Verdict::Drop);
    }
}
