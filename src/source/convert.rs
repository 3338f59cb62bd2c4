//! API objects into what the assembler holds, each checked on its own: a broken one is an error that names its field.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use super::{Objects, objects};
use crate::{
    record::{Endpoint, Kind, Port, Protocol, ServiceKey},
    sys::UnixMillis,
};

/// Longest DNS label, in bytes (RFC 1035, 2.3.4).
const LABEL_BYTES_MAX: usize = 63;
/// Longest DNS name in text without its final dot, in bytes (RFC 1035, 2.3.4, less the length bytes at both ends).
const NAME_BYTES_MAX: usize = 253;

/// One object, ready to be assembled.
#[derive(Clone, Debug)]
pub enum Object {
    /// A service without its endpoints.
    Service(ServiceInput),
    Slice(SliceInput),
    Namespace(NamespaceInput),
}

#[derive(Clone, Debug)]
pub struct ServiceInput {
    pub(super) key: ServiceKey,
    pub(super) kind: Kind,
    pub(super) ports: Vec<Port>,
    pub(super) publish_not_ready: bool,
}

#[derive(Clone, Debug)]
pub struct SliceInput {
    /// `namespace/name` of the slice itself.
    pub(super) key: ServiceKey,
    /// The service it belongs to; `None` if DNS never answers from it (no label, or not of IP addresses).
    pub(super) service: Option<ServiceKey>,
    /// Its endpoints, ready as their conditions say; the ports are shared between them.
    pub(super) endpoints: Box<[Endpoint]>,
    /// When what it was last written for happened, if the controller noted it.
    pub(super) changed: Option<UnixMillis>,
}

#[derive(Clone, Debug)]
pub struct NamespaceInput {
    pub(super) name: Arc<str>,
    pub(super) uid: Option<Box<str>>,
    /// It is being deleted.
    pub(super) ending: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// `namespace/name`, if that much could be read; the namespace is empty for objects outside of one.
    pub key: Option<ServiceKey>,
    /// The error, with its field.
    pub reason: String,
}

/// Which part of the name is looked at, for the error.
type Checked<T> = Result<T, String>;

/// The key of an object of a kind from its metadata.
pub fn key(of: Objects, metadata: &objects::Metadata) -> Checked<ServiceKey> {
    let name = metadata.name.as_deref().unwrap_or_default();
    match of {
        Objects::Namespaces => Ok(ServiceKey::new("", label("metadata.name", name)?)),
        Objects::Services => Ok(ServiceKey::new(namespace(metadata)?, label("metadata.name", name)?)),
        Objects::Slices => {
            if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('/') {
                return Err(format!("metadata.name {name:?} is not a name"));
            }
            Ok(ServiceKey::new(namespace(metadata)?, name))
        }
    }
}

fn namespace(metadata: &objects::Metadata) -> Checked<&str> {
    label("metadata.namespace", metadata.namespace.as_deref().unwrap_or_default())
}

/// Checks a Service.
///
/// # Errors
/// If a field holds what it cannot, or no cluster IP was assigned yet.
pub fn service(service: objects::Service) -> Result<Object, Broken> {
    let key = key(Objects::Services, &service.metadata).map_err(|reason| Broken { key: None, reason })?;
    service_of(key.clone(), service.spec.unwrap_or_default())
        .map(Object::Service)
        .map_err(|reason| Broken { key: Some(key), reason })
}

fn service_of(key: ServiceKey, spec: objects::ServiceSpec) -> Checked<ServiceInput> {
    let mut ports = Vec::new();
    for (index, port) in spec.ports.into_iter().flatten().enumerate() {
        let place = format!("spec.ports[{index}]");
        ports.push(port_of(&place, port.name, port.protocol.as_deref(), port.port)?);
    }
    let kind = if spec.kind.as_deref() == Some("ExternalName") {
        Kind::ExternalName(target(spec.external_name.as_deref().unwrap_or_default())?)
    } else {
        let listed = spec.cluster_ips.unwrap_or_default();
        let ips = if listed.is_empty() { Vec::from_iter(spec.cluster_ip) } else { listed };
        match ips.first().map(String::as_str) {
            None | Some("") => return Err("no clusterIP is assigned (spec.clusterIP)".to_owned()),
            Some("None") => Kind::Headless,
            Some(_) => Kind::ClusterIp(addresses("spec.clusterIPs", &ips)?),
        }
    };
    Ok(ServiceInput { key, kind, ports, publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false) })
}

/// Checks an EndpointSlice.
///
/// # Errors
/// If a field holds what it cannot.
pub fn slice(slice: objects::EndpointSlice) -> Result<Object, Broken> {
    let key = key(Objects::Slices, &slice.metadata).map_err(|reason| Broken { key: None, reason })?;
    slice_of(key.clone(), slice).map(Object::Slice).map_err(|reason| Broken { key: Some(key), reason })
}

