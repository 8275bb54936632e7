//! Random packets, and what they are rewritten to.

use std::net::{Ipv4Addr, Ipv6Addr};

use interproto::{EmbeddedRewrite, PortRewrite, Rewrite};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::packets::*;
use super::{Flow, HOST4, HOST6, IN4, OUT6, referee};

/// What a packet carries, whichever family it is of.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) kind: u8,
    pub(crate) ports: (u16, u16),
    pub(crate) payload: Vec<u8>,
}

impl Content {
    pub(crate) fn packet(&self, flow: Flow) -> Ip {
        let (a, b) = self.ports;
        let payload = &self.payload[..];
        match self.kind {
            0 => Ip::new(flow, TCP, tcp(flow, a, b, payload)),
            1 => Ip::new(flow, UDP, udp(flow, a, b, payload)),
            2 => echo_request(flow, a, payload),
            3 => echo_reply(flow, a, payload),
            4 => Ip::new(flow, UDP_LITE, udp_lite(flow, a, b, payload)),
            5 => Ip::new(flow, DCCP, dccp(flow, a, b, payload)),
            _ => Ip::new(flow, ESP, payload),
        }
    }

    /// The same after the ports have been rewritten.
    pub(crate) fn rewritten(&self, ports: PortRewrite) -> Self {
        let ports = match (ports, self.kind) {
            (PortRewrite::Pair { source, destination }, 0 | 1 | 4 | 5) => (source, destination),
            (PortRewrite::Identifier(identifier), 2 | 3) => (identifier, self.ports.1),
            _ => self.ports,
        };
        Self { ports, ..self.clone() }
    }

    pub(crate) fn checksum_at(&self) -> Option<usize> {
        match self.kind {
            0 => Some(16),
            1 | 4 | 5 => Some(6),
            2 | 3 => Some(2),
            _ => None,
        }
    }
}

pub(crate) fn content() -> impl Strategy<Value = Content> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        // Zeros and ones are where one's complement sums are ambiguous.
        prop::collection::vec(select(&[0_u8, 0xff][..]), 0..9),
        (1100_usize..1600).prop_map(pattern),
    ];
    let ports = (any::<u16>(), any::<u16>());
    (0_u8..7, ports, payload).prop_map(|(kind, ports, payload)| Content { kind, ports, payload })
}

pub(crate) fn ports() -> impl Strategy<Value = PortRewrite> {
    prop_oneof![
        Just(PortRewrite::Keep),
        any::<(u16, u16)>().prop_map(|(source, destination)| PortRewrite::Pair { source, destination }),
        any::<u16>().prop_map(PortRewrite::Identifier),
    ]
}

pub(crate) fn address6() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        any::<u128>().prop_map(Ipv6Addr::from_bits),
        Just(Ipv6Addr::from_bits(u128::MAX)),
        Just(HOST6)
    ]
}

pub(crate) fn address4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![any::<u32>().prop_map(Ipv4Addr::from_bits), Just(Ipv4Addr::BROADCAST), Just(HOST4)]
}

pub(crate) fn flow6() -> impl Strategy<Value = Flow> {
    (address6(), address6())
        .prop_map(|(source, destination)| Flow { source: source.into(), destination: destination.into() })
}

pub(crate) fn flow4() -> impl Strategy<Value = Flow> {
    (address4(), address4())
        .prop_map(|(source, destination)| Flow { source: source.into(), destination: destination.into() })
}

pub(crate) fn rewrite_to4(flow: Flow, ports: PortRewrite) -> Rewrite<Ipv4Addr> {
    let (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) = (flow.source, flow.destination)
    else {
        panic!("an IPv4 flow")
    };
    let embedded = Some(EmbeddedRewrite { source: destination, destination: source, ports });
    Rewrite { source, destination, ports, embedded }
}

