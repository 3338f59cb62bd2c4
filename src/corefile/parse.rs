//! Words into server blocks and directives, grouped as Caddy's parser groups them. Gives no directive a meaning.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{Error, Note, Position, Weight, lexer, lexer::Token};

/// Imports of snippets, and those of files, as Caddy bounds them.
const IMPORTS_MAX: usize = 1_000;
/// Words of a file with everything it imports: snippets that import snippets multiply.
const TOKENS_MAX: usize = 500_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corefile {
    pub blocks: Vec<Block>,
    /// The file itself and those it imports; a position names one by its number.
    pub files: Vec<PathBuf>,
    pub notes: Vec<Note>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Zones with their ports, as written.
    pub keys: Vec<Token>,
    pub directives: Vec<Directive>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    pub name: Token,
    /// The words behind it on its line.
    pub args: Vec<Token>,
    /// The lines between its braces.
    pub properties: Vec<Property>,
}

/// A line of a directive's braces; braces in it are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    pub name: Token,
    pub args: Vec<Token>,
}

/// A file and its text.
pub type Imported = (PathBuf, String);

/// Gives the files that fit a pattern, which is relative to a folder; or the reason why there are none.
type Import<'a> = &'a dyn Fn(&Path, &str) -> Result<Vec<Imported>, String>;

/// The inputs of a Corefile from outside.
pub struct Surroundings<'a> {
    /// Values of environment variables.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    pub import: Import<'a>,
}

impl Surroundings<'_> {
    /// No variable is set and no file is there.
    pub const NONE: Surroundings<'static> =
        Surroundings { environment: &|_| None, import: &|_, _| Err("no such file".into()) };
}

/// Reads a text, which stands in the file `path`.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(path: &Path, text: &str, surroundings: &Surroundings<'_>) -> Result<Corefile, Error> {
    let mut reader = Reader {
        surroundings,
        files: vec![path.to_owned()],
        rest: Vec::new(),
        last: Position { file: 0, line: 1, column: 1 },
        snippets: HashMap::new(),
        imports: [0, 0],
        tokens: 0,
        notes: Vec::new(),
    };
    let blocks = reader.file(text);
    let Reader { files, notes, .. } = reader;
    match blocks {
        Ok(blocks) => Ok(Corefile { blocks, files, notes }),
        Err(error) => Err(error.within(&files)),
    }
}

struct Reader<'a> {
    surroundings: &'a Surroundings<'a>,
    files: Vec<PathBuf>,
    /// Words not yet read, the next one last.
    rest: Vec<Token>,
    /// The place of the word read last.
    last: Position,
    snippets: HashMap<String, Vec<Token>>,
    /// Imports of snippets and of files so far.
    imports: [usize; 2],
    tokens: usize,
    notes: Vec<Note>,
}

