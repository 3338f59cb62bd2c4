//! The guard from the apiserver to the agents: what is done to a cluster, and what every hub and agent serves and holds then.
//!
//! The scripted apiserver and the source that follows it are real, over sockets; the hubs and agents are their stores, which
//! hand each other the frames of the stream. The wall clock is set by hand, so that no test waits for time to pass.

mod ordinary;
mod outages;
mod world;
