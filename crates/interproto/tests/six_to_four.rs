//! Packets from IPv6 to IPv4 (RFC 7915 §5).
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::packets::*;
use common::*;
use etherparse::{Ipv4Header, Ipv4HeaderSlice};
use interproto::{
    DropReason, HEADROOM, Ipv6Packet, Params, PortRewrite, Ports, Protocol, TrafficClass, Tuple, Verdict,
};

fn header(packet: &[u8]) -> Ipv4Header {
    Ipv4HeaderSlice::from_slice(packet).unwrap().to_header()
}

#[test]
fn a_tcp_segment_leaves_as_the_same_segment_between_the_ipv4_addresses() {
    let packet = tcp_packet(OUT6, b"hello").bytes();
    let expected = Ip { identification: IDENTIFICATION, dont_fragment: false, ..tcp_packet(OUT4, b"hello") };
    assert_eq!(sent(&packet), expected.hop_limit(63).bytes());
}

#[test]
fn a_udp_datagram_leaves_as_the_same_datagram_between_the_ipv4_addresses() {
    for payload in [&b""[..], b"odd", b"even"] {
        let expected = udp_packet(OUT4, payload).may_fragment(IDENTIFICATION).hop_limit(63);
        assert_eq!(sent(&udp_packet(OUT6, payload).bytes()), expected.bytes());
    }
}

#[test]
fn echo_requests_and_replies_change_type_and_lose_the_pseudo_header() {
    let request = sent(&echo_request(OUT6, 0x1234, b"ping").bytes());
    assert_eq!(
        request,
        echo_request(OUT4, 0x1234, b"ping").may_fragment(IDENTIFICATION).hop_limit(63).bytes()
    );
    let reply = sent(&echo_reply(OUT6, 0x1234, b"pong!").bytes());
    assert_eq!(reply, echo_reply(OUT4, 0x1234, b"pong!").may_fragment(IDENTIFICATION).hop_limit(63).bytes());
}

#[test]
fn bytes_behind_the_packet_are_not_part_of_it() {
    let mut packet = udp_packet(OUT6, b"short").bytes();
    let expected = sent(&packet);
    packet.extend_from_slice(&[0; 9]);
    assert_eq!(sent(&packet), expected);
}

#[test]
fn the_tuple_names_the_flow() {
    let tuple_of = |packet: &Ip| {
        let mut storage = storage(&packet.bytes());
        let range = HEADROOM..storage.len();
        Ipv6Packet::check(&mut storage, range).unwrap().tuple()
    };
    let tuple = |protocol, ports| Tuple { source: HOST6, destination: PEER6, protocol, ports };
    let pair = |destination| Ports::Pair { source: 40_000, destination };
    assert_eq!(tuple_of(&tcp_packet(OUT6, b"")), tuple(Protocol::Tcp, pair(443)));
    assert_eq!(tuple_of(&udp_packet(OUT6, b"")), tuple(Protocol::Udp, pair(53)));
    assert_eq!(tuple_of(&echo_request(OUT6, 9, b"")), tuple(Protocol::Icmp, Ports::Identifier(9)));
    assert_eq!(tuple_of(&Ip::new(OUT6, ESP, b"xx")), tuple(Protocol::Other(ESP), Ports::None));
    let later = Ip::new(OUT6, UDP, b"later").piece(1, 8, false);
    assert_eq!(tuple_of(&later), tuple(Protocol::Udp, Ports::None), "a later fragment has no ports");
}

#[test]
fn the_traffic_class_is_copied_with_its_ecn_bits() {
    for class in 0..=255 {
        let packet = tcp_packet(OUT6, b"").traffic_class(class).bytes();
        assert_eq!(sent(&packet)[1], class);
    }
}

