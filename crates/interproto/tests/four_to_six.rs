//! Packets from IPv4 to IPv6 (RFC 7915 §4).
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::packets::*;
use common::*;
use interproto::{
    DropReason, HEADROOM, Icmpv4Error, Ipv4Packet, Params, PortRewrite, Ports, Protocol, TrafficClass, Tuple,
    ZeroChecksum,
};

/// Makes a packet, or what it carries, from a flow and two ports.
type Make = fn(Flow, u16, u16, &[u8]) -> Vec<u8>;

/// No operation, and then this option.
fn options(option: &[u8]) -> Vec<u8> {
    let mut options = [&[1][..], option].concat();
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

#[test]
fn a_tcp_segment_leaves_as_the_same_segment_between_the_ipv6_addresses() {
    for df in [true, false] {
        let packet = Ip { dont_fragment: df, ..tcp_packet(IN4, b"hello") };
        assert_eq!(received(&packet.bytes()), tcp_packet(IN6, b"hello").hop_limit(63).bytes());
    }
}

#[test]
fn a_udp_datagram_leaves_as_the_same_datagram_between_the_ipv6_addresses() {
    for payload in [&b""[..], b"odd", b"even"] {
        let expected = udp_packet(IN6, payload).hop_limit(63).bytes();
        assert_eq!(received(&udp_packet(IN4, payload).bytes()), expected);
    }
}

#[test]
fn echo_requests_and_replies_change_type_and_get_the_pseudo_header() {
    let request = received(&echo_request(IN4, 0x1234, b"ping").bytes());
    assert_eq!(request, echo_request(IN6, 0x1234, b"ping").hop_limit(63).bytes());
    let reply = received(&echo_reply(IN4, 0x1234, b"pong!").bytes());
    assert_eq!(reply, echo_reply(IN6, 0x1234, b"pong!").hop_limit(63).bytes());
}

#[test]
fn bytes_behind_the_packet_are_not_part_of_it() {
    let mut packet = udp_packet(IN4, b"short").bytes();
    let expected = received(&packet);
    packet.extend_from_slice(&[0; 13]);
    assert_eq!(received(&packet), expected);
}

#[test]
fn the_tuple_names_the_flow() {
    let tuple_of = |packet: &Ip| {
        let mut storage = storage(&packet.bytes());
        let range = HEADROOM..storage.len();
        Ipv4Packet::check(&mut storage, range).unwrap().tuple()
    };
    let tuple = |protocol, ports| Tuple { source: PEER4, destination: HOST4, protocol, ports };
    let pair = |destination| Ports::Pair { source: 40_000, destination };
    assert_eq!(tuple_of(&tcp_packet(IN4, b"")), tuple(Protocol::Tcp, pair(443)));
    assert_eq!(tuple_of(&udp_packet(IN4, b"")), tuple(Protocol::Udp, pair(53)));
    assert_eq!(tuple_of(&echo_reply(IN4, 9, b"")), tuple(Protocol::Icmp, Ports::Identifier(9)));
    assert_eq!(tuple_of(&Ip::new(IN4, ESP, b"xx")), tuple(Protocol::Other(ESP), Ports::None));
}

#[test]
fn the_type_of_service_is_copied_with_its_ecn_bits_and_the_flow_label_is_zero() {
    for tos in 0..=255 {
        let translated = received(&tcp_packet(IN4, b"").traffic_class(tos).bytes());
        assert_eq!(translated[..4], [0x60 | tos >> 4, tos << 4, 0, 0]);
    }
}

#[test]
fn a_dscp_of_the_operator_replaces_the_senders_and_leaves_ecn() {
    let params = Params { traffic_class: TrafficClass::Dscp(0), ..Params::default() };
    let packet = tcp_packet(IN4, b"").traffic_class(0b1011_1001).bytes();
    let translated = four_to_six(&packet, &inward(), &params).unwrap();
    assert_eq!(translated[0], tcp_packet(IN6, b"").traffic_class(0b01).hop_limit(63).bytes());
}

#[test]
fn the_time_to_live_goes_down_by_one_and_is_never_forwarded_as_zero() {
    assert_eq!(received(&tcp_packet(IN4, b"").hop_limit(255).bytes())[7], 254);
    assert_eq!(received(&tcp_packet(IN4, b"").hop_limit(2).bytes())[7], 1);
    for ttl in [0, 1] {
        assert_eq!(refused4(&tcp_packet(IN4, b"").hop_limit(ttl).bytes()), DropReason::HopLimitExceeded);
    }
}

#[test]
fn new_ports_leave_with_a_checksum_that_knows_them() {
    let rewrite = with_ports(inward(), PortRewrite::Pair { source: 443, destination: 50_001 });
    for (protocol, make) in [(TCP, tcp as Make), (UDP, udp), (UDP_LITE, udp_lite), (DCCP, dccp)] {
        let packet = Ip::new(IN4, protocol, make(IN4, 1, 2, b"payload"));
        let translated = four_to_six(&packet.bytes(), &rewrite, &Params::default()).unwrap().remove(0);
        referee::checksums(&translated);
        assert_eq!(translated[40..], make(IN6, 443, 50_001, b"payload"));
    }
}

#[test]
fn a_new_identifier_leaves_with_a_checksum_that_knows_it() {
    let rewrite = with_ports(inward(), PortRewrite::Identifier(0xbeef));
    for make in [echo_request, echo_reply] {
        let translated = four_to_six(&make(IN4, 1, b"data").bytes(), &rewrite, &Params::default()).unwrap();
        assert_eq!(translated[0][40..], make(IN6, 0xbeef, b"data").payload);
    }
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_ffff() {
    let payload = referee::payload_for_zero_checksum(IN6, 40_000, 53);
    assert_eq!(received(&udp_packet(IN4, &payload).bytes())[46..48], [0xff, 0xff]);
    // And where the checksum is computed anew.
    let mut without = udp_packet(IN4, &payload).bytes();
    without[26..28].fill(0);
    assert_eq!(received(&without)[46..48], [0xff, 0xff]);
}

#[test]
fn a_tcp_or_icmp_checksum_that_comes_out_as_zero_is_sent_as_zero() {
    let blank = tcp(IN6, 40_000, 443, &[0, 0]);
    let packet = tcp_packet(IN4, &blank[16..18]).bytes();
    assert_eq!(received(&packet)[56..58], [0, 0]);
    let blank = echo_request(IN6, 7, &[0, 0]).payload;
    let packet = echo_request(IN4, 7, &blank[2..4]).bytes();
    assert_eq!(received(&packet)[42..44], [0, 0]);
}

/// Only UDP means by zero that there is no checksum.
#[test]
fn a_tcp_or_icmp_checksum_that_arrives_as_zero_is_one_and_is_updated() {
    let blank = tcp(IN4, 40_000, 443, &[0, 0]);
    let packet = tcp_packet(IN4, &blank[16..18]);
    assert_eq!(packet.payload[16..18], [0, 0]);
    assert_eq!(received(&packet.bytes())[40..], tcp_packet(IN6, &blank[16..18]).payload);
    let blank = echo_request(IN4, 7, &[0, 0]).payload;
    let packet = echo_request(IN4, 7, &blank[2..4]);
    assert_eq!(packet.payload[2..4], [0, 0]);
    assert_eq!(received(&packet.bytes())[40..], echo_request(IN6, 7, &blank[2..4]).payload);
}

/// RFC 7915 §4.5: IPv6 does not know datagrams without a checksum.
#[test]
fn udp_without_a_checksum_gets_one_or_is_dropped_as_the_parameters_say() {
    let drop = Params { udp_zero_checksum: ZeroChecksum::Drop, ..Params::default() };
    for payload in [&b""[..], b"odd", b"even", &pattern(1000)] {
        let mut packet = udp_packet(IN4, payload).bytes();
        packet[26..28].fill(0);
        assert_eq!(received(&packet), udp_packet(IN6, payload).hop_limit(63).bytes());
        assert_eq!(four_to_six(&packet, &inward(), &drop), Err(DropReason::UdpZeroChecksum));
    }
}

#[test]
fn udp_without_a_checksum_gets_one_over_its_own_length_and_its_new_ports() {
    // The packet is longer than the datagram in it.
    let mut datagram = udp(IN4, 40_000, 53, b"data");
    datagram[6..8].fill(0);
    datagram.extend_from_slice(b"behind");
    let rewrite = with_ports(inward(), PortRewrite::Pair { source: 1, destination: 2 });
    let packet = Ip::new(IN4, UDP, datagram).bytes();
    let translated = four_to_six(&packet, &rewrite, &Params::default()).unwrap().remove(0);
    assert_eq!(translated[40..], [&udp(IN6, 1, 2, b"data")[..], b"behind"].concat());
}

#[test]
fn a_datagram_without_a_checksum_that_is_fragmented_on_the_way_gets_its_checksum_first() {
    let mut packet = udp_packet(IN4, &pattern(2000)).may_fragment(9).bytes();
    packet[26..28].fill(0);
    let all = four_to_six(&packet, &inward(), &Params::default()).unwrap();
    let payload: Vec<u8> = all.iter().flat_map(|fragment| fragment[48..].to_vec()).collect();
    assert_eq!(payload, udp(IN6, 40_000, 53, &pattern(2000)));
}

#[test]
fn a_first_fragment_of_udp_without_a_checksum_is_dropped() {
    for zero in [ZeroChecksum::Compute, ZeroChecksum::Drop] {
        let mut packet = udp_packet(IN4, &[7; 16]).piece(1, 0, true).bytes();
        packet[26..28].fill(0);
        let params = Params { udp_zero_checksum: zero, ..Params::default() };
        assert_eq!(four_to_six(&packet, &inward(), &params), Err(DropReason::UdpZeroChecksumFragment));
    }
}

#[test]
fn a_header_with_a_wrong_checksum_is_dropped() {
    let packet = udp_packet(IN4, b"data").bytes();
    for bit in 0..160 {
        let mut packet = packet.clone();
        packet[bit / 8] ^= 1 << (bit % 8);
        let reason = refused4(&packet);
        assert!(
            matches!(
                reason,
                DropReason::BadIpv4Checksum | DropReason::MalformedHeader | DropReason::Truncated
            ),
            "bit {bit}: {reason}"
        );
    }
    let mut packet = packet;
    packet[8] -= 1;
    assert_eq!(refused4(&packet), DropReason::BadIpv4Checksum);
}

#[test]
fn options_are_taken_out() {
    let expected = received(&udp_packet(IN4, b"data").bytes());
    let record_route = [&[7, 39, 4][..], &[0; 36]].concat();
    for option in [&[1, 1, 0][..], &[148, 4, 0, 0], &record_route, &[0, 131, 0], &[68, 4, 5, 0]] {
        let packet = udp_packet(IN4, b"data").options(&options(option)).bytes();
        assert_eq!(received(&packet), expected, "{option:?}");
    }
}

/// RFC 7915 §4.1. Loose and strict; the route is unexpired as long as the pointer is within it.
#[test]
fn an_unexpired_source_route_is_dropped_and_answered_and_an_expired_one_passes() {
    for kind in [131, 137] {
        let route = |pointer| {
            let option = [&[kind, 11, pointer][..], &[192, 0, 2, 7, 192, 0, 2, 8]].concat();
            udp_packet(IN4, b"data").options(&options(&option)).bytes()
        };
        for unexpired in [4, 8, 11] {
            assert_eq!(refused4(&route(unexpired)), DropReason::SourceRoute);
        }
        for expired in [12, 255] {
            assert_eq!(received(&route(expired)), received(&udp_packet(IN4, b"data").bytes()));
        }
        assert_eq!(refused4(&route(3)), DropReason::MalformedOptions, "RFC 791: the least pointer is 4");
    }
    assert_eq!(DropReason::SourceRoute.answer_v4(), Some(Icmpv4Error::DestinationUnreachable { code: 5 }));
}

#[test]
fn options_of_impossible_lengths_are_dropped() {
    for option in
        [&[7, 0, 0][..], &[7, 1, 0], &[7, 4, 0], &[7, 255, 0], &[1, 1, 7], &[131, 2, 4], &[1, 137, 2]]
    {
        let packet = udp_packet(IN4, b"data").options(&[&[1][..], option].concat()).bytes();
        assert_eq!(refused4(&packet), DropReason::MalformedOptions, "{option:?}");
    }
}

/// A departure from RFC 7915 §4.1, which copies the number: these would be extension headers of an outsider's making.
#[test]
fn protocols_that_ipv6_reads_as_extension_headers_or_icmpv6_are_dropped_and_unknown_ones_pass() {
    for protocol in 0..=255 {
        let packet = Ip::new(IN4, protocol, pattern(40)).bytes();
        let result = four_to_six(&packet, &inward(), &Params::default());
        match protocol {
            0 | 43 | 44 | 58 | 60 => assert_eq!(result, Err(DropReason::ForbiddenProtocol), "{protocol}"),
            2 => assert_eq!(result, Err(DropReason::IcmpNotTranslatable), "IGMP"),
            ICMPV4 | TCP | UDP | UDP_LITE | DCCP => {}
            _ => assert_eq!(result.unwrap()[0][40..], pattern(40), "{protocol}"),
        }
    }
}

#[test]
fn headers_that_cannot_be_are_dropped() {
    let valid = udp_packet(IN4, b"data").bytes();
    for length in 0..valid.len() {
        assert_eq!(refused4(&valid[..length]), DropReason::Truncated, "{length} bytes of {}", valid.len());
    }
    for (at, byte) in [(0, 0x44), (0, 0x55), (3, 19)] {
        let mut packet = valid.clone();
        packet[at] = byte;
        assert_eq!(refused4(&packet), DropReason::MalformedHeader);
    }
    for length in [0_u16, 7, 13] {
        let mut packet = valid.clone();
        packet[24..26].copy_from_slice(&length.to_be_bytes());
        assert_eq!(refused4(&packet), DropReason::MalformedTransport, "UDP length {length}");
    }
    for (protocol, length) in [(TCP, 19), (UDP, 7), (UDP_LITE, 7), (DCCP, 11), (ICMPV4, 7)] {
        assert_eq!(
            refused4(&Ip::new(IN4, protocol, pattern(length)).bytes()),
            DropReason::MalformedTransport
        );
    }
}

#[test]
fn icmp_that_is_neither_an_echo_nor_an_error_is_dropped() {
    for kind in (0..=255).filter(|kind| !matches!(kind, 0 | 3 | 8 | 11 | 12)) {
        let packet = icmp_packet(IN4, kind, 0, 0, &[0; 32]).bytes();
        assert_eq!(refused4(&packet), DropReason::IcmpNotTranslatable, "type {kind}");
    }
}

#[test]
fn the_longest_packet_there_is_passes() {
    let packet = udp_packet(IN4, &pattern(65_535 - 28)).bytes();
    assert_eq!(received(&packet).len(), 65_535 + 20);
}

#[test]
fn a_packet_without_headroom_is_refused_at_the_door() {
    let mut storage = storage(&udp_packet(IN4, b"data").bytes());
    let length = storage.len();
    for range in [HEADROOM - 1..length, 0..length, HEADROOM..length + 1, usize::MAX - 1..usize::MAX] {
        assert_eq!(Ipv4Packet::check(&mut storage, range).unwrap_err(), DropReason::NoHeadroom);
    }
}

/// RFC 7915 §4.2: IGMP is for one link alone, whole or in fragments, and what carries it in an error as well.
#[test]
fn igmp_is_dropped_in_silence() {
    let igmp = Ip::new(IN4, 2, [0x16, 0, 0x09, 0xfb, 224, 0, 1, 1]);
    assert_eq!(refused4(&igmp.bytes()), DropReason::IcmpNotTranslatable);
    assert_eq!(refused4(&igmp.piece(7, 0, true).bytes()), DropReason::IcmpNotTranslatable);
    let inside = Ip::new(OUT4, 2, [0; 8]).bytes();
    let error = icmp_packet(IN4, 11, 0, 0, &inside).bytes();
    assert_eq!(refused4(&error), DropReason::EmbeddedNotTranslatable);
}
