//! Errors of a configuration: all at once, each with its place.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::node::Place;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, where the place is in one.
    pub file: Option<PathBuf>,
    /// Where the value was given.
    pub place: Place,
    /// The key, as a path (`forward[0].zone`); empty for errors of the whole document.
    pub key: String,
    /// The error and the values that are accepted.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.place) {
            (Some(file), place @ Place::File { .. }) => write!(f, "{}:{place}: ", file.display())?,
            (Some(file), Place::Default) => write!(f, "{}: ", file.display())?,
            (_, Place::Flag(flag)) => return write!(f, "{flag}: {}", self.message),
            _ => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong, in the order of the file, flags after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    /// One error a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Gathers errors while a configuration is read.
#[derive(Debug, Default)]
pub struct Gather {
    file: Option<PathBuf>,
    errors: Vec<ConfigError>,
}

impl Gather {
    /// For a configuration from this file, if any.
    pub fn new(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned), errors: Vec::new() }
    }

    /// Notes one error.
    pub fn add(&mut self, place: Place, key: &str, message: impl Into<String>) {
        let file = self.file.clone();
        self.errors.push(ConfigError { file, place, key: key.to_owned(), message: message.into() });
    }

    /// How many were noted so far.
    pub fn len(&self) -> usize {
        self.errors.len()
    }

    /// All that was noted, sorted by place.
    pub fn finish(mut self) -> ConfigErrors {
        self.errors.sort_by_key(|error| error.place);
        ConfigErrors(self.errors)
    }
}
