//! Code that the fuzz targets share with the tests.

#[path = "../../tests/it/support/oracle/mod.rs"]
pub mod oracle;
pub mod support;
#[path = "../../tests/it/forward/world.rs"]
pub mod world;
