//! The messages between a watch and the agent that started it, one a line.

use std::net::IpAddr;

use tracing::{error, info, warn};

use crate::{node::ErrorType, report::Keeper};

#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The line for it, without its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let line = match self {
            Self::Ready => "ready".to_owned(),
            Self::Info(text) => format!("info {text}"),
            Self::Warn(text) => format!("warn {text}"),
            Self::Error(kind, text) => format!("error {} {text}", kind.as_str()),
            Self::Waiting(why) => format!("waiting {why}"),
            Self::Released(why) => format!("released {why}"),
            Self::Keeps(keeper) => format!("keeps {}", to_json(keeper)),
            Self::KeptBy(keeper) => format!("kept {}", keeper.as_ref().map(to_json).unwrap_or_default()),
            Self::Taken => "taken".to_owned(),
            Self::Died(text) => format!("died {text}"),
            Self::Left => "left".to_owned(),
        };
        line.replace('\n', " ")
    }

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

    /// The event of a line; `None` for an unknown line.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "ready" => Self::Ready,
            "info" => Self::Info(rest.to_owned()),
            "warn" => Self::Warn(rest.to_owned()),
            "error" => {
                let (kind, text) = rest.split_once(' ')?;
                Self::Error(ErrorType::from_word(kind)?, text.to_owned())
            }
            "waiting" => Self::Waiting(rest.to_owned()),
            "released" => Self::Released(rest.to_owned()),
            "keeps" => Self::Keeps(serde_json::from_str(rest).ok()?),
            "kept" => Self::KeptBy(serde_json::from_str(rest).ok()),
            "taken" => Self::Taken,
            "died" => Self::Died(rest.to_owned()),
            "left" => Self::Left,
            _ => return None,
        })
    }
}

fn to_json(keeper: &Keeper) -> String {
    // Numbers, words and addresses are JSON.
    serde_json::to_string(keeper).unwrap_or_default()
}

/// An order of the agent to the watch that it started.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Order {
    pub fn to_line(&self) -> String {
        match self {
            Self::Begin => "begin".into(),
            Self::Leave => "leave".into(),
            Self::Release => "release".into(),
            Self::Teardown => "teardown".into(),
            Self::Yield(kept) => {
                let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
                format!("yield {}", kept.join(","))
            }
        }
    }

    pub(super) fn from_line(line: &str) -> Option<Self> {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        Some(match word {
            "begin" => Self::Begin,
            "leave" => Self::Leave,
            "release" => Self::Release,
            "teardown" => Self::Teardown,
            "yield" => Self::Yield(rest.split(',').filter_map(|ip| ip.parse().ok()).collect()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::{KeeperKind, Time},
        sys::UnixMillis,
    };

    #[test]
    fn what_is_said_is_understood() {
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
            Event::Info("set up: address ::1: missing".into()),
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
            assert_eq!(Event::from_line(&event.to_line()), Some(event));
        }
        assert_eq!(Event::Info("a\nb".into()).to_line(), "info a b");
        for line in ["", "no", "error", "error address", "error nothing x", "keeps"] {
            assert_eq!(Event::from_line(line), None, "{line}");
        }
        let kept = vec!["169.254.20.10".parse().unwrap(), "fd00::10".parse().unwrap()];
        for order in [Order::Begin, Order::Leave, Order::Release, Order::Teardown, Order::Yield(kept)] {
            assert_eq!(Order::from_line(&format!("{}\n", order.to_line())), Some(order));
        }
        assert_eq!(Order::from_line("fly"), None);
    }
}
