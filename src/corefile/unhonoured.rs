//! Directives that do nothing here, and why.

use super::{Directive, Weight, findings::Findings};

/// Directives of CoreDNS that answers do not depend on here, and what is done instead.
pub(super) const MANNER: [(&str, &str); 8] = [
    ("cancel", "a question to upstreams takes upstream_timeout at most"),
    ("chaos", "questions of class CH are refused"),
    ("metadata", "there is nobody here to read it"),
    ("multisocket", "there is a socket for each worker, always"),
    ("nsid", "no name of a server is told (RFC 5001)"),
    ("pprof", "there is no profiler in here"),
    ("root", "paths are taken as they are written"),
    ("trace", "questions are not traced"),
];

/// Directives of CoreDNS that do something to answers which is not done here.
pub(super) const ANSWERS: [(&str, &str); 25] = [
    ("auto", "zone files are not served"),
    ("autopath", "search paths are not walked for the client"),
    ("azure", "names are asked of the block's upstreams"),
    ("clouddns", "names are asked of the block's upstreams"),
    ("dnssec", "answers are not signed"),
    ("erratic", "no answer is spoilt on purpose"),
    ("etcd", "names are asked of the block's upstreams"),
    ("file", "zone files are not served"),
    ("geoip", "answers do not depend on where a client is"),
    ("grpc", "upstreams are asked over UDP, TCP, TLS and HTTPS: use forward"),
    ("header", "header bits are as the protocol has them"),
    ("https", "clients are served over HTTPS by encrypted.https alone"),
    ("https3", "clients are not served over HTTP/3"),
    ("k8s_external", "names outside the cluster's zone are not made of its services"),
    ("kubernetes", "names of the cluster come from a hub (--hub), or are asked of the block's upstreams"),
    ("local", "names like localhost are asked of the block's upstreams"),
    ("nomad", "names are asked of the block's upstreams"),
    ("quic", "nothing is served over QUIC"),
    ("route53", "names are asked of the block's upstreams"),
    ("secondary", "zones are not transferred in"),
    ("sign", "answers are not signed"),
    ("tls", "nothing is served over TLS"),
    ("transfer", "zones are not transferred out"),
    ("tsig", "messages are not signed"),
    ("view", "the block answers every client"),
];

/// Directives that are honoured, for the hint on an unknown one.
const HONOURED: [&str; 24] = [
    "acl",
    "any",
    "bind",
    "bufsize",
    "cache",
    "debug",
    "dns64",
    "dnstap",
    "errors",
    "forward",
    "health",
    "hosts",
    "import",
    "loadbalance",
    "log",
    "loop",
    "minimal",
    "prometheus",
    "ready",
    "reload",
    "rewrite",
    "template",
    "timeouts",
    "whoami",
];

/// A directive that is known and does nothing here, or none at all.
pub(super) fn note(directive: &Directive, found: &mut Findings) {
    let name = directive.name.text.as_str();
    let of =
        |list: &[(&'static str, &'static str)]| list.iter().find(|(known, _)| *known == name).map(|(_, said)| *said);
    if let Some(said) = of(&MANNER) {
        return found.note(directive.name.at, name, Weight::Manner, said);
    }
    if let Some(said) = of(&ANSWERS) {
        return found.note(directive.name.at, name, Weight::Answers, said);
    }
    let near = HONOURED.iter().map(|known| (strsim::osa_distance(name, known), *known)).min();
    let hint = near.filter(|(distance, known)| *distance <= 1 + known.len() / 4);
    match hint {
        Some((_, known)) => {
            found.error(directive.name.at, format!("unknown directive {name:?}, did you mean {known:?}?"));
        }
        // Builds of CoreDNS with plugins of their own take it.
        None => found.note(directive.name.at, name, Weight::Answers, "this plugin is not known and has no effect"),
    }
}
