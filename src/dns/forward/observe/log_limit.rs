//! Limits log lines about upstreams' errors to one a minute: an outage of upstreams meets every node at once.
//!
//! Counts the lines it left out; the errors themselves are counted in `metrics`.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::sys::Lock;

const INTERVAL: Duration = Duration::from_secs(60);

/// Lets one line a minute pass. Clones share the limit.
#[derive(Clone, Debug, Default)]
pub struct LogLimit(Arc<Lock<State>>);

#[derive(Debug, Default)]
struct State {
    next: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// Logs that `upstream` did `what`, and why, unless there was a line less than a minute ago.
    pub fn log(&self, what: &'static str, upstream: &dyn fmt::Display, why: &dyn fmt::Display) {
        if let Some(left_out) = self.claim() {
            tracing::warn!(%upstream, reason = %why, left_out, "{what}");
        }
    }

    /// Logs that `upstream` gave `denial` for a name that is held, unless there was a line less than a second ago.
    pub fn held(&self, name: &dyn fmt::Display, rtype: &dyn fmt::Display, upstream: &str, denial: &'static str) {
        if let Some(left_out) = self.claim() {
            tracing::warn!(
                %name, %rtype, upstream, denial, left_out,
                "a name that was good is denied: its last good answer is served; holdfast guard lists such names"
            );
        }
    }

    /// Takes the turn for a line now; returns how many lines were left out since the last.
    fn claim(&self) -> Option<u64> {
        let mut state = self.0.lock();
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
    async fn one_line_a_minute_says_how_many_went_without() {
        let log_limit = LogLimit::default();
        let shared = log_limit.clone();
        let told: Vec<u64> = (0..1_000).filter_map(|_| log_limit.claim()).collect();
        assert_eq!(told, [0]);
        tokio::time::advance(INTERVAL).await;
        assert_eq!((shared.claim(), log_limit.claim()), (Some(999), None));
    }
}
