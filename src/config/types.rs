//! The types settings have: durations, sizes, addresses, names and words.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use super::value::Scalar;
use crate::sys;

/// Implements [`Scalar`] for types that are read by `FromStr`: those of a few words, or, behind how they are written, those named with their
/// kind.
macro_rules! scalars {
    ($write:expr; $($name:ident: $kind:expr),+ $(,)?) => { $(
        impl Scalar for $name {
            const KIND: &'static str = $kind;

            fn parse(text: &str) -> Result<Self, String> {
                text.parse()
            }

            fn text(&self) -> String {
                let write: fn(&Self) -> String = $write;
                write(self)
            }
        }
    )+ };
    ($($name:ident),+ $(,)?) => { scalars!(|word| word.as_str().into(); $($name: <$name>::WORDS),+); };
}

mod guard;
mod local;
mod names;
mod node;
mod words;

pub use guard::{KeepList, Network};
pub use names::{HostPort, ZoneName};
pub use node::InterfaceName;
pub use words::{LogFormat, Tls};

pub use crate::zone::Compat;

impl Scalar for bool {
    const KIND: &'static str = "bool";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" | "on" | "yes" => Ok(true),
            "false" | "off" | "no" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        }
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_number {
    ($($type:ty),+) => { $(
        impl Scalar for $type {
            const KIND: &'static str = "number";

            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("{text:?} is not a whole number from {} to {}", Self::MIN, Self::MAX))
            }

            fn text(&self) -> String {
                self.to_string()
            }

            fn measure(&self) -> Option<u128> {
                u128::try_from(*self).ok()
            }
        }
    )+ };
}
whole_number!(u8, u32, usize);

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Milliseconds are the finest unit.
impl Scalar for Duration {
    const KIND: &'static str = "duration";

    fn parse(text: &str) -> Result<Self, String> {
        let fail = || format!("{text:?} is not a duration such as 250ms, 5s, 1m30s, 12h or 30d");
        if text == "0" {
            return Ok(Self::ZERO);
        }
        let mut rest = text;
        let mut total = 0_u64;
        let mut smallest = u64::MAX;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fail)?;
            let number: u64 = rest[..digits].parse().map_err(|_| fail())?;
            rest = &rest[digits..];
            let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..word]).ok_or_else(fail)?;
            if *unit >= smallest {
                return Err(fail());
            }
            smallest = *unit;
            rest = &rest[word..];
            total = number.checked_mul(*unit).and_then(|part| total.checked_add(part)).ok_or_else(fail)?;
        }
        if text.is_empty() { Err(fail()) } else { Ok(Self::from_millis(total)) }
    }

    fn text(&self) -> String {
        let mut rest = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return "0s".into();
        }
        if rest < 60_000 && !rest.is_multiple_of(1_000) {
            return format!("{rest}ms");
        }
        let mut text = String::new();
        for (name, unit) in UNITS {
            if rest >= unit {
                let _ = write!(text, "{}{name}", rest / unit);
                rest %= unit;
            }
        }
        text
    }

    fn measure(&self) -> Option<u128> {
        Some(self.as_millis())
    }
}

/// A number of bytes, written with a binary unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const BINARY: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Scalar for Bytes {
    const KIND: &'static str = "size";

    fn parse(text: &str) -> Result<Self, String> {
        let fail = || format!("{text:?} is not a size such as 512KiB, 64MiB or 1GiB");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| fail())?;
        let unit = match text[digits..].trim_start() {
            "" => 1,
            word => BINARY.iter().find(|(name, _)| *name == word).ok_or_else(fail)?.1,
        };
        number.checked_mul(unit).map(Self).ok_or_else(fail)
    }

    fn text(&self) -> String {
        let (name, unit) =
            BINARY.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit)).unwrap_or(&("B", 1));
        format!("{}{name}", self.0 / unit)
    }

    fn measure(&self) -> Option<u128> {
        Some(self.0.into())
    }
}

/// An address to listen on, with the port it has when none is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addr<const PORT: u16>(pub SocketAddr);

impl<const PORT: u16> Scalar for Addr<PORT> {
    const KIND: &'static str = "IP[:PORT]";

    fn parse(text: &str) -> Result<Self, String> {
        sys::parse_address(text, PORT).map(Self).ok_or_else(|| {
            format!("{text:?} is not an address such as 127.0.0.1:{PORT} or [::1]:{PORT}; names are not looked up here")
        })
    }

    fn text(&self) -> String {
        self.0.to_string()
    }
}

impl Scalar for IpAddr {
    const KIND: &'static str = "IP";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not an IP address such as 169.254.20.10 or fd00::10"))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Scalar for IpNet {
    const KIND: &'static str = "CIDR";

    fn parse(text: &str) -> Result<Self, String> {
        let net: Self =
            text.parse().map_err(|_| format!("{text:?} is not a CIDR such as 10.96.0.0/12 or fd00::/112"))?;
        if net == net.trunc() {
            Ok(net)
        } else {
            Err(format!("{text:?} has address bits below its mask: {} is the network", net.trunc()))
        }
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Scalar for PathBuf {
    const KIND: &'static str = "path";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path cannot be empty".into()) } else { Ok(text.into()) }
    }

    fn text(&self) -> String {
        self.display().to_string()
    }
}

impl Scalar for String {
    const KIND: &'static str = "text";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn text(&self) -> String {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<T: Scalar>(text: &str) -> Result<String, String> {
        T::parse(text).map(|value| value.text())
    }

    #[test]
    fn durations_read_and_show_the_same() {
        for (text, expect) in [
            ("5s", "5s"),
            ("250ms", "250ms"),
            ("1m30s", "1m30s"),
            ("90s", "1m30s"),
            ("24h", "1d"),
            ("1s800ms", "1800ms"),
            ("0", "0s"),
            ("0s", "0s"),
        ] {
            assert_eq!(shown::<Duration>(text).unwrap(), expect, "{text}");
            assert_eq!(shown::<Duration>(expect).unwrap(), expect, "{expect}");
        }
        for text in ["", "5", "s", "5 s", "-1s", "1.5s", "5s5s", "5s1m", "5x", "99999999999999999999s", "ffffs", "é"] {
            assert!(Duration::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_read_and_show_the_same() {
        for (text, expect) in [("64MiB", "64MiB"), ("1024", "1KiB"), ("1025", "1025B"), ("0", "0B"), ("2 GiB", "2GiB")]
        {
            assert_eq!(shown::<Bytes>(text).unwrap(), expect, "{text}");
        }
        for text in ["", "MiB", "64M", "64mib", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(Bytes::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn addresses_get_their_default_port() {
        for (text, expect) in [
            ("127.0.0.1", "127.0.0.1:53"),
            ("127.0.0.1:5353", "127.0.0.1:5353"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[::1]:54", "[::1]:54"),
            ("fe80::1%lo", "[fe80::1%1]:53"),
        ] {
            assert_eq!(shown::<Addr<53>>(text).unwrap(), expect, "{text}");
        }
        for text in ["", ":53", "localhost:53", "127.0.0.1:", "127.0.0.1:99999", "1.2.3", "[::1", "::1]:53"] {
            assert!(Addr::<53>::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_network_has_no_host_bits() {
        assert_eq!(shown::<IpNet>("10.96.0.0/12").unwrap(), "10.96.0.0/12");
        assert_eq!(
            shown::<IpNet>("10.96.0.1/12").unwrap_err(),
            "\"10.96.0.1/12\" has address bits below its mask: 10.96.0.0/12 is the network"
        );
        assert!(IpNet::parse("10.96.0.0").is_err());
    }
}
