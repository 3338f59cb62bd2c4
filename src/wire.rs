//! DNS messages as bytes: the query parser, the response writer and a reader of upstreams' messages.
//!
//! Owns the wire format as far as the hot path needs it. Never allocates, never does I/O, knows no zone and no
//! record store; code off the hot path (upstream exchange, tools) may use hickory-proto instead, which is also the
//! oracle of the tests here.
//!
//! ```
//! use holdfast::wire::{self, NameRef, Parsed, Rcode, Rdata, ResponseWriter, Section};
//!
//! # let message = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x04prod\x00\x00\x01\x00\x01";
//! let mut buf = [0; wire::UDP_BYTES_MAX];
//! let len = match wire::parse(message) {
//!     Parsed::Drop(_) => return,
//!     Parsed::Reject(reject) => wire::write_reject(&reject, &mut buf),
//!     Parsed::Query(query) => {
//!         let mut writer = ResponseWriter::new(&mut buf, &query, query.udp_limit());
//!         // Of a set that does not fit, the records that fit stay, and `finish` sets TC.
//!         let _ = writer.rrset(Section::Answer, |set| {
//!             set.put(NameRef::QUESTION, 5, Rdata::A([10, 0, 0, 1].into()))?;
//!             set.put(NameRef::QUESTION, 5, Rdata::A([10, 0, 0, 2].into()))
//!         });
//!         writer.finish(Rcode::NOERROR, true, None)
//!     }
//! };
//! # assert_eq!(len, 12 + 13 + 2 * 16);
//! ```

mod code;
mod compress;
mod edns;
mod flat;
mod name;
mod parts;
mod prepared;
mod query;
mod rdata;
mod reader;
mod reject;
mod response;

pub use code::{Class, EdeCode, Opcode, ParseRtypeError, Rcode, Rtype};
pub use edns::{Cookie, Ede};
pub use flat::NameError;
pub use name::{Labels, Name};
pub use parts::{NameRef, Tail};
pub use prepared::{Prepared, write_prepared};
pub use query::{DropReason, Edns, NoQuery, Parsed, Query, parse};
pub use rdata::Rdata;
pub use reader::{Message, NameAt, ReadError, Record, Records};
pub use reject::{Reject, write_query, write_reject, write_truncated};
pub use response::{ResponseWriter, Rrset, WriteError};

/// Bytes of a message header (RFC 1035, 4.1.1).
pub const HEADER_BYTES: usize = 12;

/// Bytes that every client accepts over UDP: minimum length of an answer buffer (RFC 1035, 2.3.4).
pub const UDP_BYTES_MIN: usize = 512;

/// Maximum bytes sent over UDP, also announced in OPT records: no link fragments such an IPv6 packet (RFC 9715).
pub const UDP_BYTES_MAX: usize = 1232;

/// Maximum of a two-byte length prefix (RFC 1035, 4.2.2).
pub const TCP_BYTES_MAX: usize = 65_535;

/// A section of a message, in the order they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    Answer,
    /// The SOA of negative answers, the NS of referrals.
    Authority,
    /// Additional records; left out where they do not fit.
    Additional,
}
