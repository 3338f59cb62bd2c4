//! The rows of the node: where queries to its addresses go, which process keeps them there, and deaths of the answering process.

use std::time::Duration;

use crate::report::{AddressState, Deaths, InterfaceStatus, NodeStatus, Time, words};

/// The first row of `status` names the row of deaths after a death as recent as this.
const RECENT: Duration = Duration::from_secs(3600);

/// Whether the cluster's DNS answers at the addresses. Right after a start this is not known.
pub(super) fn is_elsewhere(node: &NodeStatus) -> bool {
    node.interface.as_ref().is_some_and(|interface| match interface.state {
        AddressState::Taken => false,
        AddressState::Waiting => interface.reason.is_some(),
        AddressState::Released => true,
    })
}

pub(super) fn died_lately(node: &NodeStatus, now: Time) -> bool {
    node.deaths.as_ref().is_some_and(|deaths| deaths.last_at.0.age(now.0) < RECENT)
}

pub(super) fn interface(interface: &InterfaceStatus, now: Time) -> String {
    let InterfaceStatus { name, addresses, state, since, reason, kept_elsewhere, keeper } = interface;
    let ips: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let (ips, since) = (ips.join(", "), since.lasting(now));
    let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let state = match state {
        AddressState::Taken => format!("{ips} answered here for {since}"),
        AddressState::Waiting if reason.is_empty() => {
            format!("{ips} not taken yet for {since}: the process or the DNS that answered there before still does")
        }
        AddressState::Waiting => format!("{ips} NOT TAKEN for {since}, the cluster's DNS answers{reason}"),
        AddressState::Released => format!("{ips} GIVEN TO THE CLUSTER'S DNS for {since}{reason}"),
    };
    let keeper = match keeper {
        Some(keeper) => format!("; {name} is kept by {}", keeper.words(now)),
        None if *kept_elsewhere => format!("; {name} is kept by another process"),
        None => String::new(),
    };
    format!("{state}{keeper}")
}

pub(super) fn deaths(deaths: &Deaths, now: Time) -> String {
    let error = deaths.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    let times = if deaths.count == 1 { "once".to_owned() } else { format!("{} times", deaths.count) };
    let ago = words(deaths.last_at.0.age(now.0));
    format!("the answering process died {times} and was started again; {ago} ago it {}{error}", deaths.how)
}
