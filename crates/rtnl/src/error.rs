//! What can go wrong between this crate and the kernel.

use std::io;
use std::time::Duration;

use crate::desired::{Change, RouteOwner};

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The netlink socket could not be opened; usually the process lacks file descriptors or a runtime.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The task that owns the socket has ended; a new [`Handle`](crate::Handle) is needed.
    #[error("the netlink socket is closed")]
    Closed,
    /// The kernel did not answer in time.
    #[error("the kernel did not answer within {0:?}")]
    Timeout(Duration),
    /// The kernel refused. `EPERM` means that `CAP_NET_ADMIN` is missing.
    #[error("the kernel refused to {what}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// There is more than this crate reads.
    #[error("the kernel holds more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// The tables kept changing while they were read.
    #[error("the {what} kept changing while they were read; {tries} attempts were interrupted")]
    Interrupted {
        /// What was read.
        what: &'static str,
        /// How often it was tried.
        tries: u32,
    },
    /// Another route with the wanted destination and metric exists.
    #[error("the destination is already routed elsewhere ({owner}); that route is left alone")]
    RouteTaken {
        /// Whose it is.
        owner: RouteOwner,
    },
    /// The address is on the interface with another prefix length.
    #[error("the address is already there as {found}")]
    AddressTaken {
        /// As it is there.
        found: ipnet::IpNet,
    },
    /// There is no interface with this index.
    #[error("there is no interface with index {0}")]
    NoSuchLink(u32),
}

impl Error {
    /// The kernel's error number, where the kernel refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// A change that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {change}")]
pub struct FailedChange {
    /// The change.
    pub change: Change,
    /// Why.
    #[source]
    pub source: Error,
}

/// Some changes of a plan could not be made; the others were.
#[derive(Debug, thiserror::Error)]
#[error("{} of {} changes failed: {}", .failed.len(), .failed.len() + .done, list(.failed))]
pub struct ApplyError {
    /// How many changes were made.
    pub done: usize,
    /// Those that failed, in the plan's order; never empty.
    pub failed: Vec<FailedChange>,
}

fn list(failed: &[FailedChange]) -> String {
    let lines: Vec<String> = failed
        .iter()
        .map(|FailedChange { change, source }| match std::error::Error::source(source) {
            Some(cause) => format!("cannot {change}: {source}: {cause}"),
            None => format!("cannot {change}: {source}"),
        })
        .collect();
    lines.join("; ")
}
