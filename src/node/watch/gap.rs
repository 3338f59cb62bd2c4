//! The addresses between the end of a process that had them and the start of an agent that waits for its ports.

use super::super::{Config, Goal, addresses_of, reach, was_set_up};

/// The process that has the addresses, or had them last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nobody,
    /// Another agent of ours, which steers its queries by itself.
    Ours,
    Theirs,
    Gone,
}

/// Touches nothing as long as the process before has the addresses.
#[derive(Debug)]
pub(super) struct Gap {
    before: Before,
    /// Known beforehand: each query of a pod that comes before there are rules is lost.
    can_steer: bool,
}

impl Gap {
    pub(super) fn open(config: &Config) -> Self {
        Self { before: present(config).unwrap_or(Before::Nobody), can_steer: config.can_steer() }
    }

    /// To be called after each removal on the node: queries go to the cluster's DNS from the moment the addresses are gone. True
    /// if they do so from now on.
    pub(super) fn look(&mut self, config: &Config) -> bool {
        if let Some(before) = present(config) {
            self.before = before;
            return false;
        }
        if !self.can_steer || !matches!(self.before, Before::Theirs | Before::Gone) {
            return false;
        }
        // Errors come again, and are told, once this agent has its ports.
        let _ = reach(&rules_of(config), &Goal::Steered);
        std::mem::replace(&mut self.before, Before::Gone) == Before::Theirs
    }

    /// The agent ends without having had its ports.
    pub(super) fn close(self, config: &Config) {
        if self.before == Before::Gone && !was_set_up(config) {
            let _ = reach(&rules_of(config), &Goal::Gone);
        }
    }
}

/// The interface is the other process's.
fn rules_of(config: &Config) -> Config {
    Config { setup_interface: false, ..config.clone() }
}

/// The process whose addresses are on the interface.
fn present(config: &Config) -> Option<Before> {
    let present = addresses_of(&config.interface).unwrap_or_default();
    let mut others = config.local_ips.iter().filter(|ip| !config.failsafe_ips.contains(ip));
    let there = others.all(|ip| present.contains(ip));
    there.then(|| if was_set_up(config) { Before::Ours } else { Before::Theirs })
}
