//! The roads of docs/migration.md, and what each may lose.

use holdfast::sys::Batch;

use super::world::repository;
use crate::deploy::yaml;

/// Every road of docs/migration.md: from → to, command, what becomes of the rollout, and what may be lost.
pub const ROADS: [(&str, &str, &str, Promise); 21] = [
    ("nodelocaldns → drop-in", "kubectl set image", "ends", Promise::Service),
    ("drop-in → drop-in with other mounts", "kubectl apply -k overlays/drop-in", "ends", Promise::Nothing),
    ("drop-in, its pod deleted", "kubectl delete pod", "ends", Promise::Service),
    ("drop-in, the container killed", "kill -9 of all its processes", "back-off", Promise::AsReceived),
    ("drop-in, the container started again", "the kubelet does so after its back-off", "ends", Promise::Nothing),
    ("drop-in → drop-in with a hub", "kubectl apply", "ends", Promise::Nothing),
    ("drop-in with a hub → drop-in", "kubectl apply", "ends", Promise::Nothing),
    ("drop-in → nodelocaldns", "kubectl replace", "ends", Promise::Service),
    ("nodelocaldns → drop-in, overlay", "kubectl apply -k overlays/drop-in", "ends", Promise::Nothing),
    ("drop-in → nodelocaldns, undo", "kubectl rollout undo, kubectl replace", "ends", Promise::Nothing),
    (
        "nodelocaldns → drop-in, port held",
        "kubectl apply -k overlays/drop-in, kubectl delete pod",
        "ends",
        Promise::Service,
    ),
    ("CoreDNS → agents", "kubectl apply -k overlays/iptables", "ends", Promise::Nothing),
    ("agents → agents (upgrade)", "kubectl apply", "ends", Promise::Nothing),
    ("agents, the process that answers killed three times", "kill -9", "ends", Promise::AsRead),
    ("agents, the container killed", "kill -9 of all its processes", "back-off", Promise::AsReceived),
    ("agents, the container started again", "the kubelet does so after its back-off", "ends", Promise::Nothing),
    ("agents → CoreDNS", "kubectl delete daemonset holdfast-agent", "ends", Promise::Nothing),
    (
        "drop-in → agents with other addresses, and back",
        "kubectl apply -k base, kubectl delete daemonset holdfast-agent",
        "waits",
        Promise::Nothing,
    ),
    (
        "drop-in → agents",
        "kubectl apply -k overlays/iptables, kubectl delete daemonset node-local-dns",
        "ends",
        Promise::Nothing,
    ),
    (
        "agents → drop-in",
        "kubectl apply -k overlays/drop-in, kubectl delete daemonset holdfast-agent",
        "ends",
        Promise::Nothing,
    ),
    (
        "drop-in → agents with other addresses",
        "kubectl apply -k base, kubectl delete daemonset node-local-dns",
        "waits",
        Promise::Nothing,
    ),
];

/// Queries that processes may have read when they are killed, so many times.
pub const KILLS: usize = 3;
const READ: u64 = (KILLS * Batch::MAX) as u64;
/// Queries that come while a loaded machine ends the processes of a container. Without the rules that steer, a second is lost.
const RECEIVED: u64 = 150;

/// What may be lost on a road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Nothing at either address.
    Nothing,
    /// What killed processes had read and not answered.
    AsRead,
    /// Nothing at the service's address. Nothing else answers at the link-local one while a pod is away.
    Service,
    /// What sockets of a killed container had received.
    AsReceived,
}

impl Promise {
    /// The most queries that may be lost at the service's address, and at the link-local one if that is promised.
    pub fn most(self) -> (u64, Option<u64>) {
        match self {
            Self::Nothing => (0, Some(0)),
            Self::AsRead => (READ, Some(READ)),
            Self::AsReceived => (RECEIVED, Some(RECEIVED)),
            Self::Service => (0, None),
        }
    }

    /// As the page has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::AsRead => "what the process had read",
            Self::Service => "nothing at the service's address",
            Self::AsReceived => "what the container had received",
        }
    }
}

#[test]
fn the_page_says_of_every_road_what_is_walked() {
    let page = yaml::read(&repository("docs/migration.md"));
    let (_, table) = page.split_once("\n## Every road\n").unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let columns = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|column| column.trim().replace('`', "")).collect()
    };
    let told: Vec<Vec<String>> = rows.take_while(|line| line.starts_with('|')).map(columns).collect();
    let told: Vec<[&str; 4]> = told.iter().map(|row| [0, 1, 2, 3].map(|column| row[column].as_str())).collect();
    assert_eq!(told, ROADS.map(|(road, command, rollout, promise)| [road, command, rollout, promise.as_str()]));
}
