//! Response rate limiting: how many answers go to one network over UDP, where a source address may be forged.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
};

use crate::sys::UnixMillis;

/// Maximum networks counted at once; more share a rate.
const BUCKETS: usize = 4_096;
/// A bucket that nothing asked for this long goes to another network.
const IDLE_MS: u64 = 1_000;

/// The verdict on a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Answer,
    /// Send an empty answer with TC: a client that gave its true address asks again over TCP.
    Truncate,
    Drop,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    network: u64,
    /// Answers allowed, in thousandths.
    credit: u64,
    last: UnixMillis,
    /// Queries over the rate, of which every second one is truncated.
    over: u32,
}

/// Rates of one thread's answers. Allocates once.
#[derive(Debug)]
pub struct RateLimiter {
    buckets: Box<[Bucket]>,
    hasher: RandomState,
    per_s: u64,
}

impl RateLimiter {
    /// Allows `per_s` answers a second to one network, and as many at once.
    pub fn new(per_s: u32) -> Self {
        let buckets = vec![Bucket::default(); BUCKETS].into();
        Self { buckets, hasher: RandomState::new(), per_s: u64::from(per_s.max(1)) }
    }

    /// Counts a query from `source` at `now`, on a clock that is not set back.
    pub fn check(&mut self, source: IpAddr, now: UnixMillis) -> Verdict {
        let network = network(source);
        let place = self.hasher.hash_one(network);
        let bucket = &mut self.buckets[usize::try_from(place % BUCKETS as u64).unwrap_or(0)];
        let passed = now.0.saturating_sub(bucket.last.0);
        let full = self.per_s * 1_000;
        if bucket.network != network && passed >= IDLE_MS {
            *bucket = Bucket { network, credit: full, last: now, over: 0 };
        }
        bucket.credit = full.min(bucket.credit.saturating_add(passed.saturating_mul(self.per_s)));
        bucket.last = now;
        if let Some(left) = bucket.credit.checked_sub(1_000) {
            bucket.credit = left;
            return Verdict::Answer;
        }
        bucket.over = bucket.over.wrapping_add(1);
        if bucket.over.is_multiple_of(2) { Verdict::Truncate } else { Verdict::Drop }
    }
}

/// The /24 of an IPv4 address, the /56 of an IPv6 one: the network of one site.
fn network(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
        // The top bit marks IPv6; no address in use differs in that bit alone.
        IpAddr::V6(ip) => u64::try_from(ip.to_bits() >> 72).unwrap_or(u64::MAX) | 1 << 63,
    }
}

/// Whether an address can be reached from anywhere, rather than from this node, its cluster or its site.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            // Carrier-grade NAT (RFC 6598) is used for pods, too.
            let shared = first == 100 && second & 0xC0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || shared)
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_gets_its_rate_and_every_second_query_beyond_is_truncated() {
        let mut limiter = RateLimiter::new(10);
        let mut count = |source: &str, queries: u32, now: u64| {
            let mut seen = [0; 3];
            for _ in 0..queries {
                seen[limiter.check(ip(source), UnixMillis(now)) as usize] += 1;
            }
            seen
        };
        assert_eq!(count("192.0.2.1", 30, 5_000), [10, 10, 10]);
        assert_eq!(count("192.0.2.200", 2, 5_000), [0, 1, 1], "one network");
        assert_eq!(count("198.51.100.1", 5, 5_000), [5, 0, 0], "another one");
        assert_eq!(count("192.0.2.1", 4, 5_200), [2, 1, 1], "two more in 200 ms");
        assert_eq!(count("2001:db8:1:200::1", 11, 5_200)[0], 10);
        assert_eq!(count("2001:db8:1:2ff::1", 1, 5_200)[0], 0, "the same /56");
        assert_eq!(count("192.0.2.1", 12, 60_000)[0], 10);
    }

    #[test]
    fn addresses_of_nodes_pods_and_sites_are_not_public() {
        for private in
            ["10.1.2.3", "100.64.0.1", "169.254.20.10", "127.0.0.1", "fd00::1", "fe80::1", "::ffff:10.0.0.1", "0.0.0.0"]
        {
            assert!(!is_public(ip(private)), "{private}");
        }
        for public in ["192.0.2.1", "100.128.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(is_public(ip(public)), "{public}");
        }
    }
}
