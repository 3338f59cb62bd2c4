//! Addresses of the apiserver itself, beside the one configured: its endpoints in the records, and those seen before.
//!
//! An apiserver that stops is taken out of `default/kubernetes`, so after an outage the records may name only the server
//! that went last; another one may be back first. Never dials, and trusts no address: the certificate is what counts.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    record::Snapshot,
    source::learnt::{Keep, Learnt},
    store::Reader,
    sys::Lock,
};

/// Most addresses that are kept and dialled.
const ADDRESSES_MAX: usize = 16;

/// Addresses of the apiserver itself, as `default/kubernetes` has them: its https port, or its only one.
pub fn endpoints(records: &Snapshot) -> Vec<SocketAddr> {
    let Some(service) = records.service(b"default", b"kubernetes") else { return Vec::new() };
    let endpoints = service.endpoints().iter().filter_map(|endpoint| {
        let ports = &endpoint.ports;
        let port = ports.iter().find(|port| &*port.name == "https").or(ports.first())?;
        Some(SocketAddr::new(endpoint.ip, port.port))
    });
    endpoints.collect()
}

/// The addresses to dial beside the one configured. Clones share what was seen.
#[derive(Clone)]
pub struct OwnAddresses {
    reader: Reader,
    seen: Arc<Lock<Vec<SocketAddr>>>,
    keep: Keep,
}

impl OwnAddresses {
    /// The addresses in the records of `reader`, and those learnt before.
    pub fn new(reader: Reader, learnt: Learnt) -> Self {
        let seen = learnt.known.iter().filter_map(|address| address.parse().ok()).take(ADDRESSES_MAX).collect();
        Self { reader, seen: Arc::new(Lock::new(seen)), keep: learnt.keep }
    }

    /// The endpoints in the records first, then those seen before, latest first.
    pub(super) fn all(&self) -> Vec<SocketAddr> {
        latest_first(&endpoints(&self.reader.snapshot()), &self.seen.lock())
    }

    /// Keeps the endpoints in the records, for when they are there no more.
    pub(super) fn note(&self) {
        let now = endpoints(&self.reader.snapshot());
        let mut seen = self.seen.lock();
        if now.iter().all(|address| seen.contains(address)) {
            return;
        }
        *seen = latest_first(&now, &seen);
        let kept: Vec<String> = seen.iter().map(ToString::to_string).collect();
        drop(seen);
        (self.keep)(&kept);
    }
}

fn latest_first(now: &[SocketAddr], before: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in now.iter().chain(before) {
        if !all.contains(address) && all.len() < ADDRESSES_MAX {
            all.push(*address);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: std::ops::Range<u8>) -> Vec<SocketAddr> {
        last.map(|last| SocketAddr::from(([10, 0, 0, last], 6443))).collect()
    }

    #[test]
    fn the_latest_come_first_and_old_ones_are_forgotten() {
        assert_eq!(latest_first(&addresses(2..3), &addresses(1..4)), [2, 1, 3].map(|n| addresses(n..n + 1)[0]));
        let many = latest_first(&addresses(100..104), &addresses(0..16));
        assert_eq!(many, [addresses(100..104), addresses(0..12)].concat());
        assert_eq!(latest_first(&addresses(0..40), &[]).len(), ADDRESSES_MAX);
    }
}
