//! Limits log lines about upstreams' errors to one a minute: an outage of upstreams hits every node at once.
//!
//! Counts the lines it left out; the errors themselves are counted in `metrics`.

use std::{fmt, sync::Arc};

use crate::limits::Seldom;

/// Lets one line a minute pass. Clones share the limit.
#[derive(Clone, Debug, Default)]
pub struct LogLimit(Arc<Seldom>);

impl LogLimit {
    /// Logs that `upstream` did `what`, and why, unless there was a line less than a minute ago.
    pub fn log(&self, what: &'static str, upstream: &dyn fmt::Display, why: &dyn fmt::Display) {
        if let Some(left_out) = self.0.claim() {
            tracing::warn!(%upstream, reason = %why, left_out, "{what}");
        }
    }

    /// Logs that `upstream` gave `denial` for a name that is held, unless there was a line less than a minute ago.
    pub fn held(&self, name: &dyn fmt::Display, rtype: &dyn fmt::Display, upstream: &str, denial: &'static str) {
        if let Some(left_out) = self.0.claim() {
            tracing::warn!(
                %name, %rtype, upstream, denial, left_out,
                "an upstream denies a name that it answered before: the last good answer is served, see holdfast guard"
            );
        }
    }
}
