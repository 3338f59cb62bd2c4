//! The typed rows of `status`: how the hub connection, the election, the stream and the upstreams of a process are.
//!
//! Owns the shape of these rows, which scripts rely on: keys are only added. Each part of a process fills in its own row,
//! `admin` puts them into one document, and `ctl` prints it. Knows no part of the process.

mod apiserver;
mod config;
mod election;
mod follow;
mod forward;
mod node;
mod queries;
mod row;
mod stream;
mod time;

pub use apiserver::{ApiserverStatus, FailingAddress, Listing, Measures, Reach};
pub use config::{ConfigStatus, RefusedReload};
pub use election::{ElectionStatus, Failing, Standing};
pub use follow::{FollowState, FollowStatus, THEN};
pub use forward::{
    CacheStatus, ForwardStatus, HostsFileStatus, KeepStatus, OutsideHold, Policy, UnresolvedName, UpstreamState,
    UpstreamStatus, ViewStatus, ZoneRule, ZoneStatus,
};
pub use node::{AddressState, Deaths, InterfaceStatus, Keeper, KeeperKind, NodeStatus, Waiting};
pub use queries::QueriesStatus;
pub use row::Row;
pub use stream::StreamStatus;
pub use time::{Time, words};
