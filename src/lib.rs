//! holdfast: cluster DNS that outlives the control plane.
//!
//! One pipeline, three jobs: a *source* (apiserver, hub or manifests) feeds the *store* (memory, followed by disk),
//! and the store feeds the *ends* (DNS answers, the stream to other nodes, the admin socket).
//! `docs/architecture.md` is the map; `tests/it/architecture.rs` holds the module arrows to it.

pub mod admin;
pub mod cli;
pub mod config;
pub mod corefile;
pub mod ctl;
pub mod dns;
pub mod limits;
pub mod node;
pub mod proto;
pub mod record;
pub mod report;
pub mod role;
pub mod simulate;
pub mod source;
pub mod store;
pub mod stream;
pub mod sys;
pub mod tls;
pub mod wire;
pub mod zone;
