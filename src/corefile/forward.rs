//! `forward`: the upstreams of a zone, and how they are asked.

use std::{net::IpAddr, time::Duration};

use super::{
    Directive, Property, Token, Weight,
    findings::Findings,
    words::{self, shown, text},
};
use crate::{
    config::Shown,
    dns::forward::{UpstreamSource, Verdict, Verdicts, rcodes},
    sys,
    wire::Rcode,
};

/// Upstreams one directive may have, as CoreDNS has it.
const UPSTREAMS_MAX: usize = 15;
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// How long CoreDNS keeps a connection without queries.
const EXPIRE: Duration = Duration::from_secs(10);
const AGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));
const IDLE_CONNECTIONS_MAX: u64 = 100;
const ATTEMPTS_MAX: u64 = 1_000;
const READ_TIMEOUT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));
const PROBE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3_600));
const FAILS_MAX: u64 = 1_000;
const CONCURRENT_MAX: u64 = 100_000;

#[derive(Clone, Debug)]
pub(super) struct Forward {
    /// The zone it is for.
    pub from: String,
    /// Zones in it that it is not for.
    pub except: Vec<String>,
    /// As in the setting `upstreams`.
    pub upstreams: Vec<String>,
    /// Settings of the forward zone.
    pub fields: Vec<(&'static str, Shown)>,
    /// Answers after which the directive behind it is asked.
    pub next: Verdicts,
}

/// The options that concern its upstreams.
#[derive(Debug, Default)]
struct Options<'d> {
    server_name: Option<&'d Token>,
    failover: Verdicts,
    expire: Option<Duration>,
    max_age: Option<(Duration, &'d Token)>,
}

pub(super) fn read(directive: &Directive, found: &mut Findings) -> Option<Forward> {
    let [from, to @ ..] = directive.args.as_slice() else {
        found.error(directive.name.at, "forward takes a zone and the servers to ask");
        return None;
    };
    if to.is_empty() || to.len() > UPSTREAMS_MAX {
        found.error(from.at, format!("forward takes from 1 to {UPSTREAMS_MAX} servers, found {}", to.len()));
        return None;
    }
    let mut zones = found.take(words::zones(from))?;
    if zones.len() > 1 {
        let note = format!("{:?} is several zones, and forward is for the first of them, as in CoreDNS", from.text);
        found.note(from.at, "forward", Weight::Manner, note);
    }
    let mut forward = Forward {
        from: zones.swap_remove(0),
        except: Vec::new(),
        upstreams: Vec::new(),
        fields: Vec::new(),
        next: Verdicts::default(),
    };
    let mut options = Options::default();
    for property in &directive.properties {
        option(directive, property, &mut forward, &mut options, found);
    }
    if let Some((max_age, token)) = options.max_age
        && max_age < options.expire.unwrap_or(EXPIRE)
        && !max_age.is_zero()
    {
        found.error(token.at, "max_age must not be less than expire");
    }
    if !options.failover.is_empty() {
        let words = options.failover.iter().map(|verdict| text(verdict.as_str())).collect();
        forward.fields.push(("failover", Shown::List(words)));
    }
    for token in to {
        match upstream(token, &options) {
            Ok(upstream) => {
                if !forward.upstreams.contains(&upstream) {
                    forward.upstreams.push(upstream);
                }
            }
            Err(Unused::Note(said)) => found.note(token.at, "forward", Weight::Answers, said),
            Err(Unused::Error(message)) => found.error(token.at, message),
        }
    }
    Some(forward)
}

impl Forward {
    /// Whether it passes names of `zone` on. It never does so with its own.
    pub fn leaves_out(&self, zone: &str) -> bool {
        zone != self.from && self.except.iter().any(|except| words::holds(except, zone))
    }
}

/// The directives behind `first` that are asked after it, as holdfast writes them.
pub(super) fn next<'f>(mut first: &'f Forward, behind: impl Iterator<Item = &'f Forward>) -> Vec<Shown> {
    let mut next = Vec::new();
    for forward in behind {
        if first.next.is_empty() || forward.upstreams.is_empty() {
            break;
        }
        let option = |name: &str| {
            forward.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| match value {
                Shown::Text(word) => word.clone(),
                _ => String::new(),
            })
        };
        let mut said: Vec<String> = first.next.iter().map(|verdict| verdict.as_str().to_owned()).collect();
        said.push("then".into());
        said.extend(option("policy").filter(|policy| policy != "random"));
        said.extend(option("force_tcp").map(|_| "force_tcp".to_owned()));
        said.extend(forward.upstreams.iter().cloned());
        next.push(text(said.join(" ")));
        first = forward;
    }
    next
}

