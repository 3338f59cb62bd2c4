//! The node's part of the status document.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Config, parent::Deaths, watch::Event};
use crate::sys::{Clock, FdStore, Lock};

/// Where the addresses of the node are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not taken yet: this agent cannot answer as well as the cluster's DNS does.
    #[default]
    Waiting,
    /// Queries to all of them are answered here.
    Taken,
    /// Given to the cluster's DNS, as nothing was answered here.
    Released,
}

/// The interface and its addresses, of an agent that sets them up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub state: State,
    /// Unix time since when it is so, in milliseconds.
    pub since_ms: u64,
    /// Why it is not [`State::Taken`].
    pub reason: Option<String>,
    /// Interface and rules are kept by the watch of another process.
    pub kept_elsewhere: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the answering process, under the same parent.
    pub deaths: Option<Deaths>,
    pub interface: Option<Interface>,
}

/// The status of this process. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Lock<Status>>);

impl Shared {
    pub fn new(config: &Config) -> Self {
        let deaths = FdStore::inherited().and_then(FdStore::deaths).and_then(|text| serde_json::from_str(text).ok());
        let interface = config.setup_interface.then(|| Interface {
            name: config.interface.clone(),
            addresses: config.local_ips.clone(),
            state: State::Waiting,
            since_ms: Clock::System.now().0,
            reason: None,
            kept_elsewhere: false,
        });
        Self(Arc::new(Lock::new(Status { deaths, interface })))
    }

    pub fn get(&self) -> Status {
        self.0.lock().clone()
    }

    /// Takes over what a watch says.
    pub fn note(&self, event: &Event) {
        let mut status = self.0.lock();
        let Some(interface) = &mut status.interface else { return };
        let (state, reason) = match event {
            Event::Taken => (State::Taken, None),
            Event::Released(reason) => (State::Released, Some(reason.clone())),
            Event::Waiting(reason) => (State::Waiting, Some(reason.clone())),
            Event::Keeps(here) => {
                interface.kept_elsewhere = !here;
                return;
            }
            _ => return,
        };
        if interface.state != state {
            interface.since_ms = Clock::System.now().0;
        }
        (interface.state, interface.reason) = (state, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_watch_says_is_shown() {
        let shared = Shared::new(&Config { setup_interface: true, ..Config::default() });
        let state = || shared.get().interface.map(|interface| (interface.state, interface.reason));
        assert_eq!(state(), Some((State::Waiting, None)));
        shared.note(&Event::Waiting("no records".into()));
        assert_eq!(state(), Some((State::Waiting, Some("no records".into()))));
        shared.note(&Event::Taken);
        assert_eq!(state(), Some((State::Taken, None)));
        shared.note(&Event::Keeps(false));
        shared.note(&Event::Released("no answer for 3s".into()));
        assert_eq!(state(), Some((State::Released, Some("no answer for 3s".into()))));
        assert!(shared.get().interface.unwrap().kept_elsewhere);
        assert_eq!(Shared::new(&Config::default()).get().interface, None);
    }
}
