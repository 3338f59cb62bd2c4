//! Expressions of `var` and `expr`, in the language of expr-lang.org as far as questions need it.
//!
//! Pure, and bounded in its steps. Types are checked when an expression is worked out, not when it is read.

mod builtins;
mod parse;

use super::value::{Failed, Result, Steps, Value, failed};

/// Ends the reason why an expression is refused that CoreDNS takes.
pub const NOT_WORKED_OUT: &str = "is not worked out here";

/// The facts about a question that an expression may name.
pub trait Facts {
    /// The value of a function without arguments, such as `client_ip`.
    fn fact(&self, name: &str) -> Value;
    /// A group of the match by its name or number.
    fn group(&self, name: &str) -> String;
}

/// Functions of a question, without arguments.
const FACTS: [&str; 13] = [
    "bufsize",
    "class",
    "client_ip",
    "do",
    "id",
    "name",
    "opcode",
    "port",
    "proto",
    "server_ip",
    "server_port",
    "size",
    "type",
];

#[derive(Clone, Debug)]
pub struct Expression {
    source: String,
    node: Node,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Constant(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    Variable(String),
    /// `#` of a predicate, `#index` and `#acc`.
    Item,
    Index,
    Gathered,
    Member(Box<Node>, Box<Node>, bool),
    Slice(Box<Node>, Option<Box<Node>>, Option<Box<Node>>),
    Call(String, Vec<Node>),
    Not(Box<Node>),
    Negative(Box<Node>),
    Binary(&'static str, Box<Node>, Box<Node>),
    Choice(Box<Node>, Box<Node>, Box<Node>),
    Let(String, Box<Node>, Box<Node>),
}

impl Expression {
    /// Reads an expression in which these variables are known.
    ///
    /// # Errors
    /// Syntax, and names that are not known.
    pub fn parse(source: &str, variables: &[&str]) -> std::result::Result<Self, String> {
        let node = parse::parse(source, variables).map_err(|error| format!("{source:?}: {error}"))?;
        Ok(Self { source: source.to_owned(), node })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// # Errors
    /// Values of the wrong type, and the bound of steps.
    pub fn value(&self, facts: &dyn Facts, variables: &[(String, Value)], steps: &Steps) -> Result {
        let mut work = Work { facts, variables: variables.to_vec(), items: Vec::new(), steps };
        work.value(&self.node)
    }
}

/// Whether a variable may have this name.
pub fn is_free_name(name: &str) -> bool {
    let starts = name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_');
    let word = name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_');
    starts && word && !parse::is_reserved(name)
}

struct Work<'w> {
    facts: &'w dyn Facts,
    variables: Vec<(String, Value)>,
    /// The item, its position and the value gathered so far, of each predicate around.
    items: Vec<(Value, usize, Value)>,
    steps: &'w Steps,
}

impl Work<'_> {
    fn value(&mut self, node: &Node) -> Result {
        self.steps.take()?;
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::List(nodes) => nodes.iter().map(|node| self.value(node)).collect::<Result<_>>().map(Value::List),
            Node::Map(entries) => {
                let entries = entries.iter().map(|(key, node)| Ok((key.clone(), self.value(node)?)));
                entries.collect::<Result<_>>().map(Value::Map)
            }
            Node::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| Failed(format!("unknown name {name}")))
            }
            Node::Item => self.items.last().map(|(item, ..)| item.clone()).ok_or_else(outside),
            Node::Index => self.items.last().map(|(_, at, _)| int(*at)).ok_or_else(outside),
            Node::Gathered => self.items.last().map(|(_, _, gathered)| gathered.clone()).ok_or_else(outside),
            Node::Member(of, key, optional) => {
                let of = self.value(of)?;
                if *optional && of == Value::Nil {
                    return Ok(Value::Nil);
                }
                let key = self.value(key)?;
                member(&of, &key)
            }
            Node::Slice(of, from, to) => {
                let of = self.value(of)?;
                let from = from.as_ref().map(|node| self.value(node)).transpose()?;
                let to = to.as_ref().map(|node| self.value(node)).transpose()?;
                slice(&of, from.as_ref(), to.as_ref())
            }
            Node::Not(node) => match self.value(node)? {
                Value::Bool(is) => Ok(Value::Bool(!is)),
                other => failed(format!("not of {}", other.type_name())),
            },
            Node::Negative(node) => match self.value(node)? {
                Value::Int(number) => Ok(Value::Int(number.wrapping_neg())),
                Value::Float(number) => Ok(Value::Float(-number)),
                other => failed(format!("- of {}", other.type_name())),
            },
            Node::Choice(condition, one, other) => {
                let which = if self.bool(condition)? { one } else { other };
                self.value(which)
            }
            Node::Let(name, value, body) => {
                let value = self.value(value)?;
                self.variables.push((name.clone(), value));
                let result = self.value(body);
                self.variables.pop();
                result
            }
            Node::Binary(sign, one, other) => self.binary(sign, one, other),
            Node::Call(name, args) => self.call(name, args),
        }
    }

    fn bool(&mut self, node: &Node) -> Result<bool> {
        match self.value(node)? {
            Value::Bool(is) => Ok(is),
            other => failed(format!("{} is not a bool", other.type_name())),
        }
    }

    fn binary(&mut self, sign: &str, one: &Node, other: &Node) -> Result {
        match sign {
            "and" => return Ok(Value::Bool(self.bool(one)? && self.bool(other)?)),
            "or" => return Ok(Value::Bool(self.bool(one)? || self.bool(other)?)),
            "??" => {
                let value = self.value(one)?;
                return if value == Value::Nil { self.value(other) } else { Ok(value) };
            }
            _ => {}
        }
        let (one, other) = (self.value(one)?, self.value(other)?);
        let types = || Failed(format!("{} {sign} {}", one.type_name(), other.type_name()));
        match (sign, &one, &other) {
            ("==", ..) => Ok(Value::Bool(same(&one, &other))),
            ("!=", ..) => Ok(Value::Bool(!same(&one, &other))),
            ("in", _, Value::List(list)) => Ok(Value::Bool(list.iter().any(|item| same(item, &one)))),
            ("in", Value::Text(key), Value::Map(map)) => Ok(Value::Bool(map.contains_key(key))),
            ("contains", Value::Text(text), Value::Text(part)) => Ok(Value::Bool(text.contains(part.as_str()))),
            ("startsWith", Value::Text(text), Value::Text(part)) => Ok(Value::Bool(text.starts_with(part.as_str()))),
            ("endsWith", Value::Text(text), Value::Text(part)) => Ok(Value::Bool(text.ends_with(part.as_str()))),
            ("matches", Value::Text(text), Value::Text(pattern)) => {
                let pattern = super::Pattern::new(pattern).map_err(Failed)?;
                Ok(Value::Bool(pattern.regex().is_match(text)))
            }
            ("+", Value::Text(one), Value::Text(other)) => Value::text(format!("{one}{other}")),
            ("..", Value::Int(from), Value::Int(to)) => {
                let mut list = Vec::new();
                for number in *from..=*to {
                    self.steps.take()?;
                    list.push(Value::Int(number));
                }
                Ok(Value::List(list))
            }
            ("<" | ">" | "<=" | ">=", ..) => {
                let order = match (one.number(), other.number()) {
                    (Some(one), Some(other)) => one.cmp(&other),
                    _ => match (float(&one), float(&other)) {
                        (Some(one), Some(other)) => one.partial_cmp(&other).ok_or_else(types)?,
                        _ => one.order(&other, false).map_err(|_| types())?,
                    },
                };
                Ok(Value::Bool(match sign {
                    "<" => order.is_lt(),
                    ">" => order.is_gt(),
                    "<=" => order.is_le(),
                    _ => order.is_ge(),
                }))
            }
            ("+", Value::Int(one), Value::Int(other)) => Ok(Value::Int(one.wrapping_add(*other))),
            ("-", Value::Int(one), Value::Int(other)) => Ok(Value::Int(one.wrapping_sub(*other))),
            ("*", Value::Int(one), Value::Int(other)) => Ok(Value::Int(one.wrapping_mul(*other))),
            ("%", Value::Int(one), Value::Int(other)) => {
                one.checked_rem(*other).map(Value::Int).ok_or_else(|| Failed("integer divide by zero".into()))
            }
            ("+" | "-" | "*" | "/" | "**", ..) => {
                let (Some(one), Some(other)) = (float(&one), float(&other)) else { return Err(types()) };
                Ok(Value::Float(match sign {
                    "+" => one + other,
                    "-" => one - other,
                    "*" => one * other,
                    "/" => one / other,
                    _ => one.powf(other),
                }))
            }
            _ => Err(types()),
        }
    }

    fn call(&mut self, name: &str, args: &[Node]) -> Result {
        if FACTS.contains(&name) {
            return Ok(self.facts.fact(name));
        }
        if builtins::PREDICATES.contains(&name) {
            return self.predicate(name, args);
        }
        let args = args.iter().map(|node| self.value(node)).collect::<Result<Vec<Value>>>()?;
        match (name, args.as_slice()) {
            ("group", [Value::Text(group)]) => Ok(Value::Text(self.facts.group(group))),
            ("group", [Value::Int(number)]) => Ok(Value::Text(self.facts.group(&number.to_string()))),
            // Of labels of other plugins there are none.
            ("group", [_]) | ("metadata", [Value::Text(_)]) => Ok(Value::Text(String::new())),
            ("incidr", [Value::Text(ip), Value::Text(network)]) => {
                let ip: std::net::IpAddr =
                    ip.parse().map_err(|_| Failed("first argument is not an IP address".into()))?;
                let network: ipnet::IpNet =
                    network.parse().map_err(|_| Failed(format!("invalid CIDR address: {network}")))?;
                Ok(Value::Bool(network.contains(&ip)))
            }
            _ => builtins::call(name, &args, self.steps),
        }
    }

    /// Works out `node` for one item of a list.
    fn with_item(&mut self, node: &Node, item: &Value, at: usize, gathered: Value) -> Result {
        self.items.push((item.clone(), at, gathered));
        let value = self.value(node);
        self.items.pop();
        value
    }

    fn predicate(&mut self, name: &str, args: &[Node]) -> Result {
        let (list, node) = match args {
            [list, rest @ ..] => (self.value(list)?, rest.first()),
            [] => return failed(format!("{name} takes a list")),
        };
        let Value::List(list) = list else { return failed(format!("{name} of {}", list.type_name())) };
        let item = Node::Item;
        let node = match (name, node) {
            (_, Some(node)) => node,
            ("count" | "sum", None) => &item,
            _ => return failed(format!("{name} takes a predicate")),
        };
        if name == "reduce" {
            let mut items = list.iter().enumerate();
            let mut gathered = match args.get(2) {
                Some(first) => self.value(first)?,
                None => items.next().map_or(Value::Nil, |(_, first)| first.clone()),
            };
            for (at, item) in items {
                gathered = self.with_item(node, item, at, gathered)?;
            }
            return Ok(gathered);
        }
        let mut values = Vec::with_capacity(list.len());
        for (at, item) in list.iter().enumerate() {
            values.push(self.with_item(node, item, at, Value::Nil)?);
        }
        if name == "map" {
            return Ok(Value::List(values));
        }
        if name == "sum" {
            return builtins::sum(&values);
        }
        let hits: Vec<usize> = values
            .iter()
            .enumerate()
            .filter_map(|(at, value)| match value {
                Value::Bool(is) => is.then_some(Ok(at)),
                other => Some(failed(format!("{name}: {} is not a bool", other.type_name()))),
            })
            .collect::<Result<_>>()?;
        let found = |at: Option<&usize>| at.map_or(Value::Nil, |at| list[*at].clone());
        let position = |at: Option<&usize>| at.map_or(Value::Int(-1), |at| int(*at));
        Ok(match name {
            "all" => Value::Bool(hits.len() == list.len()),
            "any" => Value::Bool(!hits.is_empty()),
            "none" => Value::Bool(hits.is_empty()),
            "one" => Value::Bool(hits.len() == 1),
            "count" => int(hits.len()),
            "filter" => Value::List(hits.iter().map(|at| list[*at].clone()).collect()),
            "find" => found(hits.first()),
            "findLast" => found(hits.last()),
            "findIndex" => position(hits.first()),
            _ => position(hits.last()),
        })
    }
}

