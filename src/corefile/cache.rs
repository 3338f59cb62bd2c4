//! `cache`: how long answers are kept.

use std::time::Duration;

use super::{
    Directive, Property, Weight,
    findings::Findings,
    words::{self, shown, text},
};
use crate::config::Shown;

/// What CoreDNS keeps unless told otherwise.
const SUCCESS: u64 = 3_600;
const DENIAL: u64 = 1_800;
const LEAST: u64 = 5;
const CAPACITY: u64 = 9_984;
const STALE: Duration = Duration::from_secs(3_600);

const MAX_TTL: Duration = Duration::from_secs(7 * 86_400);
const MIN_TTL: Duration = Duration::from_secs(3_600);
const NEGATIVE_TTL: Duration = Duration::from_secs(3 * 3_600);
const STALE_MAX: Duration = Duration::from_secs(30 * 86_400);

#[derive(Clone, Debug)]
pub(super) struct Cache {
    /// The zones it is for; none for all of the block.
    pub zones: Vec<String>,
    /// Settings of the forward zone.
    pub fields: Vec<(&'static str, Shown)>,
}

pub(super) fn read(directive: &Directive, found: &mut Findings) -> Cache {
    let mut success = (SUCCESS, LEAST);
    let mut denial = (DENIAL, LEAST);
    let mut zones = directive.args.as_slice();
    if let Some(ttl) = zones.first().and_then(|token| token.text.parse::<u64>().ok()) {
        if ttl == 0 {
            found.error(zones[0].at, "a TTL of 0 keeps nothing: leave the directive out");
        }
        (success.0, denial.0) = (ttl, ttl);
        zones = &zones[1..];
    }
    let zones = zones.iter().flat_map(|token| found.take(words::zones(token)).unwrap_or_default()).collect();
    let mut fields = Vec::new();
    for property in &directive.properties {
        match property.name.text.as_str() {
            "success" => limits(directive, property, &mut success, found),
            "denial" => limits(directive, property, &mut denial, found),
            "prefetch" => prefetch(directive, property, &mut fields, found),
            "serve_stale" => serve_stale(directive, property, &mut fields, found),
            "servfail" => servfail(directive, property, found),
            "disable" => {
                let said = "answers of this kind are kept all the same: leave `cache` out to keep none";
                found.note(property.name.at, "cache disable", Weight::Answers, said);
            }
            "serve_stale_policy" => {
                let Some(policy) = found.one(property) else { continue };
                match policy.text.as_str() {
                    "prefer_positive" => {
                        found.manner(directive, property, "a name that had an answer keeps it for a while");
                    }
                    "default" => {}
                    _ => found.manner(directive, property, "this policy is not known and has no effect"),
                }
            }
            "keepttl" => {
                let said = "TTLs count down while an answer is kept";
                found.note(property.name.at, "cache keepttl", Weight::Answers, said);
            }
            _ => found.unknown(directive, property),
        }
    }
    let seconds = |number: u64, most| shown(Duration::from_secs(number), most);
    fields.extend([
        ("max_ttl", seconds(success.0, MAX_TTL)),
        ("min_ttl", seconds(success.1.min(success.0), MIN_TTL)),
        ("negative_ttl", seconds(denial.0, NEGATIVE_TTL)),
        ("min_negative_ttl", seconds(denial.1.min(denial.0), MIN_TTL)),
    ]);
    Cache { zones, fields }
}

/// `success` and `denial`: a capacity, the longest TTL, the least.
fn limits(directive: &Directive, property: &Property, limits: &mut (u64, u64), found: &mut Findings) {
    let numbers: Option<Vec<u64>> = property.args.iter().map(|token| found.take(words::number(token))).collect();
    let Some(numbers) = numbers else { return };
    match numbers[..] {
        [_] => {}
        [_, 0, ..] => return found.error(property.args[1].at, "a TTL of 0 keeps nothing: leave the directive out"),
        [_, longest] => limits.0 = longest,
        [_, longest, least, ..] => *limits = (longest, least),
        [] => {
            return found
                .error(property.name.at, format!("{} takes a capacity and up to two TTLs", property.name.text));
        }
    }
    if numbers[0] != CAPACITY {
        found.manner(directive, property, "the cache is bounded in bytes, for all zones together: cache.max_bytes");
    }
}

fn prefetch(directive: &Directive, property: &Property, fields: &mut Vec<(&'static str, Shown)>, found: &mut Findings) {
    let (amount, rest) = match property.args.as_slice() {
        [amount, rest @ ..] if rest.len() <= 2 => (amount, rest),
        _ => {
            return found
                .error(property.name.at, "prefetch takes an amount, and a duration and a percentage if need be");
        }
    };
    let Some(amount) = found.take(words::number(amount)) else { return };
    if let Some(duration) = rest.first() {
        found.take(words::duration(duration));
    }
    if let Some(share) = rest.get(1) {
        let percent = share.text.strip_suffix('%').and_then(|number| number.parse::<u8>().ok());
        if percent.is_none_or(|percent| !(10..=90).contains(&percent)) {
            found.error(share.at, format!("{:?} is not a percentage from 10% to 90%", share.text));
        }
    }
    fields.push(("prefetch", text(amount > 0)));
    if amount > 0 {
        found.manner(directive, property, "names asked more than once are refreshed in the last tenth of their TTL");
    }
}

fn serve_stale(
    directive: &Directive,
    property: &Property,
    fields: &mut Vec<(&'static str, Shown)>,
    found: &mut Findings,
) {
    let mut longest = STALE;
    let mut args = property.args.iter();
    if let Some(token) = args.next() {
        let Some(duration) = found.take(words::duration(token)) else { return };
        longest = duration;
    }
    let mut immediate = true;
    match args.next() {
        None => {}
        Some(mode) => match mode.text.to_ascii_lowercase().as_str() {
            "immediate" => {}
            "verify" => immediate = false,
            other => return found.error(mode.at, format!("{other:?} is neither immediate nor verify")),
        },
    }
    let patience = args.next().and_then(|token| found.take(words::duration(token)));
    if let Some(extra) = args.next() {
        found.error(extra.at, "serve_stale takes a duration, a mode and a timeout");
    }
    fields.push(("serve_stale", text(!longest.is_zero())));
    if longest.is_zero() {
        return;
    }
    fields.push(("stale_max", shown(longest, STALE_MAX)));
    match (immediate, patience) {
        (true, _) => fields.push(("client_timeout", text("0s"))),
        (false, Some(patience)) => fields.push(("client_timeout", shown(patience, Duration::from_secs(5)))),
        (false, None) => {}
    }
    found.manner(
        directive,
        property,
        "while every upstream of the zone fails there is no end to it: old answers beat none",
    );
}

fn servfail(directive: &Directive, property: &Property, found: &mut Findings) {
    let Some(duration) = found.one(property).and_then(|token| found.take(words::duration(token))) else { return };
    if duration > Duration::from_secs(300) {
        return found.error(property.name.at, "servfail takes at most 5m");
    }
    if duration != Duration::from_secs(5) {
        found.manner(directive, property, "failures are remembered 1 s, and up to 5 s while they go on (RFC 9520)");
    }
}
