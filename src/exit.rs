//! Exit codes: what a service manager or a script can tell apart.

use std::process::ExitCode;

/// Why the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked to.
    Done = 0,
    /// Something else went wrong; the message says what.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Root, `CAP_NET_ADMIN` or `/dev/net/tun` is missing.
    Privilege = 3,
    /// The interface name is taken.
    InterfaceTaken = 4,
    /// A pool cannot be used: it overlaps another one, or what this host has or routes elsewhere.
    Pool = 5,
    /// The translation prefix cannot be used: this host has it, or routes it elsewhere.
    Prefix = 6,
    /// The router gave up: a concern could not be kept alive. Start it again.
    GaveUp = 7,
}

impl Exit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Privilege,
        Self::InterfaceTaken,
        Self::Pool,
        Self::Prefix,
        Self::GaveUp,
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
