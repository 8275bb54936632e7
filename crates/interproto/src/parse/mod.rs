//! Reading packets: once, at the door. What comes out of here carries the proof that every offset lies in the packet.

mod icmp;
mod ipv4;
mod ipv6;
pub(crate) mod plain;
mod transport;

pub(crate) use ipv4::parse as parse_v4;
pub(crate) use ipv6::{fragment_header_at, parse as parse_v6, segments_left_at};

use core::ops::Range;

use crate::headers::Fragment;
use crate::{DropReason, FragmentPart, HEADROOM, Ports, Protocol, Tuple};

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ICMPV4: u8 = 1;
pub(crate) const IGMP: u8 = 2;
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

/// Refuses what does not leave the headroom that translation needs.
#[inline(always)]
pub(crate) fn in_place(storage: &[u8], packet: &Range<usize>) -> Result<(), DropReason> {
    if packet.start < HEADROOM || packet.end > storage.len() || packet.start > packet.end {
        return Err(DropReason::NoHeadroom);
    }
    Ok(())
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
    /// Where it comes from, and where it goes.
    pub(crate) source: A,
    pub(crate) destination: A,
    /// Both ports as they lie in the packet, or an identifier; [`Self::tuple`] says which.
    ports: u32,
    /// Something that translation will refuse, and that its sender may be told about.
    pub(crate) refusal: Option<DropReason>,
    /// No error may be sent about this packet: it is an ICMP error, or may be a part of one, or an IPv4 fragment behind the
    /// first (RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)).
    pub(crate) quiet: bool,
}

impl<A: Copy> Parsed<A> {
    /// Who talks to whom, `icmp` being the family's number of ICMP.
    #[inline(always)]
    pub(crate) fn tuple(&self, icmp: u8) -> Tuple<A> {
        let protocol = match self.protocol {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            number if number == icmp => Protocol::Icmp,
            number => Protocol::Other(number),
        };
        let ports = match self.upper {
            Upper::Ported { .. } => {
                Ports::Pair { source: (self.ports >> 16) as u16, destination: self.ports as u16 }
            }
            Upper::Echo { .. } => Ports::Identifier(self.ports as u16),
            Upper::Error | Upper::Opaque => Ports::None,
        };
        Tuple { source: self.source, destination: self.destination, protocol, ports }
    }

    /// The same for callers.
    pub(crate) fn fragment_part(&self) -> Option<FragmentPart> {
        let fragment = self.fragment.filter(|_| self.is_fragmented())?;
        Some(FragmentPart {
            identification: fragment.identification,
            offset: fragment.offset * 8,
            more: fragment.more,
            headers: self.upper_at - self.start,
            payload: self.upper_at..self.end,
        })
    }

    /// The flags of a TCP header, its 14th byte (RFC 9293 §3.1); 0 if there is none.
    #[inline]
    pub(crate) fn tcp_flags(&self, storage: &[u8]) -> u8 {
        let is_tcp = self.protocol == TCP && matches!(self.upper, Upper::Ported { .. });
        storage.get(self.upper_at + 13).copied().filter(|_| is_tcp).unwrap_or(0)
    }

    /// Whether this is a whole echo request.
    pub(crate) fn is_echo_request(&self) -> bool {
        matches!(self.upper, Upper::Echo { reply: false }) && !self.is_fragmented()
    }

    /// Whether this is one of several fragments.
    pub(crate) fn is_fragmented(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset != 0 || fragment.more)
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

impl Upper {
    /// Where the checksum lies, counted from the transport header.
    pub(crate) fn checksum_at(self) -> Option<usize> {
        match self {
            Self::Ported { checksum_at, .. } => Some(checksum_at),
            Self::Echo { .. } | Self::Error => Some(2),
            Self::Opaque => None,
        }
    }
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

/// What was read of a transport header.
#[derive(Debug, Clone, Copy)]
struct Transport {
    upper: Upper,
    /// Both ports as they lie in the packet, or an identifier, as `upper` says.
    ports: u32,
}

impl Transport {
    const OPAQUE: Self = Self { upper: Upper::Opaque, ports: 0 };
}

/// A packet that translation will refuse is let in, so that its sender can be told; a quote is not.
#[inline(always)]
fn let_in(
    read: Result<Transport, DropReason>,
    what: What,
    refusal: &mut Option<DropReason>,
) -> Result<Transport, DropReason> {
    match read {
        Err(reason) if what == What::Packet && reason.is_refusal() => {
            refusal.get_or_insert(reason);
            Ok(Transport::OPAQUE)
        }
        read => read,
    }
}
