//! The configuration language of CoreDNS and NodeLocal DNSCache: read with line and column, and said again as ours.
//!
//! Owns the meaning of each directive here, and the notes on those that are not honoured. `compose` and `source` read files;
//! everything else is pure.

mod base;
mod cache;
mod cluster;
mod compose;
mod findings;
mod forward;
mod lexer;
mod loadbalance;
mod local;
mod parse;
mod plan;
mod rewrite;
mod server;
mod source;
mod template;
mod translate;
mod unhonoured;
mod whole;
mod words;

#[cfg(test)]
mod options;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
};

pub use base::{KubeDns, TemplateError, TemplateValues, fill};
pub use compose::{ComposeError, Composer, NodeCache, NodeSettings};
pub use lexer::Token;
pub use parse::{Block, Corefile, Directive, Imported, Property, Surroundings, parse};
pub use source::Imports;
pub use translate::{Options, Translation, translate};
pub use words::go_duration;

/// Where something stands; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The number of its file; 0 is the Corefile itself.
    pub file: u16,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a text is no Corefile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{at}: {message}", prefix(file.as_deref()))]
pub struct Error {
    pub at: Position,
    /// The imported file of its place; `None` for the Corefile itself.
    pub file: Option<PathBuf>,
    /// The error, and the right form.
    pub message: String,
}

fn prefix(file: Option<&Path>) -> String {
    file.map_or_else(String::new, |file| format!("{}:", file.display()))
}

/// The file of a position, if it is an imported one.
fn imported(at: Position, files: &[PathBuf]) -> Option<PathBuf> {
    files.get(usize::from(at.file)).filter(|_| at.file > 0).cloned()
}

/// Whether clients can see that a directive is not honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Some answer differs from what the Corefile asks for.
    Answers,
    /// Answers are the same; something about how they are found or told of differs.
    Manner,
    /// holdfast does so always, or has no need of it: nothing differs. Told on the page of Corefiles alone.
    Met,
}

/// Something the Corefile says that is not honoured, or not to the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub at: Position,
    /// The imported file of its place; `None` for the Corefile itself.
    pub file: Option<PathBuf>,
    /// The directive, with its option if it is about one: `cache success`.
    pub directive: String,
    /// holdfast's behaviour instead, and the remedy.
    pub text: String,
    pub weight: Weight,
}

impl Note {
    /// `LINE:COLUMN`, behind the file's name for an imported one.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}{}", prefix(self.file.as_deref()), self.at)
    }

    /// With the path in front, where the Corefile itself is at `path`.
    #[must_use]
    pub fn shown(&self, path: &Path) -> String {
        if self.file.is_some() { self.to_string() } else { format!("{}:{self}", path.display()) }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}: {}: {}", prefix(self.file.as_deref()), self.at, self.directive, self.text)
    }
}

impl Error {
    fn at(at: Position, message: impl Into<String>) -> Self {
        Self { at, file: None, message: message.into() }
    }

    /// Names the file of its place, one of `files`.
    fn within(self, files: &[PathBuf]) -> Self {
        Self { file: imported(self.at, files), ..self }
    }

    /// With the path in front, where the Corefile itself is at `path`.
    #[must_use]
    pub fn shown(&self, path: &Path) -> String {
        if self.file.is_some() { self.to_string() } else { format!("{}:{self}", path.display()) }
    }
}