#[test]
fn a_dscp_of_the_operator_replaces_the_senders_and_leaves_ecn() {
    let params = Params { traffic_class: TrafficClass::Dscp(46), ..Params::default() };
    let packet = tcp_packet(OUT6, b"").traffic_class(0b0010_1011).bytes();
    let translated = six_to_four(&packet, &outward(), &params).unwrap();
    assert_eq!(translated[1], 46 << 2 | 0b11);
    referee::checksums(&translated);
}

#[test]
fn the_flow_label_is_lost() {
    let packet = Ip { flow_label: 0xabcde, ..tcp_packet(OUT6, b"") };
    assert_eq!(sent(&packet.bytes()), sent(&tcp_packet(OUT6, b"").bytes()));
}

/// RFC 7915 §5.1: DF stays clear as long as the IPv6 packet was no longer than any link must carry.
#[test]
fn df_is_clear_and_the_identification_given_up_to_1260_bytes_and_df_is_set_beyond() {
    for (length, df) in [(28, false), (1259, false), (1260, false), (1261, true), (1500, true), (9000, true)]
    {
        let translated = sent(&udp_packet(OUT6, &pattern(length - 28)).bytes());
        let header = header(&translated);
        assert_eq!((translated.len(), header.dont_fragment), (length, df));
        assert_eq!(header.identification, if df { 0 } else { IDENTIFICATION });
        assert!(!header.more_fragments && header.fragment_offset.value() == 0);
    }
}

/// RFC 6864 §4: there are few of them, and a number that was given out for nothing comes again the sooner.
#[test]
fn an_identification_is_asked_for_once_where_it_is_needed_and_for_no_other_packet() {
    let asked = |packet: &Ip| {
        let bytes = packet.bytes();
        let mut storage = storage(&bytes);
        let range = HEADROOM..storage.len();
        let mut asked = Vec::new();
        let give = |count| {
            asked.push(count);
            IDENTIFICATION
        };
        let mut checked = Ipv6Packet::check(&mut storage, range).unwrap();
        let params = Params { ipv4_mtu: 1400, ..Params::default() };
        let forwards = matches!(checked.translate(&outward(), give, &params), Verdict::Forward(_));
        (forwards, asked)
    };
    let udp = |length: usize| udp_packet(OUT6, &pattern(length - 28));
    let once = (true, vec![1]);
    assert_eq!(asked(&tcp_packet(OUT6, b"")), once);
    assert_eq!(asked(&udp(1260)), once);
    assert_eq!(asked(&udp(1260).extension(DESTINATION_OPTIONS, &[0; 8])), once);
    assert_eq!(asked(&echo_request(OUT6, 7, b"")), once);
    assert_eq!(asked(&icmp_packet(OUT6, 1, 4, 0, &udp_packet(IN6, b"data").bytes())), once);
    let (never, refused) = ((true, vec![]), (false, vec![]));
    assert_eq!(asked(&udp(1261)), never, "it leaves with DF");
    assert_eq!(asked(&udp(1261).extension(DESTINATION_OPTIONS, &[0; 8])), never);
    assert_eq!(asked(&udp(1000).piece(7, 0, false)), never, "it brought its own");
    assert_eq!(asked(&udp(1401)), refused, "it is too big");
    assert_eq!(asked(&tcp_packet(OUT6, b"").hop_limit(1)), refused);
    // It points at something without a counterpart.
    assert_eq!(asked(&icmp_packet(OUT6, 4, 0, 256, &udp_packet(IN6, b"data").bytes())), refused);
}

#[test]
fn the_hop_limit_goes_down_by_one_and_is_never_forwarded_as_zero() {
    assert_eq!(sent(&tcp_packet(OUT6, b"").hop_limit(255).bytes())[8], 254);
    assert_eq!(sent(&tcp_packet(OUT6, b"").hop_limit(2).bytes())[8], 1);
    for hop_limit in [0, 1] {
        assert_eq!(
            refused6(&tcp_packet(OUT6, b"").hop_limit(hop_limit).bytes()),
            DropReason::HopLimitExceeded
        );
    }
}