pub(crate) fn rewrite_to6(flow: Flow, ports: PortRewrite) -> Rewrite<Ipv6Addr> {
    let (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) = (flow.source, flow.destination)
    else {
        panic!("an IPv6 flow")
    };
    let embedded = Some(EmbeddedRewrite { source: destination, destination: source, ports });
    Rewrite { source, destination, ports, embedded }
}

pub(crate) fn back(flow: Flow) -> Flow {
    Flow { source: flow.destination, destination: flow.source }
}

pub(crate) fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Something like a packet: all kinds, damaged by flipped bits, cut, or random from the start.
pub(crate) fn almost_a_packet() -> impl Strategy<Value = Vec<u8>> {
    let inside = (content(), any::<bool>(), any::<bool>());
    let shape = (content(), any::<bool>(), 0_u8..6, inside, any::<[u8; 8]>());
    let valid = shape.prop_map(|(content, six, shape, (inner, inner6, error), bytes)| {
        let (flow, inner_flow) = (
            if six { OUT6 } else { IN4 },
            if inner6 == six { back(if six { OUT6 } else { IN4 }) } else { IN4 },
        );
        let mut packet = content.packet(flow);
        if error {
            let kinds = if six { [1, 2, 3, 4] } else { [3, 11, 12, 3] };
            let rest = u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
            let rest = if bytes[6] < 128 { 0 } else { rest };
            packet = icmp_packet(
                flow,
                kinds[usize::from(bytes[0] % 4)],
                bytes[1] % 5,
                rest,
                &inner.packet(inner_flow).bytes(),
            );
        }
        match shape {
            0 => packet = packet.piece(9, u16::from(bytes[0]) * 8, bytes[1] > 99),
            1 if six => {
                packet = packet.extension(bytes[0] % 2 * ROUTING, &[0, 0, 4, bytes[1] % 2, 0, 0, 0, 0]);
            }
            2 if six => packet = packet.extension(DESTINATION_OPTIONS, &[0; 8]).piece(9, 0, bytes[0] > 99),
            1 | 2 => packet.options = bytes.to_vec(),
            3 => packet = packet.may_fragment(7),
            _ => {}
        }
        packet.bytes()
    });
    let flips = prop::collection::vec((any::<Index>(), 0_u8..8, any::<bool>()), 0..4);
    let damaged = (valid, flips, prop::option::of(any::<Index>()), any::<bool>()).prop_map(
        |(mut packet, flips, cut, mend)| {
            for (at, bit, near) in flips {
                // Most bits that matter are in the headers.
                let at = if near { at.index(packet.len().min(96)) } else { at.index(packet.len()) };
                packet[at] ^= 1 << bit;
            }
            if let Some(cut) = cut.filter(|_| packet.len() % 3 == 0) {
                packet.truncate(cut.index(packet.len()));
            }
            if mend {
                mend_checksums(&mut packet);
            }
            packet
        },
    );
    let random = prop::collection::vec(any::<u8>(), 0..200).prop_map(|mut bytes| {
        if let Some(first) = bytes.first_mut() {
            *first = [0x45, 0x46, 0x60, *first][usize::from(*first % 4)];
        }
        mend_checksums(&mut bytes);
        bytes
    });
    prop_oneof![8 => damaged, 1 => random]
}

/// Makes right what would keep damage from getting any further than the door.
pub(crate) fn mend_checksums(packet: &mut [u8]) {
    let (header, protocol_at) = match packet.first() {
        Some(first) if first >> 4 == 6 => (40, 6),
        Some(first) if first >> 4 == 4 => (usize::from(first & 15) * 4, 9),
        _ => return,
    };
    if header < 20 || packet.len() < header + 8 {
        return;
    }
    let (flow, protocol) = (referee::flow(packet), packet[protocol_at]);
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let checksum = checksum(IN4, ICMPV4, &packet[..header]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    if matches!(protocol, ICMPV4 | ICMPV6) {
        packet[header + 2..header + 4].fill(0);
        let checksum = checksum(flow, protocol, &packet[header..]);
        packet[header + 2..header + 4].copy_from_slice(&checksum.to_be_bytes());
    }
}
