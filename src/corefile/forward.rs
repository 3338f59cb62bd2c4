//! `forward`: whom a zone asks, and how.

use std::time::Duration;

use super::{
    Directive, Property, Weight,
    findings::Findings,
    words::{self, shown, text},
};
use crate::{config::Shown, dns::forward::UpstreamSource};

/// Upstreams one directive may have, as CoreDNS has it.
const UPSTREAMS_MAX: usize = 15;
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
const FAILS_MAX: u64 = 1_000;
const CONCURRENT_MAX: u64 = 100_000;

#[derive(Clone, Debug)]
pub(super) struct Forward {
    /// The zone it is for.
    pub from: String,
    /// Zones in it that it is not for.
    pub except: Vec<String>,
    /// Whom it asks, as holdfast writes upstreams.
    pub upstreams: Vec<String>,
    /// Settings of the forward zone.
    pub fields: Vec<(&'static str, Shown)>,
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
    let mut forward =
        Forward { from: zones.swap_remove(0), except: Vec::new(), upstreams: Vec::new(), fields: Vec::new() };
    let mut server_name = None;
    for property in &directive.properties {
        option(directive, property, &mut forward, &mut server_name, found);
    }
    let resolved = directive.properties.iter().any(|property| property.name.text == "resolver");
    for token in to {
        let unasked = ["https://", "grpc://", "quic://"].iter().any(|scheme| token.text.starts_with(scheme));
        match upstream(&token.text, server_name.as_deref()) {
            _ if unasked => {
                found.note(token.at, "forward", Weight::Answers, "only dns:// and tls:// upstreams are asked");
            }
            Ok(upstream) => forward.upstreams.push(upstream),
            Err(_) if resolved => {
                found.note(token.at, "forward", Weight::Answers, "an upstream is an address: this name is left out");
            }
            Err(message) => found.error(token.at, message),
        }
    }
    Some(forward)
}

/// A server as holdfast writes it.
fn upstream(word: &str, server_name: Option<&str>) -> Result<String, String> {
    let bare = word.strip_prefix("dns://").unwrap_or(word);
    let named = match (bare.starts_with("tls://") && !bare.contains('#'), server_name) {
        (true, Some(name)) => format!("{bare}#{name}"),
        // CoreDNS writes `tls://IP%name` for one server's name.
        (true, None) => bare.replacen('%', "#", 1),
        (false, _) => bare.to_owned(),
    };
    named.parse::<UpstreamSource>().map_err(|error| error.to_string())?;
    Ok(named)
}

fn option(
    directive: &Directive,
    property: &Property,
    forward: &mut Forward,
    server_name: &mut Option<String>,
    found: &mut Findings,
) {
    let flag = |found: &mut Findings| {
        if let Some(extra) = property.args.first() {
            found.error(extra.at, format!("{} takes no value", property.name.text));
        }
    };
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
        "max_fails" => {
            let Some(fails) = found.one(property).and_then(|token| found.take(words::number(token))) else { return };
            forward.fields.push(("max_fails", text(fails.min(FAILS_MAX))));
        }
        "expire" => {
            let Some(idle) = found.one(property).and_then(|token| found.take(words::duration(token))) else { return };
            forward.fields.push(("connection_idle", shown(idle.max(IDLE.0), IDLE.1)));
        }
        "max_concurrent" => {
            let Some(most) = found.one(property).and_then(|token| found.take(words::number(token))) else { return };
            let most = if most == 0 { CONCURRENT_MAX } else { most.min(CONCURRENT_MAX) };
            forward.fields.push(("max_concurrent", text(most)));
        }
        "tls_servername" => *server_name = found.one(property).map(|token| token.text.clone()),
        "tls" => tls(directive, property, forward, found),
        "health_check" => health_check(directive, property, found),
        "failfast_all_unhealthy_upstreams" => {
            found.manner(directive, property, "with every upstream failing a question gets 1 s, then what was known");
        }
        "max_idle_conns" => found.manner(directive, property, "idle connections end by their age alone: expire"),
        "max_connect_attempts" => {
            found.manner(directive, property, "upstreams are tried until a question's time is over");
        }
        "max_age" => found.manner(directive, property, "a connection is used for 5 minutes at most"),
        "resolver" => found.manner(directive, property, "upstreams are addresses: no name is looked up"),
        "doh_method" => found.manner(directive, property, "upstreams are not asked over HTTPS"),
        "next" | "next_on_nodata" | "failover" => {
            let name = format!("forward {}", property.name.text);
            let said = "answers of an upstream are not weighed by their code; an unusable one makes the next be asked";
            found.note(property.name.at, name, Weight::Answers, said);
        }
        _ => found.unknown(directive, property),
    }
}

fn tls(directive: &Directive, property: &Property, forward: &mut Forward, found: &mut Findings) {
    let authorities = match property.args.as_slice() {
        [] => return,
        [ca] => ca,
        [_, _] => return found.note(property.name.at, "forward tls", Weight::Answers, NO_CLIENT_CERTIFICATE),
        [_, _, ca] => {
            found.note(property.name.at, "forward tls", Weight::Answers, NO_CLIENT_CERTIFICATE);
            ca
        }
        _ => return found.error(property.name.at, format!("tls of {} takes at most 3 files", directive.name.text)),
    };
    forward.fields.push(("tls_ca", text(&authorities.text)));
}

const NO_CLIENT_CERTIFICATE: &str = "upstreams are asked without a certificate of our own";

fn health_check(directive: &Directive, property: &Property, found: &mut Findings) {
    let Some(interval) = property.args.first() else {
        return found.error(property.name.at, "health_check takes an interval");
    };
    found.take(words::duration(interval));
    let mut rest = property.args[1..].iter();
    while let Some(word) = rest.next() {
        let fine = match word.text.as_str() {
            "no_rec" => true,
            "domain" => rest.next().is_some(),
            _ => false,
        };
        if !fine {
            let said = format!("{:?} is not known and has no effect", word.text);
            found.note(word.at, "forward health_check", Weight::Manner, said);
        }
    }
    let said =
        "an upstream that works is asked questions only; one that fails is probed every 1 s to 5 s for the root's NS";
    found.manner(directive, property, said);
}
