//! Settings of stateful translation: sessions, quotas, timers, records, port forwards.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use crate::datapath::fragments::Limits;

/// How hosts share the addresses of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Many hosts use one address, each with ports of its own (RFC 6146).
    #[default]
    Ports,
    /// One host has one address, with all ports.
    Exclusive,
}

impl Sharing {
    /// The word in settings and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ports => "ports",
            Self::Exclusive => "exclusive",
        }
    }
}

/// Tables, and what they let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// The most sessions: 1,000 to 16,000,000.
    pub max: u32,
    /// The most hosts that hold ports: 16 to 16,000,000.
    pub max_hosts: u32,
    /// The most TCP SYNs from IPv4 that wait for the host to open the same connection (RFC 6146 §3.5.2): 0 (none wait) to
    /// 65,536.
    pub max_stored_syns: u32,
    /// The most ports of one block and protocol that rest after their last session (RFC 6888 REQ-8).
    pub max_resting_ports: u16,
    /// Which packets from IPv4 reach a host through a port that it uses.
    pub filtering: Filtering,
    /// Whether the sender of a filtered packet is told: ICMP type 3, code 13 (RFC 6146 §3.5.1.1).
    pub answer_filtered: bool,
    /// Ports in a block: a power of two from 16 to 4096.
    pub block_size: u16,
    /// Who leases blocks of ports.
    pub block_for: BlockFor,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            max: 1_000_000,
            max_hosts: 131_072,
            max_stored_syns: 1024,
            max_resting_ports: 4096,
            filtering: Filtering::default(),
            answer_filtered: true,
            block_size: 128,
            block_for: BlockFor::default(),
        }
    }
}

/// Which packets from IPv4 reach a host through a port that it uses (RFC 4787 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// All.
    #[default]
    EndpointIndependent,
    /// Those of an address that the host has sent to through that port.
    AddressDependent,
}

/// Who leases blocks of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockFor {
    /// Each host for itself.
    #[default]
    Host,
    /// The hosts of a subscriber together.
    Subscriber,
}

/// What one subscriber may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaSettings {
    /// Hosts that share a prefix of this length are one subscriber: 32 to 128.
    pub subscriber_prefix_len: u8,
    /// Ports in the blocks of its hosts; 0: unlimited. Not given: [`DEFAULT_QUOTA_PORTS`] of given pools, all of a pool that the router chose itself.
    pub ports: Option<u32>,
    /// Sessions; 0: unlimited.
    pub sessions: u32,
    /// New sessions per second; 0: unlimited.
    pub new_sessions_per_second: u32,
    /// New sessions at once, after a time of silence; at least 1.
    pub new_sessions_burst: u32,
}

/// Ports that one subscriber may hold of given pools, where nothing else is said.
pub const DEFAULT_QUOTA_PORTS: u32 = 16_384;

impl QuotaSettings {
    /// The most ports that a subscriber may hold; `u32::MAX`: any number. `automatic`: of a pool that the router chose itself.
    pub fn most_ports(&self, automatic: bool) -> u32 {
        let default = if automatic { 0 } else { DEFAULT_QUOTA_PORTS };
        unlimited_if_zero(self.ports.unwrap_or(default))
    }

    /// The most sessions that a subscriber may hold; `u32::MAX`: any number.
    pub fn most_sessions(&self) -> u32 {
        unlimited_if_zero(self.sessions)
    }
}

fn unlimited_if_zero(most: u32) -> u32 {
    if most == 0 { u32::MAX } else { most }
}

impl Default for QuotaSettings {
    fn default() -> Self {
        Self {
            subscriber_prefix_len: 64,
            ports: None,
            sessions: 32_768,
            new_sessions_per_second: 2000,
            new_sessions_burst: 4000,
        }
    }
}

/// Fragments that wait for the rest of their packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentSettings {
    /// The most memory for them in bytes: 64 KiB to 1 GiB.
    pub memory: usize,
    /// How long they wait (RFC 6146 §4).
    pub timeout: Duration,
}

impl Default for FragmentSettings {
    fn default() -> Self {
        let Limits { memory, timeout, .. } = Limits::DEFAULT;
        Self { memory, timeout }
    }
}

/// Records of who was given which ports and addresses (RFC 6888 REQ-12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSettings {
    /// Where they are written.
    pub sink: RecordSink,
    /// What happens when they cannot be written fast enough.
    pub when_full: WhenFull,
    /// Whether there is one for each session too, with its destination.
    pub sessions: bool,
}

/// Where records are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordSink {
    /// A file; the path is absolute.
    File(PathBuf),
    /// A syslog daemon.
    Syslog(SyslogTarget),
}

/// Where a syslog daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogTarget {
    /// A unix datagram socket; the path is absolute.
    Unix(PathBuf),
    /// UDP (RFC 5426), to `HOST:PORT`.
    Udp(String),
    /// TCP (RFC 6587), to `HOST:PORT`.
    Tcp(String),
}

/// What happens when records cannot be written fast enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Nothing is given out before its record has room.
    #[default]
    Wait,
    /// Records are lost, and counted.
    GoOn,
}

/// Ports by computation instead of records (RFC 7422).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeterministicSettings {
    /// The networks whose subscribers are numbered: no two overlap, and none is longer than a subscriber's prefix.
    pub hosts: Vec<Ipv6Net>,
    /// The ports of each subscriber: a multiple of the block size.
    pub ports_per_subscriber: u32,
}

/// The protocol of a port forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ForwardProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port forward: a binding that never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Its protocol.
    pub protocol: ForwardProtocol,
    /// The address outside, of a pool that is shared by ports.
    pub address: Ipv4Addr,
    /// The port outside.
    pub port: u16,
    /// Who gets the packets.
    pub host: Ipv6Addr,
    /// At which port.
    pub host_port: u16,
    /// Under which translation prefix the host sees the senders: its place in
    /// [`Settings::translation_prefixes`](super::Settings::translation_prefixes).
    pub prefix: u8,
}
