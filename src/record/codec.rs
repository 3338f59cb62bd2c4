//! The bytes of a service: what the disk stores, the stream carries and digests are taken over.
//!
//! Protobuf, by prost. The encoding of a [`Service`] is canonical: fields in order, port sets numbered in the order
//! their first endpoint uses them. Fields may be added (old readers skip them), never renumbered or reused.

use std::{net::IpAddr, sync::Arc};

use prost::Message;

use super::{Endpoint, Kind, Port, Protocol, Service, ServiceKey};

/// Why bytes are no service.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not protobuf.
    #[error("not a record: {0}")]
    Message(#[from] prost::DecodeError),
    /// A field holds what it cannot.
    #[error("record {key}: {field} {value} is out of range")]
    Field {
        /// `namespace/name` as far as it could be read.
        key: String,
        field: &'static str,
        value: String,
    },
}

#[derive(Clone, PartialEq, Message)]
struct ServiceMessage {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    name: String,
    /// 1 cluster IP, 2 headless, 3 external name.
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(bytes = "vec", repeated, tag = "4")]
    cluster_ips: Vec<Vec<u8>>,
    #[prost(string, tag = "5")]
    external_name: String,
    #[prost(message, repeated, tag = "6")]
    ports: Vec<PortMessage>,
    #[prost(message, repeated, tag = "7")]
    port_sets: Vec<PortSetMessage>,
    #[prost(message, repeated, tag = "8")]
    endpoints: Vec<EndpointMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct PortMessage {
    #[prost(string, tag = "1")]
    name: String,
    /// 0 TCP, 1 UDP, 2 SCTP.
    #[prost(uint32, tag = "2")]
    protocol: u32,
    #[prost(uint32, tag = "3")]
    port: u32,
}