fn slice_of(key: ServiceKey, slice: objects::EndpointSlice) -> Checked<SliceInput> {
    let service = slice.metadata.labels.unwrap_or_default().service_name.filter(|name| label("", name).is_ok());
    let of_addresses = matches!(slice.address_type.as_deref(), Some("IPv4" | "IPv6"));
    let Some(service) = service.filter(|_| of_addresses) else {
        return Ok(SliceInput { key, service: None, endpoints: Box::default(), changed: None });
    };
    let noted = slice.metadata.annotations.and_then(|annotations| annotations.last_change);
    let noted = noted.and_then(|noted| noted.parse::<jiff::Timestamp>().ok());
    let changed = noted.and_then(|noted| u64::try_from(noted.as_millisecond()).ok()).map(UnixMillis);
    let mut ports = Vec::new();
    for (index, port) in slice.ports.into_iter().flatten().enumerate() {
        let Some(number) = port.port else { continue };
        ports.push(port_of(&format!("ports[{index}]"), port.name, port.protocol.as_deref(), number)?);
    }
    let ports: Arc<[Port]> = ports.into();
    let mut endpoints = Vec::new();
    for (index, endpoint) in slice.endpoints.into_iter().flatten().enumerate() {
        let listed = endpoint.addresses.unwrap_or_default();
        if listed.is_empty() {
            continue;
        }
        let conditions = endpoint.conditions.unwrap_or_default();
        // A host name that is no label is dropped alone: the endpoint has its dashed name then.
        let hostname = endpoint.hostname.filter(|hostname| label("", hostname).is_ok());
        for ip in addresses(&format!("endpoints[{index}].addresses"), &listed)? {
            endpoints.push(Endpoint {
                ip,
                hostname: hostname.as_deref().map(Into::into),
                ports: Arc::clone(&ports),
                ready: conditions.ready.unwrap_or(true) && !conditions.terminating.unwrap_or(false),
            });
        }
    }
    let service = Some(ServiceKey::new(key.namespace(), &service));
    Ok(SliceInput { key, service, endpoints: endpoints.into(), changed })
}

/// Checks a Namespace.
///
/// # Errors
/// If its name is no DNS label.
pub fn namespace_object(namespace: objects::Namespace) -> Result<Object, Broken> {
    let key = key(Objects::Namespaces, &namespace.metadata).map_err(|reason| Broken { key: None, reason })?;
    let uid = namespace.metadata.uid.filter(|uid| !uid.is_empty()).map(Into::into);
    let ending = namespace.metadata.deletion_timestamp.is_some();
    Ok(Object::Namespace(NamespaceInput { name: key.name().into(), uid, ending }))
}

impl Object {
    /// When what it was last written for happened, if that was noted.
    pub(super) fn changed(&self) -> Option<UnixMillis> {
        match self {
            Self::Slice(slice) => slice.changed,
            Self::Service(_) | Self::Namespace(_) => None,
        }
    }

    /// Its key; the namespace is empty for objects outside of one.
    pub fn key(&self) -> ServiceKey {
        match self {
            Self::Service(service) => service.key.clone(),
            Self::Slice(slice) => slice.key.clone(),
            Self::Namespace(namespace) => ServiceKey::new("", &namespace.name),
        }
    }
}

/// A DNS label as the API allows it in names: lower-case letters, digits and inner hyphens (RFC 1123, 2.1).
fn label<'a>(field: &str, text: &'a str) -> Checked<&'a str> {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let edges = bytes.first() != Some(&b'-') && bytes.last() != Some(&b'-');
    if bytes.is_empty() || bytes.len() > LABEL_BYTES_MAX || !edges || !bytes.iter().all(inner) {
        return Err(format!("{field} {text:?} is not a DNS label"));
    }
    Ok(text)
}

/// The target of an `ExternalName`: any host name, in lower case, without a final dot.
fn target(text: &str) -> Checked<Box<str>> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| !label.is_empty() && label.len() <= LABEL_BYTES_MAX && label.bytes().all(good);
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(label) {
        return Err(format!("spec.externalName {text:?} is not a DNS name"));
    }
    Ok(name.to_ascii_lowercase().into())
}

fn port_of(place: &str, name: Option<String>, protocol: Option<&str>, number: i64) -> Checked<Port> {
    let name = name.unwrap_or_default();
    if !name.is_empty() {
        label(&format!("{place}.name"), &name)?;
    }
    let protocol = match protocol {
        None | Some("") => Protocol::Tcp,
        Some(word) => word.parse().map_err(|error| format!("{place}.protocol {error}"))?,
    };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(Port { name: name.into(), protocol, port }),
        _ => Err(format!("{place}.port {number} is not in 1 to 65535")),
    }
}

