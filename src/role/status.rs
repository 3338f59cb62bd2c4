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
        Question, Recent, Records, Rules,
        forward::{Forwarder, Inspected, Names, Released},
    },
    node::status,
    report::{
        ApiserverStatus, ConfigStatus, ElectionStatus, FollowStatus, ForwardStatus, NodeStatus, OutsideHold,
        QueriesStatus, Standing, StreamStatus,
    },
    source::{Metrics, apiserver::lease},
    store::{Reader, disk::DiskStatus},
    stream,
    sys::UnixMillis,
};

/// The parts of a process.
pub(super) struct Inputs {
    pub common: CommonInputs,
    pub role: RoleInputs,
}

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

/// The parts of one role alone.
pub(super) enum RoleInputs {
    Agent(AgentInputs),
    Hub(HubInputs),
}

pub(super) struct AgentInputs {
    pub queries: Recent,
    pub forwarder: Forwarder,
    pub views: ViewsStatus,
    pub hosts_file: hosts_file::State,
    pub node: status::Shared,
}

pub(super) struct HubInputs {
    /// `None` for a hub that takes part in no election.
    pub lease: Option<watch::Receiver<lease::Status>>,
    pub stream: stream::Metrics,
    pub name: String,
    pub advertise: Vec<String>,
}

impl HubInputs {
    /// A candidate follows a hub only while another one is the leader.
    fn leads(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| !matches!(lease.borrow().standing, Standing::Follower { .. }))
    }
}

impl Inputs {
    fn agent(&self) -> Option<&AgentInputs> {
        match &self.role {
            RoleInputs::Agent(agent) => Some(agent),
            RoleInputs::Hub(_) => None,
        }
    }

    fn hub(&self) -> Option<&HubInputs> {
        match &self.role {
            RoleInputs::Hub(hub) => Some(hub),
            RoleInputs::Agent(_) => None,
        }
    }
}

impl StatusInputs for Inputs {
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

    fn queries(&self) -> Option<QueriesStatus> {
        self.agent().map(|agent| agent.queries.status())
    }

    fn forward(&self) -> Option<ForwardStatus> {
        let agent = self.agent()?;
        let (views, hosts_file) = (agent.views.now(), agent.hosts_file.borrow().clone());
        Some(ForwardStatus { hosts_file, views, ..agent.forwarder.status() })
    }

    fn inspect(&self, rules: &Rules, records: Records<'_>, question: &Question) -> Inspected {
        match self.agent() {
            Some(agent) => agent.forwarder.inspect(rules, records, question),
            None => Names::default().inspect(rules, records, question),
        }
    }

    fn outside_held(&self) -> Vec<OutsideHold> {
        self.agent().map_or_else(Vec::new, |agent| agent.forwarder.held())
    }

    fn release_outside(&self, which: &Released, dry_run: bool) -> Option<Vec<OutsideHold>> {
        self.agent().map(|agent| agent.forwarder.release(which, dry_run))
    }

    fn follows(&self) -> Option<FollowStatus> {
        let follows = self.common.follows.as_ref().filter(|_| !self.hub().is_some_and(HubInputs::leads));
        follows.map(|status| status.borrow().clone())
    }

    fn apiserver(&self) -> Option<ApiserverStatus> {
        self.common.source.apiserver(&self.common.reader)
    }

    fn lease(&self) -> Option<ElectionStatus> {
        self.hub()?.lease.as_ref().map(|lease| lease.borrow().report())
    }

    fn serves(&self) -> Option<StreamStatus> {
        self.hub().map(|hub| hub.stream.status(&hub.name, &hub.advertise))
    }

    fn node(&self) -> Option<NodeStatus> {
        self.agent().map(|agent| agent.node.get())
    }
}
