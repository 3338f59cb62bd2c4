//! The numbers of the guard.

use std::time::Duration;

/// The numbers the guard goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A list may always lack this many services.
    pub list_services_min: usize,
    /// A list may lack this many services in a hundred.
    pub list_percent: u8,
    /// A class of records this large may not become empty in one list.
    pub class_min: usize,
    /// A second list this much later may confirm one.
    pub confirm_after: Duration,
    /// Above this many services in a hundred no list confirms another.
    pub confirm_percent_max: u8,
    /// Two lists agree that differ in this many services in a hundred.
    pub confirm_tolerance_percent: u8,
    /// Fewer deletes than this within the window are never held.
    pub deletes_min: usize,
    /// More deletes than this many services in a hundred within the window are held.
    pub deletes_percent: u8,
    pub deletes_within: Duration,
    /// How long deletes are held before a list may confirm them.
    pub deletes_held_for: Duration,
    /// Fewer services than this deleted with their namespaces are never held.
    pub meant_min: usize,
    /// As many services in a hundred deleted with their namespaces within the window for deletes are held.
    pub meant_percent: u8,
    /// Namespaces whose deletion is always held.
    pub protect: Vec<String>,
    /// Endpoints that go away are held only if they go from more services than this.
    pub losses_services_min: usize,
    /// More endpoints than this many in a hundred that go away within the window are held.
    pub losses_percent: u8,
    pub losses_within: Duration,
    /// How long endpoints are held: pod addresses are used again.
    pub losses_held_for: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            list_services_min: 50,
            list_percent: 2,
            class_min: 20,
            confirm_after: Duration::from_secs(10),
            confirm_percent_max: 20,
            confirm_tolerance_percent: 1,
            deletes_min: 20,
            deletes_percent: 20,
            deletes_within: Duration::from_secs(60),
            deletes_held_for: Duration::from_secs(600),
            meant_min: 50,
            meant_percent: 50,
            protect: vec!["kube-system".to_owned(), "default".to_owned()],
            losses_services_min: 50,
            losses_percent: 30,
            losses_within: Duration::from_secs(30),
            losses_held_for: Duration::from_secs(600),
        }
    }
}

impl Config {
    /// Holds nothing back.
    pub fn off() -> Self {
        Self {
            list_services_min: usize::MAX,
            class_min: usize::MAX,
            deletes_min: usize::MAX,
            meant_min: usize::MAX,
            protect: Vec::new(),
            losses_services_min: usize::MAX,
            ..Self::default()
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.list_services_min == usize::MAX
    }

    pub(super) fn protects(&self, namespace: &str) -> bool {
        self.protect.iter().any(|name| name == namespace)
    }
}
