//! What the fuzz targets share with the property tests.

#[path = "../../tests/it/support/oracle/mod.rs"]
pub mod oracle;
