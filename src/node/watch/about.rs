//! A watch's description of itself, which other processes of the node read at its seat.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{Event, Mode, seat};
use crate::{
    node::Config,
    report::{AddressState, Keeper, KeeperKind, Time},
    sys::Clock,
};

/// A watch's description of itself, for other processes of the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    pub keeper: Keeper,
    /// The settings it keeps in place.
    pub config: Config,
    /// Where queries to the addresses go; none until that is settled, and of older versions.
    #[serde(default)]
    pub(super) place: Option<Place>,
}

/// Where queries to the addresses go, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    state: AddressState,
    #[serde(default)]
    reason: String,
}

impl Place {
    pub(super) fn of(event: &Event) -> Option<Self> {
        let (state, reason) = match event {
            Event::Taken => (AddressState::Taken, ""),
            Event::Waiting(why) => (AddressState::Waiting, why.as_str()),
            Event::Released(why) => (AddressState::Released, why.as_str()),
            _ => return None,
        };
        Some(Self { state, reason: reason.to_owned() })
    }

    pub(super) fn event(self) -> Event {
        match self.state {
            AddressState::Taken => Event::Taken,
            AddressState::Waiting => Event::Waiting(self.reason),
            AddressState::Released => Event::Released(self.reason),
        }
    }
}

impl About {
    pub(super) fn of(config: &Config, mode: Mode) -> Self {
        let keeper = Keeper {
            kind: if mode == Mode::Resident { KeeperKind::Resident } else { KeeperKind::Agent },
            pid: std::process::id(),
            since: Time(Clock::System.now()),
            interface: config.interface.clone(),
            addresses: config.local_ips.clone(),
            holdfast: env!("CARGO_PKG_VERSION").into(),
        };
        Self { keeper, config: config.clone(), place: None }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// `None` for the text of a version that this one cannot read.
    fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The watches that keep interfaces and rules in this network namespace, whatever container they run in.
pub async fn keepers() -> Vec<About> {
    let mut found = Vec::new();
    for seat in seat::taken() {
        found.extend(seat::about(&seat).await.as_deref().and_then(About::from_json));
    }
    found
}

/// The watch that keeps these addresses; `None` if there is none, or it does not say in time.
pub(super) async fn keeper_of(config: &Config, patience: Duration) -> Option<About> {
    let text = timeout(patience, seat::about(&config.seat())).await.ok()??;
    About::from_json(&text)
}
