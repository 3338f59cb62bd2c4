//! The functions of Go's text/template, and `parseInt` of CoreDNS.

use std::fmt::Write as _;

use super::value::{Failed, Result, TEXT_MAX, Value, exponent_of, failed, general};

/// Widest field and longest fraction of `printf`.
const WIDTH_MAX: usize = 1_000;

/// # Errors
/// As Go has them when a template is filled in.
pub fn call(name: &str, args: &[Value]) -> Result {
    let wrong = || Failed(format!("wrong number or type of args for {name}"));
    match (name, args) {
        ("eq", [first, rest @ ..]) if !rest.is_empty() => {
            for other in rest {
                if first.equals(other)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        ("ne", [one, other]) => Ok(Value::Bool(!one.equals(other)?)),
        ("lt", [one, other]) => Ok(Value::Bool(one.order(other, false)?.is_lt())),
        ("le", [one, other]) => Ok(Value::Bool(one.order(other, false)?.is_le())),
        ("gt", [one, other]) => Ok(Value::Bool(one.order(other, false)?.is_gt())),
        ("ge", [one, other]) => Ok(Value::Bool(one.order(other, false)?.is_ge())),
        ("not", [value]) => Ok(Value::Bool(!value.is_true())),
        ("len", [value]) => length(value).map(|length| Value::Int(i64::try_from(length).unwrap_or(i64::MAX))),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), |value, key| index(&value, key)),
        ("slice", [value, bounds @ ..]) if bounds.len() <= 3 => slice(value, bounds),
        ("print", values) => Value::text(print(values)),
        ("println", values) => {
            let words: Vec<String> = values.iter().map(plain).collect();
            Value::text(words.join(" ") + "\n")
        }
        ("printf", [Value::Text(format), values @ ..]) => printf(format, values).and_then(Value::text),
        ("html", values) => Value::text(html(&print(values))),
        ("js", values) => Value::text(js(&print(values))),
        ("urlquery", values) => Value::text(urlquery(&print(values))),
        ("parseInt", [Value::Text(text), base, bits]) => {
            let (base, bits) = (base.index().ok_or_else(wrong)?, bits.index().ok_or_else(wrong)?);
            parse_uint(text, base, bits).map(Value::Uint).ok_or_else(|| Failed(format!("parseInt: {text:?}")))
        }
        _ => Err(wrong()),
    }
}

/// A value as `print` has it, where no template has put it there.
fn plain(value: &Value) -> String {
    match value {
        Value::Missing => "<nil>".into(),
        other => other.to_string(),
    }
}

pub fn length(value: &Value) -> Result<usize> {
    match value {
        Value::Text(text) => Ok(text.len()),
        Value::List(list) => Ok(list.len()),
        Value::Map(map) => Ok(map.len()),
        other => failed(format!("len of type {}", other.type_name())),
    }
}

fn index(value: &Value, key: &Value) -> Result {
    let at = |length: usize| {
        let at = key.index().filter(|at| *at < length);
        at.ok_or_else(|| Failed(format!("index out of range: {key}")))
    };
    match value {
        Value::List(list) => Ok(list[at(list.len())?].clone()),
        Value::Text(text) => Ok(Value::Uint(text.as_bytes()[at(text.len())?].into())),
        Value::Map(map) => match key {
            Value::Text(key) => Ok(map.get(key).cloned().unwrap_or_else(|| zero(map.values().next()))),
            _ => failed("the key of a map is a string"),
        },
        other => failed(format!("can't index item of type {}", other.type_name())),
    }
}

/// The value that a map of values like this one gives for an unknown key.
fn zero(like: Option<&Value>) -> Value {
    if matches!(like, None | Some(Value::Text(_))) { Value::Text(String::new()) } else { Value::Nil }
}

fn slice(value: &Value, bounds: &[Value]) -> Result {
    let length = length(value)?;
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(bound) => bound.index().ok_or_else(|| Failed(format!("slice: bad bound {bound}"))),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    let out_of_range = || Failed(format!("slice out of range: {from} to {to} of {length}"));
    match value {
        Value::Text(_) if bounds.len() == 3 => failed("cannot 3-index slice a string"),
        Value::Text(text) => text.get(from..to).map(|part| Value::Text(part.to_owned())).ok_or_else(out_of_range),
        Value::List(list) => list.get(from..to).map(|part| Value::List(part.to_vec())).ok_or_else(out_of_range),
        other => failed(format!("can't slice item of type {}", other.type_name())),
    }
}

