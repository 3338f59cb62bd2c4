//! Numbers of the protocol (IANA's DNS parameters) with their mnemonics.

use std::{fmt, str::FromStr};

/// Defines a number with named values: the constants, `name()` and `Display` from one list.
macro_rules! numbers {
    ($(#[$doc:meta])* $type:ident($int:ty), $unknown:literal: $($(#[$const_doc:meta])* $const:ident = $value:literal $name:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub $int);

        impl $type {
            $($(#[$const_doc])* pub const $const: Self = Self($value);)*

            /// The mnemonic, if the number is in the list.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($name),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => write!(f, concat!($unknown, "{}"), self.0),
                }
            }
        }
    };
}

numbers! {
    /// Type of a record or of a question (RFC 6895, 3.1).
    Rtype(u16), "TYPE":
    /// IPv4 address.
    A = 1 "A",
    NS = 2 "NS",
    CNAME = 5 "CNAME",
    SOA = 6 "SOA",
    PTR = 12 "PTR",
    /// Host information; the answer to ANY (RFC 8482).
    HINFO = 13 "HINFO",
    MX = 15 "MX",
    TXT = 16 "TXT",
    /// IPv6 address.
    AAAA = 28 "AAAA",
    /// Service location (RFC 2782).
    SRV = 33 "SRV",
    NAPTR = 35 "NAPTR",
    DNAME = 39 "DNAME",
    /// EDNS (RFC 6891); never asked for, never in an answer section.
    OPT = 41 "OPT",
    DS = 43 "DS",
    RRSIG = 46 "RRSIG",
    NSEC = 47 "NSEC",
    DNSKEY = 48 "DNSKEY",
    NSEC3 = 50 "NSEC3",
    TLSA = 52 "TLSA",
    SVCB = 64 "SVCB",
    HTTPS = 65 "HTTPS",
    TKEY = 249 "TKEY",
    TSIG = 250 "TSIG",
    IXFR = 251 "IXFR",
    AXFR = 252 "AXFR",
    MAILB = 253 "MAILB",
    MAILA = 254 "MAILA",
    /// All types (RFC 8482).
    ANY = 255 "ANY",
    /// The authorities that may issue certificates.
    CAA = 257 "CAA",
}

impl Rtype {
    /// True for AXFR and IXFR.
    pub const fn is_transfer(self) -> bool {
        matches!(self, Self::AXFR | Self::IXFR)
    }
}

/// A word that is not a record type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a record type: expected a mnemonic such as AAAA, or TYPE and a number")]
pub struct ParseRtypeError(String);

impl FromStr for Rtype {
    type Err = ParseRtypeError;

    /// Reads a mnemonic or `TYPE65280` (RFC 3597, 5), in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut known = (0..=u16::from(u8::MAX)).chain([Self::CAA.0]).map(Self);
        let is_named = |rtype: &Self| rtype.name().is_some_and(|name| name.eq_ignore_ascii_case(text));
        let by_number = || {
            let (prefix, number) = text.split_at_checked(4)?;
            let plain = number.bytes().all(|byte| byte.is_ascii_digit());
            (prefix.eq_ignore_ascii_case("TYPE") && plain).then(|| number.parse().ok().map(Self))?
        };
        known.find(is_named).or_else(by_number).ok_or_else(|| ParseRtypeError(text.into()))
    }
}

numbers! {
    /// Class of a record or of a question.
    Class(u16), "CLASS":
    IN = 1 "IN",
    CH = 3 "CH",
    HS = 4 "HS",
    /// None (RFC 2136).
    NONE = 254 "NONE",
    ANY = 255 "ANY",
}

numbers! {
    /// Kind of request; four bits (RFC 1035, 4.1.1).
    Opcode(u8), "OPCODE":
    QUERY = 0 "QUERY",
    IQUERY = 1 "IQUERY",
    /// Server status, never defined.
    STATUS = 2 "STATUS",
    /// A zone changed (RFC 1996).
    NOTIFY = 4 "NOTIFY",
    /// Dynamic update (RFC 2136).
    UPDATE = 5 "UPDATE",
    /// Stateful operations (RFC 8490).
    DSO = 6 "DSO",
}

