//! What can be asked, as both the command line and the socket have it.
#![allow(clippy::doc_markdown, reason = "clap prints these comments as they are")]

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::{Args, Subcommand, ValueEnum};
use fast_nat::nat64::SessionState;
use ipnet::{Ipv4Net, Ipv6Net};
use rfc6052::Prefix;
use serde::{Deserialize, Serialize};

use crate::config::{ForwardProtocol, NetOrAddress, Text};
use crate::records::Protocol;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// How the router does: readiness, settings that wait for a restart, what the tables hold.
    Status {},
    /// The actors: state, generation, exits, last failure.
    ListActors {},
    /// Sessions of hosts that share addresses.
    ListSessions(Sessions),
    /// Leases of whole addresses, static pairs among them.
    ListLeases(Leases),
    /// Port blocks under lease.
    ListBlocks(Blocks),
    /// Port forwards and static pairs, of the file and added here.
    ListMappings(Limit),
    /// End one session.
    DropSession(DropSession),
    /// End the lease of one address.
    DropLease(DropLease),
    /// Forward a port to a host.
    AddForward(Forward),
    /// Forward a port no longer. One of the file comes back with the next reload.
    RemoveForward(Mapping),
    /// Give a host an address for itself.
    AddStatic(Pair),
    /// Hand over to the process that asks: see [`crate::handover`]. No command for people.
    #[command(skip)]
    HandOver {
        /// The version of the way in which that is done.
        handover: u16,
    },
    /// Take such an address away. One of the file comes back with the next reload.
    RemoveStatic(DropLease),
}

impl Command {
    /// Whether the answer may be long.
    pub fn is_list(&self) -> bool {
        matches!(
            self,
            Self::ListSessions(_) | Self::ListLeases(_) | Self::ListBlocks(_) | Self::ListMappings(_)
        )
    }
}

/// How much is listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The most that are listed, up to 10,000 [default: 100].
    #[arg(long, value_name = "N")]
    #[serde(default)]
    pub limit: Option<usize>,
}

/// Which sessions: those that fit everything that is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// Of this host, or of the hosts in this network.
    #[arg(long, value_name = "NET")]
    pub host: Option<Text<NetOrAddress<Ipv6Net>>>,
    /// With an address outside of this network, or with this one.
    #[arg(long, value_name = "NET")]
    pub address: Option<Text<NetOrAddress<Ipv4Net>>>,
    /// With this port outside.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// With somebody in this network.
    #[arg(long, value_name = "NET")]
    pub remote: Option<Text<NetOrAddress<Ipv4Net>>>,
    /// With this port of theirs.
    #[arg(long, value_name = "PORT")]
    pub remote_port: Option<u16>,
    /// Of this protocol.
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<Protocol>,
    /// In this state.
    #[arg(long, value_name = "STATE")]
    pub state: Option<State>,
    /// The most that are listed, up to 10,000 [default: 100].
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Which leases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields, default)]
pub struct Leases {
    /// Of this host, or of the hosts in this network.
    #[arg(long, value_name = "NET")]
    pub host: Option<Text<NetOrAddress<Ipv6Net>>>,
    /// Of addresses of this network, or of this one.
    #[arg(long, value_name = "NET")]
    pub address: Option<Text<NetOrAddress<Ipv4Net>>>,
    /// The most that are listed, up to 10,000 [default: 100].
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Which port blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields, default)]
pub struct Blocks {
    /// Of this host, or of the hosts in this network.
    #[arg(long, value_name = "NET")]
    pub host: Option<Text<NetOrAddress<Ipv6Net>>>,
    /// Of addresses of this network, or of this one.
    #[arg(long, value_name = "NET")]
    pub address: Option<Text<NetOrAddress<Ipv4Net>>>,
    /// With this port in it.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The most that are listed, up to 10,000 [default: 100].
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
pub struct DropSession {
    /// Its name in a list.
    #[arg(value_name = "SESSION")]
    pub session: String,
}

/// One address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
pub struct DropLease {
    /// The address.
    #[arg(value_name = "ADDRESS")]
    pub address: Ipv4Addr,
}

/// A port forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Its protocol.
    #[arg(value_name = "PROTOCOL")]
    pub protocol: ForwardProtocol,
    /// The address outside, of a pool that is shared by ports.
    #[arg(value_name = "ADDRESS")]
    pub address: Ipv4Addr,
    /// The port outside.
    #[arg(value_name = "PORT")]
    pub port: u16,
    /// The host that it leads to.
    #[arg(value_name = "HOST")]
    pub host: Ipv6Addr,
    /// The host's port [default: the same].
    #[arg(long, value_name = "PORT")]
    #[serde(default)]
    pub host_port: Option<u16>,
    /// The translation prefix that the host sees the senders under [default: the first].
    #[arg(long, value_name = "NET")]
    #[serde(default)]
    pub prefix: Option<Text<Prefix>>,
}

/// Which port forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// Its protocol.
    #[arg(value_name = "PROTOCOL")]
    pub protocol: ForwardProtocol,
    /// The address outside.
    #[arg(value_name = "ADDRESS")]
    pub address: Ipv4Addr,
    /// The port outside.
    #[arg(value_name = "PORT")]
    pub port: u16,
}

/// A static pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The address.
    #[arg(value_name = "ADDRESS")]
    pub address: Ipv4Addr,
    /// The host that it belongs to.
    #[arg(value_name = "HOST")]
    pub host: Ipv6Addr,
}

/// Where a session stands: [`SessionState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the states of `SessionState` of the same names say what they are")]
pub enum State {
    V4Init,
    V6Init,
    Established,
    V4FinRcv,
    V6FinRcv,
    V4FinV6FinRcv,
    Trans,
    OneWay,
}

impl From<SessionState> for State {
    fn from(state: SessionState) -> Self {
        match state {
            SessionState::V4Init => Self::V4Init,
            SessionState::V6Init => Self::V6Init,
            SessionState::Established => Self::Established,
            SessionState::V4FinRcv => Self::V4FinRcv,
            SessionState::V6FinRcv => Self::V6FinRcv,
            SessionState::V4FinV6FinRcv => Self::V4FinV6FinRcv,
            SessionState::Trans => Self::Trans,
            SessionState::OneWay => Self::OneWay,
        }
    }
}
