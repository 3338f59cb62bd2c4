//! Hubs and agents as they are run: an apiserver, hubs that follow it or one another, agents that answer DNS.

mod certificates;
mod clients;
mod cluster_faults;
mod dropped;
mod faults;
mod following;
mod freshness;
mod leaders;
mod lease;
mod liar;
mod lies;
mod lines;
mod losses;
mod missing_files;
mod namesakes;
mod outage;
mod pair;
mod real;
mod taking;
mod trio;
mod verdict;