/// Addresses, each once, in their order.
fn addresses(field: &str, texts: &[String]) -> Checked<Box<[IpAddr]>> {
    let mut ips = Vec::with_capacity(texts.len());
    for text in texts {
        let ip = address(text).ok_or_else(|| format!("{field}: {text:?} is not an IP address"))?;
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    Ok(ips.into())
}

/// Reads an address as Kubernetes does: leading zeros are decimal (old objects have them), mapped IPv4 is IPv4.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| !part.is_empty() && part.len() <= 3)?;
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(of: Objects, object: serde_json::Value) -> String {
        let broken = match of {
            Objects::Services => service(serde_json::from_value(object).unwrap()),
            Objects::Slices => slice(serde_json::from_value(object).unwrap()),
            Objects::Namespaces => namespace_object(serde_json::from_value(object).unwrap()),
        };
        broken.unwrap_err().reason
    }

    #[test]
    fn a_broken_field_is_named() {
        let meta = json!({"namespace": "prod", "name": "db"});
        let labelled = json!({"namespace": "prod", "name": "db-x", "labels": {"kubernetes.io/service-name": "db"}});
        let ip = "10.0.0.1";
        let cases = [
            (
                Objects::Services,
                json!({"metadata": meta, "spec": {"type": "ClusterIP"}}),
                "no clusterIP is assigned (spec.clusterIP)",
            ),
            (
                Objects::Services,
                json!({"metadata": meta, "spec": {"clusterIP": "10.0.0.256"}}),
                "spec.clusterIPs: \"10.0.0.256\" is not an IP address",
            ),
            (
                Objects::Services,
                json!({"metadata": meta, "spec": {"clusterIP": ip, "ports": [{"port": 80}, {"port": 70000}]}}),
                "spec.ports[1].port 70000 is not in 1 to 65535",
            ),
            (
                Objects::Services,
                json!({"metadata": meta, "spec": {"clusterIP": ip, "ports": [{"port": 0}]}}),
                "spec.ports[0].port 0 is not in 1 to 65535",
            ),
            (
                Objects::Services,
                json!({"metadata": meta, "spec": {"clusterIP": ip, "ports": [{"port": 8, "protocol": "ICMP"}]}}),
                "spec.ports[0].protocol \"ICMP\" is not one of TCP, UDP, SCTP",
            ),
            (
                Objects::Services,
                json!({"metadata": meta, "spec": {"clusterIP": ip, "ports": [{"port": 8, "name": "a.b"}]}}),
                "spec.ports[0].name \"a.b\" is not a DNS label",
            ),
            (
                Objects::Services,
                json!({"metadata": {"namespace": "prod", "name": "Db"}, "spec": {"clusterIP": ip}}),
                "metadata.name \"Db\" is not a DNS label",
            ),
            (
                Objects::Services,
                json!({"metadata": {"namespace": "prod", "name": "a_b"}, "spec": {"clusterIP": ip}}),
                "metadata.name \"a_b\" is not a DNS label",
            ),
            (
                Objects::Services,
                json!({"metadata": {"name": "db"}, "spec": {"clusterIP": ip}}),
                "metadata.namespace \"\" is not a DNS label",
            ),
            (
                Objects::Services,
                json!({"metadata": meta, "spec": {"type": "ExternalName", "externalName": "a..b"}}),
                "spec.externalName \"a..b\" is not a DNS name",
            ),
            (
                Objects::Services,
                json!({"metadata": meta, "spec": {"type": "ExternalName"}}),
                "spec.externalName \"\" is not a DNS name",
            ),
            (
                Objects::Slices,
                json!({"metadata": labelled, "addressType": "IPv4", "endpoints": [{"addresses": ["a.b.c.d"]}]}),
                "endpoints[0].addresses: \"a.b.c.d\" is not an IP address",
            ),
            (
                Objects::Slices,
                json!({"metadata": {"namespace": "prod", "name": "a/b"}}),
                "metadata.name \"a/b\" is not a name",
            ),
            (
                Objects::Namespaces,
                json!({"metadata": {"name": "x".repeat(64)}}),
                &format!("metadata.name \"{}\" is not a DNS label", "x".repeat(64)),
            ),
        ];
        for (of, object, expected) in cases {
            assert_eq!(reason(of, object.clone()), expected, "{object}");
        }
    }

    #[test]
    fn a_hostname_that_is_no_label_takes_only_itself_away() {
        let endpoint = |hostname: &str| json!({"addresses": ["10.0.0.1"], "hostname": hostname});
        let labels = json!({"kubernetes.io/service-name": "db"});
        for (hostname, expect) in [("db-0", Some("db-0")), ("-x", None), ("A_b", None), ("a.b", None), ("", None)] {
            let slice_object = json!({"metadata": {"namespace": "prod", "name": "db-a", "labels": labels},
                                      "addressType": "IPv4", "endpoints": [endpoint(hostname)]});
            let Ok(Object::Slice(read)) = slice(serde_json::from_value(slice_object).unwrap()) else {
                panic!("{hostname:?}: the slice is refused")
            };
            assert_eq!(read.endpoints.len(), 1, "{hostname:?}");
            assert_eq!(read.endpoints[0].hostname.as_deref(), expect, "{hostname:?}");
        }
    }

    #[test]
    fn addresses_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.000.001", Some("10.0.0.1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("10.0.0.256", None),
            ("10.0.0", None),
            ("10.0.0.1.2", None),
            ("10.0.0.+1", None),
            ("1000.0.0.1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(address(text), expected.map(|ip| ip.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn targets_lose_their_final_dot_and_their_case() {
        for (text, expected) in
            [("Db.Example.COM.", "db.example.com"), ("10.1.2.3", "10.1.2.3"), ("_x.example", "_x.example")]
        {
            assert_eq!(&*target(text).unwrap(), expected);
        }
    }
}
