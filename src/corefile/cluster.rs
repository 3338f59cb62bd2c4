//! The cluster's zone of a Corefile.

use std::net::IpAddr;

use super::{
    Directive,
    words::{self, holds, text},
};
use crate::config::Shown;

/// A zone that may be the cluster's, with its upstreams.
#[derive(Debug)]
pub(super) struct ClusterZone {
    pub name: String,
    pub upstreams: Shown,
}

/// The zone whose names the cluster's DNS service is asked for. Best that of which the address of that service is known, then
/// `cluster.local`, then one whose upstreams have the reverse zones too, as in the Corefile of NodeLocal DNSCache, then one in
/// `local`. `None` if no zone looks like it.
pub(super) fn cluster_zone(zones: &[Shown], cluster_dns: Option<IpAddr>) -> Option<ClusterZone> {
    let zones: Vec<(&str, &[Shown])> = zones.iter().filter_map(forwarded).collect();
    let is_reverse = |name: &str| holds("in-addr.arpa", name) || holds("ip6.arpa", name);
    let all_of = |upstreams: &[Shown], of: &dyn Fn(&str) -> bool| {
        zones.iter().any(|(name, others)| of(name) && *others == upstreams)
    };
    let rank = |name: &str, upstreams: &[Shown]| {
        let asked = |ip: IpAddr| {
            upstreams.iter().any(|upstream| [text(ip), text(std::net::SocketAddr::new(ip, 53))].contains(upstream))
        };
        let reverse_too = all_of(upstreams, &is_reverse) && !all_of(upstreams, &|name| name == ".");
        [cluster_dns.is_some_and(asked), name == "cluster.local", reverse_too, holds("local", name)]
    };
    let mut best: Option<([bool; 4], ClusterZone)> = None;
    for (name, upstreams) in zones.iter().filter(|(name, _)| *name != "." && !is_reverse(name)) {
        let rank = rank(name, upstreams);
        if rank != [false; 4] && best.as_ref().is_none_or(|(known, _)| rank > *known) {
            best = Some((rank, ClusterZone { name: (*name).to_owned(), upstreams: Shown::List(upstreams.to_vec()) }));
        }
    }
    best.map(|(_, zone)| zone)
}

/// The name and the upstreams of a forward zone that has any.
fn forwarded(zone: &Shown) -> Option<(&str, &[Shown])> {
    let Shown::Map(fields) = zone else { return None };
    let field = |key: &str| fields.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    match (field("zone")?, field("upstreams")?) {
        (Shown::Text(name), Shown::List(upstreams)) => Some((name, upstreams)),
        _ => None,
    }
}

/// The zone that `kubernetes` says is the cluster's: the first that is no reverse zone.
pub(super) fn of_kubernetes(directive: &Directive) -> Option<String> {
    let zones = directive.args.iter().filter_map(|token| words::zone(&token.text));
    zones.into_iter().find(|zone| zone != "." && !holds("in-addr.arpa", zone) && !holds("ip6.arpa", zone))
}
