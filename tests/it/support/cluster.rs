//! Clusters written as text, one record a line, `#` begins a comment:
//!
//! ```text
//! namespace prod
//! service prod/web 10.96.1.1,fd00::1 http:80/tcp :8080/tcp
//! headless prod/db
//! endpoint prod/db 10.1.0.1 hostname=db-0 notready pg:5432/tcp
//! external prod/away www.example.com
//! ```

use std::{collections::BTreeMap, sync::Arc};

use holdfast::record::{Change, Endpoint, Kind, Port, Protocol, Service, ServiceKey};

/// The records a text describes, as changes to nothing.
pub fn changes(text: &str) -> Vec<Change> {
    let mut services: BTreeMap<&str, (Kind, Vec<Port>, Vec<Endpoint>)> = BTreeMap::new();
    let mut changes = Vec::new();
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        let mut words = line.split_whitespace();
        let (Some(word), Some(name)) = (words.next(), words.next()) else { continue };
        match word {
            "namespace" => changes.push(Change::PutNamespace(name.into())),
            "service" => {
                let ips = words.next().expect("a service has addresses").split(',');
                let ips = ips.map(|ip| ip.parse().expect("an address")).collect();
                services.insert(name, (Kind::ClusterIp(ips), words.map(port).collect(), Vec::new()));
            }
            "headless" => {
                services.insert(name, (Kind::Headless, words.map(port).collect(), Vec::new()));
            }
            "external" => {
                let target = words.next().expect("an external name has a target");
                services.insert(name, (Kind::ExternalName(target.into()), Vec::new(), Vec::new()));
            }
            "endpoint" => {
                let service = services.get_mut(name).unwrap_or_else(|| panic!("{name} comes before its endpoints"));
                service.2.push(endpoint(words));
            }
            _ => panic!("no such record: {line}"),
        }
    }
    changes.extend(services.into_iter().map(|(key, (kind, ports, endpoints))| {
        let (namespace, name) = key.split_once('/').expect("namespace/name");
        Change::Put(Arc::new(Service::new(ServiceKey::new(namespace, name), kind, ports, endpoints)))
    }));
    changes
}

fn endpoint<'a>(mut words: impl Iterator<Item = &'a str>) -> Endpoint {
    let ip = words.next().and_then(|ip| ip.parse().ok()).expect("an endpoint has an address");
    let mut endpoint = Endpoint { ip, hostname: None, ports: [].into(), ready: true };
    let mut ports = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some(("hostname", hostname)) => endpoint.hostname = Some(hostname.into()),
            _ if word == "notready" => endpoint.ready = false,
            _ => ports.push(port(word)),
        }
    }
    endpoint.ports = ports.into();
    endpoint
}

/// `name:80/tcp`, or `:80/tcp` for a port without a name.
fn port(word: &str) -> Port {
    let parts = word.split_once(':').and_then(|(name, rest)| Some((name, rest.split_once('/')?)));
    let (name, (number, protocol)) = parts.unwrap_or_else(|| panic!("{word} is no port"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => panic!("{word} has no such protocol"),
    };
    Port { name: name.into(), protocol, port: number.parse().expect("a port number") }
}
