//! The node's part: interface, rules, watch, hand-over and rights, on nodes made of network namespaces.

mod confined;
mod failsafe;
mod kubelet;
mod pods;
mod refusals;
pub mod rig;
mod rights;
mod setup;
mod steering;
mod upgrade;
mod watch;