#[derive(Clone, PartialEq, Message)]
struct PortSetMessage {
    #[prost(message, repeated, tag = "1")]
    ports: Vec<PortMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct EndpointMessage {
    #[prost(bytes = "vec", tag = "1")]
    ip: Vec<u8>,
    #[prost(string, optional, tag = "2")]
    hostname: Option<String>,
    #[prost(uint32, tag = "3")]
    port_set: u32,
    #[prost(bool, tag = "4")]
    not_ready: bool,
}

/// The canonical bytes of a service.
pub fn encode_service(service: &Service) -> Vec<u8> {
    let (kind, cluster_ips, external_name) = match service.kind() {
        Kind::ClusterIp(ips) => (1, ips.iter().map(ip_bytes).collect(), String::new()),
        Kind::Headless => (2, Vec::new(), String::new()),
        Kind::ExternalName(target) => (3, Vec::new(), target.to_string()),
    };
    let mut sets: Vec<Arc<[Port]>> = Vec::new();
    let mut endpoints = Vec::with_capacity(service.endpoints().len());
    for endpoint in service.endpoints() {
        let known = sets.iter().position(|set| Arc::ptr_eq(set, &endpoint.ports) || *set == endpoint.ports);
        let port_set = known.unwrap_or_else(|| {
            sets.push(Arc::clone(&endpoint.ports));
            sets.len() - 1
        });
        endpoints.push(EndpointMessage {
            ip: ip_bytes(&endpoint.ip),
            hostname: endpoint.hostname.as_deref().map(str::to_owned),
            port_set: u32::try_from(port_set).expect("fewer port sets than endpoints, which fit in memory"),
            not_ready: !endpoint.ready,
        });
    }
    ServiceMessage {
        namespace: service.namespace().to_owned(),
        name: service.name().to_owned(),
        kind,
        cluster_ips,
        external_name,
        ports: service.ports().iter().map(port_message).collect(),
        port_sets: sets.iter().map(|set| PortSetMessage { ports: set.iter().map(port_message).collect() }).collect(),
        endpoints,
    }
    .encode_to_vec()
}

/// Reads a service back.
///
/// # Errors
/// If the bytes are no record, or one of its fields is out of range. Never panics, whatever the bytes.
pub fn decode_service(bytes: &[u8]) -> Result<Service, DecodeError> {
    let message = ServiceMessage::decode(bytes)?;
    let key = format!("{}/{}", message.namespace, message.name);
    let bad = |field, value: String| DecodeError::Field { key: key.clone(), field, value };
    for (field, label) in [("namespace", &message.namespace), ("name", &message.name)] {
        if label.is_empty() || label.len() > 63 || label.contains('/') {
            return Err(bad(field, label.clone()));
        }
    }
    let ip = |field, bytes: &Vec<u8>| ip_from(bytes).ok_or_else(|| bad(field, format!("{bytes:02x?}")));
    let port = |message: PortMessage| -> Result<Port, DecodeError> {
        let protocol = usize::try_from(message.protocol).ok().and_then(|at| Protocol::ALL.get(at)).copied();
        let protocol = protocol.ok_or_else(|| bad("protocol", message.protocol.to_string()))?;
        let number = u16::try_from(message.port).map_err(|_| bad("port", message.port.to_string()))?;
        Ok(Port { name: message.name.into(), protocol, port: number })
    };
    let kind = match message.kind {
        1 => {
            Kind::ClusterIp(message.cluster_ips.iter().map(|bytes| ip("cluster_ips", bytes)).collect::<Result<_, _>>()?)
        }
        2 => Kind::Headless,
        3 => Kind::ExternalName(message.external_name.into()),
        other => return Err(bad("kind", other.to_string())),
    };
    let ports = message.ports.into_iter().map(port).collect::<Result<Vec<_>, _>>()?;
    let sets = message
        .port_sets
        .into_iter()
        .map(|set| set.ports.into_iter().map(port).collect::<Result<Arc<[Port]>, _>>())
        .collect::<Result<Vec<_>, _>>()?;
    let mut endpoints = Vec::with_capacity(message.endpoints.len());
    for endpoint in message.endpoints {
        let set = usize::try_from(endpoint.port_set).ok().and_then(|index| sets.get(index));
        endpoints.push(Endpoint {
            ip: ip("endpoint ip", &endpoint.ip)?,
            hostname: endpoint.hostname.map(Into::into),
            ports: Arc::clone(set.ok_or_else(|| bad("port_set", endpoint.port_set.to_string()))?),
            ready: !endpoint.not_ready,
        });
    }
    Ok(Service::new(ServiceKey::new(&message.namespace, &message.name), kind, ports, endpoints))
}

fn port_message(port: &Port) -> PortMessage {
    PortMessage { name: port.name.to_string(), protocol: port.protocol as u32, port: u32::from(port.port) }
}

pub(super) fn ip_bytes(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(super) fn ip_from(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(ip: &str, hostname: Option<&str>, port: u16, ready: bool) -> Endpoint {
        Endpoint {
            ip: ip.parse().unwrap(),
            hostname: hostname.map(Into::into),
            ports: [Port { name: "pg".into(), protocol: Protocol::Tcp, port }].into(),
            ready,
        }
    }

    fn samples() -> Vec<Service> {
        let key = ServiceKey::new("prod", "db");
        let web = Port { name: "http".into(), protocol: Protocol::Udp, port: 80 };
        vec![
            Service::new(
                key.clone(),
                Kind::ClusterIp(["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into()),
                vec![web, Port { name: "".into(), protocol: Protocol::Sctp, port: 65535 }],
                vec![],
            ),
            Service::new(
                key.clone(),
                Kind::Headless,
                vec![],
                vec![
                    endpoint("10.1.0.1", Some("db-0"), 5432, true),
                    endpoint("10.1.0.2", None, 5432, false),
                    endpoint("fd00::2", None, 5433, true),
                ],
            ),
            Service::new(key, Kind::ExternalName("db.example.com".into()), vec![], vec![]),
        ]
    }

    #[test]
    fn encoded_services_decode_to_the_same() {
        for service in samples() {
            let bytes = encode_service(&service);
            let back = decode_service(&bytes).unwrap();
            assert_eq!(back, service);
            assert_eq!(encode_service(&back), bytes);
        }
    }

    #[test]
    fn cut_bytes_are_an_error_or_another_record_and_never_panic() {
        for service in samples() {
            let bytes = encode_service(&service);
            for end in 0..bytes.len() {
                if let Ok(other) = decode_service(&bytes[..end]) {
                    assert_ne!(other.digest(), service.digest(), "cut at {end}");
                }
            }
        }
    }

    #[test]
    fn a_field_out_of_range_is_named() {
        let message =
            ServiceMessage { namespace: "prod".into(), name: "db".into(), kind: 9, ..ServiceMessage::default() };
        let error = decode_service(&message.encode_to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "record prod/db: kind 9 is out of range");
        let message = ServiceMessage {
            namespace: "prod".into(),
            name: "db".into(),
            kind: 2,
            endpoints: vec![EndpointMessage { ip: vec![10, 0, 0, 1], port_set: 3, ..EndpointMessage::default() }],
            ..ServiceMessage::default()
        };
        let error = decode_service(&message.encode_to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "record prod/db: port_set 3 is out of range");
    }
}
