//! The grammar of expressions.

use super::{
    super::{
        lex::{number, quoted},
        value::Value,
    },
    FACTS, NOT_WORKED_OUT, Node,
    builtins::{FUNCTIONS, OTHERS, PREDICATES},
};

/// Deepest nesting.
const DEPTH_MAX: usize = 60;
/// Words that are no names.
const WORDS: [&str; 16] = [
    "and",
    "contains",
    "else",
    "endsWith",
    "false",
    "if",
    "in",
    "let",
    "matches",
    "nil",
    "not",
    "null",
    "or",
    "startsWith",
    "true",
    "$env",
];
/// Functions of a question with arguments.
const ASKED: [&str; 3] = ["group", "incidr", "metadata"];
/// Signs by length, as the longest one counts.
const SIGNS: [&str; 35] = [
    "&&", "||", "==", "!=", "<=", ">=", "**", "..", "??", "?.", "?:", "::", "!", "?", ":", "(", ")", "[", "]", "{",
    "}", ",", ".", "+", "-", "*", "/", "%", "^", "<", ">", "|", "#", "=", ";",
];
/// Precedence of `!` and `not`, and of signs of numbers.
const NOT: u8 = 50;
const MINUS: u8 = 90;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Constant(Value),
    Word(String),
    Sign(&'static str),
}

pub fn is_reserved(name: &str) -> bool {
    [&WORDS[..], &FACTS, &ASKED, &PREDICATES, &FUNCTIONS, &OTHERS].iter().any(|words| words.contains(&name))
}

pub fn parse(source: &str, variables: &[&str]) -> Result<Node, String> {
    let tokens = lex(source)?;
    let mut parser = Parser {
        tokens: tokens.into_iter().peekable(),
        variables: variables.iter().map(|name| (*name).to_owned()).collect(),
        depth: 0,
        predicates: 0,
    };
    let node = parser.whole()?;
    match parser.tokens.next() {
        None => Ok(node),
        Some(token) => Err(format!("unexpected {}", shown(&token))),
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Constant(value) => format!("{:?}", value.to_string()),
        Token::Word(word) => word.clone(),
        Token::Sign(sign) => format!("{sign:?}"),
    }
}

