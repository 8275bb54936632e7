//! What goes in and comes out of the engine.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::Timestamp;

/// A protocol whose flows share addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// ICMP queries: the identifier stands for the port, and the remote port is 0.
    Icmp = 2,
}

impl Protocol {
    /// All of them, in the order of their numbers here.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    pub(crate) const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Tcp,
            1 => Self::Udp,
            _ => Self::Icmp,
        }
    }

    /// The word in logs, metrics and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

/// What a TCP packet says to the state machine. Where several flags are set, RST counts before SYN and SYN before FIN.
/// [`Signal::None`] for everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// None of these flags, or no TCP.
    None,
    /// SYN, with or without ACK.
    Syn,
    /// FIN.
    Fin,
    /// RST.
    Rst,
}

/// A flow as its packets from the IPv6 side show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outbound {
    /// The number of the translation prefix that its destination lies in. Each prefix is a NAT64 of its own: the same
    /// host and port have a binding under each.
    pub prefix: u8,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its source.
    pub host: Ipv6Addr,
    /// Its source port or identifier.
    pub port: u16,
    /// The IPv4 address inside its destination.
    pub remote: Ipv4Addr,
    /// Its destination port; 0 for ICMP.
    pub remote_port: u16,
}

/// A flow as its packets from the IPv4 side show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inbound {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its destination: an address of a pool.
    pub address: Ipv4Addr,
    /// Its destination port or identifier.
    pub port: u16,
    /// Its source.
    pub remote: Ipv4Addr,
    /// Its source port; 0 for ICMP.
    pub remote_port: u16,
}

/// The packet at hand, as far as the state is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Passing<'p> {
    /// What it says to the TCP state machine.
    pub signal: Signal,
    /// Packets that it counts for: the segments of a super-packet.
    pub segments: u32,
    /// Bytes that it counts for.
    pub bytes: u32,
    /// The IPv4 packet itself, from its IP header on: kept only where a SYN is stored.
    pub packet: &'p [u8],
}

impl Passing<'_> {
    /// One packet without a flag.
    pub const fn plain(bytes: u32) -> Self {
        Self { signal: Signal::None, segments: 1, bytes, packet: &[] }
    }
}

/// A session, and which one of those that have had its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionRef {
    pub(crate) id: u32,
    pub(crate) version: u32,
}

impl SessionRef {
    /// As one number, which stands for no other session for as long as the engine is there.
    pub const fn to_bits(self) -> u64 {
        (self.id as u64) << 32 | self.version as u64
    }

    /// The session with this number, if there is one.
    pub const fn from_bits(bits: u64) -> Self {
        Self { id: (bits >> 32) as u32, version: bits as u32 }
    }
}

/// A port block under lease, and which one of those that have had its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    pub(crate) id: u32,
    pub(crate) version: u32,
}

/// What a packet from the IPv6 side leaves with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// Its source address.
    pub address: Ipv4Addr,
    /// Its source port or identifier.
    pub port: u16,
    /// Its session; `None` for a TCP packet that has a binding and opens nothing (RFC 6146 §3.5.2.2).
    pub session: Option<SessionRef>,
    /// The session began with this packet.
    pub created: bool,
    /// Its host will soon need another block of this class: ask ahead.
    pub wants_block: Option<PortClass>,
}

/// Where a packet from the IPv4 side goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The number of the translation prefix that its source appears under.
    pub prefix: u8,
    /// Its destination.
    pub host: Ipv6Addr,
    /// Its destination port or identifier.
    pub port: u16,
    /// Its session; `None` for a TCP packet that has a binding and opens nothing (RFC 6146 §3.5.2.2).
    pub session: Option<SessionRef>,
    /// The session began with this packet.
    pub created: bool,
}

/// The ports that are kept among themselves (RFC 4787 REQ-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortClass {
    /// 1024 and above.
    High,
    /// Below 1024.
    Low,
}

impl PortClass {
    /// The class of a port.
    pub const fn of(port: u16) -> Self {
        if port < 1024 { Self::Low } else { Self::High }
    }
}

/// Why a packet is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// From the IPv6 side: its host has no free port of this class. Lease it a block and try again.
    #[error("the host has no free port: it needs a block")]
    NeedsBlock(PortClass),
    /// TCP that opens nothing and has no binding: silent (RFC 6146 §3.5.2.2).
    #[error("a TCP packet that opens no connection and belongs to none")]
    NoSession,
    /// The subscriber holds as many sessions as it may (RFC 6888 REQ-4).
    #[error("its subscriber holds as many sessions as it may")]
    SessionQuota,
    /// The subscriber opens sessions faster than it may (RFC 6888 REQ-5).
    #[error("its subscriber opens sessions faster than it may")]
    RateQuota,
    /// Sessions or bindings are at their bound. What outsiders open is refused from seven eighths of it on.
    #[error("the session table is full")]
    TableFull,
    /// From the IPv4 side: nobody has this address and port (RFC 6146 §3.5.1).
    #[error("nobody has this address and port")]
    NoBinding,
    /// From the IPv4 side: the host has sent nothing to this address (RFC 6146 §3.5, address-dependent filtering).
    #[error("the host has sent nothing to this address")]
    Filtered,
    /// From the IPv4 side: a SYN that is kept for a while, in case the host opens the same connection (RFC 6146 §3.5.2.2).
    #[error("kept in case the host opens the same connection")]
    Stored,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SessionState {
    /// TCP: the IPv4 side has sent a SYN.
    V4Init = 0,
    /// TCP: the IPv6 side has sent a SYN.
    V6Init = 1,
    /// TCP: both have sent a SYN. UDP and ICMP: packets of both sides were seen.
    Established = 2,
    /// TCP: the IPv4 side has sent a FIN.
    V4FinRcv = 3,
    /// TCP: the IPv6 side has sent a FIN.
    V6FinRcv = 4,
    /// TCP: both have sent a FIN.
    V4FinV6FinRcv = 5,
    /// TCP: a RST was seen, or its host is being probed.
    Trans = 6,
    /// UDP and ICMP: only one side has sent.
    OneWay = 7,
}

