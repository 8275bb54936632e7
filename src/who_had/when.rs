//! A time that somebody asks for.

use std::fmt;
use std::str::FromStr;

use crate::records::Stamp;

/// A moment, or the second that was named: whoever says 12:00:05 means all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// Its first millisecond.
    pub first: Stamp,
    /// Its last millisecond.
    pub last: Stamp,
}

impl When {
    /// This moment.
    pub fn now() -> Self {
        let now = Stamp::now();
        Self { first: now, last: now }
    }
}

impl FromStr for When {
    type Err = humantime::TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let first: Stamp = text.parse()?;
        let last = if text.contains('.') { first } else { Stamp::from_millis(first.as_millis() + 999) };
        Ok(Self { first, last })
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)
    }
}
