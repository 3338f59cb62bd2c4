//! Forwarding, seen from a client, with scripted upstreams and a clock that moves when told.

mod cache;
mod client;
mod differential;
mod exchange;
mod health;
mod hostile;
mod tls;
mod world;
