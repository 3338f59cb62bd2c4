//! What no fault may cost, asserted in one place: every agent's records are the hub's by digest, none is lost that the source
//! still has, and no question went without its answer meanwhile.

use std::{net::IpAddr, sync::Arc};

use holdfast::{
    record::{Change, Kind, Service, ServiceKey, Snapshot},
    source::{EndpointsMode, manifests},
    store::Reader,
};

use super::fleet::{Asking, Home, in_time, until_equal};

/// A service the source has, and the addresses it answers with.
pub type Has = (ServiceKey, Vec<IpAddr>);

pub trait Holds {
    fn held(&self) -> Arc<Snapshot>;
}

impl Holds for Reader {
    fn held(&self) -> Arc<Snapshot> {
        self.snapshot()
    }
}

/// A process that lives here: its records as it dumps them, so everything but their version.
impl Holds for Home {
    fn held(&self) -> Arc<Snapshot> {
        let socket = self.socket();
        let dump = super::process::run(&["dump", "--admin", socket.to_str().expect("UTF-8"), "-o", "json"]);
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), &dump.stdout).unwrap();
        let records = manifests::read(file.path(), EndpointsMode::Headless).unwrap().records;
        let namespaces = records.namespaces.into_iter().map(Change::PutNamespace);
        let changes = records.services.into_values().map(Change::Put).chain(namespaces);
        Arc::new(Snapshot::default().apply(changes, holdfast::record::Version::default()))
    }
}

/// What a service answers with.
pub fn has(service: &Service) -> Has {
    let addresses = match service.kind() {
        Kind::ClusterIp(ips) => ips.to_vec(),
        Kind::Headless => service.ready_endpoints().map(|endpoint| endpoint.ip).collect(),
        Kind::ExternalName(_) => Vec::new(),
    };
    (service.key().clone(), addresses)
}

/// Panics unless all agents hold the hub's records, by digest, and nobody lacks anything that the source has.
pub fn whole(source: &[Has], hub: &dyn Holds, agents: &[&dyn Holds]) {
    let hub = hub.held();
    for agent in agents {
        let agent = agent.held();
        assert_eq!(agent.root(), hub.root(), "{:?}", agent.diff(&hub));
        for (key, addresses) in source {
            let service = agent.service_by_key(key).unwrap_or_else(|| panic!("{key} is lost, which the source has"));
            let (_, answered) = has(service);
            let lacks = addresses.iter().find(|address| !answered.contains(address));
            assert_eq!(lacks, None, "{key} answers {answered:?}");
        }
    }
}

/// Waits until the agents have caught up, and panics unless the fault, whatever it was, cost nothing.
pub async fn unharmed(source: &[Has], hub: &Reader, agents: &[&Reader], asking: impl IntoIterator<Item = Asking>) {
    for agent in agents {
        in_time("the agent's records are the hub's", until_equal(agent, hub)).await;
    }
    let agents: Vec<&dyn Holds> = agents.iter().map(|&agent| agent as &dyn Holds).collect();
    whole(source, hub, &agents);
    for asking in asking {
        asking.all_answered().await;
    }
}
