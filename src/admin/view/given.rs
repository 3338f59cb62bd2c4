//! The forms in which people have a name: from a URL, from an error message, or as kubectl writes it.

use std::net::IpAddr;

/// The name or the address in an argument: `http://web.prod:8080/x`, `web.prod:8080`, `[::1]:53` and `prod/web` are taken, and
/// everything else is left as it is.
pub fn host_of(given: &str) -> String {
    let given = given.trim();
    if given.parse::<IpAddr>().is_ok() {
        return given.to_owned();
    }
    if let Some((_, rest)) = given.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        return without_port(host).to_owned();
    }
    let host = without_port(given);
    match host.split_once('/') {
        Some((namespace, name)) if is_label(namespace) && is_service(name) => format!("{name}.{namespace}"),
        _ => host.to_owned(),
    }
}

fn without_port(host: &str) -> &str {
    if let Some((ip, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return ip;
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.parse::<u16>().is_ok() => name,
        _ => host,
    }
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A name as `namespace/name` has it. A whole name, with its final dot, is none, nor a delegation of RFC 2317
/// (`0/25.2.0.192.in-addr.arpa`).
fn is_service(text: &str) -> bool {
    let is_reverse = text.rsplit('.').next() == Some("arpa");
    text.split('.').all(|label| is_label(label.trim_start_matches('_'))) && !is_reverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_people_have_them() {
        for (given, host) in [
            ("web.prod", "web.prod"),
            ("web.prod.", "web.prod."),
            ("prod/web", "web.prod"),
            ("prod/web:8080", "web.prod"),
            ("prod/_http._tcp.web", "_http._tcp.web.prod"),
            ("web.prod:8080", "web.prod"),
            ("http://web.prod:8080/a/b?c=d:1", "web.prod"),
            ("https://user:secret@web.prod", "web.prod"),
            ("postgres://db.data.svc.cluster.local:5432/orders", "db.data.svc.cluster.local"),
            ("https://[fd00::1]:6443/readyz", "fd00::1"),
            ("[fd00::1]:53", "fd00::1"),
            ("fd00::1", "fd00::1"),
            ("10.96.0.1:443", "10.96.0.1"),
            ("0/25.2.0.192.in-addr.arpa", "0/25.2.0.192.in-addr.arpa"),
            ("prod/web.example.com.", "prod/web.example.com."),
            ("a/b/c", "a/b/c"),
            ("web:http", "web:http"),
        ] {
            assert_eq!(host_of(given), host, "{given}");
        }
    }
}
