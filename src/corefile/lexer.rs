//! Words of a Corefile with their places, cut as Caddy's lexer cuts them: blanks part words, a quote at the start of a
//! word holds blanks in it, `#` drops everything up to the end of its line.

use super::{Error, Position};

/// Longest file, in bytes. A `ConfigMap` has 1 MiB at most.
const BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The word, without its quotes, environment variables put in.
    pub text: String,
    pub at: Position,
    /// The first word of its line.
    pub starts_line: bool,
}

impl Token {
    pub(super) fn is(&self, word: &str) -> bool {
        self.text == word
    }
}

/// Cuts `text`, the file of this number, into words. `environment` gives the values of `{$NAME}` and `{%NAME%}`; an unset
/// variable is empty.
///
/// # Errors
/// The text is longer than 1 MiB.
pub(super) fn lex(text: &str, file: u16, environment: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Token>, Error> {
    let mut here = Position { file, line: 1, column: 1 };
    if text.len() > BYTES_MAX {
        return Err(Error::at(here, format!("longer than {BYTES_MAX} bytes")));
    }
    let mut tokens: Vec<Token> = Vec::new();
    // The line on which the last token ended.
    let mut ended = 0;
    let mut word = String::new();
    let mut at = None;
    let (mut comment, mut quoted, mut escaped) = (false, false, false);
    let mut put = |word: &mut String, at: &mut Option<Position>, line: usize| {
        let Some(at) = at.take() else { return };
        let text = expand(&std::mem::take(word), environment);
        tokens.push(Token { text, at, starts_line: at.line > ended });
        ended = line;
    };
    for char in text.strip_prefix('\u{feff}').unwrap_or(text).chars() {
        let place = here;
        here = match char {
            '\n' => Position { file, line: here.line + 1, column: 1 },
            _ => Position { column: here.column + 1, ..here },
        };
        if quoted {
            match char {
                '\\' if !escaped => escaped = true,
                '"' if !escaped => {
                    quoted = false;
                    put(&mut word, &mut at, place.line);
                }
                _ => {
                    if escaped && char != '"' {
                        word.push('\\');
                    }
                    word.push(char);
                    escaped = false;
                }
            }
        } else if char == '\r' {
            // Part of a line's end, and dropped wherever it stands.
        } else if char.is_whitespace() {
            // As in Caddy: a blank ends a comment that is glued to a word, so `30#a b` is `30` and `b`.
            comment &= char != '\n' && at.is_none();
            put(&mut word, &mut at, place.line);
        } else if comment || char == '#' {
            comment = true;
        } else if at.is_none() {
            at = Some(place);
            quoted = char == '"';
            if !quoted {
                word.push(char);
            }
        } else {
            word.push(char);
        }
    }
    // An open quote goes to the end of the file.
    if !word.is_empty() {
        put(&mut word, &mut at, here.line);
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
        let show = |token: Token| format!("{}{} {}", if token.starts_line { "> " } else { "" }, token.at, token.text);
        lex(text, 0, &environment).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn every_word_has_its_line_and_column() {
        assert_eq!(words(".:53 {\n\tcache 30 # s\r\n}\n"), ["> 1:1 .:53", "1:6 {", "> 2:2 cache", "2:8 30", "> 3:1 }"]);
        assert_eq!(words("a \"b c\"\n\"d \\\"e\\\"\nf\" g"), ["> 1:1 a", "1:3 b c", "> 2:1 d \"e\"\nf", "3:4 g"]);
        assert_eq!(words("\u{feff}# only a comment"), [""; 0]);
        assert_eq!(words(" \t\r\n\n"), [""; 0]);
    }

    #[test]
    fn comments_quotes_and_escapes_are_read_as_caddy_reads_them() {
        for (text, expect) in [
            ("cache 30#seconds\nlog", &["> 1:1 cache", "1:7 30", "> 2:1 log"][..]),
            ("cache 30#of seconds\nlog", &["> 1:1 cache", "1:7 30", "1:13 seconds", "> 2:1 log"]),
            ("a # b c\nd", &["> 1:1 a", "> 2:1 d"]),
            ("a#", &["> 1:1 a"]),
            ("say \"# no comment\"", &["> 1:1 say", "1:5 # no comment"]),
            (r#"host "\.cmd""#, &["> 1:1 host", r"1:6 \.cmd"]),
            (r#"a"b c"d"#, &[r#"> 1:1 a"b"#, r#"1:5 c"d"#]),
            ("\"\" b", &["> 1:1 ", "1:4 b"]),
            ("a \"open\nend", &["> 1:1 a", "1:3 open\nend"]),
            ("a \"", &["> 1:1 a"]),
            ("b\rc", &["> 1:1 bc"]),
            ("\"two\nlines\" same\nnext", &["> 1:1 two\nlines", "2:8 same", "> 3:1 next"]),
        ] {
            assert_eq!(words(text), expect, "{text:?}");
        }
    }

    #[test]
    fn variables_are_put_in_and_unset_ones_are_empty() {
        assert_eq!(
            words("forward . {$IP}:53 x{%IP%}y {$NO}z {$} {x} {%IP} :{$NO$} \"{{ .Name }} {$IP}\""),
            [
                "> 1:1 forward",
                "1:9 .",
                "1:11 10.0.0.1:53",
                "1:20 x10.0.0.1y",
                "1:29 z",
                "1:36 {$}",
                "1:40 {x}",
                "1:44 {%IP}",
                "1:50 :",
                "1:58 {{ .Name }} 10.0.0.1"
            ]
        );
        assert!(lex(&"a".repeat(BYTES_MAX + 1), 0, &|_| None).is_err());
    }
}
