//! Fills in a parsed template, as Go's text/template does.
//!
//! Pure, and bounded in its steps and in the text it makes.

use super::{
    functions,
    parse::{Branch, Node, Operand, Parsed, Pipe},
    value::{Failed, Object, Result, Steps, TEXT_MAX, Value, failed},
};

/// Deepest nesting of templates that use each other.
const CALLS_MAX: usize = 30;

/// The data of a template.
pub trait Data {
    fn field(&self, name: &str) -> Option<Value>;
    /// The method `Meta`: labels of other plugins, of which there are none.
    fn meta(&self, _label: &str) -> Value {
        Value::Text(String::new())
    }
}

/// The text that a template comes to.
///
/// # Errors
/// As Go has them when it fills in a template, and the bounds.
pub fn fill(parsed: &Parsed, data: &dyn Data, steps: &Steps) -> Result<String> {
    let mut filling = Filling { parsed, data, steps, names: vec![("$", Value::Data)], out: String::new(), calls: 0 };
    filling.nodes(&parsed.nodes, &Value::Data)?;
    Ok(filling.out)
}

struct Filling<'t> {
    parsed: &'t Parsed,
    data: &'t dyn Data,
    steps: &'t Steps,
    names: Vec<(&'t str, Value)>,
    out: String,
    calls: usize,
}

