//! The state of the parts of an agent and of a hub, for the documents of the tools.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    agent::{hosts_file, views::ViewsStatus},
    disk::Store,
    source_log::LostSince,
};
use crate::{
    admin::{self, StatusInputs},
    dns::{
        Question, Records, Rules,
        forward::{Forwarder, Inspected, Released},
    },
    node::status,
    report::{
        ApiserverStatus, ConfigStatus, ElectionStatus, FollowStatus, ForwardStatus, NodeStatus, OutsideHold, Standing,
        StreamStatus,
    },
    source::{Metrics, apiserver::lease},
    store::{Reader, disk::DiskStatus},
    stream,
    sys::UnixMillis,
};

/// The parts that agents and hubs have in common.
pub(super) struct CommonInputs {
    pub rules: admin::Rules,
    pub disk: Arc<Store>,
    pub lost_since: LostSince,
    pub config: watch::Receiver<ConfigStatus>,
    /// `None` with another source than hubs.
    pub follows: Option<watch::Receiver<FollowStatus>>,
    pub reader: Reader,
    pub source: Metrics,
}

impl CommonInputs {
    fn follows(&self) -> Option<FollowStatus> {
        self.follows.as_ref().map(|status| status.borrow().clone())
    }

    fn apiserver(&self) -> Option<ApiserverStatus> {
        self.source.apiserver(&self.reader)
    }
}

pub(super) struct AgentInputs {
    pub common: CommonInputs,
    pub forwarder: Forwarder,
    pub views: ViewsStatus,
    pub hosts_file: hosts_file::State,
    pub node: status::Shared,
}

impl StatusInputs for AgentInputs {
    fn rules(&self) -> admin::Rules {
        self.common.rules.clone()
    }

    fn disk(&self) -> Option<DiskStatus> {
        Some(self.common.disk.status())
    }

    fn lost_since(&self) -> Option<UnixMillis> {
        self.common.lost_since.get()
    }

    fn config(&self) -> Option<ConfigStatus> {
        Some(self.common.config.borrow().clone())
    }

    fn forward(&self) -> Option<ForwardStatus> {
        let (views, hosts_file) = (self.views.now(), self.hosts_file.borrow().clone());
        Some(ForwardStatus { hosts_file, views, ..self.forwarder.status() })
    }

    fn inspect(&self, rules: &Rules, records: Records<'_>, question: &Question) -> Inspected {
        self.forwarder.inspect(rules, records, question)
    }

    fn outside_held(&self) -> Vec<OutsideHold> {
        self.forwarder.held()
    }

    fn release_outside(&self, which: &Released, dry_run: bool) -> Option<Vec<OutsideHold>> {
        Some(self.forwarder.release(which, dry_run))
    }

    fn follows(&self) -> Option<FollowStatus> {
        self.common.follows()
    }

    fn apiserver(&self) -> Option<ApiserverStatus> {
        self.common.apiserver()
    }

    fn node(&self) -> Option<NodeStatus> {
        Some(self.node.get())
    }
}

pub(super) struct HubInputs {
    pub common: CommonInputs,
    /// `None` for a hub that takes part in no election.
    pub lease: Option<watch::Receiver<lease::Status>>,
    pub stream: stream::Metrics,
    pub name: String,
    pub advertise: Vec<String>,
}

impl StatusInputs for HubInputs {
    fn rules(&self) -> admin::Rules {
        self.common.rules.clone()
    }

    fn disk(&self) -> Option<DiskStatus> {
        Some(self.common.disk.status())
    }

    fn lost_since(&self) -> Option<UnixMillis> {
        self.common.lost_since.get()
    }

    fn config(&self) -> Option<ConfigStatus> {
        Some(self.common.config.borrow().clone())
    }

    /// A candidate follows a hub only while another one is the leader.
    fn follows(&self) -> Option<FollowStatus> {
        let leads =
            |lease: &watch::Receiver<lease::Status>| !matches!(lease.borrow().standing, Standing::Follower { .. });
        if self.lease.as_ref().is_some_and(leads) { None } else { self.common.follows() }
    }

    fn apiserver(&self) -> Option<ApiserverStatus> {
        self.common.apiserver()
    }

    fn lease(&self) -> Option<ElectionStatus> {
        self.lease.as_ref().map(|lease| lease.borrow().report())
    }

    fn serves(&self) -> Option<StreamStatus> {
        Some(self.stream.status(&self.name, &self.advertise))
    }
}
