//! The hubs that follow this one or asked it lately: their addresses are passed on to followers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::sys::Lock;

/// Most addresses kept; those of hubs that are connected come first.
const HUBS_MAX: usize = 32;
/// Longest address kept, in bytes: a host name and a port.
const ADDRESS_BYTES_MAX: usize = 262;
/// How long a hub is remembered that is no longer heard of. One that leaves us to lead is the one to follow.
const REMEMBERED: Duration = Duration::from_secs(300);

/// Addresses of hubs beside this one. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Beside(Arc<Lock<BTreeMap<String, Seen>>>);

#[derive(Debug)]
struct Seen {
    /// Streams it has open.
    streams: usize,
    last: Instant,
}

impl Beside {
    /// HOST:PORT of the hubs known.
    pub fn addresses(&self) -> Vec<String> {
        let mut hubs = self.0.lock();
        hubs.retain(|_, seen| seen.streams > 0 || seen.last.elapsed() <= REMEMBERED);
        hubs.keys().cloned().collect()
    }

    /// A hub asked us, which serves there.
    pub(super) fn asked(&self, serves: &str) {
        self.seen(serves, 0);
    }

    /// A hub follows us, which serves there, until the guard is dropped.
    pub(super) fn follows(&self, serves: &str) -> Option<Follows> {
        self.seen(serves, 1).then(|| Follows { beside: self.clone(), serves: serves.to_owned() })
    }

    fn seen(&self, serves: &str, streams: usize) -> bool {
        if serves.is_empty() || serves.len() > ADDRESS_BYTES_MAX {
            return false;
        }
        let mut hubs = self.0.lock();
        if hubs.len() >= HUBS_MAX && !hubs.contains_key(serves) {
            let away = hubs.iter().filter(|(_, seen)| seen.streams == 0).min_by_key(|(_, seen)| seen.last);
            let Some(away) = away.map(|(address, _)| address.clone()) else { return false };
            hubs.remove(&away);
        }
        let seen = hubs.entry(serves.to_owned()).or_insert(Seen { streams: 0, last: Instant::now() });
        seen.streams += streams;
        seen.last = Instant::now();
        true
    }
}

/// A hub that follows this one.
#[derive(Debug)]
pub(super) struct Follows {
    beside: Beside,
    serves: String,
}

impl Drop for Follows {
    fn drop(&mut self) {
        if let Some(seen) = self.beside.0.lock().get_mut(&self.serves) {
            seen.streams = seen.streams.saturating_sub(1);
            seen.last = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hub_is_known_while_it_follows_and_five_minutes_longer() {
        let beside = Beside::default();
        let stream = beside.follows("a:7443").unwrap();
        beside.asked("b:7443");
        beside.asked("");
        assert_eq!(beside.addresses(), ["a:7443", "b:7443"]);
        tokio::time::advance(REMEMBERED + Duration::from_secs(1)).await;
        assert_eq!(beside.addresses(), ["a:7443"], "it is connected");
        drop(stream);
        assert_eq!(beside.addresses(), ["a:7443"], "it may lead now");
        tokio::time::advance(REMEMBERED + Duration::from_secs(1)).await;
        assert!(beside.addresses().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_is_bounded_and_keeps_those_that_are_connected() {
        let beside = Beside::default();
        let stream = beside.follows("first:7443").unwrap();
        for n in 0..100 {
            tokio::time::advance(Duration::from_millis(1)).await;
            beside.asked(&format!("{n}:7443"));
        }
        let known = beside.addresses();
        assert!(known.len() == HUBS_MAX && known.contains(&"first:7443".into()) && known.contains(&"99:7443".into()));
        assert!(beside.follows(&"x".repeat(ADDRESS_BYTES_MAX + 1)).is_none());
        drop(stream);
    }
}
