//! Words into server blocks and directives. Knows of no directive what it means.

use std::collections::HashMap;

use super::{Error, Position, lexer, lexer::Token};

/// Snippets may use others, so deep at most.
const IMPORTS_MAX: usize = 10;
/// More directives than any file has; snippets that use snippets multiply.
const DIRECTIVES_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corefile {
    /// Its server blocks, in order.
    pub blocks: Vec<Block>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Zones with their ports, as written.
    pub keys: Vec<Token>,
    /// What is said of them.
    pub directives: Vec<Directive>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    pub name: Token,
    /// What stands behind it on its line.
    pub args: Vec<Token>,
    /// The lines between its braces.
    pub properties: Vec<Property>,
}

/// One line of a directive's braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its first word.
    pub name: Token,
    pub args: Vec<Token>,
}

/// Reads a text.
///
/// # Errors
/// The first thing that is not as it has to be, with its place.
pub fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Corefile, Error> {
    let tokens = lexer::lex(text, environment)?;
    let mut reader = Reader { tokens: &tokens, at: 0 };
    let mut blocks = Vec::new();
    let mut snippets = HashMap::new();
    while reader.peek().is_some() {
        let block = reader.block()?;
        match block.keys.as_slice() {
            [only] if only.text.starts_with('(') && only.text.ends_with(')') => {
                let name = only.text[1..only.text.len() - 1].to_owned();
                if snippets.insert(name, block.directives).is_some() {
                    return Err(Error::at(only.at, format!("snippet {} is given twice", only.text)));
                }
            }
            _ => blocks.push(block),
        }
    }
    let mut left = DIRECTIVES_MAX;
    for block in &mut blocks {
        let mut directives = Vec::new();
        import(&block.directives, &snippets, 0, &mut left, &mut directives)?;
        block.directives = directives;
    }
    if blocks.is_empty() {
        return Err(Error::at(
            Position { line: 1, column: 1 },
            "no server block, such as `.:53 { forward . /etc/resolv.conf }`",
        ));
    }
    Ok(Corefile { blocks })
}

