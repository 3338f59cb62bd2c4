//! Parts of the tests that `world` and the targets need.

#[path = "../../tests/it/support/certificate.rs"]
pub mod certificate;
#[path = "../../tests/it/support/cluster.rs"]
pub mod cluster;
#[path = "../../tests/it/support/upstream.rs"]
pub mod upstream;
