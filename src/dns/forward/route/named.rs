//! Upstreams that are given by name: the addresses of each, and when to look them up again.
//!
//! Sends no question itself, and forgets no address before there is another.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use super::{UpstreamSource, ZoneConfig, resolv_conf_cache::ResolvConfCache};
use crate::{
    sys::{Lock, UnixMillis},
    wire::Name,
};

/// Addresses of one name; more would not be asked in time.
const ADDRESSES_MAX: usize = 16;
/// The least and the most between two look-ups of one name, whatever its TTL.
const EVERY_MIN: Duration = Duration::from_secs(5);
const EVERY_MAX: Duration = Duration::from_secs(3_600);
/// The next look-up after one that failed, of a name with an address and of one without.
const RETRY: Duration = Duration::from_secs(15);
const RETRY_WITHOUT: Duration = Duration::from_secs(2);

/// The names among the upstreams of a route.
#[derive(Debug, Default)]
pub struct NamedAddresses(Lock<HashMap<Name, Known>>);

#[derive(Clone, Debug, Default)]
struct Known {
    /// Sorted.
    addresses: Vec<IpAddr>,
    due: UnixMillis,
    /// The reason that the last look-up had no result.
    problem: Option<String>,
}

impl NamedAddresses {
    /// The names that `config` gives, with the addresses that they had `before`, or in the last process.
    pub fn new(config: &ZoneConfig, before: Option<&Self>, last: &ResolvConfCache) -> Self {
        let named = config.upstreams.iter().filter_map(|source| match source {
            UpstreamSource::Named(server) => Some(server.host.clone()),
            UpstreamSource::Server(_) | UpstreamSource::ResolvConf(_) => None,
        });
        let known = |host: &Name| {
            let known = before.and_then(|before| before.0.lock().get(host).cloned()).unwrap_or_default();
            let addresses = if known.addresses.is_empty() { last.last_addresses(host) } else { known.addresses };
            Known { addresses, due: UnixMillis(0), problem: None }
        };
        Self(Lock::new(named.map(|host| (host.clone(), known(&host))).collect()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// The addresses of `host`, and the reason that they are not those of now.
    pub fn addresses(&self, host: &Name) -> (Vec<IpAddr>, Option<String>) {
        let known = self.0.lock().get(host).cloned().unwrap_or_default();
        let unknown = || "not looked up yet".to_owned();
        let reason = known.problem.or_else(|| known.addresses.is_empty().then(unknown));
        (known.addresses, reason)
    }

    /// The names that are to be looked up.
    pub fn due(&self, now: UnixMillis) -> Vec<Name> {
        let known = self.0.lock();
        known.iter().filter(|(_, known)| known.due <= now).map(|(host, _)| host.clone()).collect()
    }

    /// Takes over the addresses that `host` has for `ttl`. Returns whether that is news.
    pub fn found(&self, host: &Name, mut addresses: Vec<IpAddr>, ttl: Duration, now: UnixMillis) -> bool {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        let mut all = self.0.lock();
        let Some(known) = all.get_mut(host) else { return false };
        known.due = now.plus(ttl.clamp(EVERY_MIN, EVERY_MAX));
        let before = (std::mem::replace(&mut known.addresses, addresses), known.problem.take());
        before != (known.addresses.clone(), None)
    }

    /// Keeps the addresses of `host`, which cannot be looked up. Returns whether that is news.
    pub fn failed(&self, host: &Name, problem: String, now: UnixMillis) -> bool {
        let mut all = self.0.lock();
        let Some(known) = all.get_mut(host) else { return false };
        known.due = now.plus(if known.addresses.is_empty() { RETRY_WITHOUT } else { RETRY });
        known.problem.replace(problem).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_until_there_are_others_and_are_looked_up_by_their_ttl() {
        let config = |host: &str| ZoneConfig { upstreams: vec![host.parse().unwrap()], ..ZoneConfig::default() };
        let host: Name = "dns.example".parse().unwrap();
        let none = ResolvConfCache::default();
        let at = |seconds: u64| UnixMillis(seconds * 1_000);
        let named = NamedAddresses::new(&config("tls://dns.example"), None, &none);
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        assert_eq!(named.addresses(&host), (vec![], Some("not looked up yet".into())));
        assert_eq!(named.due(at(0)), std::slice::from_ref(&host));
        assert!(named.failed(&host, "gone".into(), at(0)) && !named.failed(&host, "gone".into(), at(1)));
        assert!(named.due(at(2)).is_empty() && named.due(at(3)) == std::slice::from_ref(&host));
        let minute = Duration::from_secs(60);
        assert!(named.found(&host, vec![ip(2), ip(1), ip(2)], minute, at(3)));
        assert!(!named.found(&host, vec![ip(1), ip(2)], minute, at(3)), "in another order");
        assert_eq!((named.addresses(&host), named.due(at(62))), ((vec![ip(1), ip(2)], None), vec![]));
        assert!(named.failed(&host, "silence".into(), at(63)));
        assert_eq!(named.addresses(&host), (vec![ip(1), ip(2)], Some("silence".into())));
        assert!(named.found(&host, vec![ip(1), ip(2)], Duration::ZERO, at(78)), "the reason is gone");
        assert!(named.due(at(82)).is_empty() && named.due(at(83)) == std::slice::from_ref(&host));
        named.found(&host, (0..200).map(ip).collect(), minute, at(83));
        assert_eq!(named.addresses(&host).0.len(), ADDRESSES_MAX);
        let after = NamedAddresses::new(&config("dns.example:54"), Some(&named), &none);
        assert_eq!(after.addresses(&host), named.addresses(&host), "as a new configuration finds it");
        assert!(after.due(at(0)) == std::slice::from_ref(&host), "and looks it up");
    }
}