/// Why a server is not asked.
enum Unused {
    Note(String),
    Error(String),
}

/// A server as holdfast writes it.
fn upstream(token: &Token, options: &Options<'_>) -> Result<String, Unused> {
    let (scheme, rest) = match token.text.split_once("://") {
        Some((scheme @ ("tls" | "https" | "dns"), rest)) => (scheme, rest),
        Some((other @ ("grpc" | "quic"), _)) => return Err(Unused::Note(format!("no upstream is asked over {other}"))),
        _ => ("dns", token.text.as_str()),
    };
    if scheme == "https" && rest.contains('/') {
        return Err(Unused::Error("an https:// server has no path: /dns-query is asked for".into()));
    }
    let (address, own_name) = split_name(scheme, rest);
    let name = match (own_name, options.server_name) {
        (Some(own), Some(all)) => {
            let message = format!("both tls_servername {:?} and {own:?} are given for this server", all.text);
            return Err(Unused::Error(message));
        }
        (Some(own), None) => Some(own),
        (None, all) => all.map(|token| token.text.clone()).filter(|_| scheme != "dns"),
    };
    let prefix = if scheme == "dns" { String::new() } else { format!("{scheme}://") };
    let written = format!("{prefix}{address}{}", name.map(|name| format!("#{name}")).unwrap_or_default());
    match written.parse::<UpstreamSource>() {
        Ok(_) => Ok(written),
        Err(error) => Err(Unused::Error(error.to_string())),
    }
}

/// `IP%name:port` of TLS as an address and a name; what follows the percent sign of a plain server is its scope.
fn split_name(scheme: &str, text: &str) -> (String, Option<String>) {
    let Some((host, behind)) = text.rsplit_once('%').filter(|_| scheme != "dns") else {
        return (text.to_owned(), None);
    };
    let (name, port) = match behind.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (behind, None),
    };
    let name = name.trim_end_matches(']');
    let host = host.strip_prefix('[').unwrap_or(host);
    let address = match port {
        Some(port) if host.contains(':') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    (address, Some(name.to_owned()))
}

fn option<'d>(
    directive: &Directive,
    property: &'d Property,
    forward: &mut Forward,
    options: &mut Options<'d>,
    found: &mut Findings,
) {
    let flag = |found: &mut Findings| {
        if let Some(extra) = property.args.first() {
            found.error(extra.at, format!("{} takes no value", property.name.text));
        }
    };
    let duration = |found: &mut Findings| found.one(property).and_then(|token| found.take(words::duration(token)));
    match property.name.text.as_str() {
        "except" => {
            if property.args.is_empty() {
                found.error(property.name.at, "except takes the zones that are not forwarded");
            }
            for token in &property.args {
                forward.except.extend(found.take(words::zones(token)).unwrap_or_default());
            }
        }
        "policy" => {
            let Some(policy) = found.one(property) else { return };
            if matches!(policy.text.as_str(), "random" | "round_robin" | "sequential") {
                forward.fields.push(("policy", text(&policy.text)));
            } else {
                found.error(policy.at, format!("{:?} is not random, round_robin or sequential", policy.text));
            }
        }
        "force_tcp" => {
            flag(found);
            forward.fields.push(("force_tcp", text(true)));
        }
        // UDP first is what is always done here.
        "prefer_udp" => flag(found),
        "expire" => {
            let Some(idle) = duration(found) else { return };
            options.expire = Some(idle);
            forward.fields.push(("connection_idle", shown(idle.max(IDLE.0), IDLE.1)));
        }
        "max_age" => {
            let Some(age) = duration(found) else { return };
            options.max_age = Some((age, &property.args[0]));
            if !age.is_zero() {
                forward.fields.push(("connection_age", shown(age.max(AGE.0), AGE.1)));
            }
        }
        "read_timeout" => {
            let Some(timeout) = duration(found) else { return };
            if timeout.is_zero() {
                return found.error(property.args[0].at, "read_timeout is above 0");
            }
            forward.fields.push(("read_timeout", shown(timeout.max(READ_TIMEOUT.0), READ_TIMEOUT.1)));
        }
        "source_address" => {
            let Some(token) = found.one(property) else { return };
            match token.text.parse::<IpAddr>() {
                Ok(address) => forward.fields.push(("source_address", text(address))),
                Err(_) => found.error(token.at, format!("{:?} is not an address", token.text)),
            }
        }
        "max_fails" | "max_idle_conns" | "max_concurrent" | "max_connect_attempts" => limit(property, forward, found),
        "tls_servername" => options.server_name = found.one(property),
        "tls" => tls(property, forward, found),
        "health_check" => health_check(property, forward, found),
        "failfast_all_unhealthy_upstreams" => {
            flag(found);
            forward.fields.push(("fail_fast", text(true)));
        }
        "resolver" => match property.args.iter().find(|token| sys::parse_address(&token.text, 53).is_none()) {
            Some(token) => found.error(token.at, format!("{:?} is not an address", token.text)),
            None if property.args.is_empty() => found.error(property.name.at, "resolver takes addresses"),
            None => {
                let resolvers = property.args.iter().map(|token| text(&token.text)).collect();
                forward.fields.push(("resolvers", Shown::List(resolvers)));
            }
        },
        "doh_method" => match found.one(property) {
            Some(token) if !matches!(token.text.as_str(), "GET" | "POST") => {
                found.error(token.at, format!("{:?} is not GET or POST", token.text));
            }
            Some(token) => forward.fields.push(("doh_method", text(token.text.to_ascii_lowercase()))),
            None => {}
        },
        "next" => forward.next = verdicts(property, found).iter().chain(forward.next.iter()).collect(),
        "next_on_nodata" => {
            flag(found);
            forward.next = forward.next.with(Verdict::NoData);
        }
        "failover" => {
            let codes = verdicts(property, found);
            if codes.has(Verdict::NoError) {
                found.error(property.name.at, "NOERROR is no failure");
            }
            options.failover = codes.iter().chain(options.failover.iter()).collect();
        }
        _ => found.unknown(directive, property),
    }
}

