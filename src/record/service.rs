//! A service as DNS sees it, in one canonical form: equal records have equal bytes and equal digests.

use std::{borrow::Borrow, fmt, net::IpAddr, sync::Arc};

use super::{Digest, codec};
use crate::sys::labels;

/// `namespace/name`, the identity of a service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    text: Arc<str>,
    slash: u8,
}

impl ServiceKey {
    /// The key of service `name` in `namespace`, both DNS labels (RFC 1123, lower case).
    ///
    /// # Panics
    /// If the namespace is longer than 255 bytes; readers of names from outside check them first (a label has at most 63).
    pub fn new(namespace: &str, name: &str) -> Self {
        let slash = u8::try_from(namespace.len()).expect("a namespace is a DNS label of at most 63 bytes");
        Self { text: format!("{namespace}/{name}").into(), slash }
    }

    pub fn namespace(&self) -> &str {
        &self.text[..usize::from(self.slash)]
    }

    /// The name of the service.
    pub fn name(&self) -> &str {
        &self.text[usize::from(self.slash) + 1..]
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Borrow<str> for ServiceKey {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How a service is reached; decides what its own name answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Virtual addresses, one or two (dual stack), as the API lists them.
    ClusterIp(Box<[IpAddr]>),
    /// `clusterIP: None`: the addresses of its endpoints.
    Headless,
    /// An alias to the name given, without a final dot.
    ExternalName(Box<str>),
}

labels! {
    /// Transport protocol of a port, as the API spells it. Encoded by its position.
    pub enum Protocol {
        /// The default of the API.
        Tcp = "TCP",
        Udp = "UDP",
        Sctp = "SCTP",
    }
}

/// A port of a service, or of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// A DNS label, or empty for an unnamed port (which has no `_port._proto` name).
    pub name: Box<str>,
    pub protocol: Protocol,
    /// 1 to 65535.
    pub port: u16,
}

/// An address of a backend of a service. A backend with several addresses is several endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub ip: IpAddr,
    /// The pod's hostname where its subdomain names this service; names the endpoint in place of its address.
    pub hostname: Option<Box<str>>,
    /// The ports of its slice, shared between the endpoints of a service.
    pub ports: Arc<[Port]>,
    /// Whether it is answered: ready and not terminating, or the service publishes addresses that are not.
    pub ready: bool,
}

/// A service with everything DNS answers from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Service {
    key: ServiceKey,
    kind: Kind,
    ports: Box<[Port]>,
    endpoints: Box<[Endpoint]>,
    /// Indices of the endpoints that have a hostname, sorted by it, then by address.
    by_hostname: Box<[u32]>,
    digest: Digest,
}

impl Service {
    /// Puts a service into canonical form.
    ///
    /// Endpoints are sorted by address, then by hostname; the same endpoint seen twice (it is moving between slices) is kept once, with
    /// the ports of both and ready if it is ready in either.
    pub fn new(key: ServiceKey, kind: Kind, ports: Vec<Port>, endpoints: Vec<Endpoint>) -> Self {
        let endpoints: Box<[Endpoint]> = canonical(endpoints).into();
        let by_hostname = by_hostname(&endpoints);
        let mut service = Self { key, kind, ports: ports.into(), endpoints, by_hostname, digest: Digest::default() };
        service.digest = Digest::of(&codec::encode_service(&service));
        service
    }

    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    pub fn namespace(&self) -> &str {
        self.key.namespace()
    }

    pub fn name(&self) -> &str {
        self.key.name()
    }

    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The service's own ports, in the order of its spec.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// All endpoints held, ready or not, sorted by address, then by hostname (none first).
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoints with this address, ready or not: more than one only if they have different hostnames.
    pub fn endpoints_at(&self, ip: IpAddr) -> &[Endpoint] {
        let from = self.endpoints.partition_point(|endpoint| endpoint.ip < ip);
        let count = self.endpoints[from..].iter().take_while(|endpoint| endpoint.ip == ip).count();
        &self.endpoints[from..from + count]
    }

    /// The endpoints with this lower-case hostname, ready or not, sorted by address.
    pub fn endpoints_named<'s, 'h>(
        &'s self,
        hostname: &'h [u8],
    ) -> impl Iterator<Item = &'s Endpoint> + Clone + use<'s, 'h> {
        let named = self.endpoints_by_hostname();
        let before = |&index: &u32| {
            named.endpoints[index as usize].hostname.as_deref().unwrap_or_default().as_bytes() < hostname
        };
        (named.order.partition_point(before)..named.len())
            .map(move |index| named.get(index))
            .take_while(move |endpoint| endpoint.hostname.as_deref().is_some_and(|held| held.as_bytes() == hostname))
    }

    /// The endpoints that have a hostname, ready or not, sorted by it, then by address.
    pub fn endpoints_by_hostname(&self) -> ByHostname<'_> {
        ByHostname { endpoints: &self.endpoints, order: &self.by_hostname }
    }

    /// The endpoints that are answered.
    pub fn ready_endpoints(&self) -> impl Iterator<Item = &Endpoint> + Clone {
        self.endpoints.iter().filter(|endpoint| endpoint.ready)
    }

    /// Every address a reverse lookup may find this service by: its cluster IPs, or else those of its endpoints.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, bool)> + '_ {
        let cluster: &[IpAddr] = match &self.kind {
            Kind::ClusterIp(ips) => ips,
            Kind::Headless | Kind::ExternalName(_) => &[],
        };
        let endpoints = self.endpoints.iter().map(|endpoint| (endpoint.ip, false));
        cluster.iter().map(|ip| (*ip, true)).chain(endpoints)
    }

    /// Digest over the canonical encoding.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// The endpoints of a service that have a hostname, in its order.