impl Reader<'_> {
    fn file(&mut self, text: &str) -> Result<Vec<Block>, Error> {
        let tokens = lexer::lex(text, 0, self.surroundings.environment)?;
        self.push(tokens)?;
        let mut blocks = Vec::new();
        while self.peek().is_some() {
            blocks.extend(self.block()?);
        }
        if blocks.is_empty() {
            let at = Position { file: 0, line: 1, column: 1 };
            return Err(Error::at(at, "no server block, such as `.:53 { forward . /etc/resolv.conf }`"));
        }
        Ok(blocks)
    }

    /// Puts words in front of those not yet read.
    fn push(&mut self, tokens: Vec<Token>) -> Result<(), Error> {
        self.tokens += tokens.len();
        if self.tokens > TOKENS_MAX {
            return Err(Error::at(self.last, format!("more than {TOKENS_MAX} words, imports included")));
        }
        self.rest.extend(tokens.into_iter().rev());
        Ok(())
    }

    fn peek(&self) -> Option<&Token> {
        self.rest.last()
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.rest.pop()?;
        self.last = token.at;
        Some(token)
    }

    fn next_if(&mut self, fits: impl Fn(&Token) -> bool) -> Option<Token> {
        if self.peek().is_some_and(fits) { self.next() } else { None }
    }

    /// A server block; `None` for a snippet and for a block without keys.
    fn block(&mut self) -> Result<Option<Block>, Error> {
        let mut keys: Vec<Token> = Vec::new();
        let mut open = None;
        let mut goes_on = false;
        let expected = |at| Error::at(at, "expected another zone after the comma");
        while let Some(token) = self.next() {
            if token.is("import") && token.starts_line {
                self.import(&token)?;
                continue;
            }
            if token.is("{") {
                if goes_on {
                    return Err(expected(token.at));
                }
                open = Some(token.at);
                break;
            }
            if token.is("}") {
                // CoreDNS serves a zone of that name, which no client asks for.
                self.note(&token, "}", Weight::Manner, "this brace closes nothing".into());
                continue;
            }
            if !token.text.is_empty() {
                goes_on = token.text.ends_with(',');
                let parts = token.text.split(',').filter(|part| !part.is_empty());
                keys.extend(parts.map(|part| Token { text: part.to_owned(), ..token.clone() }));
            }
            match self.peek() {
                None if goes_on => return Err(expected(token.at)),
                None => return Ok((!keys.is_empty()).then_some(Block { keys, directives: Vec::new() })),
                Some(next) if !goes_on && next.starts_line => break,
                Some(_) => {}
            }
        }
        if open.is_none() {
            open = self.next_if(|token| token.is("{")).map(|token| token.at);
        }
        if let [key] = keys.as_slice()
            && let Some(name) = key.text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'))
        {
            self.snippet(key, name, open)?;
            return Ok(None);
        }
        let mut directives = Vec::new();
        loop {
            match self.next() {
                None => match open {
                    Some(at) => return Err(Error::at(at, "this brace is not closed")),
                    None => break,
                },
                Some(token) if token.is("}") => break,
                Some(token) if token.is("import") => self.import(&token)?,
                Some(token) => directives.push(self.directive(token)?),
            }
        }
        if keys.is_empty() {
            if let Some(at) = open {
                let block = Token { text: "{".into(), at, starts_line: true };
                self.note(&block, "{", Weight::Answers, "this block has no zone and is left out".into());
            }
            return Ok(None);
        }
        Ok(Some(Block { keys, directives }))
    }

    /// Keeps the words of a snippet.
    fn snippet(&mut self, key: &Token, name: &str, open: Option<Position>) -> Result<(), Error> {
        let open = open.ok_or_else(|| Error::at(key.at, format!("snippet ({name}) has no braces")))?;
        let mut tokens = Vec::new();
        let mut depth = 1_usize;
        loop {
            let token = self.next().ok_or_else(|| Error::at(open, "this brace is not closed"))?;
            if token.is("}") {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            depth += usize::from(token.is("{"));
            tokens.push(token);
        }
        if self.snippets.insert(name.to_owned(), tokens).is_some() {
            return Err(Error::at(key.at, format!("snippet ({name}) is given twice")));
        }
        Ok(())
    }

    /// Puts a snippet, or files, in the place of the import whose first word was just read.
    fn import(&mut self, import: &Token) -> Result<(), Error> {
        let Some(name) = self.next_if(|token| !token.starts_line).filter(|name| !name.text.is_empty()) else {
            return Err(Error::at(import.at, "import takes a snippet, a file or a pattern of files"));
        };
        if let Some(more) = self.next_if(|token| !token.starts_line) {
            return Err(Error::at(more.at, "import takes one snippet, file or pattern, and no arguments"));
        }
        let snippet = self.snippets.get(&name.text).cloned();
        let count = &mut self.imports[usize::from(snippet.is_none())];
        *count += 1;
        if *count > IMPORTS_MAX {
            return Err(Error::at(name.at, format!("more than {IMPORTS_MAX} imports: do they import each other?")));
        }
        if let Some(tokens) = snippet {
            return self.push(tokens);
        }
        let folder = self.files[usize::from(name.at.file)].parent().unwrap_or(Path::new("")).to_owned();
        if folder.join(&name.text).to_string_lossy().matches('*').count() > 1
            || name.text.matches('?').count() > 1
            || (name.text.contains('[') && name.text.contains(']'))
        {
            return Err(Error::at(name.at, "a pattern of files has at most one * and one ?"));
        }
        match (self.surroundings.import)(&folder, &name.text) {
            Err(_) if !name.text.contains(['/', '.']) => {
                let message = format!("{:?} is neither a snippet of this file nor a file", name.text);
                return Err(Error::at(name.at, message));
            }
            Err(reason) => {
                let text = format!("{}: {reason}: read as soon as it is there", name.text);
                self.note(&name, "import", Weight::Answers, text);
            }
            Ok(files) => {
                if files.is_empty() {
                    self.note(&name, "import", Weight::Manner, format!("no file fits {}", name.text));
                }
                let mut tokens = Vec::new();
                for (path, text) in files {
                    let number = u16::try_from(self.files.len())
                        .map_err(|_| Error::at(name.at, "too many files are imported"))?;
                    self.files.push(path);
                    tokens.extend(lexer::lex(&text, number, self.surroundings.environment)?);
                }
                self.push(tokens)?;
            }
        }
        Ok(())
    }

    /// A directive: to the end of its line, or of the braces that begin there or on the next line.
    fn directive(&mut self, name: Token) -> Result<Directive, Error> {
        if name.is("{") {
            return Err(Error::at(name.at, "expected a directive, found a brace"));
        }
        let mut directive = Directive { name, args: Vec::new(), properties: Vec::new() };
        let mut open: Vec<Position> = Vec::new();
        let mut begins = false;
        while let Some(next) = self.peek() {
            if !next.is("{") && next.starts_line && open.is_empty() {
                break;
            }
            let Some(token) = self.next() else { break };
            if token.is("{") {
                begins |= open.is_empty();
                open.push(token.at);
            } else if token.is("}") {
                if open.pop().is_none() {
                    return Err(Error::at(token.at, "a closing brace stands on a line of its own"));
                }
            } else if token.is("import") && token.starts_line {
                self.import(&token)?;
                begins = true;
            } else if open.is_empty() {
                directive.args.push(token);
            } else if begins || token.starts_line {
                begins = false;
                directive.properties.push(Property { name: token, args: Vec::new() });
            } else if let Some(property) = directive.properties.last_mut() {
                property.args.push(token);
            }
        }
        match open.pop() {
            Some(at) => Err(Error::at(at, "this brace is not closed")),
            None => Ok(directive),
        }
    }

    fn note(&mut self, token: &Token, directive: &str, weight: Weight, text: String) {
        self.notes.push(Note { at: token.at, file: None, directive: directive.to_owned(), text, weight });
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Files by their paths.
    const FILES: [(&str, &str); 9] = [
        ("/etc/test1.txt", "dir2 arg1 arg2\ndir3"),
        ("/etc/test2.txt", "host1 {\n dir1\n dir2 arg1\n}"),
        ("/etc/glob0.txt", "glob0.host0 {\n dir2 arg1\n}\n\nglob0.host1 {\n}\n"),
        ("/etc/glob1.txt", "glob1.host0 {\n dir1\n}\n"),
        ("/etc/options", "prop1 1\n\tprop2 2"),
        ("/etc/sub/outer", "localhost\ndir1\nimport inner"),
        ("/etc/sub/absolute", "localhost\ndir1\nimport /etc/sub/inner"),
        ("/etc/sub/inner", "dir2 1"),
        ("/etc/self", "import self"),
    ];

    fn import(folder: &Path, pattern: &str) -> Result<Vec<Imported>, String> {
        let path = folder.join(pattern);
        let path = path.to_str().unwrap();
        let fits = |name: &str| match path.split_once('*') {
            Some((before, after)) => name.starts_with(before) && name.ends_with(after),
            None => name == path,
        };
        let found: Vec<Imported> =
            FILES.iter().filter(|(name, _)| fits(name)).map(|(name, text)| (name.into(), (*text).into())).collect();
        if found.is_empty() && !path.contains('*') { Err("no such file".into()) } else { Ok(found) }
    }

    fn parsed(text: &str) -> Result<Corefile, String> {
        let variables = [("PORT", "8080"), ("ADDRESS", "servername.com"), ("FOOBAR", "foobar"), ("PARTIAL", "r1")];
        let environment =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let surroundings = Surroundings { environment: &environment, import: &import };
        parse(Path::new("/etc/Corefile"), text, &surroundings).map_err(|error| error.to_string())
    }

    /// Keys in brackets, directives, their properties behind a dash.
    fn shown(text: &str) -> Result<Vec<String>, String> {
        let words = |tokens: &[Token]| tokens.iter().map(|t| t.text.as_str()).collect::<Vec<_>>().join(" ");
        let mut lines = Vec::new();
        for block in parsed(text)?.blocks {
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

    /// The cases of Caddy's own tests of its parser, said again.
    #[test]
    fn whatever_caddy_takes_is_taken_and_grouped_alike() {
        for (text, expect) in [
            ("localhost", &["[localhost]"][..]),
            ("localhost\n dir1", &["[localhost]", "dir1"]),
            ("localhost:1234\n dir1 foo bar", &["[localhost:1234]", "dir1 foo bar"]),
            ("localhost {\n dir1 foo bar\n dir2\n}", &["[localhost]", "dir1 foo bar", "dir2"]),
            ("localhost\n{\n dir1\n}", &["[localhost]", "dir1"]),
            ("http://a https://b\n dir1", &["[http://a https://b]", "dir1"]),
            ("a, b {\n dir1\n}", &["[a b]", "dir1"]),
            ("a,\n b,\n c", &["[a b c]"]),
            ("a:80, b\n dir1 foo {\n  bar baz\n }\n dir2", &["[a:80 b]", "dir1 foo", "- bar baz", "dir2"]),
            ("a\n dir1 {\n bar baz\n }\n dir2 {\n foo bar\n }", &["[a]", "dir1", "- bar baz", "dir2", "- foo bar"]),
            ("a\n dir1 {\n }", &["[a]", "dir1"]),
            ("a\n dir1\n {\n x\n }", &["[a]", "dir1", "- x"]),
            ("a\n dir1 {\n nested {\n foo\n }\n }\n dir2 b", &["[a]", "dir1", "- nested", "- foo", "dir2 b"]),
            ("a {\n dir1 { x 1 }\n}", &["[a]", "dir1", "- x 1"]),
            ("a {\n}\nb {\n}", &["[a]", "[b]"]),
            ("a {\n}\n}\nb {\n}", &["[a]", "[b]"]),
            ("{\n dir1\n}\na {\n}", &["[a]"]),
            ("a\n dir1 a1\n import test1.txt", &["[a]", "dir1 a1", "dir2 arg1 arg2", "dir3"]),
            ("import test2.txt", &["[host1]", "dir1", "dir2 arg1"]),
            ("import glob*.txt", &["[glob0.host0]", "dir2 arg1", "[glob0.host1]", "[glob1.host0]", "dir1"]),
            ("a\nimport notfound/*", &["[a]"]),
            ("import /etc/sub/outer", &["[localhost]", "dir1", "dir2 1"]),
            ("import sub/absolute", &["[localhost]", "dir1", "dir2 1"]),
            (
                "a\n dir1\n proxy {\n import options\n last\n }",
                &["[a]", "dir1", "proxy", "- prop1 1", "- prop2 2", "- last"],
            ),
            ("(s) {\n gzip foo\n errors stderr\n}\na {\n import s\n}", &["[a]", "gzip foo", "errors stderr"]),
            ("(s) {\n x 1\n y 2\n}\na {\n hosts {\n import s\n z\n }\n}", &["[a]", "hosts", "- x 1", "- y 2", "- z"]),
            ("(b) {\n corp {\n log\n }\n}\nimport b\n. {\n log\n}", &["[corp]", "log", "[.]", "log"]),
            ("(a) {\n errors\n}\n(b) {\n import a\n log\n}\n. {\n import b\n}", &["[.]", "errors", "log"]),
            ("{$ADDRESS}:{$PORT}", &["[servername.com:8080]"]),
            (
                "{%ADDRESS%}:{$PORT}\n di{$PARTIAL} {%FOOBAR%}/{$FOOBAR}",
                &["[servername.com:8080]", "dir1 foobar/foobar"],
            ),
            (":1234\ndir1 \"Test {$FOOBAR} test\"", &["[:1234]", "dir1 Test foobar test"]),
        ] {
            assert_eq!(shown(text).unwrap(), expect, "{text:?}");
        }
        let many = format!(". {{\n{}}}", "log\n".repeat(20_000));
        assert_eq!(parsed(&many).unwrap().blocks[0].directives.len(), 20_000);
    }

    #[test]
    fn whatever_caddy_refuses_is_refused_by_line_and_column() {
        for (text, expect) in [
            ("", "1:1: no server block, such as `.:53 { forward . /etc/resolv.conf }`"),
            (".:53 {\n  errors\n", "1:6: this brace is not closed"),
            (".:53 {\n  cache {\n    success 1\n", "2:9: this brace is not closed"),
            (".:53 {\n cache 30 }\n", "2:11: a closing brace stands on a line of its own"),
            ("a\n dir1 {\n } }", "3:4: a closing brace stands on a line of its own"),
            (".:53 {\n {\n }\n}", "2:2: expected a directive, found a brace"),
            ("a, {\n}", "1:4: expected another zone after the comma"),
            ("a, b,", "1:4: expected another zone after the comma"),
            ("import a b", "1:10: import takes one snippet, file or pattern, and no arguments"),
            ("a {\n import\n}", "2:2: import takes a snippet, a file or a pattern of files"),
            ("import {$}", "1:8: \"{$}\" is neither a snippet of this file nor a file"),
            ("import /*/*.txt", "1:8: a pattern of files has at most one * and one ?"),
            ("import /??", "1:8: a pattern of files has at most one * and one ?"),
            ("import /[a-z]", "1:8: a pattern of files has at most one * and one ?"),
            ("(a) {\n log\n}\n(a) {\n log\n}", "4:1: snippet (a) is given twice"),
            ("(a) {\n log", "1:5: this brace is not closed"),
            ("(a)\n log", "1:1: snippet (a) has no braces"),
            ("(a) {\n import a\n}\n. {\n import a\n}", "2:9: more than 1000 imports: do they import each other?"),
            ("import self", "/etc/self:1:8: more than 1000 imports: do they import each other?"),
        ] {
            assert_eq!(shown(text).unwrap_err(), expect, "{text:?}");
        }
    }

    #[test]
    fn files_that_are_not_there_yet_are_told_of_and_waited_for() {
        let file = parsed("a {\n import gone.override\n import custom/*.override\n}\n}").unwrap();
        let told: Vec<String> = file.notes.iter().map(ToString::to_string).collect();
        let expect = [
            "2:9: import: gone.override: no such file: read as soon as it is there",
            "3:9: import: no file fits custom/*.override",
            "5:1: }: this brace closes nothing",
        ];
        assert_eq!(told, expect);
    }

    #[test]
    fn snippets_that_multiply_are_stopped() {
        let mut text = String::from("(a0) {\n log\n log\n log\n log\n}\n");
        for number in 1..12 {
            let before = number - 1;
            let imports = format!("import a{before}\n").repeat(8);
            let _ = writeln!(text, "(a{number}) {{\n{imports}}}");
        }
        let error = shown(&(text + ". {\n import a11\n}")).unwrap_err();
        assert!(error.ends_with("more than 1000 imports: do they import each other?"), "{error}");
    }
}
