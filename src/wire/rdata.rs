//! The data of records.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{NameRef, Rtype};

/// The data of a record.
#[derive(Clone, Copy, Debug)]
pub enum Rdata<'a> {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    /// The name an address points to.
    Ptr(NameRef<'a>),
    /// The name this one is an alias of.
    Cname(NameRef<'a>),
    Ns(NameRef<'a>),
    /// The start of a zone; times in seconds (RFC 1035, 3.3.13; RFC 2308, 4).
    Soa {
        mname: NameRef<'a>,
        rname: NameRef<'a>,
        serial: u32,
        /// How often a secondary checks the serial.
        refresh: u32,
        /// How soon a secondary tries again after a failure.
        retry: u32,
        /// How long a secondary serves without reaching the primary.
        expire: u32,
        /// How long NXDOMAIN and NODATA may be cached.
        minimum: u32,
    },
    /// Where a service is (RFC 2782). The target is written whole as that RFC asks, and compressed only where the set
    /// would not fit otherwise (RFC 3597, 4: receivers take both).
    Srv {
        /// Lower ones are tried first.
        priority: u16,
        /// Share among those of equal priority.
        weight: u16,
        port: u16,
        target: NameRef<'a>,
    },
    /// Strings of up to 255 bytes each.
    Txt(&'a [&'a [u8]]),
    /// Two strings of up to 255 bytes.
    Hinfo {
        /// The machine; `RFC8482` in the answer to ANY.
        cpu: &'a [u8],
        os: &'a [u8],
    },
    /// Anything else, without compressed names in it.
    Raw {
        rtype: Rtype,
        /// Its bytes.
        rdata: &'a [u8],
    },
}

impl Rdata<'_> {
    /// The type of the record.
    #[inline]
    pub const fn rtype(&self) -> Rtype {
        match self {
            Self::A(_) => Rtype::A,
            Self::Aaaa(_) => Rtype::AAAA,
            Self::Ptr(_) => Rtype::PTR,
            Self::Cname(_) => Rtype::CNAME,
            Self::Ns(_) => Rtype::NS,
            Self::Soa { .. } => Rtype::SOA,
            Self::Srv { .. } => Rtype::SRV,
            Self::Txt(_) => Rtype::TXT,
            Self::Hinfo { .. } => Rtype::HINFO,
            Self::Raw { rtype, .. } => *rtype,
        }
    }
}
