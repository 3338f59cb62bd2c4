//! Words of a Corefile with their places: blanks part them, quotes hold them together, `#` begins a comment.

use super::{Error, Position};

/// The most a Corefile may have, in bytes. A `ConfigMap` has 1 MiB at most.
const BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The word, quotes taken off and environment variables put in.
    pub text: String,
    pub at: Position,
    /// Whether it stood in quotes: a brace in quotes is a word like any other.
    pub quoted: bool,
}

impl Token {
    /// Whether it is this brace.
    pub(super) fn is(&self, brace: &str) -> bool {
        !self.quoted && self.text == brace
    }
}

/// Cuts `text` into words. `environment` gives the values of `{$NAME}` and `{%NAME%}`; what it does not know is empty.
///
/// # Errors
/// A quote that is not closed, or a text that is too large to be a Corefile.
pub(super) fn lex(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Token>, Error> {
    if text.len() > BYTES_MAX {
        return Err(Error::at(Position { line: 1, column: 1 }, format!("longer than {BYTES_MAX} bytes")));
    }
    let mut tokens = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    let mut here = Position { line: 1, column: 1 };
    while let Some(&first) = rest.peek() {
        let at = here;
        let mut step = |rest: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let char = rest.next();
            match char {
                Some('\n') => here = Position { line: here.line + 1, column: 1 },
                Some(_) => here.column += 1,
                None => {}
            }
            char
        };
        if first.is_whitespace() {
            step(&mut rest);
        } else if first == '#' {
            while rest.peek().is_some_and(|char| *char != '\n') {
                step(&mut rest);
            }
        } else if first == '"' {
            step(&mut rest);
            let mut word = String::new();
            loop {
                match step(&mut rest) {
                    None => return Err(Error::at(at, "this quote is not closed")),
                    Some('"') => break,
                    Some('\\') if rest.peek() == Some(&'"') => word.extend(step(&mut rest)),
                    Some(char) => word.push(char),
                }
            }
            tokens.push(Token { text: expand(&word, environment), at, quoted: true });
        } else {
            let mut word = String::new();
            while rest.peek().is_some_and(|char| !char.is_whitespace()) {
                word.extend(step(&mut rest));
            }
            tokens.push(Token { text: expand(&word, environment), at, quoted: false });
        }
    }
    Ok(tokens)
}

/// Puts the values of environment variables in.
fn expand(word: &str, environment: &dyn Fn(&str) -> Option<String>) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        text.push_str(before);
        let inside = |open: &str, close: &str| {
            let (name, after) = from.strip_prefix(open)?.split_once(close)?;
            (!name.is_empty()).then(|| (environment(name).unwrap_or_default(), after))
        };
        if let Some((value, after)) = inside("{$", "}").or_else(|| inside("{%", "%}")) {
            text.push_str(&value);
            rest = after;
        } else {
            text.push('{');
            rest = &from[1..];
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let environment = |name: &str| (name == "IP").then(|| "10.0.0.1".to_owned());
        let show = |token: Token| format!("{} {}", token.at, token.text);
        lex(text, &environment).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn every_word_has_its_line_and_column() {
        assert_eq!(words(".:53 {\n\tcache 30 # s\r\n}\n"), ["1:1 .:53", "1:6 {", "2:2 cache", "2:8 30", "3:1 }"]);
        assert_eq!(words("a \"b c\"\n\"d \\\"e\\\"\nf\" g#h"), ["1:1 a", "1:3 b c", "2:1 d \"e\"\nf", "3:4 g#h"]);
        assert_eq!(words("\u{feff}# only a comment"), [""; 0]);
    }

    #[test]
    fn variables_are_put_in_and_unknown_ones_are_empty() {
        assert_eq!(
            words("forward . {$IP}:53 x{%IP%}y {$NO}z {$} {x}"),
            ["1:1 forward", "1:9 .", "1:11 10.0.0.1:53", "1:20 x10.0.0.1y", "1:29 z", "1:36 {$}", "1:40 {x}"]
        );
    }

    #[test]
    fn a_quote_left_open_is_named_by_its_place() {
        let error = lex("a {\n  b \"c\n}", &|_| None).unwrap_err();
        assert_eq!(error.to_string(), "2:5: this quote is not closed");
        assert!(lex(&"a".repeat(BYTES_MAX + 1), &|_| None).is_err());
    }
}