fn lex(source: &str) -> Result<Vec<Token>, String> {
    let (mut tokens, mut rest) = (Vec::new(), source.trim_start());
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => {
                let (text, length) = quoted(rest, first)?;
                tokens.push(Token::Constant(Value::Text(text)));
                length
            }
            '`' => {
                let end = rest[1..].find('`').ok_or("a quote is not closed")?;
                tokens.push(Token::Constant(Value::Text(rest[1..=end].to_owned())));
                end + 2
            }
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").ok_or("a comment is not closed")? + 2,
            '0'..='9' => {
                let mut end =
                    rest.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(rest.len());
                let tail = &rest[end..];
                // `1..3` is a range.
                if tail.starts_with('.') && !tail.starts_with("..") {
                    end += 1 + tail[1..]
                        .find(|char: char| !char.is_ascii_alphanumeric() && char != '_')
                        .unwrap_or(tail.len() - 1);
                }
                let value = number(&rest[..end]).ok_or_else(|| format!("bad number {:?}", &rest[..end]))?;
                tokens.push(Token::Constant(value));
                end
            }
            _ if first.is_alphabetic() || first == '_' || first == '$' => {
                let tail = &rest[first.len_utf8()..];
                let end = tail
                    .find(|char: char| !char.is_alphanumeric() && char != '_')
                    .map_or(rest.len(), |at| at + first.len_utf8());
                tokens.push(match &rest[..end] {
                    "true" => Token::Constant(Value::Bool(true)),
                    "false" => Token::Constant(Value::Bool(false)),
                    "nil" | "null" => Token::Constant(Value::Nil),
                    word => Token::Word(word.to_owned()),
                });
                end
            }
            _ => {
                let sign = SIGNS
                    .into_iter()
                    .find(|sign| rest.starts_with(sign))
                    .ok_or_else(|| format!("unexpected {first:?}"))?;
                tokens.push(Token::Sign(sign));
                sign.len()
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// The sign or word of a binary operation, how it binds, and whether it does so from the right.
fn operation(token: &Token) -> Option<(&'static str, u8, bool)> {
    let word = match token {
        Token::Sign(sign) => *sign,
        Token::Word(word) => word.as_str(),
        Token::Constant(_) => return None,
    };
    Some(match word {
        "or" | "||" => ("or", 10, false),
        "and" | "&&" => ("and", 15, false),
        "==" => ("==", 20, false),
        "!=" => ("!=", 20, false),
        "<" => ("<", 20, false),
        ">" => (">", 20, false),
        "<=" => ("<=", 20, false),
        ">=" => (">=", 20, false),
        "in" => ("in", 20, false),
        "matches" => ("matches", 20, false),
        "contains" => ("contains", 20, false),
        "startsWith" => ("startsWith", 20, false),
        "endsWith" => ("endsWith", 20, false),
        ".." => ("..", 25, false),
        "+" => ("+", 30, false),
        "-" => ("-", 30, false),
        "*" => ("*", 60, false),
        "/" => ("/", 60, false),
        "%" => ("%", 60, false),
        "**" | "^" => ("**", 100, true),
        "??" => ("??", 200, false),
        _ => return None,
    })
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    variables: Vec<String>,
    depth: usize,
    /// Predicates around, in which `#` stands for an item.
    predicates: usize,
}

impl Parser {
    fn is(&mut self, sign: &str) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Sign(found) if *found == sign)).is_some()
    }

    fn is_word(&mut self, word: &str) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Word(found) if found == word)).is_some()
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.is(sign) {
            return Ok(());
        }
        let found = self.tokens.peek().map_or_else(|| "the end".to_owned(), shown);
        Err(format!("expected {sign:?}, found {found}"))
    }

    /// An expression with its pipes, choices and `let`.
    fn whole(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("nested more than {DEPTH_MAX} deep"));
        }
        let node = if self.is_word("let") {
            let name = self.word()?;
            self.expect("=")?;
            let value = self.whole()?;
            self.expect(";")?;
            if is_reserved(&name) || self.variables.contains(&name) {
                return Err(format!("cannot redeclare {name}"));
            }
            self.variables.push(name.clone());
            let body = self.whole()?;
            self.variables.pop();
            Node::Let(name, Box::new(value), Box::new(body))
        } else if self.is_word("if") {
            let condition = self.binary(0)?;
            self.expect("{")?;
            let one = self.whole()?;
            self.expect("}")?;
            if !self.is_word("else") {
                return Err("if has no else".into());
            }
            self.expect("{")?;
            let other = self.whole()?;
            self.expect("}")?;
            Node::Choice(Box::new(condition), Box::new(one), Box::new(other))
        } else {
            let mut node = self.binary(0)?;
            loop {
                if self.is("|") {
                    let name = self.word()?;
                    node = self.call(name, Some(node))?;
                    node = self.behind(node)?;
                } else if self.is("?:") {
                    let other = self.whole()?;
                    node = Node::Choice(Box::new(node.clone()), Box::new(node), Box::new(other));
                } else if self.is("?") {
                    let one = self.whole()?;
                    self.expect(":")?;
                    let other = self.whole()?;
                    node = Node::Choice(Box::new(node), Box::new(one), Box::new(other));
                } else {
                    break;
                }
            }
            node
        };
        self.depth -= 1;
        Ok(node)
    }

    fn word(&mut self) -> Result<String, String> {
        match self.tokens.next() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(format!("expected a name, found {}", other.as_ref().map_or_else(|| "the end".into(), shown))),
        }
    }

    fn binary(&mut self, least: u8) -> Result<Node, String> {
        let mut node = self.unary()?;
        loop {
            let negated = matches!(self.tokens.peek(), Some(Token::Word(word)) if word == "not");
            if negated {
                let mut ahead = self.tokens.clone();
                ahead.next();
                if !matches!(ahead.peek().and_then(operation), Some((_, 20, _))) || least > 20 {
                    break;
                }
                self.tokens.next();
            }
            let Some((sign, binds, right)) =
                self.tokens.peek().and_then(operation).filter(|(_, binds, _)| *binds >= least)
            else {
                break;
            };
            self.tokens.next();
            let other = self.binary(if right { binds } else { binds + 1 })?;
            if sign == "%" && other == Node::Constant(Value::Int(0)) {
                return Err("integer divide by zero".into());
            }
            node = Node::Binary(sign, Box::new(node), Box::new(other));
            if negated {
                node = Node::Not(Box::new(node));
            }
        }
        Ok(node)
    }

    fn unary(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("nested more than {DEPTH_MAX} deep"));
        }
        let node = if self.is("!") || self.is_word("not") {
            Node::Not(Box::new(self.binary(NOT)?))
        } else if self.is("-") {
            Node::Negative(Box::new(self.binary(MINUS)?))
        } else if self.is("+") {
            self.binary(MINUS)?
        } else {
            let first = self.primary()?;
            self.behind(first)?
        };
        self.depth -= 1;
        Ok(node)
    }

    /// Members and slices behind a value.
    fn behind(&mut self, mut node: Node) -> Result<Node, String> {
        loop {
            let optional = self.is("?.");
            if optional && self.is("[") {
                let key = self.whole()?;
                self.expect("]")?;
                node = Node::Member(Box::new(node), Box::new(key), true);
            } else if optional || self.is(".") {
                let key = Node::Constant(Value::Text(self.word()?));
                node = Node::Member(Box::new(node), Box::new(key), optional);
            } else if self.is("[") {
                let from = if self.is(":") {
                    None
                } else {
                    let key = self.whole()?;
                    if self.is("]") {
                        node = Node::Member(Box::new(node), Box::new(key), false);
                        continue;
                    }
                    self.expect(":")?;
                    Some(Box::new(key))
                };
                let to = if self.is("]") {
                    None
                } else {
                    let to = self.whole()?;
                    self.expect("]")?;
                    Some(Box::new(to))
                };
                node = Node::Slice(Box::new(node), from, to);
            } else {
                return Ok(node);
            }
        }
    }

    fn primary(&mut self) -> Result<Node, String> {
        let Some(token) = self.tokens.next() else { return Err("unexpected end".into()) };
        match token {
            Token::Constant(value) => Ok(Node::Constant(value)),
            Token::Sign("(") => {
                let node = self.whole()?;
                self.expect(")")?;
                Ok(node)
            }
            Token::Sign("[") => Ok(Node::List(self.items("]")?)),
            Token::Sign("{") => self.map(),
            Token::Sign("#") if self.predicates > 0 => {
                if self.is_word("index") {
                    return Ok(Node::Index);
                }
                Ok(if self.is_word("acc") { Node::Gathered } else { Node::Item })
            }
            Token::Sign(".") if self.predicates > 0 => {
                let key = Node::Constant(Value::Text(self.word()?));
                Ok(Node::Member(Box::new(Node::Item), Box::new(key), false))
            }
            Token::Word(word) if self.variables.contains(&word) => Ok(Node::Variable(word)),
            Token::Word(word) => self.call(word, None),
            Token::Sign(sign) => Err(format!("unexpected {sign:?}")),
        }
    }

    /// `first` is the value in front of a pipe.
    fn call(&mut self, name: String, first: Option<Node>) -> Result<Node, String> {
        let name_of = name.as_str();
        if OTHERS.contains(&name_of) {
            return Err(format!("{name} {NOT_WORKED_OUT}"));
        }
        let takes_items = PREDICATES.contains(&name_of);
        let is_known =
            takes_items || FUNCTIONS.contains(&name_of) || FACTS.contains(&name_of) || ASKED.contains(&name_of);
        if !is_known {
            return Err(format!("unknown name {name}"));
        }
        self.expect("(")?;
        let mut args: Vec<Node> = first.into_iter().collect();
        while !self.is(")") {
            let in_predicate = takes_items && args.len() == 1;
            self.predicates += usize::from(in_predicate);
            let braces = in_predicate && self.is("{");
            args.push(self.whole()?);
            if braces {
                self.expect("}")?;
            }
            self.predicates -= usize::from(in_predicate);
            if !self.is(",") {
                self.expect(")")?;
                break;
            }
        }
        if FACTS.contains(&name_of) && !args.is_empty() {
            return Err(format!("too many arguments to call {name}"));
        }
        Ok(Node::Call(name, args))
    }

    fn items(&mut self, end: &str) -> Result<Vec<Node>, String> {
        let mut items = Vec::new();
        while !self.is(end) {
            items.push(self.whole()?);
            if !self.is(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    fn map(&mut self) -> Result<Node, String> {
        let mut entries = Vec::new();
        while !self.is("}") {
            let key = match self.tokens.next() {
                Some(Token::Word(word)) => word,
                Some(Token::Constant(value)) => value.to_string(),
                _ => return Err("a map takes keys".into()),
            };
            self.expect(":")?;
            entries.push((key, self.whole()?));
            if !self.is(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Node::Map(entries))
    }
}
