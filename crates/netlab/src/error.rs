//! What can go wrong while a laboratory is built or probed.

use std::io;
use std::time::Duration;

/// Why a laboratory could not be built or a probe could not be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed. Permission denied means: run as root.
    #[error("{action}: {source}")]
    System {
        /// What was being done, and to which namespace or link.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The netlink conversation itself failed.
    #[error("{action}: {source}")]
    Netlink {
        /// What was being asked, and in which namespace.
        action: String,
        /// What came instead of an answer.
        source: rtnetlink::Error,
    },
    /// Something did not happen in its time.
    #[error("{action}: no answer within {limit:?}")]
    Timeout {
        /// What was waited for.
        action: String,
        /// How long.
        limit: Duration,
    },
    /// A caller asked for what cannot be: mixed address families, a bad name, bytes that are no HTTP.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Wraps an I/O error with the sentence that says what was being done.
    pub(crate) fn system(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { action: action.into(), source: source.into() }
    }

    /// The kernel's refusal of a request is a system error like any other.
    pub(crate) fn netlink(action: String, source: rtnetlink::Error) -> Self {
        match source {
            rtnetlink::Error::NetlinkError(message) => Self::System { action, source: message.to_io() },
            source => Self::Netlink { action, source },
        }
    }

    /// The kernel's error number, where it gave one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
