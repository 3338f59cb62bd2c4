//! Where records come from: each source watches something outside and sends [`Update`](crate::store::Update)s.
//!
//! Owns reading Kubernetes API objects, from an apiserver ([`apiserver`]) and from files ([`manifests`]), turning them into
//! records ([`assemble`]), and following another holdfast ([`hub`]). API types never leave this module; a source never
//! touches the store itself and never decides what is held.

pub mod apiserver;
pub mod assemble;
mod backoff;
mod convert;
pub mod hub;
mod learnt;
pub mod manifests;
mod metrics;
mod objects;

pub use learnt::{Keep, Learnt};
pub use metrics::Metrics;

use crate::sys::labels;

labels! {
    #[derive(Default, serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum EndpointsMode {
        /// The endpoints of headless services, which is all that the DNS specification asks for.
        #[default]
        Headless = "headless",
        /// All, for the extra names CoreDNS gives: `1-2-3-4.svc.ns.svc` under ClusterIP services, PTR of any endpoint.
        All = "all",
    }
}

labels! {
    /// The kinds of objects read, as URLs and RBAC rules spell their resources.
    pub enum Objects {
        /// `v1` Service.
        Services = "services",
        /// `discovery.k8s.io/v1` EndpointSlice.
        Slices = "endpointslices",
        /// `v1` Namespace.
        Namespaces = "namespaces",
    }
}

impl Objects {
    /// The kind of one such object, as the API spells it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Services => "Service",
            Self::Slices => "EndpointSlice",
            Self::Namespaces => "Namespace",
        }
    }
}

/// The purpose of a request to the apiserver: the objects to read, or the Lease for the election of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Of(Objects),
    /// `coordination.k8s.io/v1` Lease.
    Leases,
}

impl From<Objects> for Resource {
    fn from(of: Objects) -> Self {
        Self::Of(of)
    }
}

impl Resource {
    /// The resource, as URLs and RBAC rules spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Of(of) => of.as_str(),
            Self::Leases => "leases",
        }
    }
}

/// A message that may have several lines as one, for errors and `status`.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
