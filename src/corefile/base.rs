//! The template of a NodeLocal Corefile: its `__PILLAR__` variables, and what the kube-dns `ConfigMap` adds to it.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use super::words;
use crate::sys;

/// Upstreams one `ConfigMap` may name, as kube-dns has it.
const UPSTREAMS_MAX: usize = 3;
/// Seconds that answers of stub domains are kept, as node-cache has it.
const STUB_TTL: u32 = 30;
const UPSTREAM_SERVERS: &str = "__PILLAR__UPSTREAM__SERVERS__";
const CLUSTER_DNS: &str = "__PILLAR__CLUSTER__DNS__";
const LOCAL_DNS: &str = "__PILLAR__LOCAL__DNS__";
const DNS_SERVER: &str = "__PILLAR__DNS__SERVER__";
const DNS_DOMAIN: &str = "__PILLAR__DNS__DOMAIN__";

/// The values of the variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateValues {
    /// The addresses to listen on.
    pub local: Vec<IpAddr>,
    /// The cluster's DNS service, by which names of the cluster are found.
    pub cluster_dns: Option<IpAddr>,
    /// The port to listen on.
    pub port: u16,
}

/// The upstreams in the kube-dns `ConfigMap`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeDns {
    /// Zones with the servers to ask, in the order of their names.
    pub stub_domains: BTreeMap<String, Vec<String>>,
    /// Servers to ask for everything else; none for those of the node.
    pub upstreams: Vec<String>,
}

/// Why a template or a `ConfigMap` cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template speaks of the cluster's DNS service, whose address is not known.
    #[error("the Corefile asks for {CLUSTER_DNS}, and the address of that service is not known")]
    NoClusterDns,
    /// A key of the `ConfigMap` is not the JSON it should be.
    #[error("ConfigMap kube-dns: {key}: {reason}")]
    Json {
        key: &'static str,
        /// The reason that it cannot be used.
        reason: String,
    },
    /// A value in it is not what it should be.
    #[error("ConfigMap kube-dns: {key}: {value:?} is not {expected}")]
    Value { key: &'static str, value: String, expected: &'static str },
    /// More upstreams than are allowed.
    #[error("ConfigMap kube-dns: upstreamNameservers: {0} servers, and {UPSTREAMS_MAX} are allowed")]
    Upstreams(usize),
}

impl KubeDns {
    /// Reads the values of the keys `stubDomains` and `upstreamNameservers`; empty ones count as absent.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(stub_domains: Option<&str>, upstreams: Option<&str>) -> Result<Self, TemplateError> {
        let mut this = Self::default();
        let given = |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        if let Some(text) = given(stub_domains) {
            let key = "stubDomains";
            let read: BTreeMap<String, Vec<String>> =
                serde_json::from_str(&text).map_err(|error| TemplateError::Json { key, reason: error.to_string() })?;
            for (domain, servers) in read {
                let expected = "a domain";
                let zone = words::zone(&domain).filter(|zone| zone != ".");
                let zone = zone.ok_or(TemplateError::Value { key, value: domain.clone(), expected })?;
                if servers.is_empty() {
                    return Err(TemplateError::Value { key, value: domain, expected: "a domain with servers" });
                }
                servers.iter().try_for_each(|server| check(key, server))?;
                this.stub_domains.insert(zone, servers);
            }
        }
        if let Some(text) = given(upstreams) {
            let key = "upstreamNameservers";
            let read: Vec<String> =
                serde_json::from_str(&text).map_err(|error| TemplateError::Json { key, reason: error.to_string() })?;
            if read.len() > UPSTREAMS_MAX {
                return Err(TemplateError::Upstreams(read.len()));
            }
            read.iter().try_for_each(|server| check(key, server))?;
            this.upstreams = read;
        }
        Ok(this)
    }
}

fn check(key: &'static str, server: &str) -> Result<(), TemplateError> {
    if sys::parse_address(server, 53).is_some() {
        return Ok(());
    }
    Err(TemplateError::Value { key, value: server.to_owned(), expected: "an address, or an address with a port" })
}

