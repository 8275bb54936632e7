//! IPv4 packets, and their translation to IPv6 (RFC 7915 §4).

use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use crate::bytes::{put, put_u16, u16_at};
use crate::checksum::{Sum, addresses, pseudo_v6};
use crate::headers::{FRAGMENT, Fragment, ICMP, IPV4, IPV6, Ipv4Header, Ipv6Header};
use crate::icmp::quote::{embedded_reason, quote_end, read_head};
use crate::icmp::{Head, Quoted, v4, v6};
use crate::own::OWN_HOP_LIMIT;
use crate::packets::{Fragments, Packets, Verdict};
use crate::params::ZeroChecksum;
use crate::parse::{ICMPV4, ICMPV6, Parsed, UDP, Upper, What, parse_v4};
use crate::upper::{Pseudo, Way, rewrite};
use crate::{DropReason, HEADROOM, Icmpv4Error, Params, Rewrite, Tuple};

/// The lengths that ICMP errors keep to, in bytes (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)).
const LONGEST_ICMPV4_ERROR: usize = 576;
const LONGEST_ICMPV6_ERROR: usize = 1280;

/// The least MTU of an IPv6 link, in bytes (RFC 8200 §5).
const LEAST_IPV6_MTU: usize = 1280;

/// An IPv4 packet that was checked and can be translated to IPv6.
#[derive(Debug)]
pub struct Ipv4Packet<'a> {
    storage: &'a mut [u8],
    packet: Parsed<Ipv4Addr>,
    embedded: Option<Parsed<Ipv4Addr>>,
}

/// The translated packet: its header, and what lies behind it.
struct Translated {
    header: Ipv6Header,
    upper_at: usize,
    end: usize,
}

impl<'a> Ipv4Packet<'a> {
    /// Checks the packet at `packet` of `storage`, in front of which [`HEADROOM`] bytes are free.
    pub fn check(storage: &'a mut [u8], packet: Range<usize>) -> Result<Self, DropReason> {
        if packet.start < HEADROOM || packet.end > storage.len() || packet.start > packet.end {
            return Err(DropReason::NoHeadroom);
        }
        let packet = parse_v4(storage, packet, What::Packet)?;
        let embedded = match packet.upper {
            Upper::Error => Some(check_error(storage, &packet)?),
            _ => None,
        };
        Ok(Self { storage, packet, embedded })
    }

    /// Who talks to whom.
    pub fn tuple(&self) -> &Tuple<Ipv4Addr> {
        &self.packet.tuple
    }

    /// The same of the packet inside an ICMP error. It went the other way.
    pub fn embedded(&self) -> Option<&Tuple<Ipv4Addr>> {
        self.embedded.as_ref().map(|embedded| &embedded.tuple)
    }

