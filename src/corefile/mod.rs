//! The configuration language of CoreDNS and NodeLocal DNSCache: read with line and column, and said again as ours.
//!
//! Owns what each directive means here, and what is told of those that cannot be honoured. Pure: reads no file and no
//! environment but what it is handed.

mod base;
mod cache;
mod findings;
mod forward;
mod lexer;
mod local;
mod parse;
mod plan;
mod server;
mod translate;
mod words;

#[cfg(test)]
mod tests;

use std::fmt;

pub use base::{KubeDns, PillarError, Pillars, fill};
pub use lexer::Token;
pub use parse::{Block, Corefile, Directive, Property, parse};
pub use translate::{Options, Translation, translate};
pub use words::go_duration;

/// Where something stands; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a text is no Corefile, or one that says something impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct Error {
    pub at: Position,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Whether clients can see that a directive is not honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Some answer differs from what the Corefile asks for.
    Answers,
    /// Answers are the same; something about how they are found or told of differs.
    Manner,
}

/// Something the Corefile says that is not honoured, or not to the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub at: Position,
    /// The directive, with its option if it is about one: `cache success`.
    pub directive: String,
    /// What is done instead, and what to do about it.
    pub text: String,
    pub weight: Weight,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.at, self.directive, self.text)
    }
}

impl Error {
    fn at(at: Position, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}
