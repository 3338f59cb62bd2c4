//! The Kubernetes API objects, trimmed to the fields DNS needs. They never leave `source`.
//!
//! Decoding skips every other field (managed fields, annotations, status), so that they never live in memory. Fields
//! are optional wherever the API allows null; what they mean is decided in [`convert`](super::convert).

use serde::Deserialize;

/// `metadata` of any object, of a bookmark, or of an object asked for as metadata only.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub name: Option<String>,
    /// The namespace, for objects that live in one.
    pub namespace: Option<String>,
    /// The identity, across deletion and creation under the same name.
    pub uid: Option<String>,
    /// Which revision of the object, or of the collection, this is.
    pub resource_version: Option<String>,
    /// When its deletion began; it exists until its finalizers are done.
    pub deletion_timestamp: Option<String>,
    /// Where the next page of a list begins; empty or unset on the last.
    #[serde(rename = "continue")]
    pub next: Option<String>,
    pub annotations: Option<Annotations>,
    pub labels: Option<Labels>,
}

#[derive(Debug, Default, Deserialize)]
pub struct Labels {
    /// The service a slice belongs to.
    #[serde(rename = "kubernetes.io/service-name")]
    pub service_name: Option<String>,
}

/// The annotations the watch needs.
#[derive(Debug, Default, Deserialize)]
pub struct Annotations {
    /// On the bookmark that ends the initial events of a streaming list.
    #[serde(rename = "k8s.io/initial-events-end")]
    pub initial_events_end: Option<String>,
    /// On an `EndpointSlice`: when what it was last written for happened.
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub last_change: Option<String>,
}

/// `v1` Service.
#[derive(Debug, Deserialize)]
pub struct Service {
    #[serde(default)]
    pub metadata: Metadata,
    pub spec: Option<ServiceSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP` (or nothing), `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The first cluster IP; `None` for headless.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// All cluster IPs, one or two.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    pub external_name: Option<String>,
    pub ports: Option<Vec<ServicePort>>,
    /// Whether endpoints count as ready whatever their conditions.
    pub publish_not_ready_addresses: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub struct ServicePort {
    pub name: Option<String>,
    /// `TCP` if unset.
    pub protocol: Option<String>,
    /// The port of the service (not of its targets).
    pub port: i64,
}

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    #[serde(default)]
    pub metadata: Metadata,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: Option<String>,
    /// The endpoints; null where there are none.
    pub endpoints: Option<Vec<SliceEndpoint>>,
    /// The ports every endpoint of the slice has.
    pub ports: Option<Vec<SlicePort>>,
}

#[derive(Debug, Deserialize)]
pub struct SliceEndpoint {
    pub addresses: Option<Vec<String>>,
    pub conditions: Option<Conditions>,
    /// The pod's hostname, where its subdomain names the service.
    pub hostname: Option<String>,
}

/// `conditions` of an endpoint. Unset means unknown.
#[derive(Debug, Default, Deserialize)]
pub struct Conditions {
    /// Unset counts as ready.
    pub ready: Option<bool>,
    /// Unset counts as not terminating.
    pub terminating: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub struct SlicePort {
    pub name: Option<String>,
    /// `TCP` if unset.
    pub protocol: Option<String>,
    /// Unset means every port, which names none.
    pub port: Option<i64>,
}

/// `v1` Namespace, any object's metadata alone, or a bookmark.
#[derive(Debug, Deserialize)]
pub struct Namespace {
    #[serde(default)]
    pub metadata: Metadata,
}