    /// Translates to IPv6, in place. Where this answers [`Verdict::Drop`], nothing was changed.
    ///
    /// A packet without DF that would be longer than [`Params::lowest_ipv6_mtu`] becomes several fragments.
    pub fn translate(&mut self, rewrite_to: &Rewrite<Ipv6Addr>, params: &Params) -> Verdict<'_> {
        let Translated { header, upper_at, end } = match self.try_translate(rewrite_to, params) {
            Ok(translated) => translated,
            Err(reason) => return Verdict::Drop(reason),
        };
        let lowest_mtu = usize::from(params.lowest_ipv6_mtu).max(LEAST_IPV6_MTU);
        if !self.packet.dont_fragment && header.length() + header.payload_length > lowest_mtu {
            let identification = self.packet.fragment.map_or(0, |fragment| fragment.identification);
            let fragment = header.fragment.unwrap_or(Fragment { identification, offset: 0, more: false });
            let each = (lowest_mtu - IPV6 - FRAGMENT) / 8 * 8;
            let fragments = Fragments { header, fragment, at: upper_at, end, each };
            return Verdict::Forward(Packets::fragments(self.storage, fragments));
        }
        let start = upper_at - header.length();
        header.write(self.storage, start);
        Verdict::Forward(Packets::one(self.storage, start, end))
    }

    fn try_translate(
        &mut self,
        rewrite_to: &Rewrite<Ipv6Addr>,
        params: &Params,
    ) -> Result<Translated, DropReason> {
        let packet = self.packet;
        if let Some(refusal) = packet.refusal {
            return Err(refusal);
        }
        if packet.hop_limit <= 1 {
            return Err(DropReason::HopLimitExceeded);
        }
        let (upper_at, end) = if let Some(embedded) = self.embedded {
            self.translate_error(&embedded, rewrite_to)?
        } else {
            self.translate_upper(rewrite_to, params)?;
            (packet.upper_at, packet.end)
        };
        let header = Ipv6Header {
            traffic_class: params.traffic_class.apply(packet.traffic_class),
            payload_length: end - upper_at,
            next_header: next_header(packet.protocol),
            hop_limit: packet.hop_limit - 1,
            source: rewrite_to.source,
            destination: rewrite_to.destination,
            fragment: packet.fragment.filter(|_| packet.is_fragmented()),
        };
        Ok(Translated { header, upper_at, end })
    }

    fn translate_upper(&mut self, rewrite_to: &Rewrite<Ipv6Addr>, params: &Params) -> Result<(), DropReason> {
        let packet = self.packet;
        let bytes = self.storage.get_mut(packet.upper_at..packet.end).unwrap_or_default();
        let without_checksum =
            packet.protocol == UDP && !packet.is_later_fragment() && u16_at(bytes, 6) == Some(0);
        if without_checksum {
            if packet.is_fragmented() {
                return Err(DropReason::UdpZeroChecksumFragment);
            }
            if params.udp_zero_checksum == ZeroChecksum::Drop {
                return Err(DropReason::UdpZeroChecksum);
            }
        }
        let pseudo = pseudo(&packet, rewrite_to.source, rewrite_to.destination);
        rewrite(bytes, packet.upper, packet.tuple.ports, rewrite_to.ports, pseudo, Way::FourToSix);
        if without_checksum {
            // The datagram may be shorter than the packet: the check has seen that it is not longer.
            let length = usize::from(u16_at(bytes, 4).unwrap_or(0));
            let datagram = bytes.get(..length).unwrap_or_default();
            let sum =
                pseudo_v6(rewrite_to.source, rewrite_to.destination, length, UDP).plus(Sum::of(datagram));
            let checksum = sum.checksum();
            put_u16(bytes, 6, if checksum == 0 { 0xffff } else { checksum });
        }
        Ok(())
    }

    /// Translates the packet inside an error, and puts an `ICMPv6` header in front of it. Returns where that begins and where
    /// the packet ends.
    fn translate_error(
        &mut self,
        embedded: &Parsed<Ipv4Addr>,
        rewrite_to: &Rewrite<Ipv6Addr>,
    ) -> Result<(usize, usize), DropReason> {
        let inner = rewrite_to.embedded.ok_or(DropReason::EmbeddedNotTranslatable)?;
        let head = read_head(self.storage, self.packet.upper_at)?;
        let total_length = embedded.upper_at - embedded.start + embedded.upper_length;
        let head = v4::to_v6(head, Quoted { total_length, fragment_header: false })?;
        let header = Ipv6Header {
            traffic_class: embedded.traffic_class,
            payload_length: embedded.upper_length,
            next_header: next_header(embedded.protocol),
            hop_limit: embedded.hop_limit,
            source: inner.source,
            destination: inner.destination,
            fragment: embedded.fragment.filter(|_| embedded.is_fragmented()),
        };

        let end = embedded.end.min(embedded.upper_at + LONGEST_ICMPV6_ERROR - IPV6 - ICMP - header.length());
        let pseudo = pseudo(embedded, inner.source, inner.destination);
        let bytes = self.storage.get_mut(embedded.upper_at..end).unwrap_or_default();
        rewrite(bytes, embedded.upper, embedded.tuple.ports, inner.ports, pseudo, Way::FourToSix);
        header.write(self.storage, embedded.upper_at - header.length());
        let icmp_at = embedded.upper_at - header.length() - ICMP;
        v6::write(self.storage, icmp_at, end, head, rewrite_to.source, rewrite_to.destination);
        Ok((icmp_at, end))
    }

    /// An `ICMPv4` error about this packet, for its sender, or `None` where none may be sent (RFC 1812 §4.3.2.7): about an
    /// error, about a fragment behind the first, to a multicast or broadcast address, from an address that is no single
    /// host's.
    ///
    /// The packet itself stays as it is, and is quoted as far as 576 bytes allow. Not to be called after
    /// [`Self::translate`] has answered [`Verdict::Forward`].
    pub fn error(&mut self, error: Icmpv4Error, source: Ipv4Addr) -> Option<&[u8]> {
        let Tuple { source: sender, destination, .. } = self.packet.tuple;
        // 0.0.0.0/8, 127.0.0.0/8, and multicast, reserved and broadcast from 224.0.0.0 on.
        let nobody = matches!(sender.octets()[0], 0 | 127 | 224..);
        let everybody = matches!(destination.octets()[0], 224..);
        if self.packet.upper == Upper::Error || self.packet.is_later_fragment() || nobody || everybody {
            return None;
        }
        let quote = self.packet.start;
        let end = self.packet.end.min(quote + LONGEST_ICMPV4_ERROR - IPV4 - ICMP);
        let head = match error {
            Icmpv4Error::DestinationUnreachable { code } => Head::new(v4::UNREACHABLE, code),
            Icmpv4Error::FragmentationNeeded { mtu } => {
                Head { rest: u32::from(mtu), ..Head::new(v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) }
            }
            Icmpv4Error::TimeExceeded => Head::new(v4::TIME_EXCEEDED, 0),
        };
        let icmp_at = quote - ICMP;
        put(self.storage, icmp_at, head.bytes());
        let checksum = Sum::of(self.storage.get(icmp_at..end)?).checksum();
        put_u16(self.storage, icmp_at + 2, checksum);
        let start = icmp_at - IPV4;
        let header = Ipv4Header {
            // RFC 1812 §4.3.2.5: precedence 6, internetwork control.
            tos: 0xc0,
            total_length: (end - start) as u16,
            identification: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: OWN_HOP_LIMIT,
            protocol: ICMPV4,
            source,
            destination: sender,
        };
        header.write(self.storage, start);
        self.storage.get(start..end)
    }
}

