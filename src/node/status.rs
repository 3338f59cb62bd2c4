//! The node's part of the status document.

use std::sync::Arc;

use super::{Config, watch::Event};
use crate::{
    report::{AddressState, InterfaceStatus, NodeStatus, Time},
    sys::{Clock, FdStore, Lock},
};

/// The status of this process. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Lock<NodeStatus>>);

impl Shared {
    pub fn new(config: &Config) -> Self {
        let deaths = FdStore::inherited().and_then(FdStore::deaths).and_then(|text| serde_json::from_str(text).ok());
        let interface = config.setup_interface.then(|| InterfaceStatus {
            name: config.interface.clone(),
            addresses: config.local_ips.clone(),
            state: AddressState::Waiting,
            since: Time(Clock::System.now()),
            reason: None,
            kept_elsewhere: false,
            keeper: None,
        });
        Self(Arc::new(Lock::new(NodeStatus { deaths, interface })))
    }

    pub fn get(&self) -> NodeStatus {
        self.0.lock().clone()
    }

    /// Takes over the report of a watch.
    pub fn note(&self, event: &Event) {
        let mut status = self.0.lock();
        let Some(interface) = &mut status.interface else { return };
        let (state, reason) = match event {
            Event::Taken => (AddressState::Taken, None),
            Event::Released(reason) => (AddressState::Released, Some(reason.clone())),
            Event::Waiting(reason) => (AddressState::Waiting, Some(reason.clone())),
            Event::Keeps(keeper) => {
                (interface.kept_elsewhere, interface.keeper) = (false, Some(keeper.clone()));
                return;
            }
            Event::KeptBy(keeper) => {
                (interface.kept_elsewhere, interface.keeper) = (true, keeper.clone());
                return;
            }
            _ => return,
        };
        if interface.state != state {
            interface.since = Time(Clock::System.now());
        }
        (interface.state, interface.reason) = (state, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_a_watch_is_shown() {
        let shared = Shared::new(&Config { setup_interface: true, ..Config::default() });
        let state = || shared.get().interface.map(|interface| (interface.state, interface.reason));
        assert_eq!(state(), Some((AddressState::Waiting, None)));
        shared.note(&Event::Waiting("no records".into()));
        assert_eq!(state(), Some((AddressState::Waiting, Some("no records".into()))));
        shared.note(&Event::Taken);
        assert_eq!(state(), Some((AddressState::Taken, None)));
        shared.note(&Event::KeptBy(None));
        shared.note(&Event::Released("no answer for 3s".into()));
        assert_eq!(state(), Some((AddressState::Released, Some("no answer for 3s".into()))));
        assert!(shared.get().interface.unwrap().kept_elsewhere);
        assert_eq!(Shared::new(&Config::default()).get().interface, None);
    }
}
