//! Why a router cannot start.

use std::io;
use std::net::SocketAddr;

use fast_nat::InvalidDeterministic;
use fast_nat::nat64::InvalidConfig;

use crate::actors::control::socket::SocketError;
use crate::exit::Exit;
use crate::handover::take::TakeError;
use crate::kernel::preflight::{NoDefaultPool, Problem};
use crate::kernel::sysctl::SysctlError;
use crate::records;
use crate::state::FolderError;

/// Why the router cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel's state cannot be read or changed.
    #[error(transparent)]
    Netlink(#[from] rtnl::Error),
    /// Something stands in the way.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    InTheWay(Vec<Problem>),
    /// The router was to choose a pool, and none is free.
    #[error(transparent)]
    NoPool(#[from] NoDefaultPool),
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] easy_tun::Error),
    /// The workers' descriptors cannot be had.
    #[error(
        "a worker's event descriptor cannot be had ({0}); raise the limit of open files (ulimit -n), or lower num_queues"
    )]
    Desks(io::Error),
    /// Forwarding cannot be turned on.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// A static pair or a port forward cannot be placed.
    #[error("{0}")]
    StaticPair(String),
    /// The plan of deterministic mode cannot be made.
    #[error("the plan of deterministic mode cannot be made: {0}")]
    Deterministic(#[from] InvalidDeterministic),
    /// The state of an earlier run cannot be had.
    #[error("the state cannot be kept: {0}")]
    State(#[from] FolderError),
    /// What an earlier run left cannot be put back.
    #[error("the state of an earlier run cannot be put back: {0}")]
    Restore(String),
    /// Allocation records cannot be kept.
    #[error(transparent)]
    Records(#[from] records::StartError),
    /// The session tables cannot be made as large as they were to be.
    #[error("the session tables cannot be made: {0}")]
    Nat(#[from] InvalidConfig),
    /// The router that was to be replaced does not let go.
    #[error(transparent)]
    HandOver(#[from] TakeError),
    /// The control socket cannot be had.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// The address for metrics cannot be had.
    #[error("cannot listen at {address} ({source}); choose another address with --prometheus, or off")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl StartError {
    /// The exit code that tells this apart.
    pub fn exit(&self) -> Exit {
        match self {
            Self::InTheWay(problems) => match problems.first() {
                Some(Problem::InterfaceTaken { .. }) => Exit::InterfaceTaken,
                Some(
                    Problem::PrefixesOverlap { .. }
                    | Problem::PrefixHoldsLocalAddress { .. }
                    | Problem::PrefixRouted { .. },
                ) => Exit::Prefix,
                _ => Exit::Pool,
            },
            Self::NoPool(_) | Self::Deterministic(_) => Exit::Pool,
            Self::Device(
                easy_tun::Error::NodeMissing
                | easy_tun::Error::NodeForbidden { .. }
                | easy_tun::Error::NotPermitted { .. },
            ) => Exit::Privilege,
            Self::Device(easy_tun::Error::InUse { .. } | easy_tun::Error::NotOurKind { .. }) => {
                Exit::InterfaceTaken
            }
            Self::Device(_)
            | Self::Desks(_)
            | Self::Netlink(_)
            | Self::Sysctl(_)
            | Self::StaticPair(_)
            | Self::Nat(_)
            | Self::State(_)
            | Self::Restore(_)
            | Self::Records(_)
            | Self::HandOver(_)
            | Self::Control(_)
            | Self::Listen { .. } => Exit::Failed,
        }
    }
}
