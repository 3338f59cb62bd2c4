//! The log lines about the source: one when it is lost, one when it is back, and a minute's total while it comes and goes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    admin::view::words,
    report::THEN,
    store::{Freshness, SourceState},
    sys::{Clock, UnixMillis},
};

/// After a loss was logged, further ones are only counted for this long.
const SUMMARY: Duration = Duration::from_secs(60);

/// Changes that arrive this long after the source is back belong to the time it was lost: its watches reopen one by one.
const SETTLE: Duration = Duration::from_secs(1);

/// The loss of a follower whose hub answers and has lost the apiserver itself.
const BEHIND_THE_HUB: &str = "apiserver (behind the hub)";

/// Since when the source is lost, for `status`. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct LostSince(Arc<AtomicU64>);

impl LostSince {
    pub(super) fn get(&self) -> Option<UnixMillis> {
        Some(self.0.load(Relaxed)).filter(|at| *at > 0).map(UnixMillis)
    }
}

#[derive(Debug)]
pub(super) struct SourceLog {
    /// `apiserver`, `hub` or `manifests`.
    name: &'static str,
    clock: Clock,
    lost_since: LostSince,
    /// The part that is lost now: an apiserver behind a hub that is reached is not the hub's loss.
    lost: &'static str,
    /// Why it was last lost.
    reason: String,
    /// Without records a loss is an outage of the cluster's names.
    has_records: bool,
    /// Whether the present loss was logged, so that its end is logged too.
    logged: bool,
    /// When the losses that were only counted are logged.
    summary: Option<Instant>,
    counted: u32,
    /// The end of a loss that was logged, whose changes still arrive.
    back: Option<Back>,
}

#[derive(Debug)]
struct Back {
    at: Instant,
    lasted: Duration,
    changes: usize,
}

impl SourceLog {
    pub(super) fn new(name: &'static str, clock: Clock, lost_since: LostSince) -> Self {
        let (reason, back) = (String::new(), None);
        let (logged, has_records) = (false, false);
        Self { name, clock, lost_since, lost: name, reason, has_records, logged, summary: None, counted: 0, back }
    }