#[derive(Clone, Copy, Debug)]
pub struct ByHostname<'a> {
    endpoints: &'a [Endpoint],
    order: &'a [u32],
}

impl<'a> ByHostname<'a> {
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The one at `index`, which is below [`Self::len`].
    pub fn get(&self, index: usize) -> &'a Endpoint {
        &self.endpoints[self.order[index] as usize]
    }

    pub fn iter(self) -> impl Iterator<Item = &'a Endpoint> + Clone {
        (0..self.len()).map(move |index| self.get(index))
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("key", &self.key)
            .field("kind", &self.kind)
            .field("ports", &self.ports)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

fn canonical(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    endpoints.sort_by(|a, b| (a.ip, &a.hostname).cmp(&(b.ip, &b.hostname)));
    endpoints.dedup_by(|later, kept| {
        let same = later.ip == kept.ip && later.hostname == kept.hostname;
        if same {
            kept.ready |= later.ready;
            if later.ports != kept.ports {
                let mut union: Vec<Port> = kept.ports.iter().chain(later.ports.iter()).cloned().collect();
                union.sort();
                union.dedup();
                kept.ports = union.into();
            }
        }
        same
    });
    endpoints
}

fn by_hostname(endpoints: &[Endpoint]) -> Box<[u32]> {
    let named = endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.hostname.is_some());
    let mut indices: Vec<u32> =
        named.map(|(index, _)| u32::try_from(index).expect("fewer than 2^32 endpoints in a service")).collect();
    // Stable: endpoints of one hostname stay sorted by address.
    indices.sort_by_key(|&index| &endpoints[index as usize].hostname);
    indices.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, number: u16) -> Port {
        Port { name: name.into(), protocol: Protocol::Tcp, port: number }
    }

    fn endpoint(ip: &str, ready: bool, ports: &[Port]) -> Endpoint {
        Endpoint { ip: ip.parse().unwrap(), hostname: None, ports: ports.into(), ready }
    }

    fn headless(endpoints: Vec<Endpoint>) -> Service {
        Service::new(ServiceKey::new("prod", "db"), Kind::Headless, vec![], endpoints)
    }

    #[test]
    fn key_parts() {
        let key = ServiceKey::new("prod", "db");
        assert_eq!((key.namespace(), key.name(), key.as_str()), ("prod", "db", "prod/db"));
    }

    #[test]
    fn order_of_slices_does_not_matter() {
        let a = endpoint("10.0.0.2", true, &[]);
        let b = endpoint("10.0.0.1", true, &[]);
        let one = headless(vec![a.clone(), b.clone()]);
        let other = headless(vec![b, a]);
        assert_eq!(one, other);
        assert_eq!(one.digest(), other.digest());
    }

    #[test]
    fn an_endpoint_in_two_slices_is_one_and_ready_in_either_wins() {
        let merged =
            headless(vec![endpoint("10.0.0.1", false, &[port("a", 1)]), endpoint("10.0.0.1", true, &[port("b", 2)])]);
        assert_eq!(merged.endpoints().len(), 1);
        assert!(merged.endpoints()[0].ready);
        assert_eq!(&*merged.endpoints()[0].ports, &[port("a", 1), port("b", 2)]);
    }

    #[test]
    fn endpoints_are_found_by_address_and_by_hostname() {
        let named = |ip, hostname: &str| Endpoint { hostname: Some(hostname.into()), ..endpoint(ip, true, &[]) };
        let service = headless(vec![
            named("10.0.0.3", "a"),
            named("10.0.0.1", "b"),
            endpoint("10.0.0.2", true, &[]),
            named("10.0.0.1", "a"),
            named("fd00::1", "a"),
        ]);
        let ips = |hostname: &str| -> Vec<String> {
            service.endpoints_named(hostname.as_bytes()).map(|endpoint| endpoint.ip.to_string()).collect()
        };
        assert_eq!(ips("a"), ["10.0.0.1", "10.0.0.3", "fd00::1"]);
        assert_eq!(ips("b"), ["10.0.0.1"]);
        assert_eq!(ips("c"), Vec::<String>::new());
        assert_eq!(ips(""), Vec::<String>::new());
        let at = |ip: &str| service.endpoints_at(ip.parse().unwrap()).len();
        assert_eq!((at("10.0.0.1"), at("10.0.0.2"), at("fd00::1"), at("10.0.0.9")), (2, 1, 1, 0));
        let hostnames: Vec<_> = service.endpoints_by_hostname().iter().filter_map(|e| e.hostname.as_deref()).collect();
        assert_eq!(hostnames, ["a", "a", "a", "b"]);
    }

    #[test]
    fn readiness_changes_the_digest() {
        let ready = headless(vec![endpoint("10.0.0.1", true, &[])]);
        let not_ready = headless(vec![endpoint("10.0.0.1", false, &[])]);
        assert_ne!(ready.digest(), not_ready.digest());
    }
}
