//! Where fragments wait: out of order for the first one, which alone has the ports, or for all of them.
//!
//! When hosts share addresses by ports, a fragment behind the first does not say whose it is (RFC 6146 §3.4). The buffer
//! remembers the ports of each first fragment until its datagram is through, and parks what comes before it. What only the whole
//! datagram can be (ICMP, RFC 7915 §1.2; IPv4 UDP without a checksum, §4.5) it puts together. Pure: `now` is a parameter, and
//! there is no lock.
//!
//! - **Order of things**: the buffer is asked before the session is looked up, and a later fragment is judged like the first, by
//!   its ports: a datagram that nobody asked for is refused fragment by fragment and parks nothing.
//! - **Overlaps** (RFC 5722): the whole datagram is lost, what is parked and what still comes, until its time is over. So is one
//!   whose fragments contradict each other about its end. A second fragment of the same place, length and M bit is a duplicate
//!   (RFC 8200 §4.5): the first one counts, and the second goes nowhere, whatever it contains.
//! - **Time** counts from the first fragment that came, and nothing prolongs it. A datagram all of whose fragments have passed is
//!   forgotten at once: the next one of the same identification may follow soon (RFC 4963).
//! - **Memory** is bounded with all bookkeeping, in total and by source (RFC 6146 §3.4). A source that would have more than its
//!   share loses its own oldest datagram; when many sources together fill the buffer, the oldest of all goes. The oldest, since
//!   fragments that will ever be complete are so within milliseconds: to refuse the newest would let a few thousand forged
//!   fragments close the buffer to everybody for as long as they may wait.
//!
//! What the bounds cannot do: whoever forges somebody's address spends that one's share.

mod buffer;
mod datagram;
mod order;
mod shared;
mod table;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::Duration;

use interproto::{FragmentPart, Ports, Protocol, Tuple};

pub use buffer::FragmentBuffer;
pub use shared::Fragments;

/// The bounds of a [`FragmentBuffer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of parked packets and all bookkeeping. On top comes one datagram while it is put together and handed out.
    pub memory: usize,
    /// Datagrams at a time. If the bookkeeping of so many takes more than half of the memory, they are fewer.
    pub datagrams: usize,
    /// Into how many shares both are divided. A source (an IPv6 /64 or an IPv4 address) has at most one.
    pub shares: usize,
    /// Fragments of one datagram.
    pub fragments_per_datagram: usize,
    /// How long a datagram may take, from the first fragment that came, and how long a lost one is remembered.
    pub timeout: Duration,
}

impl Limits {
    /// 8 MiB, of which a source has the eighth part. That is 13 times the longest datagram, whose 64 fragments may be those of
    /// a link with the least IPv6 MTU. Two seconds is `FRAGMENT_MIN` of RFC 6146 §4.
    pub const DEFAULT: Self = Self {
        memory: 8 << 20,
        datagrams: 4096,
        shares: 8,
        fragments_per_datagram: 64,
        timeout: Duration::from_secs(2),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What the fragments of one datagram have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// Of an IPv4 datagram.
    V4 {
        /// Where it comes from.
        source: Ipv4Addr,
        /// Where it goes.
        destination: Ipv4Addr,
        /// What it carries.
        protocol: u8,
        /// Its number.
        identification: u16,
    },
    /// Of an IPv6 datagram. What it carries is no part of it: only the first fragment says so.
    V6 {
        /// Where it comes from.
        source: Ipv6Addr,
        /// Where it goes.
        destination: Ipv6Addr,
        /// Its number.
        identification: u32,
    },
}

impl Key {
    /// The key of an IPv4 fragment.
    pub fn v4(tuple: &Tuple<Ipv4Addr>, part: &FragmentPart) -> Self {
        let protocol = match tuple.protocol {
            Protocol::Icmp => 1,
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Other(number) => number,
        };
        Self::V4 {
            source: tuple.source,
            destination: tuple.destination,
            protocol,
            identification: part.identification as u16,
        }
    }