/// Blanks stand between two operands of which neither is a text.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if at > 0 && !is_text(value) && !is_text(&values[at - 1]) {
            out.push(' ');
        }
        out.push_str(&plain(value));
    }
    out
}

/// `strconv.ParseUint`: base 0 goes by the prefix.
pub fn parse_uint(text: &str, base: usize, bits: usize) -> Option<u64> {
    let (base, digits) = match base {
        0 => {
            let lower = text.to_ascii_lowercase();
            let base = match lower.get(..2) {
                Some("0x") => 16,
                Some("0o") => 8,
                Some("0b") => 2,
                _ if lower.len() > 1 && lower.starts_with('0') => 8,
                _ => 10,
            };
            let skip = if base == 10 {
                0
            } else if lower[1..2].parse::<u8>().is_ok() {
                1
            } else {
                2
            };
            (base, lower[skip..].replace('_', ""))
        }
        2..=36 => (u32::try_from(base).ok()?, text.to_owned()),
        _ => return None,
    };
    if digits.starts_with('+') || bits > 64 {
        return None;
    }
    let number = u64::from_str_radix(&digits, base).ok()?;
    (bits == 0 || bits == 64 || number >> bits == 0).then_some(number)
}

fn html(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '\0' => out.push('\u{FFFD}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            other => out.push(other),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '\\' => out.push_str(r"\\"),
            '\'' => out.push_str(r"\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => {
                let _ = write!(out, "\\u{:04X}", u32::from(char));
            }
            other if other.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(other));
            }
            other => out.push(other),
        }
    }
    out
}

