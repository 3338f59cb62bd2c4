//! Addresses with a port as people write them, scopes of link-local ones included.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

/// Longest name of an interface (`IFNAMSIZ` without its zero byte).
const INTERFACE_BYTES_MAX: usize = 15;

/// Reads `IP`, `[IPv6]`, `IP:port` or `[IPv6]:port`; without a port it is `port`. An IPv6 address may have a scope: `%eth0`
/// or `%2` (RFC 4007, 11). The scope of an interface that is not there becomes 0: packets to it fail until the text is read
/// again.
pub fn parse_address(text: &str, port: u16) -> Option<SocketAddr> {
    let (whole, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (bare, behind) = rest.split_once(']')?;
            let own = if behind.is_empty() { Some(port) } else { behind.strip_prefix(':')?.parse().ok() };
            (bare, own?)
        }
        None => (text, port),
    };
    let Some((bare, scope)) = whole.split_once('%') else {
        let alone = whole.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port));
        return alone.or_else(|| text.parse().ok());
    };
    let ip: Ipv6Addr = bare.parse().ok()?;
    Some(SocketAddrV6::new(ip, port, 0, scope_id(scope)?).into())
}

/// The number of a scope: given as such, or that of an interface. `None` if it cannot be the name of one.
fn scope_id(scope: &str) -> Option<u32> {
    if scope.bytes().all(|byte| byte.is_ascii_digit()) {
        return scope.parse().ok();
    }
    let fits =
        scope.len() <= INTERFACE_BYTES_MAX && !scope.bytes().any(|byte| byte == b'/' || !byte.is_ascii_graphic());
    let name = CString::new(scope).ok().filter(|_| fits)?;
    // SAFETY: the name ends with a zero byte and outlives the call, which only reads it.
    Some(unsafe { libc::if_nametoindex(name.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_read() {
        let cases = [
            ("10.0.0.1", "10.0.0.1:53"),
            ("10.0.0.1:5300", "10.0.0.1:5300"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5300", "[2001:db8::1]:5300"),
            ("fe80::1%7", "[fe80::1%7]:53"),
            ("[fe80::1%7]", "[fe80::1%7]:53"),
            ("[fe80::1%7]:5300", "[fe80::1%7]:5300"),
            ("fe80::1%lo", "[fe80::1%1]:53"),
            ("[fe80::1%lo]:5300", "[fe80::1%1]:5300"),
            ("fe80::1%not-there-yet", "[fe80::1]:53"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_address(text, 53).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_address_is_none() {
        for text in [
            "",
            "%",
            "fe80::1%",
            "fe80::1%a/b",
            "fe80::1%a b",
            "fe80::1%sixteen-bytes-xx",
            "10.0.0.1%lo",
            "fe80::1%99999999999",
            "[fe80::1%lo",
            "[fe80::1%lo]53",
            "[fe80::1]:x",
            "dns.example",
        ] {
            assert_eq!(parse_address(text, 53), None, "{text}");
        }
    }
}
