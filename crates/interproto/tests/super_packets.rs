//! Random super-packets and unfinished checksums, by a reference that cuts first and then translates each segment alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::offloaded::*;
use common::packets::*;
use common::segmenter::*;
use common::*;
use interproto::{
    DropReason, HEADROOM, Ipv4Packet, Ipv6Packet, Params, PortRewrite, TrafficClass, Verdict, VirtioNetHdr,
};
use proptest::prelude::*;

/// More than the longest payload of either family, which is as long as the headers in front of it allow.
const LONGEST: usize = 65_536;

/// What IPv4 has behind its header at most, in bytes.
const MOST_IPV4: usize = 65_515;

/// A super-packet of either family.
#[derive(Debug, Clone)]
struct Shape {
    tcp: bool,
    length: usize,
    gso_size: u16,
    flags: u8,
    /// Of the TCP header, in words.
    options: usize,
    sequence: u32,
    dont_fragment: bool,
    identification: u16,
    traffic_class: u8,
    flow_label: u32,
    hop_limit: u8,
    /// With an IPv4 option, or an IPv6 extension header.
    more_headers: bool,
}

impl Shape {
    /// How much payload the packet of this family has.
    fn length_in(&self, flow: Flow) -> usize {
        let most = if flow == OUT6 { 40 + 65_535 } else { 65_535 };
        self.length.min(most - self.packet(flow, 0).bytes().len())
    }

    /// Whether the first segment is longer than an IPv4 packet can be.
    fn is_no_ipv4_packet(&self) -> bool {
        self.transport() + self.length_in(OUT6).min(usize::from(self.gso_size)) > MOST_IPV4
    }

    /// Whether the whole of it is longer than an IPv4 packet can be.
    fn is_too_long(&self) -> bool {
        self.transport() + self.length_in(OUT6) > MOST_IPV4
    }

    fn made(&self, flow: Flow) -> (Vec<u8>, VirtioNetHdr) {
        let packet = self.packet(flow, self.length_in(flow));
        if self.tcp {
            super_tcp(&packet, self.flags, self.gso_size, self.flags & CWR != 0)
        } else {
            super_udp(&packet, self.gso_size)
        }
    }

    fn packet(&self, flow: Flow, length: usize) -> Ip {
        let payload = pattern(length);
        let packet = if self.tcp {
            let mut bytes = [0x9c, 0x40, 1, 187].to_vec();
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend([9, 8, 7, 6, ((5 + self.options) << 4) as u8, 0, 0x10, 0, 0, 0, 0x12, 0x34]);
            bytes.extend((0..self.options * 4).map(|_| 1));
            bytes.extend(payload);
            Ip::new(flow, TCP, bytes)
        } else {
            udp_packet(flow, &payload)
        };
        let packet = Ip { flow_label: self.flow_label, ..packet }.traffic_class(self.traffic_class);
        let packet = packet.hop_limit(self.hop_limit);
        let packet = if self.dont_fragment { packet } else { packet.may_fragment(self.identification) };
        match (self.more_headers, flow == OUT6) {
            (false, _) => packet,
            (true, true) => packet.extension(DESTINATION_OPTIONS, &[0; 8]),
            (true, false) => packet.options(&[1; 4]),
        }
    }

