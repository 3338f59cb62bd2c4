//! Parts of the tests that `world` needs.

#[path = "../../tests/it/support/cluster.rs"]
pub mod cluster;
#[path = "../../tests/it/support/upstream.rs"]
pub mod upstream;
