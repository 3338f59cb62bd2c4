//! The Kubernetes DNS rules: the answer to a name and a type from the records of a cluster.
//!
//! Owns every rule of the Kubernetes DNS-Based Service Discovery specification 1.1.0 and the cases it leaves open.
//! Pure: borrows from a [`Snapshot`](crate::record::Snapshot), does no I/O, reads no clock and cannot fail. A look-up never
//! allocates. Writes no message: the caller renders the [`RrSet`]s as bytes, as a zone file or as a table.

mod address;
mod alias;
mod all;
mod cluster;
mod completion;
mod config;
mod endpoints;
mod lookup;
mod name;
mod ports;
mod reverse;
mod rrset;

pub use alias::{CHAIN_MAX, Chain, ChainEnd};
pub use config::{Compat, Config, Pods, STALE_TTL_MAX, VERSION_TTL};
pub use lookup::{Apex, Lookup, Zone};
pub use name::{EndpointLabel, ZoneName};
pub use reverse::ReverseName;
pub use rrset::{Data, RrSet};