#[test]
fn new_ports_leave_with_a_checksum_that_knows_them() {
    let rewrite = with_ports(outward(), PortRewrite::Pair { source: 1024, destination: 8443 });
    for (packet, protocol) in [(tcp_packet(OUT6, b"odd"), TCP), (udp_packet(OUT6, b"odd"), UDP)] {
        let translated = six_to_four(&packet.bytes(), &rewrite, &Params::default()).unwrap();
        referee::checksums(&translated);
        assert_eq!(translated[9], protocol);
        assert_eq!(translated[20..24], [1024_u16, 8443].map(u16::to_be_bytes).concat());
    }
    for (protocol, make) in [(UDP_LITE, udp_lite as fn(_, _, _, &_) -> _), (DCCP, dccp)] {
        let packet = Ip::new(OUT6, protocol, make(OUT6, 1, 2, b"payload"));
        let translated = six_to_four(&packet.bytes(), &rewrite, &Params::default()).unwrap();
        assert_eq!(translated[20..], make(OUT4, 1024, 8443, b"payload"));
    }
}

#[test]
fn a_new_identifier_leaves_with_a_checksum_that_knows_it() {
    let rewrite = with_ports(outward(), PortRewrite::Identifier(0xbeef));
    for make in [echo_request, echo_reply] {
        let translated = six_to_four(&make(OUT6, 1, b"data").bytes(), &rewrite, &Params::default()).unwrap();
        assert_eq!(translated[20..], make(OUT4, 0xbeef, b"data").payload);
    }
}

#[test]
fn ports_for_an_echo_and_an_identifier_for_tcp_change_nothing() {
    let ports = with_ports(outward(), PortRewrite::Pair { source: 1, destination: 2 });
    let echo = echo_request(OUT6, 7, b"x").bytes();
    assert_eq!(six_to_four(&echo, &ports, &Params::default()).unwrap(), sent(&echo));
    let identifier = with_ports(outward(), PortRewrite::Identifier(9));
    let tcp = tcp_packet(OUT6, b"x").bytes();
    assert_eq!(six_to_four(&tcp, &identifier, &Params::default()).unwrap(), sent(&tcp));
}

/// RFC 768: zero would say that there is no checksum, and the receiver would believe it.
#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_ffff() {
    let payload = referee::payload_for_zero_checksum(OUT4, 40_000, 53);
    let translated = sent(&udp_packet(OUT6, &payload).bytes());
    assert_eq!(translated[26..28], [0xff, 0xff]);
}

/// RFC 3828 §3.1 says the same of UDP-Lite.
#[test]
fn a_udp_lite_checksum_that_comes_out_as_zero_is_sent_as_ffff() {
    let mut payload = vec![0, 0];
    let complement = checksum(OUT4, UDP_LITE, &[&[0, 1, 0, 2, 0, 0, 0, 0][..], &payload].concat());
    payload.copy_from_slice(&complement.to_be_bytes());
    let packet = Ip::new(OUT6, UDP_LITE, udp_lite(OUT6, 1, 2, &payload)).bytes();
    assert_eq!(sent(&packet)[26..28], [0xff, 0xff]);
}

#[test]
fn a_tcp_or_icmp_checksum_that_comes_out_as_zero_is_sent_as_zero() {
    let blank = tcp(OUT4, 40_000, 443, &[0, 0]);
    // What the checksum was, put into the payload, makes it zero.
    let packet = tcp_packet(OUT6, &blank[16..18]).bytes();
    assert_eq!(sent(&packet)[36..38], [0, 0]);
    let blank = echo_request(OUT4, 7, &[0, 0]).payload;
    let packet = echo_request(OUT6, 7, &blank[2..4]).bytes();
    assert_eq!(sent(&packet)[22..24], [0, 0]);
}