numbers! {
    /// The result of a request: four bits in the header, eight more in an OPT record.
    Rcode(u16), "RCODE":
    NOERROR = 0 "NOERROR",
    FORMERR = 1 "FORMERR",
    /// The server failed to get an answer.
    SERVFAIL = 2 "SERVFAIL",
    /// The name does not exist.
    NXDOMAIN = 3 "NXDOMAIN",
    /// The opcode is not implemented.
    NOTIMP = 4 "NOTIMP",
    REFUSED = 5 "REFUSED",
    /// The name exists and should not (RFC 2136).
    YXDOMAIN = 6 "YXDOMAIN",
    /// The set exists and should not (RFC 2136).
    YXRRSET = 7 "YXRRSET",
    /// The set should exist and does not (RFC 2136).
    NXRRSET = 8 "NXRRSET",
    /// Not authoritative, or not authorized.
    NOTAUTH = 9 "NOTAUTH",
    /// The name is not in the zone (RFC 2136).
    NOTZONE = 10 "NOTZONE",
    /// The EDNS version is not supported (RFC 6891).
    BADVERS = 16 "BADVERS",
    /// The server cookie is missing or wrong (RFC 7873).
    BADCOOKIE = 23 "BADCOOKIE",
}

numbers! {
    /// Info code of an extended DNS error (RFC 8914, 4).
    EdeCode(u16), "EDE":
    /// None of the others.
    OTHER = 0 "Other",
    /// The data are older than their TTL allows.
    STALE_ANSWER = 3 "Stale Answer",
    /// An answer made up by policy.
    FORGED_ANSWER = 4 "Forged Answer",
    /// The answer did not validate.
    DNSSEC_BOGUS = 6 "DNSSEC Bogus",
    /// A failure answered from the cache.
    CACHED_ERROR = 13 "Cached Error",
    /// The server has no data of the zone yet.
    NOT_READY = 14 "Not Ready",
    BLOCKED = 15 "Blocked",
    FILTERED = 17 "Filtered",
    PROHIBITED = 18 "Prohibited",
    STALE_NXDOMAIN_ANSWER = 19 "Stale NXDOMAIN Answer",
    /// The server is not authoritative for the name.
    NOT_AUTHORITATIVE = 20 "Not Authoritative",
    /// The operation or type is not supported.
    NOT_SUPPORTED = 21 "Not Supported",
    /// No upstream could be reached.
    NO_REACHABLE_AUTHORITY = 22 "No Reachable Authority",
    /// The network failed on the way to an upstream.
    NETWORK_ERROR = 23 "Network Error",
    /// An upstream sent an invalid response.
    INVALID_DATA = 24 "Invalid Data",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_they_are_shown() {
        for number in 0..=u16::MAX {
            let rtype = Rtype(number);
            assert_eq!(rtype.to_string().parse(), Ok(rtype));
        }
    }

    #[test]
    fn types_are_read_in_any_case_and_by_number() {
        let cases = [("a", Rtype::A), ("Aaaa", Rtype::AAAA), ("type1", Rtype::A), ("TYPE65280", Rtype(65280))];
        for (text, rtype) in cases {
            assert_eq!(text.parse(), Ok(rtype), "{text}");
        }
        for text in ["", "TYPE", "TYPE65536", "TYPE+1", "AA", "1", "ÄÖ"] {
            let error = text.parse::<Rtype>().unwrap_err();
            assert_eq!(error, ParseRtypeError(text.into()));
        }
    }

    #[test]
    fn unknown_numbers_show_as_numbers() {
        assert_eq!(Class(7).to_string(), "CLASS7");
        assert_eq!(Rcode(3841).to_string(), "RCODE3841");
        assert_eq!(Rcode::NXDOMAIN.to_string(), "NXDOMAIN");
    }

    #[test]
    fn meta_types_are_no_records() {}
}