impl SessionState {
    pub(crate) const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::V4Init,
            1 => Self::V6Init,
            2 => Self::Established,
            3 => Self::V4FinRcv,
            4 => Self::V6FinRcv,
            5 => Self::V4FinV6FinRcv,
            6 => Self::Trans,
            _ => Self::OneWay,
        }
    }

    /// The word in logs and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4Init => "v4_init",
            Self::V6Init => "v6_init",
            Self::Established => "established",
            Self::V4FinRcv => "v4_fin_rcv",
            Self::V6FinRcv => "v6_fin_rcv",
            Self::V4FinV6FinRcv => "v4_fin_v6_fin_rcv",
            Self::Trans => "trans",
            Self::OneWay => "one_way",
        }
    }
}

/// All about one session at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionView {
    /// Which one.
    pub reference: SessionRef,
    /// As the IPv6 side sees it.
    pub outbound: Outbound,
    /// As the IPv4 side sees it.
    pub inbound: Inbound,
    /// Where it stands.
    pub state: SessionState,
    /// Whether its host has sent anything on it.
    pub taken_part: bool,
    /// When a packet last refreshed it, to the tick.
    pub last_seen: Timestamp,
    /// Packets from the IPv6 and from the IPv4 side.
    pub packets: [u64; 2],
    /// Bytes from the IPv6 and from the IPv4 side.
    pub bytes: [u64; 2],
}

/// What a faster path has seen of a session since it last reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// When the last packet passed.
    pub last_seen: Timestamp,
    /// Packets from the IPv6 and from the IPv4 side.
    pub packets: [u64; 2],
    /// Bytes from the IPv6 and from the IPv4 side.
    pub bytes: [u64; 2],
}

/// What the engine wants sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask the IPv6 host of an established connection that was silent for too long whether it is still there: a TCP
    /// segment from the remote to the host, with ACK and without data (RFC 6146 §3.5.2.2).
    Probe(Outbound),
    /// Nobody has taken up this stored IPv4 SYN: answer it with ICMP port unreachable (RFC 6146 §3.5.2.2).
    Unreachable(Box<[u8]>),
}

/// What has happened to a session: for a faster path, or for who records sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It began.
    Started(SessionView),
    /// Both sides take part from now on.
    Established(SessionView),
    /// Its TCP state is another one.
    Changed(SessionView),
    /// It is over.
    Ended(SessionView),
}

/// A range of ports of one address, for one lessee: for TCP, UDP and ICMP identifiers alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The address.
    pub address: Ipv4Addr,
    /// The first port.
    pub first_port: u16,
    /// How many: 1 to 4096, all of one [`PortClass`].
    pub size: u16,
    /// Ports within that are never used.
    pub reserved: Vec<u16>,
}

/// A port block under lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockLease {
    /// Which one.
    pub reference: BlockRef,
    /// Who holds it: a host, or the first address of a subscriber's prefix where its hosts share blocks.
    pub host: Ipv6Addr,
    /// The address.
    pub address: Ipv4Addr,
    /// The first port.
    pub first_port: u16,
    /// How many ports.
    pub size: u16,
    /// When it was given.
    pub given: Timestamp,
    /// Bindings in it: TCP, UDP, ICMP.
    pub used: [u16; 3],
}

/// A binding that is configured: a port forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StaticBinding {
    /// The translation prefix that remotes appear under.
    pub prefix: u8,
    /// The protocol.
    pub protocol: Protocol,
    /// The IPv4 address.
    pub address: Ipv4Addr,
    /// The IPv4 side's port.
    pub port: u16,
    /// The host.
    pub host: Ipv6Addr,
    /// The host's port.
    pub host_port: u16,
}

/// Why a block cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GiveError {
    /// Blocks or hosts are at their bound.
    #[error("the table of hosts or that of blocks is full")]
    Full,
    /// The host has 128 blocks, the most that one may have.
    #[error("the host has 128 port blocks, the most that one may have")]
    TooMany,
    /// The host's other blocks are of another address (RFC 4787 REQ-2: paired).
    #[error("the host's other ports are of {0}")]
    OtherAddress(Ipv4Addr),
    /// No block: it is empty, too long, runs past the last port, or has ports of both classes.
    #[error("not a block of 1 to 4096 ports that are all below 1024 or all above")]
    NotABlock,
}

/// Why a static binding cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StaticError {
    /// The address and port are another binding's.
    #[error("the address and port are in use by {host} port {port}")]
    Taken {
        /// Whose.
        host: Ipv6Addr,
        /// Its port.
        port: u16,
    },
    /// The host's port has another binding.
    #[error("the host's port is bound to {address} port {port}")]
    Bound {
        /// The address.
        address: Ipv4Addr,
        /// The port.
        port: u16,
    },
    /// Bindings or hosts are at their bound.
    #[error("the table of bindings or that of hosts is full")]
    Full,
}

/// How much is in the tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NatUsage {
    /// Sessions: TCP, UDP, ICMP.
    pub sessions: [u32; 3],
    /// Bindings, static ones among them.
    pub bindings: u32,
    /// Lessees: hosts with a block or a binding.
    pub hosts: u32,
    /// Subscribers with a host.
    pub subscribers: u32,
    /// Port blocks under lease.
    pub blocks: u32,
    /// IPv4 SYNs that wait.
    pub stored_syns: u32,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
