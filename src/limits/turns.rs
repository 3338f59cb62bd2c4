//! Turns at costly work: a bounded number at once, of which one source has half.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sys::Lock;

/// Addresses kept without a turn.
const SOURCES_IDLE_MAX: usize = 1_024;

/// Turns that sources share. Requests that wait for one source delay no other source.
#[derive(Debug)]
pub struct Turns {
    at_once: Arc<Semaphore>,
    of_source_max: usize,
    of_sources: Lock<HashMap<IpAddr, Arc<Semaphore>>>,
}

/// A turn, over when dropped.
#[derive(Debug)]
pub struct Turn {
    _of_source: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Turns {
    pub fn new(at_once: usize) -> Self {
        Self {
            at_once: Arc::new(Semaphore::new(at_once)),
            of_source_max: (at_once / 2).max(1),
            of_sources: Lock::default(),
        }
    }

    /// Waits for a turn of `source`.
    pub async fn take(&self, source: IpAddr) -> Turn {
        let of_source = self.of_source(source.to_canonical());
        let of_source = of_source.acquire_owned().await.expect("never closed");
        Turn { _of_source: of_source, _of_all: Arc::clone(&self.at_once).acquire_owned().await.expect("never closed") }
    }

    /// Whether a turn is free.
    pub fn any_free(&self) -> bool {
        self.at_once.available_permits() > 0
    }

    fn of_source(&self, source: IpAddr) -> Arc<Semaphore> {
        let mut of_sources = self.of_sources.lock();
        if of_sources.len() > SOURCES_IDLE_MAX {
            of_sources.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        Arc::clone(of_sources.entry(source).or_insert_with(|| Arc::new(Semaphore::new(self.of_source_max))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    async fn waits(turns: &Turns, source: IpAddr) -> bool {
        timeout(Duration::from_secs(1), turns.take(source)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_half_of_the_turns_and_others_the_rest() {
        let turns = Turns::new(4);
        let (first, _second) = (turns.take(ip(1)).await, turns.take(ip(1)).await);
        assert!(turns.any_free() && waits(&turns, ip(1)).await);
        assert!(waits(&turns, "::ffff:10.0.0.1".parse().unwrap()).await, "the same address, written for IPv6");
        let (_third, _fourth) = (turns.take(ip(2)).await, turns.take(ip(2)).await);
        assert!(!turns.any_free() && waits(&turns, ip(3)).await, "no more than there are");
        drop(first);
        assert!(!waits(&turns, ip(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_forgotten() {
        let turns = Turns::new(4);
        for n in 0..5_000_u32 {
            drop(turns.take(IpAddr::from(n.to_be_bytes())).await);
        }
        assert!(turns.of_sources.lock().len() <= SOURCES_IDLE_MAX + 1);
    }
}
