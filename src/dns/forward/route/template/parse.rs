//! The language of Go's text/template: a text as nodes.
//!
//! Pure. Takes what Go takes, and refuses what Go refuses when it parses.

use super::{
    lex::{Part, Token, lex},
    value::Value,
};

/// Deepest nesting of blocks and parentheses.
const DEPTH_MAX: usize = 50;
/// Names that may be called, beside the fields of the data.
const FUNCTIONS: [&str; 20] = [
    "and", "call", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or", "parseInt", "print",
    "printf", "println", "slice", "urlquery",
];

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Text(String),
    Output(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
    /// Another template of this text by its name.
    Call(String, Option<Pipe>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    pub pipe: Pipe,
    pub body: Vec<Node>,
    pub otherwise: Vec<Node>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pipe {
    /// The variables that get its value.
    pub names: Vec<String>,
    /// They are known already.
    pub assigns: bool,
    pub commands: Vec<Vec<Operand>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Dot,
    Constant(Value),
    /// Fields of the dot.
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    Pipe(Pipe, Vec<String>),
}

/// A parsed text with the templates it defines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    pub nodes: Vec<Node>,
    pub defined: Vec<(String, Vec<Node>)>,
}

/// # Errors
/// As Go has them.
pub fn parse(source: &str) -> Result<Parsed, String> {
    let parts = lex(source)?;
    let mut parser =
        Parser { parts: parts.into_iter(), known: vec!["$".into()], parsed: Parsed::default(), depth: 0, ranges: 0 };
    let (nodes, end) = parser.nodes()?;
    match end {
        End::Text => {}
        End::Block => return Err("unexpected {{end}}".into()),
        End::Else(_) => return Err("unexpected {{else}}".into()),
    }
    Ok(Parsed { nodes, ..parser.parsed })
}

struct Parser<I> {
    parts: I,
    /// Variables in reach.
    known: Vec<String>,
    parsed: Parsed,
    depth: usize,
    /// `range` blocks around.
    ranges: usize,
}

/// The end of a list of nodes.
enum End {
    Text,
    /// `end`.
    Block,
    /// With the tokens behind the word.
    Else(Vec<(Token, bool)>),
}

impl<I: Iterator<Item = Part>> Parser<I> {
    fn nodes(&mut self) -> Result<(Vec<Node>, End), String> {
        self.deeper()?;
        let mut nodes = Vec::new();
        let end = loop {
            let tokens = match self.parts.next() {
                None => break End::Text,
                Some(Part::Plain(text)) if text.is_empty() => continue,
                Some(Part::Plain(text)) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Some(Part::Action(tokens)) => tokens,
            };
            let keyword = match tokens.first() {
                Some((Token::Word(word), _)) => word.clone(),
                _ => String::new(),
            };
            let rest = || tokens[1..].to_vec();
            let bare = || if tokens.len() == 1 { Ok(()) } else { Err(format!("unexpected word behind {keyword}")) };
            match keyword.as_str() {
                "end" => {
                    bare()?;
                    break End::Block;
                }
                "else" => break End::Else(rest()),
                "if" => nodes.push(Node::If(self.branch("if", rest())?)),
                "with" => nodes.push(Node::With(self.branch("with", rest())?)),
                "range" => nodes.push(Node::Range(self.branch("range", rest())?)),
                "break" | "continue" if tokens.len() == 1 => {
                    if self.ranges == 0 {
                        return Err(format!("{{{{{keyword}}}}} outside {{{{range}}}}"));
                    }
                    nodes.push(if keyword == "break" { Node::Break } else { Node::Continue });
                }
                "define" => self.define(&rest())?,
                "block" => {
                    let (name, pipe) = self.call("block", &tokens[1..])?;
                    let pipe = pipe.ok_or("missing value for block clause")?;
                    self.body_of(name.clone())?;
                    nodes.push(Node::Call(name, Some(pipe)));
                }
                "template" => {
                    let (name, pipe) = self.call("template", &tokens[1..])?;
                    nodes.push(Node::Call(name, pipe));
                }
                _ => nodes.push(Node::Output(self.pipe(tokens, "command", 1)?)),
            }
        };
        self.depth -= 1;
        Ok((nodes, end))
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(format!("nested more than {DEPTH_MAX} deep")) } else { Ok(()) }
    }

    fn branch(&mut self, kind: &str, tokens: Vec<(Token, bool)>) -> Result<Branch, String> {
        let known = self.known.len();
        let pipe = self.pipe(tokens, kind, if kind == "range" { 2 } else { 1 })?;
        self.ranges += usize::from(kind == "range");
        let inner = self.known.len();
        let (body, end) = self.nodes()?;
        self.known.truncate(inner);
        self.ranges -= usize::from(kind == "range");
        let otherwise = match end {
            End::Text => return Err(format!("{{{{{kind}}}}} has no {{{{end}}}}")),
            End::Block => Vec::new(),
            End::Else(rest) => match rest.first() {
                None => {
                    let (nodes, end) = self.nodes()?;
                    match end {
                        End::Block => nodes,
                        End::Text => return Err("{{else}} has no {{end}}".into()),
                        End::Else(_) => return Err("expected end; found {{else}}".into()),
                    }
                }
                // `else if` and `else with` share the `end`.
                Some((Token::Word(word), _)) if word == kind && kind != "range" => {
                    self.deeper()?;
                    let branch = self.branch(kind, rest[1..].to_vec())?;
                    self.depth -= 1;
                    vec![if kind == "if" { Node::If(branch) } else { Node::With(branch) }]
                }
                Some(_) => return Err("unexpected word behind {{else}}".into()),
            },
        };
        self.known.truncate(known);
        Ok(Branch { pipe, body, otherwise })
    }

    fn define(&mut self, tokens: &[(Token, bool)]) -> Result<(), String> {
        match tokens {
            [(Token::Constant(Value::Text(name)), _)] => self.body_of(name.clone()),
            _ => Err("define takes a quoted name".into()),
        }
    }

    /// Reads up to `end` as the template `name`.
    fn body_of(&mut self, name: String) -> Result<(), String> {
        let known = std::mem::replace(&mut self.known, vec!["$".into()]);
        let ranges = std::mem::take(&mut self.ranges);
        let (nodes, end) = self.nodes()?;
        (self.known, self.ranges) = (known, ranges);
        match end {
            End::Block => {
                self.parsed.defined.retain(|(other, _)| *other != name);
                self.parsed.defined.push((name, nodes));
                Ok(())
            }
            End::Text => Err(format!("template {name:?} has no {{{{end}}}}")),
            End::Else(_) => Err("unexpected {{else}}".into()),
        }
    }

    fn call(&mut self, kind: &str, tokens: &[(Token, bool)]) -> Result<(String, Option<Pipe>), String> {
        match tokens.first() {
            Some((Token::Constant(Value::Text(name)), _)) => {
                let rest = tokens[1..].to_vec();
                let pipe = if rest.is_empty() { None } else { Some(self.pipe(rest, kind, 0)?) };
                Ok((name.clone(), pipe))
            }
            _ => Err(format!("{kind} takes a quoted name")),
        }
    }

    /// `names` variables may be declared in front.
    fn pipe(&mut self, tokens: Vec<(Token, bool)>, kind: &str, names: usize) -> Result<Pipe, String> {
        let mut tokens = tokens.into_iter().peekable();
        let pipe = self.pipe_of(&mut tokens, kind, names)?;
        match tokens.next() {
            None => Ok(pipe),
            Some(_) => Err(format!("unexpected \")\" in {kind}")),
        }
    }

    fn pipe_of(&mut self, tokens: &mut Tokens, kind: &str, names: usize) -> Result<Pipe, String> {
        self.deeper()?;
        let mut pipe = Pipe::default();
        if names > 0 {
            self.declared(tokens, &mut pipe, names)?;
        }
        loop {
            let command = self.command(tokens)?;
            let Some(first) = command.first() else { return Err(format!("missing value for {kind}")) };
            match first {
                Operand::Constant(Value::Nil) => return Err("nil is not a command".into()),
                Operand::Constant(_) | Operand::Dot if !pipe.commands.is_empty() => {
                    return Err(format!("non executable command in pipeline stage {}", pipe.commands.len() + 1));
                }
                _ => {}
            }
            pipe.commands.push(command);
            if tokens.next_if(|(token, _)| *token == Token::Pipe).is_none() {
                break;
            }
        }
        // They are known behind their own declaration.
        if !pipe.assigns {
            self.known.extend(pipe.names.iter().cloned());
        }
        self.depth -= 1;
        Ok(pipe)
    }

    /// `$x :=`, `$x =`, or `$i, $x :=` for `range`.
    fn declared(&mut self, tokens: &mut Tokens, pipe: &mut Pipe, names: usize) -> Result<(), String> {
        let ahead: Vec<Token> = tokens.clone().take(4).map(|(token, _)| token).collect();
        let (found, declares) = match ahead.as_slice() {
            [Token::Variable(one), mark @ (Token::Declare | Token::Assign), ..] => (vec![one.clone()], mark),
            [Token::Variable(one), Token::Comma, Token::Variable(two), mark @ (Token::Declare | Token::Assign)] => {
                (vec![one.clone(), two.clone()], mark)
            }
            _ => return Ok(()),
        };
        if found.len() > names {
            return Err("too many declarations".into());
        }
        pipe.assigns = *declares == Token::Assign;
        if pipe.assigns
            && let Some(name) = found.iter().find(|name| !self.known.contains(name))
        {
            return Err(format!("undefined variable {name:?}"));
        }
        for _ in 0..2 * found.len() {
            tokens.next();
        }
        pipe.names = found;
        Ok(())
    }

    fn command(&mut self, tokens: &mut Tokens) -> Result<Vec<Operand>, String> {
        let mut command = Vec::new();
        while let Some((token, blank)) = tokens.peek().cloned() {
            if matches!(token, Token::Pipe | Token::Close) {
                break;
            }
            tokens.next();
            if !command.is_empty() && !blank && !matches!(token, Token::Open) {
                return Err("unexpected word right behind an operand".into());
            }
            let operand = match token {
                Token::Dot => Operand::Dot,
                Token::Constant(value) => Operand::Constant(value),
                Token::Field(name) => Operand::Field([vec![name], fields(tokens)].concat()),
                Token::Variable(name) => {
                    if !self.known.contains(&name) {
                        return Err(format!("undefined variable {name:?}"));
                    }
                    Operand::Variable(name, fields(tokens))
                }
                Token::Word(word) => match word.as_str() {
                    "true" => Operand::Constant(Value::Bool(true)),
                    "false" => Operand::Constant(Value::Bool(false)),
                    "nil" => Operand::Constant(Value::Nil),
                    name if FUNCTIONS.contains(&name) => Operand::Function(word),
                    _ => return Err(format!("function {word:?} not defined")),
                },
                Token::Open => {
                    let pipe = self.pipe_of(tokens, "parenthesized pipeline", 0)?;
                    match tokens.next() {
                        Some((Token::Close, _)) => Operand::Pipe(pipe, fields(tokens)),
                        _ => return Err("unclosed left paren".into()),
                    }
                }
                Token::Pipe | Token::Close | Token::Declare | Token::Assign | Token::Comma => {
                    return Err("unexpected sign in operand".into());
                }
            };
            command.push(operand);
        }
        Ok(command)
    }
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<(Token, bool)>>;

/// Fields right behind an operand.
fn fields(tokens: &mut Tokens) -> Vec<String> {
    let mut fields = Vec::new();
    while let Some((Token::Field(name), _)) =
        tokens.next_if(|(token, blank)| !blank && matches!(token, Token::Field(_)))
    {
        fields.push(name);
    }
    fields
}
