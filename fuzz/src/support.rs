//! What `world` needs of the tests.

#[path = "../../tests/it/support/cluster.rs"]
pub mod cluster;
#[path = "../../tests/it/support/upstream.rs"]
pub mod upstream;
