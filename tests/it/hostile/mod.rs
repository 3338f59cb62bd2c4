//! Clients, tenants and upstreams at their worst: each test is one attack, with a bound on what it may cost everybody else.

mod clock;
mod connections;
mod fairness;
mod licences;
mod limits;
mod listeners;
mod sandbox;
mod upstreams;