/// Only UDP means by zero that there is no checksum.
#[test]
fn a_tcp_or_icmp_checksum_that_arrives_as_zero_is_one_and_is_updated() {
    let blank = tcp(OUT6, 40_000, 443, &[0, 0]);
    let packet = tcp_packet(OUT6, &blank[16..18]);
    assert_eq!(packet.payload[16..18], [0, 0]);
    assert_eq!(sent(&packet.bytes())[20..], tcp_packet(OUT4, &blank[16..18]).payload);
    let blank = echo_request(OUT6, 7, &[0, 0]).payload;
    let packet = echo_request(OUT6, 7, &blank[2..4]);
    assert_eq!(packet.payload[2..4], [0, 0]);
    assert_eq!(sent(&packet.bytes())[20..], echo_request(OUT4, 7, &blank[2..4]).payload);
}

/// RFC 8200 §8.1.
#[test]
fn udp_without_a_checksum_is_dropped() {
    let mut packet = udp_packet(OUT6, b"data").bytes();
    packet[46..48].fill(0);
    assert_eq!(refused6(&packet), DropReason::UdpZeroChecksumV6);
    let mut first = udp_packet(OUT6, &[7; 16]).piece(1, 0, true).bytes();
    first[54..56].fill(0);
    assert_eq!(refused6(&first), DropReason::UdpZeroChecksumV6);
}

#[test]
fn extension_headers_in_front_are_taken_out() {
    let expected = sent(&udp_packet(OUT6, b"data").bytes());
    let options = [0, 0, 1, 4, 0, 0, 0, 0];
    let long = [&[0, 1][..], &[0; 14]].concat();
    // A routing header of type 4 that has done its work.
    let routing = [&[0, 2, 4, 0][..], &[0; 20]].concat();
    for headers in [
        vec![(0, &options[..])],
        vec![(DESTINATION_OPTIONS, &long)],
        vec![(ROUTING, &routing)],
        vec![
            (0, &options),
            (DESTINATION_OPTIONS, &options),
            (ROUTING, &routing),
            (DESTINATION_OPTIONS, &long),
        ],
    ] {
        let packet = headers
            .into_iter()
            .fold(udp_packet(OUT6, b"data"), |packet, (number, bytes)| packet.extension(number, bytes));
        assert_eq!(sent(&packet.bytes()), expected);
    }
}

#[test]
fn extension_headers_do_not_count_for_df() {
    let packet = udp_packet(OUT6, &pattern(1232)).extension(0, &[0; 8]).bytes();
    assert_eq!(packet.len(), 1288);
    assert!(!header(&sent(&packet)).dont_fragment, "1260 bytes of IPv4");
}

#[test]
fn a_routing_header_with_segments_left_is_dropped() {
    let packet = udp_packet(OUT6, b"data").extension(ROUTING, &[0, 0, 4, 1, 0, 0, 0, 0]).bytes();
    assert_eq!(refused6(&packet), DropReason::SegmentsLeft);
}

#[test]
fn seven_extension_headers_pass_and_eight_are_too_many() {
    let with = |count| {
        (0..count)
            .fold(udp_packet(OUT6, b""), |packet, _| packet.extension(DESTINATION_OPTIONS, &[0; 8]))
            .bytes()
    };
    assert_eq!(sent(&with(7)), sent(&with(0)));
    assert_eq!(refused6(&with(8)), DropReason::TooManyExtensionHeaders);
}

#[test]
fn an_extension_header_past_the_end_is_dropped() {
    for length in [1, 2, 255] {
        let packet = Ip::new(OUT6, UDP, b"").extension(0, &[0, length, 0, 0, 0, 0, 0, 0]).bytes();
        assert_eq!(refused6(&packet), DropReason::Truncated);
    }
    assert_eq!(refused6(&Ip::new(OUT6, 0, b"").bytes()), DropReason::Truncated);
    assert_eq!(refused6(&Ip::new(OUT6, FRAGMENT, &[17, 0, 0][..]).bytes()), DropReason::Truncated);
    assert_eq!(refused6(&Ip::new(OUT6, ROUTING, &[17, 0][..]).bytes()), DropReason::Truncated);
}

