//! Functions of expressions that need no question.

use super::{
    super::value::{Failed, Result, Steps, Value, failed},
    float, int, same,
};

/// Functions whose second argument is worked out for each item of the first.
pub const PREDICATES: [&str; 13] = [
    "all",
    "any",
    "count",
    "filter",
    "find",
    "findIndex",
    "findLast",
    "findLastIndex",
    "map",
    "none",
    "one",
    "reduce",
    "sum",
];
/// Functions of values.
pub const FUNCTIONS: [&str; 37] = [
    "abs",
    "bitand",
    "bitor",
    "bitshl",
    "bitshr",
    "bitxor",
    "ceil",
    "concat",
    "first",
    "float",
    "floor",
    "get",
    "hasPrefix",
    "hasSuffix",
    "indexOf",
    "int",
    "join",
    "keys",
    "last",
    "lastIndexOf",
    "len",
    "lower",
    "max",
    "min",
    "repeat",
    "replace",
    "reverse",
    "round",
    "sort",
    "split",
    "string",
    "trim",
    "trimPrefix",
    "trimSuffix",
    "uniq",
    "upper",
    "values",
];
/// Functions of the language that nothing here works out.
pub const OTHERS: [&str; 20] = [
    "bitnand",
    "bitnot",
    "bitushr",
    "date",
    "duration",
    "flatten",
    "fromBase64",
    "fromJSON",
    "fromPairs",
    "groupBy",
    "mean",
    "median",
    "now",
    "sortBy",
    "splitAfter",
    "take",
    "timezone",
    "toBase64",
    "toJSON",
    "toPairs",
];

pub fn sum(values: &[Value]) -> Result {
    values.iter().try_fold(Value::Int(0), |sum, value| match (&sum, value) {
        (Value::Int(one), Value::Int(other)) => Ok(Value::Int(one.wrapping_add(*other))),
        _ => match (float(&sum), float(value)) {
            (Some(one), Some(other)) => Ok(Value::Float(one + other)),
            _ => failed(format!("sum of {}", value.type_name())),
        },
    })
}

