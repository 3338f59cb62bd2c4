//! What upstreams get wrong, in the log: one line a second at most, whatever comes.
//!
//! Counts nothing but what it left out; the counters are in `metrics`.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(1);

/// Decides which complaints are told. Clones share the second.
#[derive(Clone, Debug, Default)]
pub struct Complaints(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: Option<Instant>,
    left_out: u64,
}

impl Complaints {
    /// Logs that `upstream` did `kind`, unless there was a line less than a second ago.
    pub fn log(&self, what: &'static str, upstream: &dyn fmt::Display, kind: &'static str) {
        if let Some(left_out) = self.claim() {
            tracing::warn!(%upstream, kind, left_out, "{what}");
        }
    }

    /// The right to a line now, with how many went without one since the last.
    fn claim(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.next.is_some_and(|next| now < next) {
            state.left_out += 1;
            return None;
        }
        state.next = Some(now + INTERVAL);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_says_how_many_went_without() {
        let complaints = Complaints::default();
        let shared = complaints.clone();
        let told: Vec<u64> = (0..1_000).filter_map(|_| complaints.claim()).collect();
        assert_eq!(told, [0]);
        tokio::time::advance(INTERVAL).await;
        assert_eq!((shared.claim(), complaints.claim()), (Some(999), None));
    }
}