#[test]
fn an_authentication_header_passes_as_a_protocol_of_its_own() {
    let translated = sent(&Ip::new(OUT6, AH, pattern(44)).bytes());
    assert_eq!((translated[9], &translated[20..]), (AH, &pattern(44)[..]));
}

#[test]
fn unknown_protocols_pass_with_their_payload_untouched() {
    for protocol in 0..=255 {
        let payload = pattern(40);
        let result =
            six_to_four(&Ip::new(OUT6, protocol, payload.clone()).bytes(), &outward(), &Params::default());
        match protocol {
            0 | ROUTING | FRAGMENT | DESTINATION_OPTIONS | TCP | UDP | ICMPV6 | UDP_LITE | DCCP => {}
            ICMPV4 => assert_eq!(result, Err(DropReason::ForbiddenProtocol)),
            _ => {
                let translated = result.unwrap();
                assert_eq!((translated[9], &translated[20..]), (protocol, &payload[..]));
            }
        }
    }
}

#[test]
fn headers_that_cannot_be_are_dropped() {
    let valid = udp_packet(OUT6, b"data").bytes();
    for length in 0..valid.len() {
        assert_eq!(refused6(&valid[..length]), DropReason::Truncated, "{length} bytes of {}", valid.len());
    }
    let mut version = valid.clone();
    version[0] = 0x70;
    assert_eq!(refused6(&version), DropReason::MalformedHeader);
    for length in [0_u16, 7, 13] {
        let mut packet = valid.clone();
        packet[44..46].copy_from_slice(&length.to_be_bytes());
        assert_eq!(refused6(&packet), DropReason::MalformedTransport, "UDP length {length}");
    }
    let mut offset = tcp_packet(OUT6, b"").bytes();
    offset[52] = 0x40;
    assert_eq!(refused6(&offset), DropReason::MalformedTransport, "a TCP header of 16 bytes");
    offset[52] = 0x70;
    assert_eq!(refused6(&offset), DropReason::MalformedTransport, "a TCP header that is not all there");
    for (protocol, length) in [(TCP, 19), (UDP, 7), (UDP_LITE, 7), (DCCP, 11), (ICMPV6, 7)] {
        assert_eq!(
            refused6(&Ip::new(OUT6, protocol, pattern(length)).bytes()),
            DropReason::MalformedTransport
        );
    }
}

#[test]
fn icmpv6_that_is_neither_an_echo_nor_an_error_is_dropped() {
    for kind in (0..=255).filter(|kind| !matches!(kind, 1..=4 | 128 | 129)) {
        let packet = icmp_packet(OUT6, kind, 0, 0, &[0; 32]).bytes();
        assert_eq!(refused6(&packet), DropReason::IcmpNotTranslatable, "type {kind}");
    }
}

#[test]
fn what_is_longer_than_an_ipv4_packet_can_be_is_dropped() {
    let longest = Ip::new(OUT6, ESP, pattern(65_515)).bytes();
    assert_eq!(sent(&longest).len(), 65_535);
    assert_eq!(refused6(&Ip::new(OUT6, ESP, pattern(65_516)).bytes()), DropReason::TooBig);
}

#[test]
fn a_packet_without_headroom_is_refused_at_the_door() {
    let packet = udp_packet(OUT6, b"data").bytes();
    let mut storage = storage(&packet);
    let length = storage.len();
    let start = HEADROOM;
    for range in
        [start - 1..length, 0..length, start..length + 1, length + 7..length + 9, usize::MAX - 1..usize::MAX]
    {
        let reason = Ipv6Packet::check(&mut storage, range).unwrap_err();
        assert_eq!(reason, DropReason::NoHeadroom);
    }
    #[allow(clippy::reversed_empty_ranges, reason = "a caller's mistake is what this is about")]
    let reversed = Ipv6Packet::check(&mut storage, start + 10..start);
    assert_eq!(reversed.unwrap_err(), DropReason::NoHeadroom);
}
