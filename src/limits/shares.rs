//! Shares of a bounded number of places: the share of one source falls as others take more.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, MutexGuard},
};

use crate::sys::Lock;

/// Places that sources share. A source gets another one as long as it has fewer than are free: alone it can take half of them,
/// and of `n` that all want as many as they can get, each has one part in `n + 1`. A source that has none gets one while any is
/// free. (Choudhury and Hahne, dynamic queue length thresholds, with a factor of 1.)
#[derive(Debug)]
pub struct FairShares {
    max: usize,
    held: Lock<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl FairShares {
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), held: Lock::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    /// A place for `source`, given back when dropped; `None` if its share or everything is taken.
    pub fn take(self: &Arc<Self>, source: IpAddr) -> Option<Share> {
        let source = source.to_canonical();
        let mut held = self.held();
        let free = self.max.saturating_sub(held.total);
        let count = held.by_source.entry(source).or_default();
        if *count >= free {
            if *count == 0 {
                held.by_source.remove(&source);
            }
            return None;
        }
        *count += 1;
        held.total += 1;
        Some(Share { shares: Arc::clone(self), source })
    }
}

/// One place.
#[derive(Debug)]
pub struct Share {
    shares: Arc<FairShares>,
    source: IpAddr,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held();
        held.total -= 1;
        if let Some(count) = held.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                held.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn take_all(shares: &Arc<FairShares>, source: IpAddr) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(source)).collect()
    }

    #[test]
    fn one_source_takes_half_and_leaves_places_for_each_that_comes_later() {
        let shares = Arc::new(FairShares::new(100));
        let first = take_all(&shares, ip(1));
        let second = take_all(&shares, ip(2));
        let third = take_all(&shares, ip(3));
        assert_eq!((first.len(), second.len(), third.len()), (50, 25, 13));
        assert!(shares.take(ip(4)).is_some());
        drop(first);
        assert!(shares.take(ip(2)).is_some());
        drop((second, third));
        assert!(shares.held().by_source.is_empty());
    }

    #[test]
    fn an_address_written_for_ipv6_is_the_same_source() {
        let shares = Arc::new(FairShares::new(4));
        let _held = [shares.take(ip(1)), shares.take("::ffff:10.0.0.1".parse().unwrap())];
        assert!(shares.take(ip(1)).is_none());
    }

    proptest! {
        #[test]
        fn places_are_never_given_twice_nor_lost(steps in prop::collection::vec((0_u8..5, any::<bool>()), 0..200)) {
            let shares = Arc::new(FairShares::new(16));
            let mut held: Vec<Share> = Vec::new();
            for (source, take) in steps {
                if take {
                    held.extend(shares.take(ip(source)));
                } else {
                    held.retain({
                        let mut kept = false;
                        move |share| std::mem::replace(&mut kept, true) || share.source != ip(source)
                    });
                }
                let inside = shares.held();
                prop_assert!(held.len() <= 16);
                prop_assert_eq!(inside.total, held.len());
                prop_assert_eq!(inside.by_source.values().sum::<usize>(), held.len());
            }
        }
    }
}
