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
    store::SourceState,
    sys::{Clock, UnixMillis},
};

/// After a loss was logged, further ones are only counted for this long.
const SUMMARY: Duration = Duration::from_secs(60);

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
    /// Whether the present loss was logged, so that its end is logged too.
    logged: bool,
    /// When the losses that were only counted are logged.
    summary: Option<Instant>,
    counted: u32,
}

impl SourceLog {
    pub(super) fn new(name: &'static str, clock: Clock, lost_since: LostSince) -> Self {
        Self { name, clock, lost_since, lost: name, logged: false, summary: None, counted: 0 }
    }

    /// When [`Self::summarize`] is to be called next.
    pub(super) fn next_summary(&self) -> Option<Instant> {
        self.summary
    }

    /// Notes the state after an update that made so many `changes`.
    pub(super) fn note(&mut self, before: &SourceState, now: &SourceState, changes: usize) {
        match (before, now) {
            (SourceState::Lost(_), SourceState::Lost(_)) => {}
            (_, SourceState::Lost(reason)) => self.lost(reason),
            (SourceState::Lost(_), SourceState::Up) => self.back(changes),
            (_, SourceState::Starting | SourceState::Up) => {}
        }
    }

    fn lost(&mut self, reason: &str) {
        self.lost_since.0.store(self.clock.now().0, Relaxed);
        let behind = reason.rsplit_once(THEN);
        self.lost = behind.map_or(self.name, |_| BEHIND_THE_HUB);
        let reason = behind.map_or(reason, |(_, reason)| reason);
        self.logged = self.summary.is_none();
        if self.logged {
            self.summary = Some(Instant::now() + SUMMARY);
            warn!(reason, "lost {}: answering from memory, DNS is not affected", self.lost);
        } else {
            self.counted += 1;
        }
    }

    fn back(&mut self, changes: usize) {
        let since = UnixMillis(self.lost_since.0.swap(0, Relaxed));
        if self.logged {
            self.logged = false;
            info!(changes, "{} back after {}", self.lost, words(since.age(self.clock.now())));
        }
    }

    /// Tells of the losses that were only counted.
    pub(super) fn summarize(&mut self) {
        self.summary = None;
        if self.counted > 0 {
            let state = if self.lost_since.get().is_some() { "lost" } else { "up" };
            warn!(
                times = self.counted,
                state, "{} lost again and again within a minute: DNS is not affected", self.lost
            );
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

    #[tokio::test(start_paused = true)]
    async fn an_apiserver_lost_behind_hubs_is_named_and_not_the_hub() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).without_time().with_ansi(false).finish();
        let _here = tracing::subscriber::set_default(subscriber);
        let mut log = SourceLog::new("hub", Clock::System, LostSince::default());
        let lost = SourceState::Lost(format!("hub-1{THEN}hub-0{THEN}apiserver b: timed out"));
        log.note(&SourceState::Up, &lost, 0);
        log.note(&lost, &SourceState::Up, 1);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let told = "lost apiserver (behind the hub): answering from memory, DNS is not affected reason=\"apiserver b: timed out\"";
        assert!(text.contains(told) && text.contains("apiserver (behind the hub) back after "), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_flaps_costs_a_line_a_minute_and_a_long_loss_is_told_with_its_length() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).without_time().with_ansi(false).finish();
        let _here = tracing::subscriber::set_default(subscriber);
        let hands = crate::sys::ManualClock::new(UnixMillis(1_000));
        let clock = Clock::Manual(hands.clone());
        let since = LostSince::default();
        let mut log = SourceLog::new("apiserver", clock, since.clone());
        let lost = SourceState::Lost("connection refused".into());
        let step = |log: &mut SourceLog| {
            log.note(&SourceState::Up, &lost, 0);
            log.note(&lost, &lost, 0);
            hands.advance(Duration::from_secs(1));
            log.note(&lost, &SourceState::Up, 3);
        };
        for _ in 0..41 {
            step(&mut log);
        }
        tokio::time::advance(SUMMARY).await;
        assert!(log.next_summary().is_some_and(|at| at <= Instant::now()));
        log.summarize();
        log.summarize();
        assert_eq!((log.next_summary(), since.get()), (None, None));
        log.note(&SourceState::Up, &lost, 0);
        assert!(since.get().is_some());
        hands.advance(Duration::from_secs(184));
        log.note(&lost, &SourceState::Up, 12);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let shown: Vec<String> =
            text.lines().map(|line| line.trim().replace("holdfast::role::source_log: ", "")).collect();
        assert_eq!(
            shown,
            [
                "WARN lost apiserver: answering from memory, DNS is not affected reason=\"connection refused\"",
                "INFO apiserver back after 1s changes=3",
                "WARN apiserver lost again and again within a minute: DNS is not affected times=40 state=\"up\"",
                "WARN lost apiserver: answering from memory, DNS is not affected reason=\"connection refused\"",
                "INFO apiserver back after 3m4s changes=12",
            ]
        );
    }
}
