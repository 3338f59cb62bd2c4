//! A log line at most once a minute, whatever the number of its causes.

use std::time::Duration;

use tokio::time::Instant;

use crate::sys::Lock;

const INTERVAL: Duration = Duration::from_secs(60);

/// Lets one line a minute pass.
#[derive(Debug, Default)]
pub struct Seldom(Lock<State>);

#[derive(Debug, Default)]
struct State {
    next: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Takes the turn for a line now; returns how many lines were left out since the last.
    pub fn claim(&self) -> Option<u64> {
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
        let seldom = Seldom::default();
        let told: Vec<u64> = (0..1_000).filter_map(|_| seldom.claim()).collect();
        assert_eq!(told, [0]);
        tokio::time::advance(INTERVAL).await;
        assert_eq!((seldom.claim(), seldom.claim()), (Some(999), None));
    }
}
