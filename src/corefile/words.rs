//! Values as CoreDNS writes them: Go durations, zones, networks as reverse zones, addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::{Error, Token};
use crate::config::Shown;

pub(super) fn number(token: &Token) -> Result<u64, Error> {
    token.text.parse().map_err(|_| Error::at(token.at, format!("{:?} is not a whole number", token.text)))
}

/// A Go duration: `30s`, `1h30m`, `1.5s`, `0`.
pub(super) fn duration(token: &Token) -> Result<Duration, Error> {
    go_duration(&token.text)
        .ok_or_else(|| Error::at(token.at, format!("{:?} is not a duration such as 500ms, 30s or 1h", token.text)))
}

/// As [`duration`], for a text of its own.
pub fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let word = rest.find(|char: char| char.is_ascii_digit() || char == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..word])?;
        seconds += value * unit;
        rest = &rest[word..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// A zone in lower case without its final dot, `.` for the root; of a network, the reverse zones it has.
pub(super) fn zones(token: &Token) -> Result<Vec<String>, Error> {
    let text = token.text.as_str();
    if text.contains('/') {
        let net: IpNet = text.parse().map_err(|_| Error::at(token.at, format!("{text:?} is no network")))?;
        return Ok(reverse_zones(net.trunc()));
    }
    zone(text).map(|zone| vec![zone]).ok_or_else(|| Error::at(token.at, format!("{text:?} is no zone")))
}

/// A zone in lower case without its final dot, `.` for the root.
pub(super) fn zone(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Some(".".into());
    }
    let label = |label: &str| {
        let good = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '*');
        !label.is_empty() && label.len() <= 63 && label.chars().all(good)
    };
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_ascii_lowercase())
}

/// Whether `outer` holds `inner`; both as [`zone`] makes them.
pub(super) fn holds(outer: &str, inner: &str) -> bool {
    outer == "." || inner == outer || inner.strip_suffix(outer).is_some_and(|before| before.ends_with('.'))
}

/// The reverse zones of a network, cut at whole labels as CoreDNS does.
fn reverse_zones(net: IpNet) -> Vec<String> {
    let bits = if net.addr().is_ipv4() { 8 } else { 4 };
    let whole = net.prefix_len().div_ceil(bits) * bits;
    // At most 128 parts: a label has 8 bits at most, and one of them is in the network.
    let parts: Vec<IpNet> = net.subnets(whole).map(|parts| parts.take(256).collect()).unwrap_or_default();
    parts.into_iter().map(|part| reverse_zone(part, bits)).collect()
}

fn reverse_zone(net: IpNet, bits: u8) -> String {
    let labels = usize::from(net.prefix_len() / bits);
    let (octets, suffix) = match net.addr() {
        IpAddr::V4(ip) => (ip.octets().iter().map(u8::to_string).collect::<Vec<_>>(), "in-addr.arpa"),
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            (nibbles.map(|nibble| format!("{nibble:x}")).collect(), "ip6.arpa")
        }
    };
    let mut name: Vec<&str> = octets.iter().take(labels).rev().map(String::as_str).collect();
    name.push(suffix);
    name.join(".")
}

/// `IP`, `IP:port`, `:port` or `localhost:port`, as listeners of health and metrics are written; without an address, `any`.
pub(super) fn listener(token: &Token, any: IpAddr) -> Result<SocketAddr, Error> {
    let text = token.text.as_str();
    let found = text.parse::<SocketAddr>().ok().or_else(|| {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        match host {
            "" => Some(SocketAddr::new(any, port)),
            "localhost" => Some(SocketAddr::from(([127, 0, 0, 1], port))),
            _ => None,
        }
    });
    found.ok_or_else(|| {
        Error::at(token.at, format!("{text:?} is not an address with a port, such as 127.0.0.1:9253 or :9253"))
    })
}

/// A duration as holdfast writes it, at most `most`.
pub(super) fn shown(duration: Duration, most: Duration) -> Shown {
    let duration = duration.min(most);
    let millis = duration.as_millis();
    Shown::Text(if millis.is_multiple_of(1_000) { format!("{}s", millis / 1_000) } else { format!("{millis}ms") })
}

#[expect(clippy::needless_pass_by_value, reason = "numbers, words and references alike")]
pub(super) fn text(word: impl ToString) -> Shown {
    Shown::Text(word.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        Token { text: text.into(), at: super::super::Position { file: 0, line: 3, column: 7 }, starts_line: false }
    }

    #[test]
    fn durations_are_read_as_go_does() {
        for (text, millis) in
            [("30s", 30_000), ("1h30m", 5_400_000), ("1.5s", 1_500), ("250ms", 250), ("0", 0), ("0s", 0)]
        {
            assert_eq!(duration(&token(text)).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "30", "s", "1d", "-1s", "1s ", "1..2s"] {
            assert!(duration(&token(text)).is_err(), "{text:?}");
        }
        assert_eq!(
            duration(&token("5")).unwrap_err().to_string(),
            "3:7: \"5\" is not a duration such as 500ms, 30s or 1h"
        );
    }

    #[test]
    fn networks_are_reverse_zones_cut_at_whole_labels() {
        for (text, expect) in [
            ("10.0.0.0/8", &["10.in-addr.arpa"][..]),
            ("10.96.0.0/15", &["96.10.in-addr.arpa", "97.10.in-addr.arpa"]),
            ("0.0.0.0/0", &["in-addr.arpa"]),
            ("2001:db8::/32", &["8.b.d.0.1.0.0.2.ip6.arpa"]),
            ("fd00::/7", &["c.f.ip6.arpa", "d.f.ip6.arpa"]),
            ("Example.COM.", &["example.com"]),
            (".", &["."]),
        ] {
            assert_eq!(zones(&token(text)).unwrap(), expect, "{text}");
        }
        for text in ["10.0.0.0/33", "a..b", "x/y", "é"] {
            assert!(zones(&token(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_zone_holds_what_ends_in_its_labels() {
        for (outer, inner, expect) in [
            (".", "example", true),
            ("example", "example", true),
            ("example", "www.example", true),
            ("example", "notexample", false),
            ("www.example", "example", false),
            ("example", ".", false),
        ] {
            assert_eq!(holds(outer, inner), expect, "{outer} {inner}");
        }
    }

    #[test]
    fn listeners_are_addresses_with_ports() {
        let any = IpAddr::from([0, 0, 0, 0]);
        for (text, expect) in [
            (":9253", "0.0.0.0:9253"),
            ("localhost:9153", "127.0.0.1:9153"),
            ("[::1]:80", "[::1]:80"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(listener(&token(text), any).unwrap().to_string(), expect);
        }
        for text in ["", "9253", "node:9253", "10.0.0.1", ":x"] {
            assert!(listener(&token(text), any).is_err(), "{text}");
        }
    }
}
