//! Findings in a Corefile: errors, and options that are not honoured.

use super::{Directive, Error, Note, Position, Property, Token, Weight};

#[derive(Debug, Default)]
pub(super) struct Findings {
    pub errors: Vec<Error>,
    pub notes: Vec<Note>,
}

impl Findings {
    pub fn error(&mut self, at: Position, message: impl Into<String>) {
        self.errors.push(Error::at(at, message));
    }

    /// The value, or `None` with the error noted.
    pub fn take<T>(&mut self, value: Result<T, Error>) -> Option<T> {
        value.map_err(|error| self.errors.push(error)).ok()
    }

    /// A directive, or one of its options, that is not honoured.
    pub fn note(&mut self, at: Position, directive: impl Into<String>, weight: Weight, text: impl Into<String>) {
        let note = Note { at, file: None, directive: directive.into(), text: text.into(), weight };
        // Every block of a file says the same things; each is told once, where it stands first.
        let same = |known: &&Note| known.directive == note.directive && known.text == note.text;
        if self.notes.iter().find(same).is_none() {
            self.notes.push(note);
        }
    }

    /// An option whose absence no answer shows.
    pub fn manner(&mut self, directive: &Directive, property: &Property, text: &str) {
        let name = format!("{} {}", directive.name.text, property.name.text);
        self.note(property.name.at, name, Weight::Manner, text);
    }

    /// An option of which nothing is left to do, because holdfast does so always or has no need of it.
    pub fn met(&mut self, directive: &Directive, property: &Property, text: &str) {
        let name = format!("{} {}", directive.name.text, property.name.text);
        self.note(property.name.at, name, Weight::Met, text);
    }

    /// An option that is not known here: of a newer CoreDNS, of a build of its own, or mistyped.
    pub fn unknown(&mut self, directive: &Directive, property: &Property) {
        let name = format!("{} {}", directive.name.text, property.name.text);
        self.note(property.name.at, name, Weight::Answers, "this option is not known and has no effect");
    }

    /// The one word of an option.
    pub fn one<'a>(&mut self, property: &'a Property) -> Option<&'a Token> {
        if let [only] = property.args.as_slice() {
            return Some(only);
        }
        self.error(property.name.at, format!("{} takes one value", property.name.text));
        None
    }
}