    /// When [`Self::tell`] is to be called next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.summary.into_iter().chain(self.back.as_ref().map(|back| back.at + SETTLE)).min()
    }

    /// Notes the state after an update that made `changes` changes.
    pub(super) fn note(&mut self, before: &SourceState, now: &Freshness, changes: usize) {
        self.has_records = now.as_of.is_some();
        match (before, &now.source) {
            (SourceState::Lost(_), SourceState::Lost(_)) => {}
            (_, SourceState::Lost(reason)) => self.lost(reason),
            (SourceState::Lost(_), SourceState::Starting | SourceState::Up) => self.back(),
            (_, SourceState::Starting | SourceState::Up) => {}
        }
        if let Some(back) = &mut self.back {
            back.changes += changes;
        }
    }

    fn lost(&mut self, reason: &str) {
        self.tell_back();
        self.lost_since.0.store(self.clock.now().0, Relaxed);
        let behind = reason.rsplit_once(THEN);
        self.lost = behind.map_or(self.name, |_| BEHIND_THE_HUB);
        let reason = behind.map_or(reason, |(_, reason)| reason);
        reason.clone_into(&mut self.reason);
        self.logged = self.summary.is_none();
        if self.logged {
            self.summary = Some(Instant::now() + SUMMARY);
            if self.has_records {
                warn!(reason, "lost {}: answering from memory, DNS is not affected", self.lost);
            } else {
                warn!(
                    reason,
                    "{} not reachable, and no records yet: names of the cluster get SERVFAIL, or are asked of cluster_fallback",
                    self.lost
                );
            }
        } else {
            self.counted += 1;
        }
    }

    fn back(&mut self) {
        let since = UnixMillis(self.lost_since.0.swap(0, Relaxed));
        if self.logged {
            self.logged = false;
            self.back = Some(Back { at: Instant::now(), lasted: since.age(self.clock.now()), changes: 0 });
        }
    }

    fn tell_back(&mut self) {
        if let Some(Back { lasted, changes, .. }) = self.back.take() {
            info!(changes, "{} back after {}", self.lost, words(lasted));
        }
    }

    /// Logs the lines whose time has come.
    pub(super) fn tell(&mut self) {
        let now = Instant::now();
        if self.back.as_ref().is_some_and(|back| back.at + SETTLE <= now) {
            self.tell_back();
        }
        if self.summary.is_some_and(|at| at <= now) {
            self.summarize();
        }
    }

    /// Tells of the losses that were only counted.
    fn summarize(&mut self) {
        self.summary = None;
        if self.counted > 0 {
            // A loss that lasts is logged now, and so is its end.
            self.logged = self.lost_since.get().is_some();
            let state = if self.logged { "lost" } else { "up" };
            let (times, reason) = (self.counted, &self.reason);
            if self.has_records {
                warn!(times, state, reason, "{} lost again within a minute: DNS is not affected", self.lost);
            } else {
                warn!(times, state, reason, "{} not reachable again within a minute: no records yet", self.lost);
            }
            // The minute after this is logged in one line, too.
            self.summary = Some(Instant::now() + SUMMARY);
        }
        self.counted = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// Takes the log lines of this thread until the second is dropped.
        fn of_this_thread() -> (Self, tracing::subscriber::DefaultGuard) {
            let lines = Self::default();
            let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).without_time().with_ansi(false);
            (lines, tracing::subscriber::set_default(subscriber.finish()))
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        /// The lines without the name of their module.
        fn shown(&self) -> Vec<String> {
            self.text().lines().map(|line| line.trim().replace("holdfast::role::source_log: ", "")).collect()
        }
    }

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn known(source: &SourceState) -> Freshness {
        Freshness { as_of: Some(UnixMillis(1)), source: source.clone() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_not_reached_while_there_are_no_records_is_an_outage_of_the_clusters_names() {
        let (lines, _here) = Lines::of_this_thread();
        let mut log = SourceLog::new("hub", Clock::System, LostSince::default());
        let refused = SourceState::Lost("refused".into());
        let nothing = |source: &SourceState| Freshness { as_of: None, source: source.clone() };
        log.note(&SourceState::Starting, &nothing(&refused), 0);
        log.note(&refused, &nothing(&SourceState::Up), 0);
        log.note(&SourceState::Up, &nothing(&refused), 0);
        tokio::time::advance(SUMMARY).await;
        log.tell();
        assert_eq!(
            lines.shown(),
            [
                "WARN hub not reachable, and no records yet: names of the cluster get SERVFAIL, or are asked of cluster_fallback reason=\"refused\"",
                "INFO hub back after 0s changes=0",
                "WARN hub not reachable again within a minute: no records yet times=1 state=\"lost\" reason=\"refused\"",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_that_lasts_is_told_with_its_reason_and_its_length_though_it_began_just_after_another() {
        let (lines, _here) = Lines::of_this_thread();
        let hands = crate::sys::ManualClock::new(UnixMillis(1_000));
        let mut log = SourceLog::new("hub", Clock::Manual(hands.clone()), LostSince::default());
        let lost = |reason: &str| SourceState::Lost(reason.into());
        log.note(&SourceState::Up, &known(&lost("reset")), 0);
        log.note(&lost("reset"), &known(&SourceState::Up), 0);
        tokio::time::advance(SUMMARY / 2).await;
        log.tell();
        log.note(&SourceState::Up, &known(&lost("refused")), 0);
        tokio::time::advance(SUMMARY / 2).await;
        log.tell();
        hands.advance(Duration::from_secs(3_600));
        log.note(&lost("refused"), &known(&SourceState::Up), 2);
        tokio::time::advance(SETTLE).await;
        log.tell();
        assert_eq!(
            lines.shown(),
            [
                "WARN lost hub: answering from memory, DNS is not affected reason=\"reset\"",
                "INFO hub back after 0s changes=0",
                "WARN hub lost again within a minute: DNS is not affected times=1 state=\"lost\" reason=\"refused\"",
                "INFO hub back after 1h changes=2",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_apiserver_lost_behind_hubs_is_named_and_not_the_hub() {
        let (lines, _here) = Lines::of_this_thread();
        let mut log = SourceLog::new("hub", Clock::System, LostSince::default());
        let lost = SourceState::Lost(format!("hub-1{THEN}hub-0{THEN}apiserver b: timed out"));
        log.note(&SourceState::Up, &known(&lost), 0);
        log.note(&lost, &known(&SourceState::Up), 1);
        tokio::time::advance(SETTLE).await;
        log.tell();
        let text = lines.text();
        let told = "lost apiserver (behind the hub): answering from memory, DNS is not affected reason=\"apiserver b: timed out\"";
        assert!(text.contains(told) && text.contains("apiserver (behind the hub) back after "), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_flaps_costs_a_line_a_minute_and_a_long_loss_is_told_with_its_length() {
        let (lines, _here) = Lines::of_this_thread();
        let hands = crate::sys::ManualClock::new(UnixMillis(1_000));
        let clock = Clock::Manual(hands.clone());
        let since = LostSince::default();
        let mut log = SourceLog::new("apiserver", clock, since.clone());
        let lost = SourceState::Lost("connection refused".into());
        let step = |log: &mut SourceLog| {
            log.note(&SourceState::Up, &known(&lost), 0);
            log.note(&lost, &known(&lost), 0);
            hands.advance(Duration::from_secs(1));
            log.note(&lost, &known(&SourceState::Up), 3);
        };
        for _ in 0..41 {
            step(&mut log);
        }
        tokio::time::advance(SUMMARY).await;
        assert!(log.next().is_some_and(|at| at <= Instant::now()));
        log.tell();
        tokio::time::advance(SUMMARY).await;
        log.tell();
        assert_eq!((log.next(), since.get()), (None, None));
        log.note(&SourceState::Up, &known(&lost), 0);
        assert!(since.get().is_some());
        hands.advance(Duration::from_secs(184));
        // The probe is first, the watches bring their changes one after the other, and what comes later is news of its own.
        log.note(&lost, &known(&SourceState::Up), 0);
        log.note(&SourceState::Up, &known(&SourceState::Up), 5);
        log.note(&SourceState::Up, &known(&SourceState::Up), 7);
        tokio::time::advance(SETTLE).await;
        log.tell();
        log.note(&SourceState::Up, &known(&SourceState::Up), 100);
        assert_eq!(
            lines.shown(),
            [
                "WARN lost apiserver: answering from memory, DNS is not affected reason=\"connection refused\"",
                "INFO apiserver back after 1s changes=3",
                "WARN apiserver lost again within a minute: DNS is not affected times=40 state=\"up\" reason=\"connection refused\"",
                "WARN lost apiserver: answering from memory, DNS is not affected reason=\"connection refused\"",
                "INFO apiserver back after 3m4s changes=12",
            ]
        );
    }
}
