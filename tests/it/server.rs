//! The listeners: what holds over UDP and TCP, what each adds, how they count and how they leave.

mod both;
mod cookies;
mod counters;
mod drain;
mod fuzz;
mod tcp;
mod udp;
