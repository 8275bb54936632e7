//! Laws that hold for every packet, by random packets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use common::packets::*;
use common::*;
use interproto::{
    DropReason, EmbeddedRewrite, HEADROOM, Icmpv4Error, Icmpv6Error, Ipv4Packet, Ipv6Packet, Params,
    PortRewrite, Rewrite, TrafficClass, Verdict, VirtioNetHdr, ZeroChecksum,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What a packet carries, whichever family it is of.
#[derive(Debug, Clone)]
struct Content {
    kind: u8,
    ports: (u16, u16),
    payload: Vec<u8>,
}

impl Content {
    fn packet(&self, flow: Flow) -> Ip {
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
    fn rewritten(&self, ports: PortRewrite) -> Self {
        let ports = match (ports, self.kind) {
            (PortRewrite::Pair { source, destination }, 0 | 1 | 4 | 5) => (source, destination),
            (PortRewrite::Identifier(identifier), 2 | 3) => (identifier, self.ports.1),
            _ => self.ports,
        };
        Self { ports, ..self.clone() }
    }

    fn checksum_at(&self) -> Option<usize> {
        match self.kind {
            0 => Some(16),
            1 | 4 | 5 => Some(6),
            2 | 3 => Some(2),
            _ => None,
        }
    }
}

fn content() -> impl Strategy<Value = Content> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        // Zeros and ones are where one's complement sums are ambiguous.
        prop::collection::vec(select(&[0_u8, 0xff][..]), 0..9),
        (1100_usize..1600).prop_map(pattern),
    ];
    let ports = (any::<u16>(), any::<u16>());
    (0_u8..7, ports, payload).prop_map(|(kind, ports, payload)| Content { kind, ports, payload })
}

fn ports() -> impl Strategy<Value = PortRewrite> {
    prop_oneof![
        Just(PortRewrite::Keep),
        any::<(u16, u16)>().prop_map(|(source, destination)| PortRewrite::Pair { source, destination }),
        any::<u16>().prop_map(PortRewrite::Identifier),
    ]
}

fn address6() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        any::<u128>().prop_map(Ipv6Addr::from_bits),
        Just(Ipv6Addr::from_bits(u128::MAX)),
        Just(HOST6)
    ]
}

fn address4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![any::<u32>().prop_map(Ipv4Addr::from_bits), Just(Ipv4Addr::BROADCAST), Just(HOST4)]
}

fn flow6() -> impl Strategy<Value = Flow> {
    (address6(), address6())
        .prop_map(|(source, destination)| Flow { source: source.into(), destination: destination.into() })
}

fn flow4() -> impl Strategy<Value = Flow> {
    (address4(), address4())
        .prop_map(|(source, destination)| Flow { source: source.into(), destination: destination.into() })
}

fn rewrite_to4(flow: Flow, ports: PortRewrite) -> Rewrite<Ipv4Addr> {
    let (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) = (flow.source, flow.destination)
    else {
        panic!("an IPv4 flow")
    };
    let embedded = Some(EmbeddedRewrite { source: destination, destination: source, ports });
    Rewrite { source, destination, ports, embedded }
}

fn rewrite_to6(flow: Flow, ports: PortRewrite) -> Rewrite<Ipv6Addr> {
    let (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) = (flow.source, flow.destination)
    else {
        panic!("an IPv6 flow")
    };
    let embedded = Some(EmbeddedRewrite { source: destination, destination: source, ports });
    Rewrite { source, destination, ports, embedded }
}

fn back(flow: Flow) -> Flow {
    Flow { source: flow.destination, destination: flow.source }
}

/// The lowest MTU is out of the way of these packets.
fn whole() -> Params {
    Params { lowest_ipv6_mtu: 9000, ..Params::default() }
}

fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The packet that leaves is, bit for bit, the one that etherparse makes of the same content.
    #[test]
    fn an_ipv6_packet_leaves_as_etherparse_would_have_made_it(
        content in content(), from in flow6(), to in flow4(), ports in ports(),
        class: u8, hop_limit in 2_u8.., flow_label in 0_u32..1 << 20,
    ) {
        let packet = Ip { flow_label, ..content.packet(from).traffic_class(class).hop_limit(hop_limit) }.bytes();
        let translated = six_to_four(&packet, &rewrite_to4(to, ports), &whole()).unwrap();
        referee::checksums(&translated);
        let expected = content.rewritten(ports).packet(to).traffic_class(class).hop_limit(hop_limit - 1);
        let expected = if translated.len() <= 1260 { expected.may_fragment(IDENTIFICATION) } else { expected };
        prop_assert_eq!(translated, expected.bytes());
    }

    #[test]
    fn an_ipv4_packet_leaves_as_etherparse_would_have_made_it(
        content in content(), from in flow4(), to in flow6(), ports in ports(),
        tos: u8, ttl in 2_u8.., df: bool, identification: u16, options in prop::collection::vec(Just(1_u8), 0..40),
    ) {
        let options = &options[..options.len() / 4 * 4];
        let packet = content.packet(from).traffic_class(tos).hop_limit(ttl).options(options);
        let packet = Ip { dont_fragment: df, identification, ..packet }.bytes();
        let translated = four_to_six(&packet, &rewrite_to6(to, ports), &whole()).unwrap();
        referee::checksums(&translated[0]);
        let expected = content.rewritten(ports).packet(to).traffic_class(tos).hop_limit(ttl - 1).bytes();
        prop_assert_eq!(translated, vec![expected]);
    }

    /// There and back again: only the hop limit and the flow label are lost.
    #[test]
    fn a_packet_that_crosses_twice_is_the_same_packet(
        content in content(), there in flow6(), between in flow4(), class: u8, hop_limit in 3_u8..,
        piece in prop::option::of((any::<u16>(), 1_u16..8000, any::<bool>())),
    ) {
        let mut packet = content.packet(there).traffic_class(class).hop_limit(hop_limit);
        if let Some((identification, offset, more)) = piece {
            packet = Ip::new(there, UDP, packet.payload).traffic_class(class).hop_limit(hop_limit);
            packet.payload.truncate(packet.payload.len() / 8 * 8);
            // Half of the first fragments, since their number is small.
            let offset = if offset < 4000 && packet.payload.len() >= 8 { offset * 8 } else { 0 };
            packet = packet.piece(identification.into(), offset, more || offset == 0);
            if offset == 0 {
                let whole = udp(there, 1, 2, &pattern(80));
                packet.payload = whole[..80].to_vec();
            }
        }
        let middle = six_to_four(&packet.bytes(), &rewrite_to4(between, PortRewrite::Keep), &whole()).unwrap();
        let again = four_to_six(&middle, &rewrite_to6(there, PortRewrite::Keep), &whole()).unwrap();
        prop_assert_eq!(again, vec![packet.hop_limit(hop_limit - 2).bytes()]);
    }

    #[test]
    fn an_error_that_crosses_twice_is_the_same_error(
        content in content(), there in flow6(), between in flow4(), cut in 8_usize..500, kind in select(&[(1, 0), (1, 1), (1, 4), (3, 0), (3, 1)][..]),
    ) {
        let inside = content.packet(back(there)).bytes();
        let inside = &inside[..inside.len().min(40 + cut)];
        prop_assume!(inside.len() >= 48);
        let error = icmp_packet(there, kind.0, kind.1, 0, inside);
        let middle = six_to_four(&error.bytes(), &rewrite_to4(between, PortRewrite::Keep), &whole()).unwrap();
        referee::checksums(&middle);
        let again = four_to_six(&middle, &rewrite_to6(there, PortRewrite::Keep), &whole()).unwrap();
        referee::checksums(&again[0]);
        prop_assert_eq!(again, vec![error.hop_limit(62).bytes()]);
    }

    /// What arrived damaged must not leave as if it were whole: a receiver would believe it.
    #[test]
    fn a_wrong_checksum_stays_wrong_by_the_same_difference(
        content in content(), side6 in flow6(), side4 in flow4(), ports in ports(), damage in 1_u16..0xffff,
    ) {
        let Some(at) = content.checksum_at() else { return Ok(()) };
        let damaged = |mut packet: Vec<u8>, start: usize| {
            let right = word(&packet, start + at);
            let wrong = u32::from(right) + u32::from(damage);
            let wrong = if wrong > 0xffff { wrong - 0xffff } else { wrong } as u16;
            packet[start + at..start + at + 2].copy_from_slice(&wrong.to_be_bytes());
            packet
        };
        // Modulo 2^16 - 1, in which both zeros are one.
        let difference = |wrong: u16, right: u16| (u32::from(wrong) + 0xffff - u32::from(right)) % 0xffff;

        let packet = damaged(content.packet(side6).bytes(), 40);
        let found = six_to_four(&packet, &rewrite_to4(side4, ports), &whole()).unwrap();
        let right = content.rewritten(ports).packet(side4).payload;
        prop_assert_eq!(difference(word(&found, 20 + at), word(&right, at)), u32::from(damage));

        let packet = damaged(content.packet(side4).bytes(), 20);
        let found = four_to_six(&packet, &rewrite_to6(side6, ports), &whole()).unwrap();
        let right = content.rewritten(ports).packet(side6).payload;
        prop_assert_eq!(difference(word(&found[0], 40 + at), word(&right, at)), u32::from(damage));
    }

    /// Whatever MTU the IPv6 network has, and whether or not the packet was a fragment before.
    #[test]
    fn fragments_make_up_the_datagram_again(
        length in 1_usize..9000, lowest_ipv6_mtu: u16, piece in prop::option::of((1_u16..3000, any::<bool>())), identification: u16,
    ) {
        let length = if piece.is_some() { length.next_multiple_of(8) } else { length };
        let mut packet = Ip::new(IN4, ESP, pattern(length)).may_fragment(identification);
        let (mut offset, mut last_more) = (0, false);
        if let Some((at, more)) = piece {
            packet = packet.piece(identification.into(), at * 8, more);
            (offset, last_more) = (usize::from(at) * 8, more);
        }
        let params = Params { lowest_ipv6_mtu, ..Params::default() };
        let longest = usize::from(lowest_ipv6_mtu).max(1280);
        let all = four_to_six(&packet.bytes(), &inward(), &params).unwrap();
        let mut payload = Vec::new();
        for (number, part) in all.iter().enumerate() {
            prop_assert!(part.len() <= longest);
            if part[6] == ESP {
                prop_assert!(all.len() == 1 && piece.is_none());
                payload.extend_from_slice(&part[40..]);
                continue;
            }
            let more = last_more || number + 1 < all.len();
            prop_assert_eq!(usize::from(word(part, 42)), offset | usize::from(more));
            prop_assert_eq!(word(part, 46), identification);
            offset += part.len() - 48;
            payload.extend_from_slice(&part[48..]);
        }
        prop_assert_eq!(payload, pattern(length));
    }
}