/// An ICMP error is translated only if its checksum is right: the translation gets a new one (RFC 5508 REQ-3).
fn check_error(storage: &[u8], packet: &Parsed<Ipv4Addr>) -> Result<Parsed<Ipv4Addr>, DropReason> {
    let bytes = storage.get(packet.upper_at..packet.end).ok_or(DropReason::Truncated)?;
    if Sum::of(bytes).checksum() != 0 {
        return Err(DropReason::BadIcmpChecksum);
    }
    let quote = packet.upper_at + ICMP;
    let end = quote_end(quote, packet.end, v4::quote_length(read_head(storage, packet.upper_at)?));
    parse_v4(storage, quote..end, What::Quote).map_err(embedded_reason)
}

fn next_header(protocol: u8) -> u8 {
    if protocol == ICMPV4 { ICMPV6 } else { protocol }
}

fn pseudo(packet: &Parsed<Ipv4Addr>, source: Ipv6Addr, destination: Ipv6Addr) -> Pseudo {
    let Tuple { source: old_source, destination: old_destination, .. } = packet.tuple;
    let echo = match packet.upper {
        Upper::Echo { .. } => pseudo_v6(source, destination, packet.upper_length, ICMPV6),
        _ => Sum::default(),
    };
    Pseudo {
        ported: [addresses(old_source, old_destination), addresses(source, destination)],
        echo: [Sum::default(), echo],
    }
}

// In front of an error's inner transport header grow two IPv6 headers, one of them with a fragment header, around the ICMP
// header, where two IPv4 headers were.
const _: () = assert!(HEADROOM >= (IPV6 + ICMP + IPV6 + FRAGMENT) - (IPV4 + ICMP + IPV4));
