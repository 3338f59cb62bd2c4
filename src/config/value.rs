//! How values of each type are read and shown. Owns the `Value` and `Scalar` contracts; the types are in `types`.

use super::{
    error::Gather,
    node::{Data, Node},
    table::Described,
};

/// A limit on a value: both ends are allowed, and the reason says where they come from.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The least, as it would be written.
    pub min: &'static str,
    /// The most, as it would be written.
    pub max: &'static str,
    /// The RFC or the reason behind them.
    pub why: &'static str,
}

/// A value as the effective configuration shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A word.
    Text(String),
    /// A list.
    List(Vec<Shown>),
    /// A mapping, in order.
    Map(Vec<(String, Shown)>),
}

/// A type a setting can have.
pub trait Value: Sized {
    /// Whether it is a list, so that a flag for it may be given more than once.
    const MANY: bool = false;

    /// Its name in the documentation.
    fn kind() -> String;

    /// The settings inside it, where it is a mapping or a list of them.
    fn inner() -> Vec<Described> {
        Vec::new()
    }

    /// Reads it from a node. Errors go to `errors`; `None` then.
    fn read(node: &Node, key: &str, bounds: Option<Bounds>, errors: &mut Gather) -> Option<Self>;

    /// The value as it is written in a configuration.
    fn show(&self) -> Shown;
}

/// A type that is written as one word.
pub trait Scalar: Sized {
    /// Name of the type: `duration`, `CIDR`.
    const KIND: &'static str;

    /// Reads the word.
    ///
    /// # Errors
    /// A sentence that names the error and a right value.
    fn parse(text: &str) -> Result<Self, String>;

    /// The word.
    fn text(&self) -> String;

    /// The size by which bounds compare, for types that have bounds.
    fn measure(&self) -> Option<u128> {
        None
    }
}

impl<T: Scalar> Value for T {
    fn kind() -> String {
        T::KIND.into()
    }

    fn read(node: &Node, key: &str, bounds: Option<Bounds>, errors: &mut Gather) -> Option<Self> {
        let Data::Text(text) = &node.data else {
            errors.add(node.place, key, format!("expected {}, found {}", T::KIND, node.kind()));
            return None;
        };
        let outcome = T::parse(text).and_then(|value| within(value, bounds));
        outcome.map_err(|message| errors.add(node.place, key, message)).ok()
    }

    fn show(&self) -> Shown {
        Shown::Text(self.text())
    }
}

/// A list. One value alone counts as a list of one.
impl<T: Value> Value for Vec<T> {
    const MANY: bool = true;

    fn kind() -> String {
        format!("list of {}", T::kind())
    }

    fn inner() -> Vec<Described> {
        T::inner()
    }

    fn read(node: &Node, key: &str, bounds: Option<Bounds>, errors: &mut Gather) -> Option<Self> {
        let items = match &node.data {
            Data::Null => return Some(Vec::new()),
            Data::List(items) => items.as_slice(),
            Data::Text(_) | Data::Map(_) => std::slice::from_ref(node),
        };
        let read = |(index, item): (usize, &Node)| {
            let key = if items.len() == 1 { key.to_owned() } else { format!("{key}[{index}]") };
            T::read(item, &key, bounds, errors)
        };
        let values: Vec<Option<T>> = items.iter().enumerate().map(read).collect();
        values.into_iter().collect()
    }

    fn show(&self) -> Shown {
        Shown::List(self.iter().map(Value::show).collect())
    }
}

/// A value that may be `none`.
impl<T: Value> Value for Option<T> {
    fn kind() -> String {
        format!("{} or none", T::kind())
    }

    fn read(node: &Node, key: &str, bounds: Option<Bounds>, errors: &mut Gather) -> Option<Self> {
        match &node.data {
            Data::Null => Some(None),
            Data::Text(text) if text == "none" => Some(None),
            _ => T::read(node, key, bounds, errors).map(Some),
        }
    }

    fn show(&self) -> Shown {
        self.as_ref().map_or_else(|| Shown::Text("none".into()), Value::show)
    }
}

fn within<T: Scalar>(value: T, bounds: Option<Bounds>) -> Result<T, String> {
    let Some(Bounds { min, max, why }) = bounds else { return Ok(value) };
    let limit = |text| T::parse(text).ok().and_then(|limit| limit.measure());
    let inside = match (limit(min), value.measure(), limit(max)) {
        (Some(min), Some(value), Some(max)) => (min..=max).contains(&value),
        _ => true,
    };
    if inside { Ok(value) } else { Err(format!("{:?} is not within {min} and {max} ({why})", value.text())) }
}