/// An option that is a number.
fn limit(property: &Property, forward: &mut Forward, found: &mut Findings) {
    let Some(number) = found.one(property).and_then(|token| found.take(words::number(token))) else { return };
    forward.fields.push(match property.name.text.as_str() {
        "max_fails" => ("max_fails", text(number.min(FAILS_MAX))),
        "max_idle_conns" => ("idle_connections", text(number.min(IDLE_CONNECTIONS_MAX))),
        "max_connect_attempts" => ("max_attempts", text(number.min(ATTEMPTS_MAX))),
        _ if number == 0 => ("max_concurrent", text(CONCURRENT_MAX)),
        _ => ("max_concurrent", text(number.min(CONCURRENT_MAX))),
    });
}

/// The codes of an option.
fn verdicts(property: &Property, found: &mut Findings) -> Verdicts {
    if property.args.is_empty() {
        found.error(property.name.at, format!("{} takes codes such as NXDOMAIN", property.name.text));
    }
    let verdict = |token: &Token| match rcodes::named(&token.text) {
        Some(Rcode::NOERROR) => Some(Verdict::NoError),
        Some(Rcode::NXDOMAIN) => Some(Verdict::NxDomain),
        Some(Rcode::SERVFAIL) => Some(Verdict::ServFail),
        Some(Rcode::REFUSED) => Some(Verdict::Refused),
        Some(_) => Some(Verdict::Other),
        None => {
            found.error(token.at, format!("{:?} is no code such as NXDOMAIN", token.text));
            None
        }
    };
    property.args.iter().filter_map(verdict).collect()
}

/// `tls [CA]` or `tls CERTIFICATE KEY [CA]`.
fn tls(property: &Property, forward: &mut Forward, found: &mut Findings) {
    let keys: &[&str] = match property.args.len() {
        0 | 1 => &["tls_ca"],
        2 | 3 => &["tls_certificate", "tls_key", "tls_ca"],
        _ => return found.error(property.name.at, "tls of forward takes at most 3 files"),
    };
    let files = keys.iter().zip(&property.args);
    forward.fields.extend(files.map(|(key, file)| (*key, text(&file.text))));
}

fn health_check(property: &Property, forward: &mut Forward, found: &mut Findings) {
    let Some(interval) = property.args.first() else {
        return found.error(property.name.at, "health_check takes an interval");
    };
    if let Some(every) = found.take(words::duration(interval)) {
        forward.fields.push(("probe_interval", shown(every.max(PROBE.0), PROBE.1)));
    }
    let mut rest = property.args[1..].iter();
    while let Some(word) = rest.next() {
        match word.text.as_str() {
            "no_rec" => forward.fields.push(("probe_recursion", text(false))),
            "domain" => match rest.next().map(|name| (name, words::zone(&name.text))) {
                Some((_, Some(name))) => forward.fields.push(("probe_name", text(name))),
                Some((name, None)) => found.error(name.at, format!("{:?} is no name", name.text)),
                None => found.error(word.at, "domain takes a name"),
            },
            _ => {
                let said = format!("{:?} is not known and has no effect", word.text);
                found.note(word.at, "forward health_check", Weight::Manner, said);
            }
        }
    }
}