fn urlquery(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => out.push(byte.into()),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// The flags of a verb.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a sign of its own")]
struct Flags {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `fmt.Sprintf` of Go.
pub fn printf(format: &str, values: &[Value]) -> Result<String> {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut values = values.iter();
    while let Some(char) = chars.next() {
        if out.len() > TEXT_MAX {
            return failed(format!("makes more than {TEXT_MAX} bytes"));
        }
        if char != '%' {
            out.push(char);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = chars.next_if(|char| "-+# 0".contains(*char)) {
            match flag {
                '-' => flags.minus = true,
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                ' ' => flags.space = true,
                _ => flags.zero = true,
            }
        }
        let mut number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if chars.next_if_eq(&'*').is_some() {
                return Ok(values.next().and_then(Value::index));
            }
            let digits: String = std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
            let number = digits.parse().ok();
            if number.is_some_and(|number| number > WIDTH_MAX) { failed("printf: too wide") } else { Ok(number) }
        };
        flags.width = number(&mut chars)?.map(|width| width.min(WIDTH_MAX));
        if chars.next_if_eq(&'.').is_some() {
            flags.precision = Some(number(&mut chars)?.unwrap_or(0).min(WIDTH_MAX));
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match values.next() {
                None => {
                    let _ = write!(out, "%!{verb}(BADINDEX)");
                    out.truncate(out.len() - "(BADINDEX)".len());
                    out.push_str("(MISSING)");
                }
                Some(value) => out.push_str(&padded(&formatted(value, verb, &flags), &flags, value)),
            },
        }
    }
    let extra: Vec<String> = values.map(|value| format!("{}={}", value.type_name(), plain(value))).collect();
    if !extra.is_empty() {
        let _ = write!(out, "%!(EXTRA {})", extra.join(", "));
    }
    Ok(out)
}

fn padded(text: &str, flags: &Flags, value: &Value) -> String {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 || matches!(value, Value::List(_) | Value::Map(_)) {
        return text.to_owned();
    }
    let numeric = value.number().is_some() || matches!(value, Value::Float(_));
    if flags.minus {
        format!("{text}{}", " ".repeat(missing))
    } else if flags.zero && (numeric || matches!(value, Value::Text(_))) {
        let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
        format!("{sign}{}{digits}", "0".repeat(missing))
    } else {
        format!("{}{text}", " ".repeat(missing))
    }
}

fn formatted(value: &Value, verb: char, flags: &Flags) -> String {
    let cut = |text: &str| match flags.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    let wrong = || format!("%!{verb}({}={})", value.type_name(), plain(value));
    match (value, verb) {
        (_, 'T') => value.type_name().to_owned(),
        (Value::List(list), _) if verb != 'v' => {
            let items: Vec<String> = list.iter().map(|item| formatted(item, verb, flags)).collect();
            format!("[{}]", items.join(" "))
        }
        (Value::Map(map), _) if verb != 'v' => {
            let key = |key: &str| formatted(&Value::Text(key.to_owned()), verb, flags);
            let items: Vec<String> =
                map.iter().map(|(name, item)| format!("{}:{}", key(name), formatted(item, verb, flags))).collect();
            format!("map[{}]", items.join(" "))
        }
        (Value::Nil | Value::Missing, 'v') => "<nil>".into(),
        (Value::Nil | Value::Missing, _) => format!("%!{verb}(<nil>)"),
        (Value::Text(text), 'v' | 's') => cut(text),
        (Value::Text(text), 'q') => quoted(&cut(text)),
        (Value::Text(text), 'x') => hex(text),
        (Value::Text(text), 'X') => hex(text).to_uppercase(),
        (Value::Bool(is), 'v' | 't') => is.to_string(),
        (Value::Int(_) | Value::Uint(_), _) => integer(value.number().unwrap_or(0), verb, flags).unwrap_or_else(wrong),
        (Value::Float(number), _) => float(*number, verb, flags).unwrap_or_else(wrong),
        (Value::Object(_) | Value::Data | Value::List(_) | Value::Map(_), 'v' | 's') => value.to_string(),
        _ => wrong(),
    }
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn integer(number: i128, verb: char, flags: &Flags) -> Option<String> {
    let size = number.unsigned_abs();
    let digits = match verb {
        'v' | 'd' => size.to_string(),
        'x' if flags.sharp => format!("{size:#x}"),
        'x' => format!("{size:x}"),
        'X' if flags.sharp => format!("0X{size:X}"),
        'X' => format!("{size:X}"),
        'o' if flags.sharp => format!("0{size:o}"),
        'o' => format!("{size:o}"),
        'O' => format!("0o{size:o}"),
        'b' => format!("{size:b}"),
        'c' => char(number).to_string(),
        'q' => format!("'{}'", char(number)),
        'U' => format!("U+{size:04X}"),
        _ => return None,
    };
    let digits = match flags.precision {
        Some(least) if digits.len() < least => format!("{}{digits}", "0".repeat(least - digits.len())),
        _ => digits,
    };
    let sign = match verb {
        'c' | 'q' | 'U' => "",
        _ if number < 0 => "-",
        _ if flags.plus => "+",
        _ if flags.space => " ",
        _ => "",
    };
    Some(format!("{sign}{digits}"))
}

fn char(number: i128) -> char {
    u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{FFFD}')
}

fn float(number: f64, verb: char, flags: &Flags) -> Option<String> {
    let shown = match (verb, flags.precision) {
        ('v' | 'g' | 'G', None) => general(number),
        ('v' | 'g' | 'G', Some(digits)) => {
            let digits = digits.max(1);
            let text = format!("{number:.*e}", digits - 1);
            let (mantissa, exponent) = text.split_once('e')?;
            let exponent: i32 = exponent.parse().ok()?;
            let short = |text: &str| {
                if text.contains('.') {
                    text.trim_end_matches('0').trim_end_matches('.').to_owned()
                } else {
                    text.to_owned()
                }
            };
            match usize::try_from(exponent) {
                Ok(whole) if whole < digits => short(&format!("{number:.*}", digits - 1 - whole)),
                Err(_) if exponent >= -4 => {
                    short(&format!("{number:.*}", digits - 1 + usize::try_from(-exponent).unwrap_or(0)))
                }
                _ => format!("{}{}", short(mantissa), exponent_of(exponent)),
            }
        }
        ('f' | 'F', digits) => format!("{number:.*}", digits.unwrap_or(6)),
        ('e' | 'E', digits) => {
            let text = format!("{number:.*e}", digits.unwrap_or(6));
            let (mantissa, exponent) = text.split_once('e')?;
            format!("{mantissa}{}", exponent_of(exponent.parse().ok()?))
        }
        _ => return None,
    };
    let shown = if matches!(verb, 'E' | 'G') { shown.to_uppercase() } else { shown };
    let sign = if flags.plus && number >= 0.0 {
        "+"
    } else if flags.space && number >= 0.0 {
        " "
    } else {
        ""
    };
    Some(format!("{sign}{shown}"))
}

/// `%q`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str(r"\\"),
            '\n' => out.push_str(r"\n"),
            '\t' => out.push_str(r"\t"),
            '\r' => out.push_str(r"\r"),
            other if other.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(other));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
