//! The words of Go's text/template: a text as plain parts and tokens.
//!
//! Pure.

use super::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Dot,
    Field(String),
    Variable(String),
    Word(String),
    Constant(Value),
    Open,
    Close,
    Pipe,
    Declare,
    Assign,
    Comma,
}

/// The parts of a text: what is plain, and the tokens between braces, each with whether a blank is in front.
pub enum Part {
    Plain(String),
    Action(Vec<(Token, bool)>),
}

/// # Errors
/// As Go has them.
pub fn lex(source: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = source;
    let mut trims = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let before = if trims { before.trim_start() } else { before };
        let trim_left = after.starts_with('-') && after[1..].starts_with(char::is_whitespace);
        let inside = if trim_left { &after[1..] } else { after };
        parts.push(Part::Plain(if trim_left { before.trim_end() } else { before }.to_owned()));
        let (tokens, behind, trim_right) = action(inside).map_err(|error| format!("{source:?}: {error}"))?;
        if let Some(tokens) = tokens {
            parts.push(Part::Action(tokens));
        }
        (rest, trims) = (behind, trim_right);
    }
    parts.push(Part::Plain(if trims { rest.trim_start() } else { rest }.to_owned()));
    Ok(parts)
}

/// The tokens up to the closing braces (none for a comment), the text behind, and whether blanks there go.
type Action<'s> = (Option<Vec<(Token, bool)>>, &'s str, bool);

fn closing(text: &str) -> Option<(&str, bool)> {
    if let Some(behind) = text.strip_prefix("}}") {
        return Some((behind, false));
    }
    let trimmed = text.trim_start();
    (trimmed.len() < text.len()).then(|| trimmed.strip_prefix("-}}")).flatten().map(|behind| (behind, true))
}

fn action(inside: &str) -> Result<Action<'_>, String> {
    if let Some(comment) = inside.trim_start().strip_prefix("/*") {
        let (_, behind) = comment.split_once("*/").ok_or("unclosed comment")?;
        let (behind, trims) = closing(behind).ok_or("comment ends before closing delimiter")?;
        return Ok((None, behind, trims));
    }
    let (mut tokens, mut rest, mut blank) = (Vec::new(), inside, false);
    loop {
        if let Some((behind, trims)) = closing(rest) {
            return Ok((Some(tokens), behind, trims));
        }
        let Some(first) = rest.chars().next() else { return Err("unclosed action".into()) };
        if first.is_whitespace() {
            (rest, blank) = (rest.trim_start(), true);
            if closing(rest).is_some() && !rest.starts_with("}}") {
                return Err("unexpected -".into());
            }
            // `-}}` counts only behind a blank.
            if let Some(behind) = rest.strip_prefix("-}}") {
                return Ok((Some(tokens), behind, true));
            }
            continue;
        }
        let (token, length) = token(rest, first)?;
        tokens.push((token, blank));
        (rest, blank) = (&rest[length..], false);
    }
}

fn token(rest: &str, first: char) -> Result<(Token, usize), String> {
    let word = |from: usize| {
        let tail = &rest[from..];
        tail.find(|char: char| !char.is_alphanumeric() && char != '_').map_or(rest.len(), |length| from + length)
    };
    Ok(match first {
        '(' => (Token::Open, 1),
        ')' => (Token::Close, 1),
        '|' => (Token::Pipe, 1),
        ',' => (Token::Comma, 1),
        '=' => (Token::Assign, 1),
        ':' if rest.starts_with(":=") => (Token::Declare, 2),
        '"' => {
            let (text, length) = quoted(rest, '"')?;
            (Token::Constant(Value::Text(text)), length)
        }
        '`' => {
            let end = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
            (Token::Constant(Value::Text(rest[1..=end].to_owned())), end + 2)
        }
        '\'' => {
            let (text, length) = quoted(rest, '\'')?;
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(char), None) => (Token::Constant(Value::Int(u32::from(char).into())), length),
                _ => return Err("malformed character constant".into()),
            }
        }
        '.' if !rest[1..].starts_with(|char: char| char.is_ascii_digit()) => match word(1) {
            1 => (Token::Dot, 1),
            end => (Token::Field(rest[1..end].to_owned()), end),
        },
        '$' => (Token::Variable(rest[..word(1)].to_owned()), word(1)),
        '+' | '-' | '.' | '0'..='9' => {
            let end = rest[1..]
                .find(|char: char| !char.is_alphanumeric() && !matches!(char, '.' | '_'))
                .map_or(rest.len(), |at| at + 1);
            // The sign of an exponent.
            let exponent = rest[..end].ends_with(['e', 'E', 'p', 'P']) && rest[end..].starts_with(['+', '-']);
            let is_hex = rest.trim_start_matches(['+', '-']).starts_with("0x");
            let end = if exponent && !is_hex {
                end + 1 + rest[end + 1..].find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len() - end - 1)
            } else {
                end
            };
            let number = number(&rest[..end]).ok_or_else(|| format!("bad number syntax: {:?}", &rest[..end]))?;
            (Token::Constant(number), end)
        }
        _ if first.is_alphabetic() || first == '_' => (Token::Word(rest[..word(0)].to_owned()), word(0)),
        other => return Err(format!("unexpected {other:?}")),
    })
}

/// A quoted text with Go's escapes, and the bytes it takes.
pub fn quoted(text: &str, quote: char) -> Result<(String, usize), String> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            _ if char == quote => return Ok((out, at + 1)),
            '\n' => break,
            '\\' => {
                let (_, escape) = chars.next().ok_or("unterminated quoted string")?;
                let mut digits = |first: Option<char>, count: usize, base: u32| {
                    let digits: String =
                        first.into_iter().chain(chars.by_ref().take(count).map(|(_, char)| char)).collect();
                    u32::from_str_radix(&digits, base).ok().and_then(char::from_u32)
                };
                let plain = match escape {
                    'n' => Some('\n'),
                    't' => Some('\t'),
                    'r' => Some('\r'),
                    'a' => Some('\x07'),
                    'b' => Some('\x08'),
                    'f' => Some('\x0C'),
                    'v' => Some('\x0B'),
                    '\\' => Some('\\'),
                    _ if escape == quote => Some(quote),
                    'x' => digits(None, 2, 16),
                    'u' => digits(None, 4, 16),
                    'U' => digits(None, 8, 16),
                    '0'..='7' => digits(Some(escape), 2, 8),
                    _ => None,
                };
                out.push(plain.ok_or_else(|| format!("invalid escape \\{escape}"))?);
            }
            _ => out.push(char),
        }
    }
    Err("unterminated quoted string".into())
}

/// A number as Go writes it: `1`, `0x1f`, `0o7`, `0b1`, `1_000`, `1.5e3`.
pub fn number(text: &str) -> Option<Value> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let lower = digits.to_ascii_lowercase().replace('_', "");
    let (base, rest) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|byte| byte.is_ascii_digit()) => {
            (8, &lower[1..])
        }
        _ => (10, lower.as_str()),
    };
    if rest.starts_with(['+', '-']) {
        return None;
    }
    if let Ok(number) = i128::from_str_radix(rest, base) {
        return match i64::try_from(sign * number) {
            Ok(number) => Some(Value::Int(number)),
            Err(_) => u64::try_from(number).ok().map(Value::Uint),
        };
    }
    let starts = rest.starts_with(|char: char| char.is_ascii_digit() || char == '.');
    let float = (base == 10 && starts).then(|| rest.parse::<f64>().ok()).flatten()?;
    Some(Value::Float(if sign < 0 { -float } else { float }))
}