/// Puts values in the place of the variables and adds the blocks of stub domains.
///
/// # Errors
/// If the address of the cluster's DNS service is asked for and not known.
pub fn fill(template: &str, values: &TemplateValues, kube_dns: &KubeDns) -> Result<String, TemplateError> {
    let local: Vec<String> = values.local.iter().map(IpAddr::to_string).collect();
    let local = local.join(" ");
    let mut text = template.to_owned();
    if text.contains(CLUSTER_DNS) {
        let cluster_dns = values.cluster_dns.ok_or(TemplateError::NoClusterDns)?;
        text = text.replace(CLUSTER_DNS, &cluster_dns.to_string());
    }
    if kube_dns.upstreams.is_empty() {
        text = text.replace(UPSTREAM_SERVERS, "/etc/resolv.conf");
    } else {
        // Servers of one's own are asked over UDP, whatever the template says of those of the node.
        text = over_udp(&text).replace(UPSTREAM_SERVERS, &kube_dns.upstreams.join(" "));
    }
    // With a port behind it, it is one listener: that of health.
    let first = values.local.first().map_or_else(String::new, |ip| match ip {
        IpAddr::V4(ip) => format!("{ip}:"),
        IpAddr::V6(ip) => format!("[{ip}]:"),
    });
    text = text
        .replace(&format!("{LOCAL_DNS}:"), &first)
        .replace(LOCAL_DNS, &local)
        .replace(DNS_SERVER, "")
        .replace(DNS_DOMAIN, "cluster.local");
    for (domain, servers) in &kube_dns.stub_domains {
        let (port, servers) = (values.port, servers.join(" "));
        let _ = write!(
            text,
            "\n{domain}:{port} {{\n    errors\n    cache {STUB_TTL}\n    bind {local}\n    forward . {servers}\n}}\n"
        );
    }
    Ok(text)
}

/// Takes `force_tcp` out of the `forward` that asks the upstream servers.
fn over_udp(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&"forward") {
            inside = words.contains(&UPSTREAM_SERVERS) && words.last() == Some(&"{");
        }
        let dropped = inside && words == ["force_tcp"];
        inside &= words != ["}"];
        if !dropped {
            out.push_str(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> TemplateValues {
        let local = ["169.254.20.10", "10.96.0.10"].map(|ip| ip.parse().unwrap()).into();
        TemplateValues { local, cluster_dns: Some("10.96.0.99".parse().unwrap()), port: 53 }
    }

    #[test]
    fn variables_are_filled_in() {
        let template = "bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\nhealth __PILLAR__LOCAL__DNS__:8080\nforward . __PILLAR__CLUSTER__DNS__\nforward . __PILLAR__UPSTREAM__SERVERS__ {\n  force_tcp\n}\n";
        let filled = fill(template, &values(), &KubeDns::default()).unwrap();
        assert_eq!(
            filled,
            "bind 169.254.20.10 10.96.0.10 \nhealth 169.254.20.10:8080\nforward . 10.96.0.99\nforward . /etc/resolv.conf {\n  force_tcp\n}\n"
        );
        let unknown = TemplateValues { cluster_dns: None, ..values() };
        assert_eq!(fill(template, &unknown, &KubeDns::default()), Err(TemplateError::NoClusterDns));
        assert_eq!(fill("errors\n", &unknown, &KubeDns::default()).unwrap(), "errors\n");
    }

    #[test]
    fn servers_of_the_configmap_are_asked_over_udp_and_stub_domains_are_blocks() {
        let stub = r#"{"Corp.example": ["10.0.0.53", "10.0.0.54:5300"]}"#;
        let kube_dns = KubeDns::read(Some(stub), Some(r#"["1.2.3.4", "1.2.3.5"]"#)).unwrap();
        let template = "forward . __PILLAR__CLUSTER__DNS__ {\n  force_tcp\n}\nforward . __PILLAR__UPSTREAM__SERVERS__ {\n  force_tcp\n}\n";
        let filled = fill(template, &values(), &kube_dns).unwrap();
        let expect = "forward . 10.96.0.99 {\n  force_tcp\n}\nforward . 1.2.3.4 1.2.3.5 {\n}\n\ncorp.example:53 {\n    errors\n    cache 30\n    bind 169.254.20.10 10.96.0.10\n    forward . 10.0.0.53 10.0.0.54:5300\n}\n";
        assert_eq!(filled, expect);
    }

    #[test]
    fn a_configmap_that_is_wrong_is_named_by_its_key() {
        for (stub, upstreams, expect) in [
            (Some("{"), None, "ConfigMap kube-dns: stubDomains: EOF while parsing an object at line 1 column 1"),
            (Some(r#"{"a..b": ["1.1.1.1"]}"#), None, "ConfigMap kube-dns: stubDomains: \"a..b\" is not a domain"),
            (Some(r#"{"a.b": []}"#), None, "ConfigMap kube-dns: stubDomains: \"a.b\" is not a domain with servers"),
            (
                Some(r#"{"a.b": ["dns.example"]}"#),
                None,
                "ConfigMap kube-dns: stubDomains: \"dns.example\" is not an address, or an address with a port",
            ),
            (
                None,
                Some(r#"["1.1.1.1","1.1.1.2","1.1.1.3","1.1.1.4"]"#),
                "ConfigMap kube-dns: upstreamNameservers: 4 servers, and 3 are allowed",
            ),
        ] {
            assert_eq!(KubeDns::read(stub, upstreams).unwrap_err().to_string(), expect);
        }
        assert_eq!(KubeDns::read(Some(" \n"), None).unwrap(), KubeDns::default());
    }
}