/// The way on after a node.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl<'t> Filling<'t> {
    fn nodes(&mut self, nodes: &'t [Node], dot: &Value) -> Result<Flow> {
        for node in nodes {
            self.steps.take()?;
            let flow = match node {
                Node::Text(text) => self.put(text)?,
                Node::Output(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.names.is_empty() {
                        self.put(&value.to_string())?;
                    }
                    Flow::Next
                }
                Node::If(branch) => self.branch(branch, dot, false)?,
                Node::With(branch) => self.branch(branch, dot, true)?,
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
                Node::Call(name, pipe) => self.call(name, pipe.as_ref(), dot)?,
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn put(&mut self, text: &str) -> Result<Flow> {
        if self.out.len() + text.len() > TEXT_MAX {
            return failed(format!("makes more than {TEXT_MAX} bytes"));
        }
        self.out.push_str(text);
        Ok(Flow::Next)
    }

    fn branch(&mut self, branch: &'t Branch, dot: &Value, moves_dot: bool) -> Result<Flow> {
        let mark = self.names.len();
        let value = self.pipe(&branch.pipe, dot)?;
        let flow = if value.is_true() {
            self.nodes(&branch.body, if moves_dot { &value } else { dot })
        } else {
            self.nodes(&branch.otherwise, dot)
        };
        self.names.truncate(mark);
        flow
    }

    fn range(&mut self, branch: &'t Branch, dot: &Value) -> Result<Flow> {
        let mark = self.names.len();
        let names = &branch.pipe.names;
        let over = self.value(&branch.pipe, dot)?;
        let items: Box<dyn Iterator<Item = (Option<Value>, Value)>> = match over {
            Value::List(list) => Box::new((0..).zip(list).map(|(at, item)| (Some(Value::Int(at)), item))),
            Value::Map(map) => Box::new(map.into_iter().map(|(key, item)| (Some(Value::Text(key)), item))),
            Value::Int(count) if names.len() < 2 => Box::new((0..count).map(|at| (None, Value::Int(at)))),
            Value::Uint(count) if names.len() < 2 => Box::new((0..count).map(|at| (None, Value::Uint(at)))),
            Value::Nil | Value::Missing => Box::new(std::iter::empty()),
            other => return failed(format!("range can't iterate over {other}")),
        };
        let mut is_empty = true;
        for (key, item) in items {
            self.steps.take()?;
            is_empty = false;
            match names.as_slice() {
                [] => {}
                [one] => self.set(one, item.clone(), branch.pipe.assigns)?,
                [one, two, ..] => {
                    self.set(one, key.unwrap_or(Value::Nil), branch.pipe.assigns)?;
                    self.set(two, item.clone(), branch.pipe.assigns)?;
                }
            }
            let flow = self.nodes(&branch.body, &item)?;
            self.names.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        let flow = if is_empty { self.nodes(&branch.otherwise, dot)? } else { Flow::Next };
        self.names.truncate(mark);
        Ok(flow)
    }

    fn call(&mut self, name: &str, pipe: Option<&'t Pipe>, dot: &Value) -> Result<Flow> {
        let parsed = self.parsed;
        let Some((_, nodes)) = parsed.defined.iter().find(|(known, _)| known == name) else {
            return failed(format!("template {name:?} not defined"));
        };
        let dot = match pipe {
            Some(pipe) => self.pipe(pipe, dot)?,
            None => Value::Nil,
        };
        self.calls += 1;
        if self.calls > CALLS_MAX {
            return failed(format!("templates use each other more than {CALLS_MAX} deep"));
        }
        let names = std::mem::replace(&mut self.names, vec![("$", dot.clone())]);
        self.nodes(nodes, &dot)?;
        self.names = names;
        self.calls -= 1;
        Ok(Flow::Next)
    }

    fn set(&mut self, name: &'t str, value: Value, assigns: bool) -> Result<()> {
        if value.bytes() > TEXT_MAX {
            return failed(format!("makes more than {TEXT_MAX} bytes"));
        }
        match self.names.iter_mut().rev().find(|(known, _)| assigns && *known == name) {
            Some((_, known)) => *known = value,
            None => self.names.push((name, value)),
        }
        Ok(())
    }

    /// The value of a pipeline, which its variables get.
    fn pipe(&mut self, pipe: &'t Pipe, dot: &Value) -> Result {
        let value = self.value(pipe, dot)?;
        for name in &pipe.names {
            self.set(name, value.clone(), pipe.assigns)?;
        }
        Ok(value)
    }

    fn value(&mut self, pipe: &'t Pipe, dot: &Value) -> Result {
        let mut last = None;
        for command in &pipe.commands {
            self.steps.take()?;
            last = Some(self.command(command, dot, last)?);
        }
        last.ok_or_else(|| Failed("an empty pipeline".into()))
    }

    fn command(&mut self, command: &'t [Operand], dot: &Value, last: Option<Value>) -> Result {
        let Some((first, rest)) = command.split_first() else { return failed("an empty command") };
        match first {
            Operand::Function(name) => self.function(name, rest, dot, last),
            // The one method.
            Operand::Field(path) if path.len() == 1 && path[0] == "Meta" && *dot == Value::Data => {
                self.meta(rest, dot, last)
            }
            Operand::Variable(name, path)
                if path.len() == 1 && path[0] == "Meta" && self.named(name)? == Value::Data =>
            {
                self.meta(rest, dot, last)
            }
            _ if !rest.is_empty() || last.is_some() => match first {
                Operand::Field(path) | Operand::Variable(_, path) | Operand::Pipe(_, path) if !path.is_empty() => {
                    failed(format!("{} has arguments but cannot be invoked as function", path[path.len() - 1]))
                }
                _ => failed("can't give argument to non-function"),
            },
            operand => self.operand(operand, dot),
        }
    }

    fn meta(&mut self, rest: &'t [Operand], dot: &Value, last: Option<Value>) -> Result {
        let mut args = rest.iter().map(|operand| self.operand(operand, dot)).collect::<Result<Vec<Value>>>()?;
        args.extend(last);
        match args.as_slice() {
            [Value::Text(label)] => Ok(self.data.meta(label)),
            _ => failed("Meta takes the name of a label"),
        }
    }

    fn function(&mut self, name: &str, rest: &'t [Operand], dot: &Value, last: Option<Value>) -> Result {
        if let "and" | "or" = name {
            // They stop at the first argument that decides.
            let mut result = None;
            for operand in rest {
                let value = self.operand(operand, dot)?;
                let decides = value.is_true() == (name == "or");
                if decides {
                    return Ok(value);
                }
                result = Some(value);
            }
            return last.or(result).ok_or_else(|| Failed(format!("wrong number of args for {name}")));
        }
        let mut args = rest.iter().map(|operand| self.operand(operand, dot)).collect::<Result<Vec<Value>>>()?;
        args.extend(last);
        functions::call(name, &args)
    }

    fn operand(&mut self, operand: &'t Operand, dot: &Value) -> Result {
        match operand {
            Operand::Dot => Ok(dot.clone()),
            Operand::Constant(value) => Ok(value.clone()),
            Operand::Field(path) => self.path(dot.clone(), path),
            Operand::Variable(name, path) => {
                let value = self.named(name)?;
                self.path(value, path)
            }
            Operand::Function(name) => self.function(name, &[], dot, None),
            Operand::Pipe(pipe, path) => {
                let value = self.pipe(pipe, dot)?;
                self.path(value, path)
            }
        }
    }

    fn named(&self, name: &str) -> Result {
        let found = self.names.iter().rev().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone()).ok_or_else(|| Failed(format!("undefined variable: {name}")))
    }

    fn path(&self, value: Value, path: &[String]) -> Result {
        path.iter().try_fold(value, |value, field| match value {
            Value::Data => self.data.field(field).ok_or_else(|| Failed(format!("can't evaluate field {field}"))),
            Value::Object(Object { fields, .. }) => {
                let found = fields.into_iter().find(|(known, _)| known == field);
                found.map(|(_, value)| value).ok_or_else(|| Failed(format!("can't evaluate field {field}")))
            }
            Value::Map(map) => Ok(map.get(field).cloned().unwrap_or(Value::Missing)),
            Value::Missing => Ok(Value::Missing),
            Value::Nil => failed(format!("nil data; no entry for key {field:?}")),
            other => failed(format!("can't evaluate field {field} in type {}", other.type_name())),
        })
    }
}
