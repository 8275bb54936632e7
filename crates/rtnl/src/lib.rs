#![doc = include_str!("../README.md")]

mod desired;
mod error;
#[cfg(feature = "fault-injection")]
pub mod faults;
#[cfg(not(feature = "fault-injection"))]
mod faults;
mod handle;
pub mod protocol;
mod query;
mod snapshot;
mod watcher;
mod wire;

pub use desired::{Change, Conflict, Desired, DesiredLink, Plan, RouteOwner, diff, route_marks};
pub use error::{ApplyError, Error, FailedChange};
pub use handle::Handle;
pub use protocol::protocol_name;
pub use query::{connected_prefixes, local_addresses, overlaps};
pub use snapshot::{Address, Link, LinkKind, LinkStats, NextHop, Route, RouteKind, Snapshot};
pub use watcher::{Event, MAX_PENDING, Watcher};

/// The protocol number that marks our routes. `ip route show proto 64` lists them, `ip route flush proto 64` removes
/// them. No other program is known to use it.
pub const ROUTE_PROTOCOL: u8 = 64;

/// The metric of our routes. An own one keeps a route to the same destination that somebody else adds apart from ours.
pub const ROUTE_METRIC: u32 = 6464;
