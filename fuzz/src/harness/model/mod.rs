//! The translation once more, the plain way: with allocations, and without a line of the crate.
//!
//! The crate must do the same, byte for byte, but for the checksum fields: one's complement has two zeros, so the laws
//! look at checksums on their own.

pub(super) mod errors;
pub(super) mod mss;
pub(super) mod own;
pub(super) mod read;
mod read6;
pub(super) mod segments;

use super::{
    Case, DropReason, FRAGMENT, ICMPV4, ICMPV6, Params, PortRewrite, TrafficClass, UDP, VirtioNetHdr,
    ZeroChecksum, sums,
};
use read::{Ip, Place};

/// What is expected of a packet.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// All reasons to refuse it; any of them will do. Without one it is forwarded.
    pub(super) wrong: Vec<DropReason>,
    /// What comes out otherwise, with transport checksums as they came in.
    pub(super) packets: Vec<Vec<u8>>,
    /// The packet that came in.
    pub(super) ip: Option<Ip>,
    /// The packet inside an error.
    pub(super) inner: Option<Ip>,
}

/// Addresses to leave with, in the other family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow<'a> {
    pub(super) source: &'a [u8],
    pub(super) destination: &'a [u8],
}

pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Translates a packet whose lengths were repaired if it was put together.
pub(super) fn expect(case: &Case, packet: &[u8], six: bool, flow: Flow<'_>, said: &VirtioNetHdr) -> Expected {
    let mut expected = Expected::default();
    let wrong = &mut expected.wrong;
    let Some(mut ip) = read::read(packet, six, false, wrong) else { return expected };
    let partial = segments::check(&ip, said, wrong);
    expected.ip = Some(ip.clone());
    if ip.hops <= 1 {
        wrong.push(DropReason::HopLimitExceeded);
    }
    if ip.protocol == UDP && ip.has_ports() && !partial && ip.body.len() >= 8 && word(&ip.body, 6) == 0 {
        if six {
            wrong.push(DropReason::UdpZeroChecksumV6);
        } else if ip.is_fragment() {
            wrong.push(DropReason::UdpZeroChecksumFragment);
        } else if case.params.udp_zero_checksum == ZeroChecksum::Drop {
            wrong.push(DropReason::UdpZeroChecksum);
        }
    }
    let class = case.params.class(ip.class);
    let is_error = ip.is_error();
    if is_error && ip.body.len() >= 8 {
        let (body, inner) = errors::translate(case, &ip, flow, partial, wrong);
        expected.inner = inner;
        ip.body = body;
    } else {
        let later = ip.is_later();
        rewrite(&mut ip.body, ip.protocol, later, six, case.ports);
    }
    let size = segments::first(&ip, said);
    let heads = Head {
        ip: &ip,
        flow,
        class,
        hops: ip.hops.saturating_sub(1),
        identification: case.identification,
        is_error,
    };
    expected.packets = if six {
        let packet = heads.four(&ip.body, ip.body.len(), size, wrong);
        if word(&packet, 6) & 0x4000 != 0 && 20 + size > usize::from(case.params.ipv4_mtu.max(68)) {
            wrong.push(DropReason::TooBig);
        }
        vec![packet]
    } else {
        heads.six(&case.params, size, said, wrong)
    };
    expected
}

/// The parameters, read again.
pub(super) trait Read {
    fn class(&self, class: u8) -> u8;
    fn six(&self) -> usize;
    fn cut(&self) -> usize;
}

impl Read for Params {
    fn class(&self, class: u8) -> u8 {
        match self.traffic_class {
            TrafficClass::Copy => class,
            TrafficClass::Zero => 0,
            TrafficClass::Dscp(dscp) => dscp * 4 + class % 4,
        }
    }

    fn six(&self) -> usize {
        self.ipv6_mtu.max(1280) as usize
    }

    fn cut(&self) -> usize {
        usize::from(self.lowest_ipv6_mtu.max(1280)).min(self.six())
    }
}

/// Ports, identifiers and ICMP types; no checksum.
pub(super) fn rewrite(body: &mut [u8], protocol: u8, later: bool, six: bool, ports: Option<PortRewrite>) {
    let echo = protocol == if six { ICMPV6 } else { ICMPV4 };
    if echo && !later && body.len() >= 8 {
        body[0] = match body[0] {
            128 => 8,
            129 => 0,
            8 => 128,
            _ => 129,
        };
        if let Some(PortRewrite::Identifier(identifier)) = ports {
            body[4..6].copy_from_slice(&identifier.to_be_bytes());
        }
    }
    if let (Some(PortRewrite::Pair { source, destination }), false, 6 | 17 | 33 | 136) =
        (ports, later, protocol)
        && body.len() >= 4
    {
        body[..2].copy_from_slice(&source.to_be_bytes());
        body[2..4].copy_from_slice(&destination.to_be_bytes());
    }
}

/// All that IP headers are made of.
pub(super) struct Head<'a> {
    pub(super) ip: &'a Ip,
    pub(super) flow: Flow<'a>,
    pub(super) class: u8,
    pub(super) hops: u8,
    pub(super) identification: u16,
    /// An error is cut instead of being refused for its length.
    pub(super) is_error: bool,
}

impl Head<'_> {
    /// An IPv4 packet with this body, of which perhaps only a part is there.
    pub(super) fn four(
        &self,
        body: &[u8],
        promised: usize,
        size: usize,
        wrong: &mut Vec<DropReason>,
    ) -> Vec<u8> {
        let Ok(total) = u16::try_from(20 + promised) else {
            let fits = 20 + size <= 65_535;
            wrong.push(if fits { DropReason::SuperPacketTooLong } else { DropReason::TooBig });
            return vec![0; 20];
        };
        let (identification, flags) = match self.ip.place {
            Some((identification, offset, more)) => {
                if 20 + usize::from(offset) + promised > 65_535 {
                    wrong.push(DropReason::DatagramTooLong);
                }
                (identification as u16, offset / 8 + if more { 0x2000 } else { 0 })
            }
            None if size + 20 <= 1260 => (self.identification, 0),
            None => (0, 0x4000),
        };
        let protocol = if self.ip.protocol == ICMPV6 { ICMPV4 } else { self.ip.protocol };
        let mut packet = vec![0x45, self.class];
        for word in [total, identification, flags] {
            packet.extend(word.to_be_bytes());
        }
        packet.extend([self.hops, protocol, 0, 0]);
        packet.extend(self.flow.source);
        packet.extend(self.flow.destination);
        let sum = sums::folded(sums::of(&packet));
        packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
        packet.extend(body);
        packet
    }

    /// An IPv6 packet with this body, of which perhaps only a part is there.
    pub(super) fn one(&self, body: &[u8], promised: usize, place: Option<Place>) -> Vec<u8> {
        let protocol = if self.ip.protocol == ICMPV4 { ICMPV6 } else { self.ip.protocol };
        let mut packet = vec![0x60 | self.class >> 4, self.class << 4, 0, 0];
        let length = promised + if place.is_some() { 8 } else { 0 };
        packet.extend((length as u16).to_be_bytes());
        packet.extend([if place.is_some() { FRAGMENT } else { protocol }, self.hops]);
        packet.extend(self.flow.source);
        packet.extend(self.flow.destination);
        if let Some((identification, offset, more)) = place {
            packet.extend([protocol, 0]);
            packet.extend((offset | u16::from(more)).to_be_bytes());
            packet.extend(identification.to_be_bytes());
        }
        packet.extend(body);
        packet
    }
}