    /// What every segment has in front of its payload, without the IP header.
    fn transport(&self) -> usize {
        if self.tcp { 20 + self.options * 4 } else { 8 }
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let length =
        prop_oneof![4 => 1_usize..4000, 2 => 1_usize..20_000, 1 => 1..=LONGEST, 1 => 65_400..=LONGEST];
    let gso_size = prop_oneof![3 => 1_u16..1500, 2 => 1_u16..5000, 1 => 1_u16..=65_515];
    // A whole number of segments, and one byte more, are where the last one is decided.
    let exact = prop_oneof![4 => Just(None), 1 => Just(Some(0_usize)), 1 => Just(Some(1))];
    let size = (length, gso_size, exact).prop_map(|(length, gso_size, exact)| {
        let each = usize::from(gso_size);
        let length = exact.map_or(length, |more| (length / each * each + more).clamp(1, LONGEST));
        // A kernel does not make more segments than that of one packet.
        let least = (length / 1000 + 1) as u16;
        (length, gso_size.max(least))
    });
    let tcp = (any::<bool>(), any::<u8>(), 0_usize..=10, prop_oneof![any::<u32>(), u32::MAX - 9000..]);
    let ip = (any::<bool>(), prop_oneof![any::<u16>(), 0xfff0_u16..], any::<u8>(), 0_u32..1 << 20, 2_u8..);
    (size, tcp, ip, prop::bool::weighted(0.2)).prop_map(
        |((length, gso_size), (tcp, flags, options, sequence), ip, more_headers)| {
            let (dont_fragment, identification, traffic_class, flow_label, hop_limit) = ip;
            Shape {
                tcp,
                length,
                gso_size,
                flags,
                options,
                sequence,
                dont_fragment,
                identification,
                traffic_class,
                flow_label,
                hop_limit,
                more_headers,
            }
        },
    )
}

fn ports() -> impl Strategy<Value = PortRewrite> {
    prop_oneof![
        Just(PortRewrite::Keep),
        any::<(u16, u16)>().prop_map(|(source, destination)| PortRewrite::Pair { source, destination }),
    ]
}

/// What becomes of a packet that may not be forwarded, and the error that its sender gets.
fn refused(packet: &[u8], said: &VirtioNetHdr, params: &Params) -> Option<(String, Option<Vec<u8>>)> {
    let mut storage = storage(packet);
    let range = HEADROOM..HEADROOM + packet.len();
    // A macro, since the two types have nothing in common but names.
    macro_rules! refused {
        ($packet:ident, $own:ident, |$checked:ident| $translate:expr) => {{
            let mut $checked = $packet::check_offloaded(&mut storage, range, said).unwrap();
            let verdict = match $translate {
                Verdict::Forward(_) => return None,
                refusal => format!("{refusal:?}"),
            };
            Some((verdict, $checked.answer(DropReason::TooBig, $own, params).map(<[u8]>::to_vec)))
        }};
    }
    if packet[0] >> 4 == 6 {
        refused!(Ipv6Packet, OWN6, |checked| checked.translate(&outward(), |_| IDENTIFICATION, params))
    } else {
        refused!(Ipv4Packet, OWN4, |checked| checked.translate(&inward(), params))
    }
}

/// The error without what only a segment that was cut has: a whole checksum, and none of the last one's flags.
fn without_what_cutting_changes(error: &[u8], tcp: bool) -> Vec<u8> {
    referee::checksums(error);
    let mut error = error.to_vec();
    let icmp = if error[0] >> 4 == 6 { 40 } else { 20 };
    let quote = icmp + 8;
    let transport = quote + headers(&error[quote..]);
    error[icmp + 2..icmp + 4].fill(0);
    let checksum_at = transport + if tcp { 16 } else { 6 };
    error[checksum_at..checksum_at + 2].fill(0);
    if tcp {
        error[transport + 13] &= !(FIN | PSH);
    }
    error
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_super_packet_is_translated_as_its_segments_are(
        shape in shape(), ports in ports(), id in prop_oneof![any::<u16>(), 0xfff0_u16..], lowest_ipv6_mtu in 0_u16..3000, dscp in prop::option::of(0_u8..64),
    ) {
        let traffic_class = dscp.map_or(TrafficClass::Copy, TrafficClass::Dscp);
        let params = Params { lowest_ipv6_mtu, traffic_class, ..Params::DEFAULT };
        let count = |flow| shape.length_in(flow).div_ceil(usize::from(shape.gso_size));
        let (packet, offload) = shape.made(OUT6);
        let rewrite = with_ports(outward(), ports);
        if shape.is_no_ipv4_packet() {
            prop_assert_eq!(six(&packet, &offload, &rewrite, id, &params), Err(DropReason::TooBig));
        } else if shape.is_too_long() {
            prop_assert_eq!(six(&packet, &offload, &rewrite, id, &params), Err(DropReason::SuperPacketTooLong));
        } else {
            prop_assert_eq!(law_six(&packet, &offload, &rewrite, id, &params), count(OUT6));
        }
        let (packet, offload) = shape.made(IN4);
        let found = law_four(&packet, &offload, &with_ports(inward(), ports), &params);
        // Each segment that is too long for the network leaves in fragments, and only without DF.
        let most = usize::from(lowest_ipv6_mtu.max(1280));
        let is_cut = !shape.dont_fragment && 40 + shape.transport() + shape.length_in(IN4).min(usize::from(shape.gso_size)) > most;
        prop_assert_eq!(found > count(IN4), is_cut);
    }

    /// The error quotes one segment, whose length is the one that its headers name.
    #[test]
    fn a_super_packet_that_is_too_big_gets_what_its_first_segment_would_get(
        shape in shape(), ipv6_mtu in 1280_u32..5000, ipv4_mtu in 1000_u16..5000,
    ) {
        let params = Params { ipv6_mtu, ipv4_mtu, ..Params::DEFAULT };
        for flow in [OUT6, IN4] {
            let (packet, said) = shape.made(flow);
            let segment = cut(&packet, &said).remove(0);
            let found = refused(&packet, &said, &params);
            if flow == OUT6 && shape.is_too_long() && refused(&segment, &VirtioNetHdr::default(), &params).is_none() {
                prop_assert_eq!(found.map(|(found, _)| found), Some("Drop(SuperPacketTooLong)".to_owned()));
                continue;
            }
            let expected = refused(&segment, &VirtioNetHdr::default(), &params);
            prop_assert_eq!(found.is_some(), expected.is_some());
            let (Some((found, error)), Some((expected, expected_error))) = (found, expected) else { continue };
            prop_assert_eq!(&found, "Reply(TooBig)");
            prop_assert_eq!(found, expected);
            prop_assert_eq!(
                without_what_cutting_changes(&error.unwrap(), shape.tcp),
                without_what_cutting_changes(&expected_error.unwrap(), shape.tcp)
            );
        }
    }

    /// A connection ends once, with the last segment, whatever becomes of the others.
    #[test]
    fn flags_that_count_once_are_seen_once_and_leave_once(shape in shape(), lowest_ipv6_mtu in 1280_u16..3000) {
        let shape = Shape { tcp: true, flags: shape.flags | FIN | CWR, length: shape.length.min(65_400), ..shape };
        let params = Params { lowest_ipv6_mtu, ..Params::DEFAULT };
        for flow in [OUT6, IN4] {
            let (packet, said) = shape.made(flow);
            let mut buffer = storage(&packet);
            let range = HEADROOM..HEADROOM + packet.len();
            let (flags, all) = if flow == OUT6 {
                let flags = Ipv6Packet::check_offloaded(&mut buffer, range, &said).unwrap().tcp_flags();
                (flags, six(&packet, &said, &outward(), IDENTIFICATION, &params).unwrap())
            } else {
                let flags = Ipv4Packet::check_offloaded(&mut buffer, range, &said).unwrap().tcp_flags();
                (flags, four(&packet, &said, &inward(), &params).unwrap())
            };
            prop_assert_eq!(flags, shape.flags);
            let segments: Vec<_> = all.iter().flat_map(|(packet, described)| cut(packet, described)).collect();
            let transport = |packet: &[u8]| match packet[0] >> 4 {
                4 => Some(20),
                _ if packet[6] == FRAGMENT && packet[42..44] >= [0, 8][..] => None,
                _ if packet[6] == FRAGMENT => Some(48),
                _ => Some(40),
            };
            let flags: Vec<_> = segments.iter().filter_map(|packet| Some(packet[transport(packet)? + 13])).collect();
            prop_assert_eq!(flags.iter().filter(|flags| **flags & FIN != 0).count(), 1);
            prop_assert_eq!(flags.iter().filter(|flags| **flags & CWR != 0).count(), 1);
            prop_assert!(flags[0] & CWR != 0 && flags[flags.len() - 1] & FIN != 0);
        }
    }

    /// Whatever the kernel says of it: a receiver must see that it was damaged.
    #[test]
    fn a_corrupted_checksum_stays_corrupted_by_the_same_difference(
        tcp: bool, length in 0_usize..3000, flags in 0_u8..4, damage in 1_u16..0xffff, ports in ports(),
    ) {
        let difference = |wrong: u16, right: u16| (u32::from(wrong) + 0xffff - u32::from(right)) % 0xffff;
        let word = |packet: &[u8], at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        for flow in [OUT6, IN4] {
            let packet = if tcp { tcp_packet(flow, &pattern(length)) } else { udp_packet(flow, &pattern(length)) };
            let mut right = packet.bytes();
            let protocol = packet.protocol;
            let partial = flags & VirtioNetHdr::NEEDS_CSUM != 0;
            let said = if partial { make_partial(&mut right, protocol) } else { VirtioNetHdr::default() };
            let said = VirtioNetHdr { flags, ..said };
            let place = |packet: &[u8]| headers(packet) + checksum_offset(protocol);
            let mut wrong = right.clone();
            let at = place(&wrong);
            let sum = (u32::from(word(&right, at)) + u32::from(damage)) % 0xffff;
            // In UDP a zero would say that there is none.
            let sum = if sum == 0 && !tcp { 0xffff } else { sum as u16 };
            wrong[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            let translated = |packet: &[u8]| if flow == OUT6 {
                six(packet, &said, &with_ports(outward(), ports), 1, &Params::DEFAULT).unwrap().remove(0)
            } else {
                four(packet, &said, &with_ports(inward(), ports), &Params::DEFAULT).unwrap().remove(0)
            };
            let ((right, _), (wrong, described)) = (translated(&right), translated(&wrong));
            let at = place(&right);
            prop_assert_eq!(difference(word(&wrong, at), word(&right, at)), u32::from(damage));
            prop_assert_eq!(described.flags, if partial { VirtioNetHdr::NEEDS_CSUM } else { flags });
            prop_assert_eq!(&wrong[..at], &right[..at]);
        }
    }
}
