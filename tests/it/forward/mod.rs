//! Forwarding, seen from a client, with scripted upstreams and a clock that moves when told.

mod bulk;
mod cache;
mod client;
mod composed;
mod cut;
mod denials;
mod differential;
mod exchange;
mod garbage;
mod health;
mod hostile;
mod https;
mod keep;
mod lookup;
mod loops;
mod loss;
mod manner;
mod poison;
mod policy;
mod process;
mod restarts;
mod search_path;
mod stale;
pub mod tls;
mod worker_cache;
pub mod world;
mod zones;
