//! The messages between a watch and the agent that started it: JSON, one a line. Both are the same program.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use crate::{node::ErrorType, report::Keeper};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first setup is done, as far as it could be.
    Ready,
    Info(String),
    /// Something was not as it should be.
    Warn(String),
    /// Something could not be set up.
    Error(ErrorType, String),
    /// The addresses are not taken, as queries would be answered worse than without this agent; why.
    Waiting(String),
    /// The failsafe has given the addresses to the cluster's DNS; why.
    Released(String),
    /// Queries to the addresses are answered here.
    Taken,
    /// This watch keeps interface and rules.
    Keeps(Keeper),
    /// Another watch keeps them, which may not say more.
    KeptBy(Option<Keeper>),
    /// The watch died, and another one is started.
    Died(String),
    /// The watch ends: a newer process has it.
    Left,
}

impl Event {
    /// Logs an event that an operator would act on. [`Ready`](Self::Ready) and [`Left`](Self::Left) mean something else to each
    /// receiver, which logs them itself.
    pub fn log(&self) {
        match self {
            Self::Ready | Self::Left | Self::Keeps(_) | Self::KeptBy(_) => {}
            Self::Info(text) => info!("node {text}"),
            Self::Warn(text) => warn!("node {text}"),
            Self::Error(kind, error) => error!(kind = kind.as_str(), error, "a part of the node is not set up"),
            Self::Waiting(why) => warn!(why, "addresses not taken: they stay with the cluster's DNS"),
            Self::Released(why) => error!(why, "failsafe: queries go to the cluster's DNS"),
            Self::Taken => info!("queries to the node's addresses are answered here"),
            Self::Died(how) => error!(how, "the node watch died: it is started again"),
        }
    }
}

/// An order of the agent to the watch that it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The ports are bound: set up the node, and take the addresses once queries are answered.
    Begin,
    /// End; everything stays as it is.
    Leave,
    /// End; the addresses of the failsafe go to the cluster's DNS.
    Release,
    /// End; interface and rules are removed.
    Teardown,
    /// End; the rules are removed, and the addresses but these, at which another process listens.
    Yield(Vec<IpAddr>),
}

/// An event or order as a line, without its end.
#[must_use]
pub fn to_line(message: &impl Serialize) -> String {
    // Words, numbers and addresses are JSON.
    serde_json::to_string(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::{KeeperKind, Time},
        sys::UnixMillis,
    };

    #[test]
    fn events_and_orders_read_back_as_written() {
        let keeper = Keeper {
            kind: KeeperKind::Resident,
            pid: 42,
            since: Time(UnixMillis(1)),
            interface: "nodelocaldns".into(),
            addresses: vec!["169.254.20.10".parse().unwrap()],
            holdfast: "0.1.0".into(),
        };
        for event in [
            Event::Ready,
            Event::Info("set up: address ::1:\nmissing".into()),
            Event::Warn(String::new()),
            Event::Error(ErrorType::Address, "a b".into()),
            Event::Waiting("no records".into()),
            Event::Released("no answer for 3s".into()),
            Event::Taken,
            Event::Keeps(keeper.clone()),
            Event::KeptBy(Some(keeper)),
            Event::KeptBy(None),
            Event::Died("signal: 9".into()),
            Event::Left,
        ] {
            let line = to_line(&event);
            assert!(!line.is_empty() && !line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
        let kept = vec!["169.254.20.10".parse().unwrap(), "fd00::10".parse().unwrap()];
        for order in [Order::Begin, Order::Leave, Order::Release, Order::Teardown, Order::Yield(kept)] {
            assert_eq!(serde_json::from_str::<Order>(&to_line(&order)).unwrap(), order);
        }
    }
}
