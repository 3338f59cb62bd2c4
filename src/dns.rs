//! Answers on the node: listeners, the one `answer()` they share, and what asks upstreams.
//!
//! Never reads the disk or the source: all it knows of the cluster comes from the store's snapshot.

mod access;
mod answer;
pub mod cache;
mod config;
mod cookies;
mod discovery;
#[cfg(feature = "encrypted")]
mod encrypted;
pub mod forward;
mod listen;
mod metrics;
mod padding;
pub mod pins;
pub mod question;
mod recent;
mod request;
mod server;
mod tcp;
mod udp;

pub use access::{Access, Allow, NodeLocal};
pub use answer::{
    Batch, Config as AnswerConfig, Context, Forward, Local, Outcome, Records, Reply, Rotation, Rules, Sections, View,
    answer,
};
pub use config::{Config, EncryptedConfig, TcpConfig};
pub use cookies::Cookies;
pub use discovery::Discovery;
pub use listen::{BindError, Bound, Holder, bind, holder};
pub use metrics::{CloseCause, DropCause, Fault, Metrics, RefuseCause};
pub use question::Question;
pub use recent::Recent;
pub use request::{ForwardRequest, Resolve, Resolved, ServedFrom, Transport};
pub use server::Running;
