//! IPv6 packets, and their translation to IPv4 (RFC 7915 §5).

use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use crate::bytes::{put, put_u16};
use crate::checksum::{Sum, addresses, pseudo_v6};
use crate::headers::{FRAGMENT, ICMP, IPV4, IPV6, Ipv4Header, Ipv6Header};
use crate::icmp::quote::{embedded_reason, quote_end, read_head};
use crate::icmp::{Head, Quoted, v6};
use crate::own::OWN_HOP_LIMIT;
use crate::packets::{Packets, Verdict};
use crate::parse::{ICMPV4, ICMPV6, Parsed, Upper, What, parse_v6, segments_left_at};
use crate::upper::{Pseudo, Way, rewrite};
use crate::{DropReason, HEADROOM, Icmpv6Error, Params, Rewrite, Tuple};

/// An IPv4 packet up to this length leaves with DF clear: the IPv6 packet was at most 1280 bytes long, which its sender need
/// not expect to be too long for anybody (RFC 7915 §5.1).
const LONGEST_WITHOUT_DF: usize = 1260;

/// The length that an `ICMPv4` error keeps to (RFC 1812 §4.3.2.3), in bytes.
const LONGEST_ICMPV4_ERROR: usize = 576;

/// The length that an `ICMPv6` error keeps to (RFC 4443 §2.4 (c)), in bytes.
const LONGEST_ICMPV6_ERROR: usize = 1280;

/// An IPv6 packet that was checked and can be translated to IPv4.
#[derive(Debug)]
pub struct Ipv6Packet<'a> {
    storage: &'a mut [u8],
    packet: Parsed<Ipv6Addr>,
    embedded: Option<Parsed<Ipv6Addr>>,
}

impl<'a> Ipv6Packet<'a> {
    /// Checks the packet at `packet` of `storage`, in front of which [`HEADROOM`] bytes are free.
    pub fn check(storage: &'a mut [u8], packet: Range<usize>) -> Result<Self, DropReason> {
        if packet.start < HEADROOM || packet.end > storage.len() || packet.start > packet.end {
            return Err(DropReason::NoHeadroom);
        }
        let packet = parse_v6(storage, packet, What::Packet)?;
        let embedded = match packet.upper {
            Upper::Error => Some(check_error(storage, &packet)?),
            _ => None,
        };
        Ok(Self { storage, packet, embedded })
    }

    /// Who talks to whom.
    pub fn tuple(&self) -> &Tuple<Ipv6Addr> {
        &self.packet.tuple
    }

    /// The same of the packet inside an ICMP error. It went the other way.
    pub fn embedded(&self) -> Option<&Tuple<Ipv6Addr>> {
        self.embedded.as_ref().map(|embedded| &embedded.tuple)
    }

