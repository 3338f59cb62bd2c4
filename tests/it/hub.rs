//! Hubs and agents as they are run: an apiserver, hubs that follow it or one another, agents that answer DNS.

mod certificates;
mod cluster_faults;
mod faults;
mod following;
mod freshness;
mod leaders;
mod lease;
mod lines;
mod losses;
mod namesakes;
mod outage;
mod pair;
