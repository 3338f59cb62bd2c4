//! What the bench shares with the tests: the scripted apiserver, processes, and roles in this process.

#[allow(unused_imports, reason = "the tests use more of it")]
#[path = "../../tests/it/support/apiserver/mod.rs"]
pub mod apiserver;
#[path = "../../tests/it/support/fleet.rs"]
pub mod fleet;
#[path = "../../tests/it/support/process.rs"]
pub mod process;