    /// Translates to IPv4, in place. Where this answers [`Verdict::Drop`], nothing was changed.
    ///
    /// `identification` is for a packet that leaves without DF and brought no identification of its own: a number that the
    /// caller does not use again soon between the same two hosts (RFC 6864 §4).
    pub fn translate(
        &mut self,
        rewrite_to: &Rewrite<Ipv4Addr>,
        identification: u16,
        params: &Params,
    ) -> Verdict<'_> {
        match self.try_translate(rewrite_to, identification, params) {
            Ok((start, end)) => Verdict::Forward(Packets::one(self.storage, start, end)),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    fn try_translate(
        &mut self,
        rewrite_to: &Rewrite<Ipv4Addr>,
        identification: u16,
        params: &Params,
    ) -> Result<(usize, usize), DropReason> {
        let packet = self.packet;
        if let Some(refusal) = packet.refusal {
            return Err(refusal);
        }
        if packet.hop_limit <= 1 {
            return Err(DropReason::HopLimitExceeded);
        }
        let (upper_at, end) = match self.embedded {
            Some(embedded) => self.translate_error(&embedded, rewrite_to)?,
            None => (packet.upper_at, packet.end),
        };
        let header = ipv4_header(&packet, end - upper_at, identification).ok_or(DropReason::TooLong)?;
        if self.embedded.is_none() {
            let pseudo = pseudo(&packet, rewrite_to.source, rewrite_to.destination);
            let bytes = self.storage.get_mut(upper_at..end).unwrap_or_default();
            rewrite(bytes, packet.upper, packet.tuple.ports, rewrite_to.ports, pseudo, Way::SixToFour);
        }
        let header = Ipv4Header {
            tos: params.traffic_class.apply(packet.traffic_class),
            ttl: packet.hop_limit - 1,
            source: rewrite_to.source,
            destination: rewrite_to.destination,
            ..header
        };
        let start = upper_at - IPV4;
        header.write(self.storage, start);
        Ok((start, end))
    }

    /// Translates the packet inside an error, and puts an `ICMPv4` header in front of it. Returns where that begins and where
    /// the packet ends.
    fn translate_error(
        &mut self,
        embedded: &Parsed<Ipv6Addr>,
        rewrite_to: &Rewrite<Ipv4Addr>,
    ) -> Result<(usize, usize), DropReason> {
        let inner = rewrite_to.embedded.ok_or(DropReason::EmbeddedNotTranslatable)?;
        let head = read_head(self.storage, self.packet.upper_at)?;
        let quoted = Quoted {
            total_length: IPV6 + embedded.upper_length,
            fragment_header: embedded.fragment.is_some(),
        };
        let head = v6::to_v4(head, quoted)?;
        let header = ipv4_header(embedded, embedded.upper_length, 0).ok_or(DropReason::EmbeddedMalformed)?;

        let end = embedded.end.min(embedded.upper_at + LONGEST_ICMPV4_ERROR - IPV4 - ICMP - IPV4);
        let pseudo = pseudo(embedded, inner.source, inner.destination);
        let bytes = self.storage.get_mut(embedded.upper_at..end).unwrap_or_default();
        rewrite(bytes, embedded.upper, embedded.tuple.ports, inner.ports, pseudo, Way::SixToFour);
        let header = Ipv4Header {
            tos: embedded.traffic_class,
            ttl: embedded.hop_limit,
            source: inner.source,
            destination: inner.destination,
            ..header
        };
        header.write(self.storage, embedded.upper_at - IPV4);
        let icmp_at = embedded.upper_at - IPV4 - ICMP;
        put(self.storage, icmp_at, head.bytes());
        let checksum = Sum::of(self.storage.get(icmp_at..end).unwrap_or_default()).checksum();
        put_u16(self.storage, icmp_at + 2, checksum);
        Ok((icmp_at, end))
    }

    /// An `ICMPv6` error about this packet, for its sender, or `None` where none may be sent (RFC 4443 §2.4 (e)): about
    /// an error, to a multicast group, from an address that is no single host's.
    ///
    /// The packet itself stays as it is, and is quoted as far as 1280 bytes allow. Not to be called after
    /// [`Self::translate`] has answered [`Verdict::Forward`].
    pub fn error(&mut self, error: Icmpv6Error, source: Ipv6Addr) -> Option<&[u8]> {
        let Tuple { source: sender, destination, .. } = self.packet.tuple;
        let nobody = sender.is_unspecified() || sender.is_multicast() || sender.is_loopback();
        if self.packet.upper == Upper::Error || nobody || destination.is_multicast() {
            return None;
        }
        let quote = self.packet.start;
        let end = self.packet.end.min(quote + LONGEST_ICMPV6_ERROR - IPV6 - ICMP);
        let head = match error {
            Icmpv6Error::DestinationUnreachable { code } => Head::new(v6::UNREACHABLE, code),
            Icmpv6Error::PacketTooBig { mtu } => Head { rest: mtu, ..Head::new(v6::PACKET_TOO_BIG, 0) },
            Icmpv6Error::TimeExceeded => Head::new(v6::TIME_EXCEEDED, 0),
            Icmpv6Error::RoutingHeader => {
                let pointer = segments_left_at(self.storage.get(quote..self.packet.end)?)?;
                Head { rest: u32::try_from(pointer).ok()?, ..Head::new(v6::PARAMETER_PROBLEM, 0) }
            }
        };
        let start = write_error(self.storage, quote, end, head, source, sender)?;
        self.storage.get(start..end)
    }
}

/// An ICMP error is translated only if its checksum is right: the translation gets a new one (RFC 5508 REQ-3).
fn check_error(storage: &[u8], packet: &Parsed<Ipv6Addr>) -> Result<Parsed<Ipv6Addr>, DropReason> {
    let bytes = storage.get(packet.upper_at..packet.end).ok_or(DropReason::Truncated)?;
    let Tuple { source, destination, .. } = packet.tuple;
    if pseudo_v6(source, destination, bytes.len(), ICMPV6).plus(Sum::of(bytes)).checksum() != 0 {
        return Err(DropReason::BadIcmpChecksum);
    }
    let quote = packet.upper_at + ICMP;
    let end = quote_end(quote, packet.end, v6::quote_length(read_head(storage, packet.upper_at)?));
    parse_v6(storage, quote..end, What::Quote).map_err(embedded_reason)
}

/// The IPv4 header of a packet with this many bytes behind it (RFC 7915 §5.1, §5.1.1); TOS, TTL and addresses are for the
/// caller. `None`: too long for IPv4.
fn ipv4_header(packet: &Parsed<Ipv6Addr>, upper_length: usize, identification: u16) -> Option<Ipv4Header> {
    let total = IPV4 + upper_length;
    // An IPv6 datagram in fragments can be 20 bytes longer than the IPv4 one that its fragments must make up again.
    u16::try_from(IPV4 + packet.fragment.map_or(0, |fragment| fragment.reach(upper_length))).ok()?;
    let header = Ipv4Header {
        tos: 0,
        total_length: u16::try_from(total).ok()?,
        identification: 0,
        dont_fragment: false,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 0,
        protocol: if packet.protocol == ICMPV6 { ICMPV4 } else { packet.protocol },
        source: Ipv4Addr::UNSPECIFIED,
        destination: Ipv4Addr::UNSPECIFIED,
    };
    Some(match packet.fragment {
        Some(fragment) => Ipv4Header {
            identification: fragment.identification as u16,
            more_fragments: fragment.more,
            fragment_offset: fragment.offset,
            ..header
        },
        None if total <= LONGEST_WITHOUT_DF => Ipv4Header { identification, ..header },
        None => Ipv4Header { dont_fragment: true, ..header },
    })
}

/// Writes an IPv6 header and an `ICMPv6` header in front of the bytes from `quote` to `end`. Returns where it begins.
fn write_error(
    storage: &mut [u8],
    quote: usize,
    end: usize,
    head: Head,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Option<usize> {
    let icmp_at = quote.checked_sub(ICMP)?;
    let start = icmp_at.checked_sub(IPV6)?;
    v6::write(storage, icmp_at, end, head, source, destination);
    let header = Ipv6Header {
        traffic_class: 0,
        payload_length: end - icmp_at,
        next_header: ICMPV6,
        hop_limit: OWN_HOP_LIMIT,
        source,
        destination,
        fragment: None,
    };
    header.write(storage, start);
    Some(start)
}

fn pseudo(packet: &Parsed<Ipv6Addr>, source: Ipv4Addr, destination: Ipv4Addr) -> Pseudo {
    let Tuple { source: old_source, destination: old_destination, .. } = packet.tuple;
    let echo = match packet.upper {
        Upper::Echo { .. } => pseudo_v6(old_source, old_destination, packet.upper_length, ICMPV6),
        _ => Sum::default(),
    };
    Pseudo {
        ported: [addresses(old_source, old_destination), addresses(source, destination)],
        echo: [echo, Sum::default()],
    }
}

// The worst case of growth to the front is the other way; this way every header shrinks.
const _: () = assert!(IPV4 < IPV6 && FRAGMENT > 0 && HEADROOM >= IPV6 + ICMP);
