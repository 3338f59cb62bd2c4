//! Admission of connections to the handshake: places, fair between sources, and a rate.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Config;
use crate::limits::{Capacity, ConnectionTable, Seldom, Turns};

/// A handshake counts against the cap for at most this long: one that stalls must not keep others out.
const PLACE_HELD: Duration = Duration::from_millis(250);
/// The same while others wait for a place. With 64 places, clients that begin and then stall keep honest ones waiting only from
/// 1,600 such handshakes a second on, and from one address never: it has half of the places.
const PLACE_HELD_SCARCE: Duration = Duration::from_millis(40);

/// Limits TLS handshakes: how many at once, and how many begin in a second.
pub(super) struct Admission {
    /// Places for handshakes that begin.
    pub places: Turns,
    /// Connections before the end of their handshake. The oldest is closed when there are too many.
    pub unfinished: Arc<ConnectionTable>,
    /// For handshakes that fail.
    pub handshake_log: Seldom,
    gap: Duration,
    next: tokio::sync::Mutex<Instant>,
}

impl Admission {
    /// Handshakes that may begin at once after a pause.
    const BURST: u32 = 64;

    pub fn new(config: &Config) -> Self {
        let capacity = Capacity {
            total: config.unfinished_max,
            per_source: config.unfinished_max / 4,
            node: 0,
            answering_max: None,
        };
        Self {
            places: Turns::new(config.handshakes_max),
            unfinished: Arc::new(ConnectionTable::new(capacity)),
            handshake_log: Seldom::default(),
            gap: Duration::from_secs(1) / config.handshakes_per_s.max(1),
            next: tokio::sync::Mutex::new(Instant::now()),
        }
    }

    /// Waits until a handshake must give up its place: sooner while others wait for one.
    pub async fn place_ends(&self) {
        tokio::time::sleep(PLACE_HELD_SCARCE).await;
        if self.places.any_free() {
            tokio::time::sleep(PLACE_HELD.saturating_sub(PLACE_HELD_SCARCE)).await;
        }
    }

    /// Waits until one more handshake may begin.
    pub async fn turn(&self) {
        let mut next = self.next.lock().await;
        let now = Instant::now();
        *next = (*next).max(now.checked_sub(self.gap * Self::BURST).unwrap_or(now)) + self.gap;
        let turn = *next;
        drop(next);
        tokio::time::sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(handshakes_max: usize, handshakes_per_s: u32) -> Admission {
        Admission::new(&Config { handshakes_max, handshakes_per_s, ..Config::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_are_spread_after_a_burst() {
        let admission = admission(1_000, 100);
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..264 {
            admission.turn().await;
        }
        let took = start.elapsed();
        assert!((Duration::from_millis(1_900)..Duration::from_millis(2_100)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_ends_sooner_while_others_wait() {
        let admission = admission(2, 1_000_000);
        let start = Instant::now();
        admission.place_ends().await;
        assert_eq!(start.elapsed(), PLACE_HELD);
        let _all =
            (admission.places.take([10, 0, 0, 1].into()).await, admission.places.take([10, 0, 0, 2].into()).await);
        let start = Instant::now();
        admission.place_ends().await;
        assert_eq!(start.elapsed(), PLACE_HELD_SCARCE);
    }
}