/// Something like a packet: all kinds, damaged by flipped bits, cut, or random from the start.
fn almost_a_packet() -> impl Strategy<Value = Vec<u8>> {
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

/// A TCP or UDP packet without anything else in it, but for what a few flipped bits do to it.
fn nearly_plain() -> impl Strategy<Value = Vec<u8>> {
    let flips = prop::collection::vec((any::<Index>(), 0_u8..8), 0..2);
    (content(), any::<bool>(), any::<bool>(), any::<u16>(), flips).prop_map(
        |(content, six, dont_fragment, identification, flips)| {
            let packet = Content { kind: content.kind % 2, ..content }.packet(if six { OUT6 } else { IN4 });
            let packet = if dont_fragment { packet } else { packet.may_fragment(identification) };
            let mut bytes = packet.bytes();
            for (at, bit) in flips {
                let at = at.index(bytes.len().min(64));
                bytes[at] ^= 1 << bit;
            }
            mend_checksums(&mut bytes);
            bytes
        },
    )
}

/// What a kernel may say of a packet.
#[derive(Debug, Clone, Copy)]
enum Description {
    /// These flags, and what belongs to them, but for these differences.
    Fitting {
        flags: u8,
        start: u16,
        offset: u16,
    },
    Segments {
        size: u16,
        udp: bool,
    },
    Any([u8; VirtioNetHdr::LENGTH]),
}

impl Description {
    fn of(self, packet: &[u8]) -> VirtioNetHdr {
        let six = packet[0] >> 4 == 6;
        let csum_start = if six { 40 } else { 20 };
        let csum_offset = if packet[if six { 6 } else { 9 }] == TCP { 16 } else { 6 };
        let partial = VirtioNetHdr {
            flags: VirtioNetHdr::NEEDS_CSUM,
            csum_start,
            csum_offset,
            ..VirtioNetHdr::default()
        };
        match self {
            Self::Fitting { flags, start, offset } => VirtioNetHdr {
                flags,
                csum_start: csum_start.wrapping_add(start),
                csum_offset: csum_offset.wrapping_add(offset),
                ..partial
            },
            Self::Segments { size, udp } => {
                let gso_type = match (udp, six) {
                    (true, _) => VirtioNetHdr::GSO_UDP_L4,
                    (false, true) => VirtioNetHdr::GSO_TCPV6,
                    (false, false) => VirtioNetHdr::GSO_TCPV4,
                };
                VirtioNetHdr { gso_type, gso_size: size, ..partial }
            }
            Self::Any(bytes) => VirtioNetHdr::from_bytes(bytes),
        }
    }
}

fn description() -> impl Strategy<Value = Description> {
    let slightly = || prop_oneof![8 => Just(0_u16), 1 => any::<u16>()];
    prop_oneof![
        6 => (0_u8..4, slightly(), slightly())
            .prop_map(|(flags, start, offset)| Description::Fitting { flags, start, offset }),
        2 => (slightly().prop_map(|size| size % 2000), any::<bool>())
            .prop_map(|(size, udp)| Description::Segments { size: size + 100, udp }),
        1 => any::<[u8; VirtioNetHdr::LENGTH]>().prop_map(Description::Any),
    ]
}

/// The same TCP or UDP packet with an IPv4 option or an IPv6 extension header that says nothing, and how many bytes that is. A wrong
/// header checksum stays wrong by the same difference. What has some already is no packet for the short way.
fn with_more_headers(packet: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut packet = packet.to_vec();
    let is_ported = |protocol| matches!(protocol, TCP | UDP);
    match packet.first()? {
        first if first >> 4 == 6 && packet.len() >= 40 && is_ported(packet[6]) => {
            let length = word(&packet, 4).checked_add(8)?;
            let protocol = std::mem::replace(&mut packet[6], DESTINATION_OPTIONS);
            packet[4..6].copy_from_slice(&length.to_be_bytes());
            packet.splice(40..40, [protocol, 0, 1, 4, 0, 0, 0, 0]);
            Some((packet, 8))
        }
        0x45 if packet.len() >= 20 && is_ported(packet[9]) && word(&packet, 2) >= 20 => {
            let length = word(&packet, 2).checked_add(4)?;
            // The header grows by a word of its own, by four bytes in its length, and by four options of value 1.
            let sum = u32::from(word(&packet, 10)) + 2 * 0xffff - 0x0100 - 4 - 2 * 0x0101;
            packet[0] = 0x46;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[10..12].copy_from_slice(&((sum % 0xffff) as u16).to_be_bytes());
            packet.splice(20..20, [1; 4]);
            Some((packet, 4))
        }
        _ => None,
    }
}

/// All that is said of a packet and becomes of it, but for `more` bytes of headers, which each of its segments has.
fn outcome(
    bytes: &[u8],
    said: Option<VirtioNetHdr>,
    more: usize,
    ports: PortRewrite,
    params: &Params,
) -> Result<(String, String), DropReason> {
    let mut storage = storage(bytes);
    let range = HEADROOM..HEADROOM + bytes.len();
    let collect = |verdict: Verdict<'_>| match verdict {
        Verdict::Forward(mut packets) => {
            let mut all = Vec::new();
            while let Some(packet) = packets.next_framed() {
                all.push(packet.to_vec());
            }
            format!("{:?} {all:02x?}", packets.offload())
        }
        other => format!("{other:?}"),
    };
    // A macro, since the two types have nothing in common but names.
    macro_rules! outcome {
        ($packet:ident, |$checked:ident| $translate:expr) => {{
            let mut $checked = match said {
                None => $packet::check(&mut storage, range.clone()),
                Some(said) => $packet::check_offloaded(&mut storage, range.clone(), &said),
            }?;
            let length = $checked.wire_length() - more * $checked.segments();
            let about = ($checked.tuple(), $checked.refusal(), $checked.tcp_flags(), $checked.segments());
            let about = format!("{about:?} {length} {}", $checked.may_be_answered());
            (about, collect($translate))
        }};
    }
    let (about, verdict) = if bytes.first().is_some_and(|first| first >> 4 == 6) {
        outcome!(Ipv6Packet, |checked| checked.translate(&rewrite_to4(OUT4, ports), IDENTIFICATION, params))
    } else {
        outcome!(Ipv4Packet, |checked| checked.translate(&rewrite_to6(IN6, ports), params))
    };
    assert!(verdict.contains('[') || storage[range] == *bytes, "a dropped packet stays as it was");
    Ok((about, verdict))
}

