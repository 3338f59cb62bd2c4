//! Observation of forwarding: metrics, the query log, dnstap, and the limit on log lines.
//!
//! Never decides an answer; a collector that is slow or missing delays none.

mod dnstap;
mod log_limit;
mod metrics;
mod query_log;

pub use self::{
    dnstap::Tap,
    metrics::{FailureKind, Metrics, Mismatch, Named},
    query_log::{AnswerClass, Sampler, log},
};