/// Puts snippets in the place of their imports.
fn import(
    from: &[Directive],
    snippets: &HashMap<String, Vec<Directive>>,
    depth: usize,
    left: &mut usize,
    into: &mut Vec<Directive>,
) -> Result<(), Error> {
    for directive in from {
        *left = left.checked_sub(1).ok_or_else(|| Error::at(directive.name.at, "too many directives"))?;
        if directive.name.text != "import" {
            into.push(directive.clone());
            continue;
        }
        let Some(name) = directive.args.first() else {
            return Err(Error::at(directive.name.at, "import takes the name of a snippet"));
        };
        let Some(snippet) = snippets.get(&name.text) else {
            let message =
                format!("{:?} is no snippet of this file; other files are not read, so put its lines here", name.text);
            return Err(Error::at(name.at, message));
        };
        if depth == IMPORTS_MAX {
            return Err(Error::at(name.at, "snippets import each other"));
        }
        import(snippet, snippets, depth + 1, left, into)?;
    }
    Ok(())
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<&'a Token> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    /// The next word, if it stands on `line`.
    fn next_on(&mut self, line: usize) -> Option<&'a Token> {
        self.peek().filter(|token| token.at.line == line)?;
        self.next()
    }

    /// A server block: its keys, and what stands in its braces, or, of a file without any, all the rest.
    fn block(&mut self) -> Result<Block, Error> {
        let mut keys: Vec<Token> = Vec::new();
        let mut open = None;
        let mut goes_on = true;
        while let Some(token) = self.peek() {
            if keys.last().is_some_and(|last| last.at.line != token.at.line) && !goes_on && !token.is("{") {
                break;
            }
            self.at += 1;
            if token.is("{") {
                open = Some(token.at);
                break;
            }
            if token.is("}") {
                return Err(Error::at(token.at, "this brace closes nothing"));
            }
            goes_on = token.text.ends_with(',');
            let parts = token.text.split(',').filter(|part| !part.is_empty());
            keys.extend(parts.map(|part| Token { text: part.to_owned(), ..token.clone() }));
        }
        if keys.is_empty() {
            let at = open.unwrap_or_default();
            return Err(Error::at(at, "a server block begins with its zone, such as `.:53 {`"));
        }
        let mut directives = Vec::new();
        loop {
            let Some(token) = self.next() else {
                return match open {
                    None => Ok(Block { keys, directives }),
                    Some(at) => Err(Error::at(at, "this brace is not closed")),
                };
            };
            if token.is("}") {
                if open.is_none() {
                    return Err(Error::at(token.at, "this brace closes nothing"));
                }
                return Ok(Block { keys, directives });
            }
            directives.push(self.directive(token)?);
        }
    }

    fn directive(&mut self, name: &Token) -> Result<Directive, Error> {
        if name.is("{") {
            return Err(Error::at(name.at, "expected a directive, found a brace"));
        }
        let mut directive = Directive { name: name.clone(), args: Vec::new(), properties: Vec::new() };
        let mut line = name.at.line;
        while let Some(token) = self.next_on(line) {
            if token.is("}") {
                return Err(Error::at(token.at, "a closing brace stands on a line of its own"));
            }
            if token.is("{") {
                self.properties(token.at, &mut directive)?;
                return Ok(directive);
            }
            // A quoted word may go over several lines.
            line = token.at.line + token.text.matches('\n').count();
            directive.args.push(token.clone());
        }
        Ok(directive)
    }

    fn properties(&mut self, open: Position, directive: &mut Directive) -> Result<(), Error> {
        while let Some(name) = self.next() {
            if name.is("}") {
                return Ok(());
            }
            let mut property = Property { name: name.clone(), args: Vec::new() };
            let mut line = name.at.line + name.text.matches('\n').count();
            while let Some(token) = self.next_on(line) {
                if token.is("{") || token.is("}") {
                    return Err(Error::at(token.at, "expected a word, found a brace"));
                }
                line = token.at.line + token.text.matches('\n').count();
                property.args.push(token.clone());
            }
            directive.properties.push(property);
        }
        Err(Error::at(open, "this brace is not closed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        let words = |tokens: &[Token]| tokens.iter().map(|t| t.text.as_str()).collect::<Vec<_>>().join(" ");
        let file = parse(text, &|_| None).map_err(|error| error.to_string())?;
        let mut lines = Vec::new();
        for block in file.blocks {
            lines.push(format!("[{}]", words(&block.keys)));
            for directive in block.directives {
                lines.push(format!("{} {}", directive.name.text, words(&directive.args)).trim_end().to_owned());
                for property in directive.properties {
                    lines.push(format!("- {} {}", property.name.text, words(&property.args)).trim_end().to_owned());
                }
            }
        }
        Ok(lines)
    }

    #[test]
    fn blocks_directives_and_their_options_are_told_apart() {
        let text =
            "a.example:53, b.example\n{\n errors\n cache 30 {\n  success 9984 30\n  prefetch 1\n }\n}\n. {\n whoami\n}";
        let expect =
            ["[a.example:53 b.example]", "errors", "cache 30", "- success 9984 30", "- prefetch 1", "[.]", "whoami"];
        assert_eq!(shown(text).unwrap(), expect);
    }

    #[test]
    fn a_file_of_one_block_takes_no_braces_and_keys_may_go_on_after_a_comma() {
        assert_eq!(shown(".:53\nforward . 10.0.0.1\nlog\n").unwrap(), ["[.:53]", "forward . 10.0.0.1", "log"]);
        assert_eq!(shown("a,\nb {\nlog\n}").unwrap(), ["[a b]", "log"]);
    }

    #[test]
    fn snippets_are_put_where_they_are_imported() {
        let text = "(common) {\n errors\n cache 30\n}\n(all) {\n import common\n log\n}\n. {\n import all\n}";
        assert_eq!(shown(text).unwrap(), ["[.]", "errors", "cache 30", "log"]);
    }

    #[test]
    fn what_is_broken_is_named_by_line_and_column() {
        for (text, expect) in [
            ("", "1:1: no server block, such as `.:53 { forward . /etc/resolv.conf }`"),
            (".:53 {\n  errors\n", "1:6: this brace is not closed"),
            (".:53 {\n  cache {\n    success 1\n", "2:9: this brace is not closed"),
            (".:53 {\n errors\n}\n}\n", "4:1: this brace closes nothing"),
            (".:53 {\n cache 30 }\n", "2:11: a closing brace stands on a line of its own"),
            ("{\n errors\n}", "1:1: a server block begins with its zone, such as `.:53 {`"),
            (".:53 {\n cache {\n  success { 3 }\n }\n}", "3:11: expected a word, found a brace"),
            (".:53 {\n {\n }\n}", "2:2: expected a directive, found a brace"),
            (
                ". {\n import /etc/coredns/custom/*.override\n}",
                "2:9: \"/etc/coredns/custom/*.override\" is no snippet of this file; other files are not read, so put its lines here",
            ),
            ("(a) {\n import a\n}\n. {\n import a\n}", "2:9: snippets import each other"),
            ("(a) {\n log\n}\n(a) {\n log\n}", "4:1: snippet (a) is given twice"),
        ] {
            assert_eq!(shown(text).unwrap_err(), expect, "{text:?}");
        }
    }
}
