//! A YAML document as a tree in which every node knows its place.
//!
//! Owns the way from text to tree; keeps scalars as they were written (`1.10` stays `1.10`) and never decides what they
//! mean.

use std::fmt;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};

/// Where a value was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: it is the default.
    #[default]
    Default,
    /// In the configuration file; both count from 1.
    File {
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// By a flag, named with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { line, column } => write!(f, "{line}:{column}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it was given.
    pub place: Place,
    /// The value given.
    pub data: Data,
}

/// The content of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing, as in `key:` with no value, `~` or `null`.
    Null,
    /// A scalar as it was written, escapes resolved.
    Text(String),
    List(Vec<Node>),
    /// A mapping in the order of the file; keys are unique.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    pub value: Node,
}

impl Node {
    /// A scalar.
    pub fn text(place: Place, text: impl Into<String>) -> Self {
        Self { place, data: Data::Text(text.into()) }
    }

    /// The kind of the node, for messages.
    pub fn kind(&self) -> &'static str {
        match self.data {
            Data::Null => "nothing",
            Data::Text(_) => "a single value",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }
}

/// Why a text is not a document we read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Where.
    pub place: Place,
    /// The error.
    pub message: String,
}

/// Reads a text of at most one document. An empty one is [`Data::Null`].
///
/// # Errors
/// All that keeps the tree from being built: the first syntax error, or every duplicate key, alias and tag.
pub fn parse(text: &str) -> Result<Node, Vec<Broken>> {
    let mut builder = Builder::default();
    for next in Parser::new_from_str(text) {
        match next {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                let place = place(error.marker().line(), error.marker().col());
                builder.broken.push(Broken { place, message: format!("not YAML: {}", error.info()) });
                break;
            }
        }
    }
    if builder.broken.is_empty() {
        Ok(builder.root.unwrap_or(Node { place: place(1, 0), data: Data::Null }))
    } else {
        Err(builder.broken)
    }
}

fn place(line: usize, column: usize) -> Place {
    Place::File { line, column: column + 1 }
}

/// A collection that is not closed yet.
struct Open {
    place: Place,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Place)> },
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    broken: Vec<Broken>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) {
        let place = place(span.start.line(), span.start.col());
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents == 2 {
                    self.fail(place, "a second document: the configuration is one");
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_anchor(place, anchor);
                if tag.is_some() {
                    self.fail(place, "tags are not read here");
                }
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                let data = if null { Data::Null } else { Data::Text(text.into_owned()) };
                self.node(Node { place, data });
            }
            Event::SequenceStart(_, anchor, _) => {
                self.refuse_anchor(place, anchor);
                self.stack.push(Open { place, content: Content::List(Vec::new()) });
            }
            Event::MappingStart(_, anchor, _) => {
                self.refuse_anchor(place, anchor);
                self.stack.push(Open { place, content: Content::Map { entries: Vec::new(), key: None } });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.stack.pop() else { return };
                let data = match open.content {
                    Content::List(items) => Data::List(items),
                    Content::Map { entries, .. } => Data::Map(entries),
                };
                self.node(Node { place: open.place, data });
            }
            Event::Alias(_) => {
                self.fail(place, "aliases are not read here: write the value out");
                self.node(Node { place, data: Data::Null });
            }
            _ => {}
        }
    }

    fn node(&mut self, node: Node) {
        match self.stack.last_mut() {
            None => self.root = self.root.take().or(Some(node)),
            Some(Open { content: Content::List(items), .. }) => items.push(node),
            Some(Open { content: Content::Map { entries, key }, .. }) => {
                if let Some((name, place)) = key.take() {
                    entries.push(Entry { key: name, place, value: node });
                } else {
                    *key = Some(as_key(node, entries, &mut self.broken));
                }
            }
        }
    }

    fn refuse_anchor(&mut self, place: Place, anchor: usize) {
        if anchor != 0 {
            self.fail(place, "anchors are not read here: write the value out");
        }
    }

    fn fail(&mut self, place: Place, message: &str) {
        self.broken.push(Broken { place, message: message.into() });
    }
}

/// A node in the place of a key; errors go to `broken`.
fn as_key(node: Node, entries: &[Entry], broken: &mut Vec<Broken>) -> (String, Place) {
    let name = match node.data {
        Data::Text(name) => name,
        Data::Null => "null".into(),
        Data::List(_) | Data::Map(_) => {
            broken.push(Broken { place: node.place, message: "a key must be a plain word".into() });
            String::new()
        }
    };
    if let Some(first) = entries.iter().find(|entry| entry.key == name) {
        broken
            .push(Broken { place: node.place, message: format!("{name:?} is given twice, first at {}", first.place) });
    }
    (name, node.place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        parse(text).unwrap_err().into_iter().map(|broken| format!("{} {}", broken.place, broken.message)).collect()
    }

    #[test]
    fn every_node_knows_its_line_and_column() {
        let root = parse("a: 1\nb:\n  - x: [y, 1.10]\n").unwrap();
        let Data::Map(entries) = root.data else { panic!("{root:?}") };
        assert_eq!(entries[0].value, Node::text(Place::File { line: 1, column: 4 }, "1"));
        let Data::List(items) = &entries[1].value.data else { panic!("{entries:?}") };
        let Data::Map(inner) = &items[0].data else { panic!("{items:?}") };
        assert_eq!(inner[0].place, Place::File { line: 3, column: 5 });
        let Data::List(leaves) = &inner[0].value.data else { panic!("{inner:?}") };
        assert_eq!(leaves[1], Node::text(Place::File { line: 3, column: 12 }, "1.10"));
    }

    #[test]
    fn nothing_is_null_and_quotes_make_it_text() {
        for text in ["", "# only a comment\n", "---\n", "null", "~"] {
            assert_eq!(parse(text).unwrap().data, Data::Null, "{text:?}");
        }
        assert_eq!(parse("'null'").unwrap().data, Data::Text("null".into()));
    }

    #[test]
    fn unknown_yaml_is_refused_with_its_place() {
        assert_eq!(errors("a: 1\nb: 2\na: 3\n"), ["3:1 \"a\" is given twice, first at 1:1"]);
        assert_eq!(errors("a: 1\n---\nb: 2\n"), ["2:1 a second document: the configuration is one"]);
        assert_eq!(
            errors("a: &x 1\nb: *x\n"),
            [
                "1:7 anchors are not read here: write the value out",
                "2:4 aliases are not read here: write the value out"
            ]
        );
        assert_eq!(errors("a: !!str 1\n"), ["1:10 tags are not read here"]);
        assert_eq!(errors("? [a]\n: 1\n"), ["1:3 a key must be a plain word"]);
        let broken = errors("a: [1\n");
        assert!(broken.len() == 1 && broken[0].contains("not YAML: "), "{broken:?}");
    }
}
