//! Which addresses are this node's and its pods', read from the routing tables.
//!
//! A pod of this node is reached without a gateway, over an interface that leads nowhere else: its veth, or the bridge it
//! is plugged into. An interface with a route over a gateway leads to other machines (or to pods on them): an address
//! reached over it is no neighbour, on the same network or not. A gateway that is an address of this node, as
//! Cilium uses, is none.

use std::{collections::HashSet, io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    is_link_local,
    netlink::{Message, Netlink},
};

const RTM_GETROUTE: u16 = 26;

/// A route: the fields used here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    to: IpNet,
    /// To an address of this node itself.
    local: bool,
    interface: u32,
    gateways: Vec<IpAddr>,
}

/// The networks of this node and its pods at this moment.
///
/// # Errors
/// If the kernel does not tell.
pub fn node_local() -> io::Result<Vec<IpNet>> {
    Ok(networks(&read_routes()?))
}

fn read_routes() -> io::Result<Vec<Route>> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut asked = RouteMessage::default();
        asked.header.address_family = family;
        let answers = netlink.dump(&Message::new(RTM_GETROUTE, 0, &asked))?;
        routes.extend(answers.iter().filter_map(|body| route(&RouteMessage::parse(body).ok()?)));
    }
    Ok(routes)
}

/// The addresses of this node or pod, and of the gateways it sends to. The probes of a kubelet come from one of them: from the
/// node's own in its network, and from the gateway, which is the node, in a pod's.
///
/// # Errors
/// If the kernel does not tell.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let routes = read_routes()?;
    let own = routes.iter().filter(|route| route.local && is_host(route.to)).map(|route| route.to.addr());
    let gateways =
        routes.iter().filter(|route| route.to.prefix_len() == 0).flat_map(|route| route.gateways.iter().copied());
    Ok(own.chain(gateways).chain(host_ips()).collect())
}

/// The addresses of the node, where the pod is told (`status.hostIPs` in the variable `HOST_IPS`).
fn host_ips() -> Vec<IpAddr> {
    let told = std::env::var("HOST_IPS").unwrap_or_default();
    told.split(',').filter_map(|ip| ip.trim().parse().ok()).collect()
}

fn networks(routes: &[Route]) -> Vec<IpNet> {
    let own: HashSet<IpAddr> =
        routes.iter().filter(|route| route.local && is_host(route.to)).map(|route| route.to.addr()).collect();
    let leads_away = |route: &Route| route.gateways.iter().any(|gateway| !own.contains(gateway));
    let away: HashSet<u32> = routes
        .iter()
        .filter(|route| leads_away(route) || route.to.prefix_len() == 0)
        .map(|route| route.interface)
        .collect();
    let mut found: Vec<IpNet> = routes
        .iter()
        // Every interface has the network of all link-local addresses, those that lead away included.
        .filter(|route| route.local || (!away.contains(&route.interface) && !is_link_local_net(route.to)))
        .map(|route| route.to)
        .collect();
    found.sort();
    found.dedup();
    found
}

fn is_host(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

fn is_link_local_net(net: IpNet) -> bool {
    !is_host(net) && is_link_local(net.addr())
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let local = match header.kind {
        RouteType::Local => true,
        RouteType::Unicast => false,
        _ => return None,
    };
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => [0, 0, 0, 0].into(),
        AddressFamily::Inet6 => [0_u16; 8].into(),
        _ => return None,
    };
    let (mut to, mut interface, mut gateways) = (unspecified, 0, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address)?,
            RouteAttribute::Oif(index) => interface = *index,
            RouteAttribute::Gateway(address) => gateways.extend(ip(address)),
            RouteAttribute::Via(via) => gateways.push(ip_via(via).unwrap_or(unspecified)),
            // Several ways lead to other machines.
            RouteAttribute::MultiPath(_) => gateways.push(unspecified),
            _ => {}
        }
    }
    let to = IpNet::new(to, header.destination_prefix_length).ok()?;
    Some(Route { to, local, interface, gateways })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn ip_via(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(v4) => Some((*v4).into()),
        RouteVia::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Route {
        let words: Vec<&str> = line.split(' ').collect();
        let after = |word: &str| words.iter().position(|found| *found == word).map(|at| words[at + 1]);
        let local = words[0] == "local";
        let to = words[usize::from(local)];
        Route {
            to: to.parse().unwrap_or_else(|_| format!("{to}/32").parse().unwrap()),
            local,
            interface: after("dev").unwrap().parse().unwrap(),
            gateways: after("via").map(|gateway| gateway.parse().unwrap()).into_iter().collect(),
        }
    }

    fn of(lines: &[&str]) -> Vec<String> {
        let routes: Vec<Route> = lines.iter().map(|line| read(line)).collect();
        networks(&routes).iter().map(ToString::to_string).collect()
    }

    /// The uplink is 1 in all of them.
    const NODE: [&str; 3] = ["0.0.0.0/0 via 10.0.0.1 dev 1", "10.0.0.0/24 dev 1", "local 10.0.0.7 dev 1"];

    fn with(more: &[&str]) -> Vec<String> {
        of(&[&NODE[..], more].concat())
    }

    #[test]
    fn neighbours_on_the_uplink_are_not_the_nodes_own() {
        assert_eq!(with(&["local 127.0.0.0/8 dev 9"]), ["10.0.0.7/32", "127.0.0.0/8"]);
        assert_eq!(of(&["0.0.0.0/0 dev 1", "local 10.0.0.7 dev 1"]), ["10.0.0.7/32"], "a line to somewhere");
    }

    #[test]
    fn pods_are_found_however_they_are_plugged_in() {
        // A bridge with flannel to the other nodes; a host route for each pod; Cilium.
        let flannel = ["10.244.1.0/24 dev 2", "10.244.2.0/24 via 10.244.2.0 dev 3", "10.244.9.0/24 dev 3"];
        assert_eq!(with(&flannel), ["10.0.0.7/32", "10.244.1.0/24"]);
        assert_eq!(with(&["10.244.1.5 dev 2", "10.244.1.6 dev 3"]), ["10.0.0.7/32", "10.244.1.5/32", "10.244.1.6/32"]);
        let cilium = ["local 10.0.1.77 dev 2", "10.0.1.0/24 via 10.0.1.77 dev 2", "10.0.1.77 dev 2"];
        assert_eq!(with(&cilium), ["10.0.0.7/32", "10.0.1.0/24", "10.0.1.77/32"]);
    }

    #[test]
    fn link_local_networks_are_nobodys() {
        assert_eq!(
            with(&["fe80::/64 dev 2", "169.254.0.0/16 dev 2", "local 169.254.20.10 dev 4"]),
            ["10.0.0.7/32", "169.254.20.10/32"]
        );
    }

    #[test]
    fn the_kernel_is_understood() {
        let loopback: IpAddr = [127, 0, 0, 1].into();
        assert!(node_local().unwrap().iter().any(|net| net.contains(&loopback)));
        assert!(own_addresses().unwrap().contains(&loopback));
    }
}
