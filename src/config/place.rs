//! Where a setting was given, so that a problem can name the place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where something was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A flag.
    Flag(&'static str),
    /// A place in a file, with the line and column (in characters) from 1.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
        }
    }
}

/// A value and where it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// The place.
    pub place: Place,
}

impl<T> Placed<T> {
    /// A value that a flag gave.
    pub fn by_flag(flag: &'static str, value: T) -> Self {
        Self { value, place: Place::Flag(flag) }
    }

    /// Another value, of the same place.
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Placed<U> {
        Placed { value: into(self.value), place: self.place }
    }
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what to do about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// All that is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum Problems {
    /// The file cannot be read.
    #[error("{}: {source}; check the path given with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was given is wrong in these places.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Problem>),
}