/// Makes right what would keep damage from getting any further than the door.
fn mend_checksums(packet: &mut [u8]) {
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

/// Shows the bytes to one side: nothing panics, what comes out is a packet, and where nothing comes out nothing changed.
fn show(
    storage: &mut [u8],
    range: Range<usize>,
    six: bool,
    ports: PortRewrite,
    params: &Params,
) -> Option<DropReason> {
    let before = storage.to_vec();
    let error =
        if before.len().is_multiple_of(2) { Icmpv6Error::RoutingHeader } else { Icmpv6Error::TimeExceeded };
    let outcome = if six {
        Ipv6Packet::check(storage, range.clone()).and_then(|mut packet| {
            let reason = match packet.translate(&rewrite_to4(OUT4, ports), IDENTIFICATION, params) {
                Verdict::Forward(mut packets) => {
                    while let Some(packet) = packets.next() {
                        referee::lengths(packet);
                    }
                    return Ok(());
                }
                Verdict::Reply(reason) | Verdict::Hold(reason) | Verdict::Drop(reason) => reason,
            };
            if let Some(answer) = packet.error(error, OWN6, params) {
                referee::checksums(answer);
            }
            Err(reason)
        })
    } else {
        Ipv4Packet::check(storage, range.clone()).and_then(|mut packet| {
            let reason = match packet.translate(&rewrite_to6(IN6, ports), params) {
                Verdict::Forward(mut packets) => {
                    while let Some(packet) = packets.next() {
                        referee::lengths(packet);
                    }
                    return Ok(());
                }
                Verdict::Reply(reason) | Verdict::Hold(reason) | Verdict::Drop(reason) => reason,
            };
            if let Some(answer) = packet.error(Icmpv4Error::TimeExceeded, OWN4, params) {
                referee::checksums(answer);
            }
            Err(reason)
        })
    };
    if outcome.is_err() {
        // The errors of our own have been written into the headroom, and nowhere else.
        let own = range.start.min(storage.len());
        assert_eq!(storage[own..], before[own..], "a dropped packet stays as it was");
    }
    outcome.err()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_makes_a_panic_or_comes_out_as_something_that_is_none(
        bytes in almost_a_packet(), other_side: bool, ports in ports(), lowest_ipv6_mtu: u16, ipv6_mtu: u32, ipv4_mtu: u16, drop: bool, dscp in prop::option::of(any::<u8>()),
    ) {
        let params = Params {
            lowest_ipv6_mtu,
            udp_zero_checksum: if drop { ZeroChecksum::Drop } else { ZeroChecksum::Compute },
            traffic_class: dscp.map_or(TrafficClass::Copy, TrafficClass::Dscp),
            ipv6_mtu,
            ipv4_mtu,
        };
        let six = bytes.first().is_some_and(|first| first >> 4 == 6) != (other_side && bytes.len() % 4 == 0);
        let mut storage = storage(&bytes);
        show(&mut storage, HEADROOM..HEADROOM + bytes.len(), six, ports, &params);
        // With nothing behind the packet.
        let mut storage = [&[0; HEADROOM][..], &bytes].concat();
        show(&mut storage, HEADROOM..HEADROOM + bytes.len(), six, ports, &params);
    }

    /// A plain packet takes a short way, whether or not it has a description, and whether its checksum is whole or partial. The same
    /// packet with an option or an extension header that says nothing never does: they say the same.
    #[test]
    fn the_short_way_of_a_plain_packet_says_what_the_general_way_says(
        bytes in prop_oneof![almost_a_packet(), nearly_plain()], said in description(), ports in ports(),
        ipv6_mtu in 0_u32..3000, ipv4_mtu in 0_u16..3000, lowest_ipv6_mtu in 0_u16..3000,
    ) {
        let params = Params { lowest_ipv6_mtu, ipv6_mtu, ipv4_mtu, ..Params::DEFAULT };
        let nothing = VirtioNetHdr::default();
        let without = outcome(&bytes, None, 0, ports, &params);
        prop_assert_eq!(&without, &outcome(&bytes, Some(nothing), 0, ports, &params));
        let Some((general, more)) = with_more_headers(&bytes) else { return Ok(()) };
        prop_assert_eq!(&without, &outcome(&general, None, more, ports, &params));
        let said = said.of(&bytes);
        let moved = VirtioNetHdr { csum_start: said.csum_start.wrapping_add(more as u16), ..said };
        prop_assert_eq!(
            outcome(&bytes, Some(said), 0, ports, &params),
            outcome(&general, Some(moved), more, ports, &params)
        );
    }

    #[test]
    fn no_range_makes_a_panic(
        bytes in almost_a_packet(), start in 0_usize..200, length in 0_usize..2000, six: bool, headroom in 0_usize..100,
    ) {
        let mut storage = [&vec![0x60; headroom][..], &bytes].concat();
        show(&mut storage, start..start.saturating_add(length), six, PortRewrite::Keep, &Params::default());
        show(&mut storage, headroom..headroom + bytes.len(), six, PortRewrite::Keep, &Params::default());
    }
}

/// A law about packets says nothing where hardly any packet gets past the door.
#[test]
fn the_random_packets_reach_both_outcomes_and_most_reasons() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let (mut forwarded, mut reasons) = (0, Vec::new());
    for _ in 0..4096 {
        let bytes = almost_a_packet().new_tree(&mut runner).unwrap().current();
        let six = bytes.first().is_some_and(|first| first >> 4 == 6);
        let mut storage = storage(&bytes);
        let range = HEADROOM..HEADROOM + bytes.len();
        match show(&mut storage, range, six, PortRewrite::Keep, &Params::default()) {
            None => forwarded += 1,
            Some(reason) if reasons.contains(&reason) => {}
            Some(reason) => reasons.push(reason),
        }
    }
    assert!(forwarded > 1000, "{forwarded} of 4096 were forwarded");
    assert!(reasons.len() >= 12, "{reasons:?}");
}
