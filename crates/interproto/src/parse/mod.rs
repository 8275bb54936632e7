//! Reading packets: once, at the door. What comes out of here carries the proof that every offset lies in the packet.

mod icmp;
mod ipv4;
mod ipv6;
mod transport;

pub(crate) use ipv4::parse as parse_v4;
pub(crate) use ipv6::{parse as parse_v6, segments_left_at};

use crate::headers::Fragment;
use crate::{Ports, Protocol, Tuple};

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ICMPV4: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const DCCP: u8 = 33;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT_HEADER: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;
pub(crate) const MOBILITY: u8 = 135;
pub(crate) const UDP_LITE: u8 = 136;
pub(crate) const HIP: u8 = 139;
pub(crate) const SHIM6: u8 = 140;

/// What is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A packet that arrived.
    Packet,
    /// The packet inside an ICMP error: its tail may be missing, and checksums may no longer hold.
    Quote,
}

/// A packet that was read. All places are offsets in the caller's storage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parsed<A> {
    /// Where the IP header begins.
    pub(crate) start: usize,
    /// Where the transport header begins, or the payload of a later fragment.
    pub(crate) upper_at: usize,
    /// Behind the last byte that is there.
    pub(crate) end: usize,
    /// Bytes from `upper_at` on that the IP header promises; a quote may have less.
    pub(crate) upper_length: usize,
    /// Type of service or traffic class.
    pub(crate) traffic_class: u8,
    /// Time to live or hop limit.
    pub(crate) hop_limit: u8,
    /// Protocol or next header of what lies at `upper_at`.
    pub(crate) protocol: u8,
    /// What there is to know of fragmentation. Of an IPv6 packet: its fragment header. Of an IPv4 packet: always there.
    pub(crate) fragment: Option<Fragment>,
    /// The DF bit of an IPv4 packet.
    pub(crate) dont_fragment: bool,
    /// What lies at `upper_at`.
    pub(crate) upper: Upper,
    /// Who talks to whom.
    pub(crate) tuple: Tuple<A>,
    /// Something that translation will refuse, and that its sender is told about.
    pub(crate) refusal: Option<crate::DropReason>,
}

impl<A> Parsed<A> {
    /// Whether this is one of several fragments.
    pub(crate) fn is_fragmented(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset != 0 || fragment.more)
    }

    /// Whether this is a fragment behind the first.
    pub(crate) fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset != 0)
    }
}

/// What lies behind the IP headers, as far as a translator must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upper {
    /// Ports in the first four bytes, and a checksum over a pseudo-header this far behind them.
    Ported {
        checksum_at: usize,
        /// A checksum that is computed as zero is sent as `0xffff`, and one that arrives as zero is none (UDP, UDP-Lite).
        never_zero: bool,
    },
    /// An ICMP echo request or reply.
    Echo { reply: bool },
    /// An ICMP error with a packet inside.
    Error,
    /// Nothing that translation touches.
    Opaque,
}

/// Which part of a datagram a packet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    First,
    Later,
}

impl Part {
    pub(crate) fn of(fragment: Option<&Fragment>) -> Self {
        match fragment {
            Some(Fragment { offset: 1.., .. }) => Self::Later,
            Some(Fragment { more: true, .. }) => Self::First,
            _ => Self::Whole,
        }
    }
}

/// The protocol as both families know it.
fn protocol(number: u8, icmp: u8) -> Protocol {
    match number {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        number if number == icmp => Protocol::Icmp,
        number => Protocol::Other(number),
    }
}

/// What was read of a transport header.
#[derive(Debug, Clone, Copy)]
struct Transport {
    upper: Upper,
    ports: Ports,
}

impl Transport {
    const OPAQUE: Self = Self { upper: Upper::Opaque, ports: Ports::None };
}