/// # Errors
/// The wrong number or types of arguments.
#[expect(clippy::too_many_lines, reason = "a line or two for each function")]
pub fn call(name: &str, args: &[Value], steps: &Steps) -> Result {
    let types = || {
        let types: Vec<&str> = args.iter().map(Value::type_name).collect();
        Failed(format!("{name}({})", types.join(", ")))
    };
    let count = |at: &Value| at.index().ok_or_else(types);
    Ok(match (name, args) {
        ("len", [Value::Text(text)]) => int(text.chars().count()),
        ("len", [value]) => int(super::super::functions::length(value)?),
        ("string", [value]) => Value::Text(value.to_string()),
        ("int", [Value::Text(text)]) => {
            Value::Int(text.trim().parse().map_err(|_| Failed(format!("invalid operation: int({text})")))?)
        }
        ("int", [Value::Float(number)]) => Value::Int(whole(*number)),
        ("int", [Value::Int(number)]) => Value::Int(*number),
        ("float", [Value::Text(text)]) => Value::Float(text.trim().parse().map_err(|_| types())?),
        ("float", [value]) => Value::Float(float(value).ok_or_else(types)?),
        ("abs", [Value::Int(number)]) => Value::Int(number.wrapping_abs()),
        ("abs", [Value::Float(number)]) => Value::Float(number.abs()),
        ("ceil", [value]) => Value::Float(float(value).ok_or_else(types)?.ceil()),
        ("floor", [value]) => Value::Float(float(value).ok_or_else(types)?.floor()),
        ("round", [value]) => Value::Float(float(value).ok_or_else(types)?.round()),
        ("bitand", [Value::Int(one), Value::Int(other)]) => Value::Int(one & other),
        ("bitor", [Value::Int(one), Value::Int(other)]) => Value::Int(one | other),
        ("bitxor", [Value::Int(one), Value::Int(other)]) => Value::Int(one ^ other),
        ("bitshl", [Value::Int(one), by]) => Value::Int(shifted(*one, count(by)?, false)),
        ("bitshr", [Value::Int(one), by]) => Value::Int(shifted(*one, count(by)?, true)),
        ("upper", [Value::Text(text)]) => Value::Text(text.to_uppercase()),
        ("lower", [Value::Text(text)]) => Value::Text(text.to_lowercase()),
        ("trim", [Value::Text(text)]) => Value::Text(text.trim().to_owned()),
        ("trim", [Value::Text(text), Value::Text(set)]) => {
            Value::Text(text.trim_matches(|char| set.contains(char)).to_owned())
        }
        ("trimPrefix", [Value::Text(text), Value::Text(part)]) => {
            Value::Text(text.strip_prefix(part.as_str()).unwrap_or(text).to_owned())
        }
        ("trimSuffix", [Value::Text(text), Value::Text(part)]) => {
            Value::Text(text.strip_suffix(part.as_str()).unwrap_or(text).to_owned())
        }
        ("hasPrefix", [Value::Text(text), Value::Text(part)]) => Value::Bool(text.starts_with(part.as_str())),
        ("hasSuffix", [Value::Text(text), Value::Text(part)]) => Value::Bool(text.ends_with(part.as_str())),
        ("indexOf", [Value::Text(text), Value::Text(part)]) => text.find(part.as_str()).map_or(Value::Int(-1), int),
        ("lastIndexOf", [Value::Text(text), Value::Text(part)]) => {
            text.rfind(part.as_str()).map_or(Value::Int(-1), int)
        }
        ("replace", [Value::Text(text), Value::Text(from), Value::Text(to)]) => {
            return replaced(text, from, to, usize::MAX, steps);
        }
        ("replace", [Value::Text(text), Value::Text(from), Value::Text(to), most]) => {
            return replaced(text, from, to, count(most)?, steps);
        }
        ("repeat", [Value::Text(text), times]) => {
            let times = count(times)?;
            match text.len().checked_mul(times) {
                Some(bytes) if bytes <= super::super::value::TEXT_MAX => Value::Text(text.repeat(times)),
                _ => return failed("repeat: too long"),
            }
        }
        ("split", [Value::Text(text), Value::Text(at)]) => {
            Value::List(text.split(at.as_str()).map(|part| Value::Text(part.to_owned())).collect())
        }
        ("split", [Value::Text(text), Value::Text(at), most]) => {
            Value::List(text.splitn(count(most)?, at.as_str()).map(|part| Value::Text(part.to_owned())).collect())
        }
        ("join", [Value::List(list), rest @ ..]) if rest.len() <= 1 => {
            let between = match rest {
                [Value::Text(between)] => between.as_str(),
                [] => "",
                _ => return Err(types()),
            };
            let words = list.iter().map(|item| match item {
                Value::Text(text) => Ok(text.as_str()),
                _ => Err(types()),
            });
            return Value::text(words.collect::<Result<Vec<&str>>>()?.join(between));
        }
        ("first", [Value::List(list)]) => list.first().cloned().unwrap_or(Value::Nil),
        ("last", [Value::List(list)]) => list.last().cloned().unwrap_or(Value::Nil),
        ("get", [of, key]) => super::member(of, key).unwrap_or(Value::Nil),
        ("keys", [Value::Map(map)]) => Value::List(map.keys().cloned().map(Value::Text).collect()),
        ("values", [Value::Map(map)]) => Value::List(map.values().cloned().collect()),
        ("reverse", [Value::List(list)]) => Value::List(list.iter().rev().cloned().collect()),
        ("concat", lists) if !lists.is_empty() => {
            let mut all = Vec::new();
            for list in lists {
                let Value::List(list) = list else { return Err(types()) };
                all.extend(list.iter().cloned());
            }
            Value::List(all)
        }
        ("uniq", [Value::List(list)]) => {
            let mut all: Vec<Value> = Vec::new();
            for item in list {
                steps.take()?;
                if !all.iter().any(|known| same(known, item)) {
                    all.push(item.clone());
                }
            }
            Value::List(all)
        }
        ("sort", [Value::List(list)]) => {
            let mut list = list.clone();
            if list.windows(2).any(|two| two[0].order(&two[1], false).is_err()) {
                return Err(types());
            }
            list.sort_by(|one, other| one.order(other, false).unwrap_or(std::cmp::Ordering::Equal));
            Value::List(list)
        }
        ("min" | "max", [Value::List(list)]) => return extreme(name, list),
        ("min" | "max", values) => return extreme(name, values),
        _ => return Err(types()),
    })
}

fn replaced(text: &str, from: &str, to: &str, most: usize, steps: &Steps) -> Result {
    steps.take()?;
    let times = text.matches(from).count().min(most);
    if text.len().saturating_add(times.saturating_mul(to.len())) > super::super::value::TEXT_MAX {
        return failed("replace: too long");
    }
    Ok(Value::Text(text.replacen(from, to, most)))
}

#[expect(clippy::cast_possible_truncation, reason = "cut to the bounds of a whole number")]
fn whole(number: f64) -> i64 {
    number as i64
}

fn shifted(number: i64, by: usize, right: bool) -> i64 {
    match u32::try_from(by) {
        Ok(by) if by < 64 && right => number >> by,
        Ok(by) if by < 64 => number << by,
        _ if right && number < 0 => -1,
        _ => 0,
    }
}

fn extreme(name: &str, values: &[Value]) -> Result {
    let mut found: Option<&Value> = None;
    for value in values {
        let Some(number) = float(value) else { return failed(format!("{name} of {}", value.type_name())) };
        let better =
            found.and_then(float).is_none_or(|known| if name == "min" { number < known } else { number > known });
        if better {
            found = Some(value);
        }
    }
    found.cloned().ok_or_else(|| Failed(format!("{name} of nothing")))
}