fn outside() -> Failed {
    Failed("# stands outside of a predicate".into())
}

fn int(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "as in Go")]
fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        Value::Int(number) => Some(*number as f64),
        _ => None,
    }
}

/// Numbers are the same whatever their type.
#[expect(clippy::float_cmp, reason = "the language compares them so")]
fn same(one: &Value, other: &Value) -> bool {
    match (float(one), float(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// A position, from the end if it is negative.
fn position(at: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if at < 0 { at + length } else { at }).ok()
}

fn member(of: &Value, key: &Value) -> Result {
    match (of, key) {
        (Value::List(list), Value::Int(at)) => {
            let found = position(*at, list.len()).and_then(|at| list.get(at));
            found.cloned().ok_or_else(|| Failed(format!("index out of range: {at}")))
        }
        (Value::Text(text), Value::Int(at)) => {
            let found = position(*at, text.len()).and_then(|at| text.as_bytes().get(at));
            found.map(|byte| Value::Int((*byte).into())).ok_or_else(|| Failed(format!("index out of range: {at}")))
        }
        (Value::Map(map), Value::Text(key)) => Ok(map.get(key).cloned().unwrap_or(Value::Nil)),
        _ => failed(format!("cannot fetch {key} from {}", of.type_name())),
    }
}

fn slice(of: &Value, from: Option<&Value>, to: Option<&Value>) -> Result {
    let length = super::functions::length(of)?;
    let bound = |value: Option<&Value>, default: usize| match value {
        None => Ok(default),
        Some(Value::Int(at)) => Ok(position(*at, length).unwrap_or(0).min(length)),
        Some(other) => failed(format!("a bound is a number, found {}", other.type_name())),
    };
    let (from, to) = (bound(from, 0)?, bound(to, length)?);
    let from = from.min(to);
    match of {
        Value::Text(text) => {
            text.get(from..to).map(|part| Value::Text(part.to_owned())).ok_or_else(|| Failed("cuts a character".into()))
        }
        Value::List(list) => Ok(Value::List(list[from..to].to_vec())),
        other => failed(format!("cannot slice {}", other.type_name())),
    }
}
