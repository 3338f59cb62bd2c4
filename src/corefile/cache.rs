//! `cache`: how long answers are kept.

use std::time::Duration;

use super::{
    Directive, Error, Property, Token, Weight,
    findings::Findings,
    words::{self, shown, text},
};
use crate::config::Shown;

/// CoreDNS's longest lifetime of answers, in seconds, where the Corefile gives none.
const SUCCESS: u64 = 3_600;
const DENIAL: u64 = 1_800;
const LEAST: u64 = 5;
const CAPACITY: i64 = 9_984;
const STALE: Duration = Duration::from_secs(3_600);

const MAX_TTL: Duration = Duration::from_secs(7 * 86_400);
const MIN_TTL: Duration = Duration::from_secs(3_600);
const NEGATIVE_TTL: Duration = Duration::from_secs(3 * 3_600);
/// Shortest time that denials are held.
const HOLD_LEAST: Duration = Duration::from_secs(1);
/// RFC 2308, 7.1.
const FAILURE_MAX: Duration = Duration::from_secs(300);
const STALE_TTL_MAX: Duration = Duration::from_secs(86_400);
const STALE_MAX: Duration = Duration::from_secs(30 * 86_400);

#[derive(Clone, Debug)]
pub(super) struct Cache {
    /// The zones it is for; none for all of the block.
    pub zones: Vec<String>,
    /// Longest TTL of answers with records, in seconds.
    pub success: u64,
    /// Settings of the forward zone.
    pub fields: Vec<(&'static str, Shown)>,
    /// Zones in which answers of a kind are not kept, with the setting that says so.
    pub disabled: Vec<(&'static str, Vec<String>)>,
}

pub(super) fn read(directive: &Directive, found: &mut Findings) -> Cache {
    let mut success = (SUCCESS, LEAST);
    let mut denial = (DENIAL, LEAST);
    let mut zones = directive.args.as_slice();
    if let Some(ttl) = zones.first().and_then(|token| token.text.parse::<i64>().ok()) {
        match u64::try_from(ttl) {
            Ok(ttl @ 1..) => (success.0, denial.0) = (ttl, ttl),
            _ => found.error(zones[0].at, "a TTL of 0 keeps nothing: leave the directive out"),
        }
        zones = &zones[1..];
    }
    let zones = zones.iter().flat_map(|token| found.take(words::zones(token)).unwrap_or_default()).collect();
    let (mut fields, mut disabled) = (Vec::new(), Vec::new());
    let (mut stale, mut policy, mut positive) = (None, None, false);
    for property in &directive.properties {
        match property.name.text.as_str() {
            "success" => limits(directive, property, &mut success, found),
            "denial" => limits(directive, property, &mut denial, found),
            "prefetch" => prefetch(directive, property, &mut fields, found),
            "serve_stale" => {
                stale = serve_stale(directive, property, &mut fields, found).or(Some(STALE));
            }
            "servfail" => servfail(property, &mut fields, found),
            "disable" => disabled.extend(disable(property, found)),
            "serve_stale_policy" if policy.is_some() => {
                found.error(property.name.at, "serve_stale_policy is given twice");
            }
            "serve_stale_policy" => {
                policy = Some(property);
                let Some(word) = found.one(property) else { continue };
                if word.text.eq_ignore_ascii_case("prefer_positive") {
                    positive = true;
                } else {
                    let said = format!("{:?} is not known and has no effect", word.text);
                    found.note(word.at, "cache serve_stale_policy", Weight::Answers, said);
                }
            }
            "keepttl" => {
                if let Some(extra) = property.args.first() {
                    found.error(extra.at, "keepttl takes no value");
                }
                fields.push(("keep_ttl", text(true)));
            }
            _ => found.unknown(directive, property),
        }
    }
    if let Some(property) = policy.filter(|_| stale.is_none()) {
        found.error(property.name.at, "serve_stale_policy takes serve_stale beside it");
    }
    // A name that had an answer keeps it as long as stale answers are served.
    if let Some(longest) = stale.filter(|longest| positive && !longest.is_zero()) {
        let seconds = longest.clamp(HOLD_LEAST, STALE_MAX).as_secs();
        fields.push(("denials", text(format!("hold {seconds}s"))));
    }
    let seconds = |number: u64, most| shown(Duration::from_secs(number), most);
    fields.extend([
        ("max_ttl", seconds(success.0, MAX_TTL)),
        ("min_ttl", seconds(success.1.min(success.0), MIN_TTL)),
        ("negative_ttl", seconds(denial.0, NEGATIVE_TTL)),
        ("min_negative_ttl", seconds(denial.1.min(denial.0), MIN_TTL)),
    ]);
    Cache { zones, success: success.0, fields, disabled }
}

/// `disable success|denial [ZONES…]`.
fn disable(property: &Property, found: &mut Findings) -> Option<(&'static str, Vec<String>)> {
    let setting = match property.args.first().map(|kind| kind.text.as_str()) {
        Some("success") => "cache_positive",
        Some("denial") => "cache_negative",
        _ => {
            found.error(property.name.at, "disable takes success or denial, and zones");
            return None;
        }
    };
    let named = &property.args[1..];
    let zones = named.iter().flat_map(|token| found.take(words::zones(token)).unwrap_or_default());
    Some((setting, if named.is_empty() { vec![".".into()] } else { zones.collect() }))
}

/// `success` and `denial`: a capacity, the longest TTL, the least.
fn limits(directive: &Directive, property: &Property, limits: &mut (u64, u64), found: &mut Findings) {
    let integer = |token: &Token, found: &mut Findings| {
        let number = token.text.parse::<i64>();
        found.take(number.map_err(|_| Error::at(token.at, format!("{:?} is not a whole number", token.text))))
    };
    let mut numbers = Vec::new();
    for token in &property.args {
        let number = if numbers.len() < 3 { integer(token, found) } else { break };
        let Some(number) = number else { return };
        numbers.push(number);
    }
    let [capacity, ttls @ ..] = &numbers[..] else {
        return found.error(property.name.at, format!("{} takes a capacity and up to two TTLs", property.name.text));
    };
    for (at, ttl) in ttls.iter().enumerate() {
        let token = &property.args[at + 1];
        match (at, u64::try_from(*ttl)) {
            (0, Ok(longest @ 1..)) => limits.0 = longest,
            (0, _) => return found.error(token.at, "a TTL of 0 keeps nothing: leave the directive out"),
            (_, Ok(least)) => limits.1 = least,
            (_, Err(_)) => return found.error(token.at, "a TTL is not below 0"),
        }
    }
    if *capacity != CAPACITY {
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
        found.manner(directive, property, "names asked three times are refreshed in the last tenth of their TTL");
    }
}

fn serve_stale(
    directive: &Directive,
    property: &Property,
    fields: &mut Vec<(&'static str, Shown)>,
    found: &mut Findings,
) -> Option<Duration> {
    let mut longest = STALE;
    let mut args = property.args.iter();
    if let Some(token) = args.next() {
        let duration = found.take(words::duration(token))?;
        longest = duration;
    }
    let mut immediate = true;
    match args.next() {
        None => {}
        Some(mode) => match mode.text.to_ascii_lowercase().as_str() {
            "immediate" => {}
            "verify" => immediate = false,
            other => {
                found.error(mode.at, format!("{other:?} is neither immediate nor verify"));
                return None;
            }
        },
    }
    // A timeout for verify alone, the TTL of stale answers, and the time between two tries.
    let mut rest = property.args.get(2..).unwrap_or_default();
    let mut patience = None;
    if let (false, [timeout, others @ ..]) = (immediate, rest) {
        (patience, rest) = (found.take(words::duration(timeout)), others);
    }
    if let [ttl, others @ ..] = rest {
        let ttl = found.take(words::duration(ttl))?;
        if ttl.subsec_nanos() > 0 {
            found.error(rest[0].at, "the TTL of stale answers is in whole seconds");
            return None;
        }
        fields.push(("stale_ttl", shown(ttl, STALE_TTL_MAX)));
        rest = others;
    }
    if let [recheck, others @ ..] = rest {
        if found.take(words::duration(recheck)).is_some_and(|recheck| recheck > FAILURE_MAX) {
            found.error(recheck.at, "failures are looked at again after 5m at most");
            return None;
        }
        found.manner(directive, property, "an upstream that fails is asked again after 5 s");
        rest = others;
    }
    if let [extra, ..] = rest {
        found.error(
            extra.at,
            "serve_stale takes a duration, a mode, a timeout for verify, a TTL and a time between tries",
        );
    }
    fields.push(("serve_stale", text(!longest.is_zero())));
    if longest.is_zero() {
        return Some(longest);
    }
    fields.push(("stale_max", shown(longest, STALE_MAX)));
    match (immediate, patience) {
        (true, _) => fields.push(("client_timeout", text("0s"))),
        (false, Some(patience)) if !patience.is_zero() => {
            fields.push(("client_timeout", shown(patience, Duration::from_secs(5))));
        }
        (false, _) => {}
    }
    found.manner(
        directive,
        property,
        "while every upstream of the zone fails there is no end to it: old answers beat none",
    );
    Some(longest)
}

fn servfail(property: &Property, fields: &mut Vec<(&'static str, Shown)>, found: &mut Findings) {
    let Some(duration) = found.one(property).and_then(|token| found.take(words::duration(token))) else { return };
    if duration > FAILURE_MAX {
        return found.error(property.name.at, "servfail takes at most 5m");
    }
    fields.push(("failure_ttl", shown(duration, FAILURE_MAX)));
}
