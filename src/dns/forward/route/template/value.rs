//! Values of templates and expressions, as Go shows and compares them.

use std::{cell::Cell, cmp::Ordering, collections::BTreeMap, fmt};

/// Longest text that a template makes, in bytes: no record is longer as text.
pub const TEXT_MAX: usize = 16_384;
/// Steps of the templates and expressions of one answer.
const STEPS_MAX: usize = 20_000;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Nil,
    /// A key that a map does not have.
    Missing,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    Map(BTreeMap<String, Self>),
    Object(Object),
    /// The data of the template, whose fields are looked up when they are used.
    Data,
}

/// Named fields, with the text they are shown as.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub fields: Vec<(&'static str, Value)>,
    pub shown: String,
}

/// Why a template or an expression has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed(pub String);

pub type Result<T = Value> = std::result::Result<T, Failed>;

pub fn failed<T>(reason: impl Into<String>) -> Result<T> {
    Err(Failed(reason.into()))
}

/// Bounds the work for one answer.
#[derive(Debug)]
pub struct Steps(Cell<usize>);

impl Default for Steps {
    fn default() -> Self {
        Self(Cell::new(STEPS_MAX))
    }
}

impl Steps {
    /// # Errors
    /// There are no more.
    pub fn take(&self) -> Result<()> {
        match self.0.get().checked_sub(1) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => failed(format!("takes more than {STEPS_MAX} steps")),
        }
    }
}

impl Value {
    /// A text within its bound.
    ///
    /// # Errors
    /// If the text is longer than [`TEXT_MAX`].
    pub fn text(text: String) -> Result {
        if text.len() > TEXT_MAX { failed(format!("makes more than {TEXT_MAX} bytes")) } else { Ok(Self::Text(text)) }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(list) => list.iter().map(Self::bytes).sum::<usize>() + 8 * list.len(),
            Self::Map(map) => map.iter().map(|(key, value)| key.len() + value.bytes()).sum(),
            _ => 8,
        }
    }

    /// Whether `if` takes it for true, as in Go.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Nil | Self::Missing => false,
            Self::Bool(is) => *is,
            Self::Int(number) => *number != 0,
            Self::Uint(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Object(_) | Self::Data => true,
        }
    }

    /// The name of its type in Go.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Nil | Self::Missing => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint64",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(list) if list.iter().all(|item| matches!(item, Self::Text(_))) => "[]string",
            Self::List(_) => "[]interface {}",
            Self::Map(map) if !map.is_empty() && map.values().all(|item| matches!(item, Self::Text(_))) => {
                "map[string]string"
            }
            Self::Map(_) => "map[string]interface {}",
            Self::Object(_) => "*dns.Msg",
            Self::Data => "*template.templateData",
        }
    }

    pub fn number(&self) -> Option<i128> {
        match self {
            Self::Int(number) => Some((*number).into()),
            Self::Uint(number) => Some((*number).into()),
            _ => None,
        }
    }

    /// As a position or a count.
    pub fn index(&self) -> Option<usize> {
        self.number().and_then(|number| usize::try_from(number).ok())
    }

    /// Whether both are equal, for values that Go compares.
    pub fn equals(&self, other: &Self) -> Result<bool> {
        match (self, other) {
            (Self::Nil | Self::Missing, Self::Nil | Self::Missing) => Ok(true),
            (Self::Nil | Self::Missing, _) | (_, Self::Nil | Self::Missing) => Ok(false),
            (Self::List(_) | Self::Map(_) | Self::Object(_) | Self::Data, _)
            | (_, Self::List(_) | Self::Map(_) | Self::Object(_) | Self::Data) => failed("non-comparable type in eq"),
            _ => self.order(other, true).map(Ordering::is_eq),
        }
    }

    /// Which is less, for numbers and texts; for booleans too if `bools`.
    pub fn order(&self, other: &Self, bools: bool) -> Result<Ordering> {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => Ok(one.cmp(other)),
            (Self::Float(one), Self::Float(other)) => {
                one.partial_cmp(other).ok_or_else(|| Failed("not a number".into()))
            }
            (Self::Bool(one), Self::Bool(other)) if bools => Ok(one.cmp(other)),
            _ => match (self.number(), other.number()) {
                (Some(one), Some(other)) => Ok(one.cmp(&other)),
                _ => failed("incompatible types for comparison"),
            },
        }
    }
}

/// As `%v` of Go shows it; a missing value as templates do.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("<nil>"),
            Self::Missing => f.write_str("<no value>"),
            Self::Bool(is) => write!(f, "{is}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Uint(number) => write!(f, "{number}"),
            Self::Float(number) => f.write_str(&general(*number)),
            Self::Text(text) => f.write_str(text),
            Self::List(list) => {
                f.write_str("[")?;
                for (at, item) in list.iter().enumerate() {
                    write!(f, "{}{item}", if at > 0 { " " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("map[")?;
                for (at, (key, item)) in map.iter().enumerate() {
                    write!(f, "{}{key}:{item}", if at > 0 { " " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Object(object) => f.write_str(&object.shown),
            Self::Data => f.write_str("{}"),
        }
    }
}

/// A number as `%g` of Go shows it: with an exponent below -4 and from 6 on.
pub fn general(number: f64) -> String {
    let shown = format!("{number:e}");
    let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !number.is_finite() {
        return if number.is_nan() {
            "NaN".into()
        } else if number > 0.0 {
            "+Inf".into()
        } else {
            "-Inf".into()
        };
    }
    if (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    format!("{digits}{}", exponent_of(exponent))
}

/// An exponent as Go writes it: with its sign and two digits at least.
pub fn exponent_of(exponent: i32) -> String {
    format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}
