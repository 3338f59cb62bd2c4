//! What a watch and the agent that started it say to each other, a line each.

use tracing::{error, info, warn};

use crate::node::ErrorType;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first setup is done, as far as it could be.
    Ready,
    Info(String),
    /// Something was not as it should be.
    Warn(String),
    /// Something could not be set up.
    Error(ErrorType, String),
    /// Nothing is answered: the addresses of the failsafe are the cluster's again.
    Released,
    /// There are answers again, and the addresses are ours.
    Taken,
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
            Self::Released => "released".to_owned(),
            Self::Taken => "taken".to_owned(),
            Self::Died(text) => format!("died {text}"),
            Self::Left => "left".to_owned(),
        };
        line.replace('\n', " ")
    }

    /// Logs it, if it is one an operator would act on: [`Ready`](Self::Ready) and [`Left`](Self::Left) mean to each who hears
    /// them something else.
    pub fn log(&self) {
        match self {
            Self::Ready | Self::Left => {}
            Self::Info(text) => info!("node {text}"),
            Self::Warn(text) => warn!("node {text}"),
            Self::Error(kind, error) => error!(kind = kind.as_str(), error, "a part of the node is not set up"),
            Self::Released => error!("nothing is answered: the cluster's DNS has its address back"),
            Self::Taken => info!("there are answers again: the cluster's DNS address is taken"),
            Self::Died(how) => error!(how, "the watch over interface and rules died"),
        }
    }

    /// What a line says; `None` for one that says nothing we know.
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
            "released" => Self::Released,
            "taken" => Self::Taken,
            "died" => Self::Died(rest.to_owned()),
            "left" => Self::Left,
            _ => return None,
        })
    }
}

/// How a watch is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Everything stays as it is.
    Leave,
    /// The addresses of the failsafe go back to the cluster's DNS.
    Release,
    /// Interface and rules are removed.
    Teardown,
}

impl Order {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leave => "leave",
            Self::Release => "release",
            Self::Teardown => "teardown",
        }
    }

    pub(super) fn from_line(line: &str) -> Option<Self> {
        [Self::Leave, Self::Release, Self::Teardown].into_iter().find(|order| order.as_str() == line.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for event in [
            Event::Ready,
            Event::Info("set up: address ::1: missing".into()),
            Event::Warn(String::new()),
            Event::Error(ErrorType::Address, "a b".into()),
            Event::Released,
            Event::Taken,
            Event::Died("signal: 9".into()),
            Event::Left,
        ] {
            assert_eq!(Event::from_line(&event.to_line()), Some(event));
        }
        assert_eq!(Event::Info("a\nb".into()).to_line(), "info a b");
        for line in ["", "no", "error", "error address", "error nothing x"] {
            assert_eq!(Event::from_line(line), None, "{line}");
        }
        for order in [Order::Leave, Order::Release, Order::Teardown] {
            assert_eq!(Order::from_line(&format!("{}\n", order.as_str())), Some(order));
        }
    }
}