    /// The key of an IPv6 fragment.
    pub fn v6(tuple: &Tuple<Ipv6Addr>, part: &FragmentPart) -> Self {
        Self::V6 { source: tuple.source, destination: tuple.destination, identification: part.identification }
    }

    fn source(&self) -> Source {
        match self {
            Self::V4 { source, .. } => Source::V4(*source),
            Self::V6 { source, .. } => Source::V6((u128::from(*source) >> 64) as u64),
        }
    }
}

/// Who has a share of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(Ipv4Addr),
    /// A /64.
    V6(u64),
}

/// What becomes of a fragment.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// It can be translated now. These are the ports of its first fragment, or its own.
    Now(Ports),
    /// It is the first, and can be translated now, and then those that came before it.
    Release {
        /// Its ports.
        ports: Ports,
        /// The fragments that came before it, each a whole packet, in their order of arrival. The buffer is through with
        /// them: it would take them for duplicates.
        parked: Vec<Box<[u8]>>,
    },
    /// It waits.
    Parked,
    /// It was the last that was missing, and here is the whole datagram.
    Whole(Whole),
    /// It goes nowhere.
    Refused {
        /// Why.
        reason: FragmentRefusal,
        /// How many packets are lost, this one and those of its datagram that were parked.
        packets: usize,
    },
}

/// A datagram that was put together, as `check_reassembled` wants it: the headers of the first fragment, and behind them the
/// whole payload.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    /// [`interproto::HEADROOM`] free bytes, and the datagram.
    pub storage: Box<[u8]>,
    /// Where the datagram is.
    pub packet: Range<usize>,
}

/// Why a fragment goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FragmentRefusal {
    /// It overlaps another one, or contradicts it about where the datagram ends, or belongs to a datagram of which that was found
    /// (RFC 5722 §4).
    Overlap,
    /// It has come before (RFC 8200 §4.5). Nothing is lost.
    Duplicate,
    /// It can be a part of no datagram (RFC 8200 §4.5): it is empty, ends past 65,535, does not begin, or with others behind it
    /// does not end, at a multiple of eight; or it is ICMP, and others of its datagram have passed as something else.
    Malformed,
    /// Its datagram has more fragments than one may have.
    TooManyFragments,
    /// It is the oldest, or too long, and the buffer is full.
    BufferFull,
    /// It is the oldest of its source, or too long, and the source has its share.
    SourceShare,
    /// One fragment of its datagram says that there is congestion, and another one cannot be told (RFC 3168 §5.3).
    MixedEcn,
    /// The first fragment, or the last one that was missing, did not come in time (RFC 6146 §3.4, RFC 8200 §4.5).
    TimedOut,
}

impl FragmentRefusal {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Overlap,
        Self::Duplicate,
        Self::Malformed,
        Self::TooManyFragments,
        Self::BufferFull,
        Self::SourceShare,
        Self::MixedEcn,
        Self::TimedOut,
    ];

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "fragment_overlap",
            Self::Duplicate => "fragment_duplicate",
            Self::Malformed => "fragment_malformed",
            Self::TooManyFragments => "fragment_too_many",
            Self::BufferFull => "fragment_buffer_full",
            Self::SourceShare => "fragment_source_share",
            Self::MixedEcn => "fragment_mixed_ecn",
            Self::TimedOut => "fragment_timeout",
        }
    }
}

/// Packets that were parked and are lost without a fragment that could have said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// Their time was over ([`FragmentRefusal::TimedOut`]).
    pub timed_out: u64,
    /// They were the oldest of a full buffer ([`FragmentRefusal::BufferFull`]).
    pub buffer_full: u64,
    /// They were the oldest of a source that has its share ([`FragmentRefusal::SourceShare`]).
    pub source_share: u64,
}

/// How full a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Datagrams that are not complete.
    pub datagrams: usize,
    /// Packets that are parked.
    pub packets: usize,
    /// Bytes, with all bookkeeping.
    pub memory: usize,
}

#[cfg(test)]
mod tests;
