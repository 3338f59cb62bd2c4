//! Holds `wire` to hickory-proto: what one reads, the other reads too, and what we write, hickory reads as meant.
//!
//! Everything is decided by bytes, so that property tests and fuzz targets share it. `check_…` panics where the two
//! differ and no exception is named here.

mod choices;
mod messages;
mod planned;
mod responses;

pub use choices::{Choices, query};
pub use messages::{check_query, check_reader};
pub use responses::check_response;

use hickory_proto::{
    op::Edns,
    rr::rdata::opt::{EdnsCode, EdnsOption},
};

/// The first option of a kind hickory leaves as bytes.
fn option(edns: &Edns, code: EdnsCode) -> Option<&[u8]> {
    match edns.option(code)? {
        EdnsOption::Unknown(_, data) => Some(data),
        other => panic!("{other:?}"),
    }
}
