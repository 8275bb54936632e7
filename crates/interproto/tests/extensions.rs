//! Extensions of ICMP errors (RFC 4884): MPLS label stacks (RFC 4950) and interface information (RFC 5837) stay readable on
//! the other side, behind a packet inside that has another length there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::packets::*;
use common::*;
use interproto::{DropReason, Params};

/// What etherparse says of the internet checksum: an extension structure has one of its own (RFC 4884 §7).
fn structure(objects: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0x20, 0, 0, 0][..], objects].concat();
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&bytes).ones_complement().to_be();
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// One MPLS label stack entry, and the name of an interface.
fn extensions() -> Vec<u8> {
    let mpls = [0, 8, 1, 1, 0x12, 0x34, 0x51, 0x40];
    let interface = [0, 16, 2, 0x0a, 0, 0, 0, 7, 8, b'e', b't', b'h', b'0', 0, 0, 0];
    structure(&[&mpls[..], &interface].concat())
}

/// The packet inside an error as far as `most` bytes, padded to `length`, and extensions behind it.
fn inside(packet: &[u8], most: usize, length: usize, extensions: &[u8]) -> Vec<u8> {
    let mut bytes = packet[..packet.len().min(most)].to_vec();
    assert!(bytes.len() <= length);
    bytes.resize(length, 0);
    bytes.extend_from_slice(extensions);
    bytes
}

/// An error from a router on the IPv4 side as the host gets it.
fn at_host(kind: u8, code: u8, rest: u32, inside: &[u8]) -> Vec<u8> {
    let packet = icmp_packet(IN4, kind, code, rest, inside).bytes();
    four_to_six(&packet, &inward(), &Params::default()).unwrap().remove(0)
}

/// An error from a router on the IPv6 side as the peer gets it.
fn at_peer(kind: u8, code: u8, rest: u32, inside: &[u8]) -> Vec<u8> {
    let packet = icmp_packet(OUT6, kind, code, rest, inside).bytes();
    six_to_four(&packet, &outward(), &Params::default()).unwrap()
}

fn expected_at_host(kind: u8, code: u8, rest: u32, inside: &[u8]) -> Vec<u8> {
    icmp_packet(IN6, kind, code, rest, inside).hop_limit(63).bytes()
}

fn expected_at_peer(kind: u8, code: u8, rest: u32, inside: &[u8]) -> Vec<u8> {
    Ip { dont_fragment: false, identification: IDENTIFICATION, ..icmp_packet(OUT4, kind, code, rest, inside) }
        .hop_limit(63)
        .bytes()
}

/// The same TCP segment on both sides, of this length on the IPv4 side.
fn segment(length: usize) -> (Vec<u8>, Vec<u8>) {
    let payload = pattern(length - 44);
    (tcp_packet(OUT4, &payload).bytes(), tcp_packet(OUT6, &payload).bytes())
}

#[test]
fn extensions_reach_the_host_behind_a_packet_padded_to_words_of_64_bits() {
    // The length that the router quotes, and what that is with a header that is 20 bytes longer.
    for (whole, quoted, length4, length6) in [
        (60, 60, 128, 128),    // padded before and after
        (100, 100, 128, 128),  // 120 bytes after, padded to the least length
        (1500, 128, 128, 152), // cut by the router: 148 bytes after, padded to a multiple of eight
        (132, 132, 132, 152),  // whole: 152 bytes after, without padding
        (1500, 500, 500, 520), // 520 is a multiple of eight
    ] {
        let (v4, v6) = segment(whole);
        for (kind4, kind6) in [((3, 1), (1, 0)), ((3, 3), (1, 4)), ((11, 0), (3, 0))] {
            let error = inside(&v4, quoted, length4, &extensions());
            let found = at_host(kind4.0, kind4.1, (length4 as u32 / 4) << 16, &error);
            let translated = inside(&v6, quoted + 20, length6, &extensions());
            let expected = expected_at_host(kind6.0, kind6.1, (length6 as u32 / 8) << 24, &translated);
            assert_eq!(found, expected, "{quoted} of {whole} bytes");
        }
    }
}

#[test]
fn extensions_reach_the_peer_behind_a_packet_of_at_least_128_bytes() {
    for (whole, quoted, length6, length4) in [
        (80, 80, 128, 128),
        (1500, 128, 128, 128), // 108 bytes after, padded to the least length
        (1500, 152, 152, 132),
        (1500, 400, 400, 380),
    ] {
        let payload = pattern(whole - 64);
        let (v6, v4) = (tcp_packet(IN6, &payload), tcp_packet(IN4, &payload));
        // DF of the packet inside follows the rule of the packet itself.
        let v4 = Ip { dont_fragment: whole - 20 > 1260, ..v4 };
        for (kind6, kind4) in [((1, 0), (3, 1)), ((1, 4), (3, 3)), ((3, 0), (11, 0)), ((3, 1), (11, 1))] {
            let error = inside(&v6.bytes(), quoted, length6, &extensions());
            let found = at_peer(kind6.0, kind6.1, (length6 as u32 / 8) << 24, &error);
            let translated = inside(&v4.bytes(), quoted - 20, length4, &extensions());
            let expected = expected_at_peer(kind4.0, kind4.1, (length4 as u32 / 4) << 16, &translated);
            assert_eq!(found, expected, "{quoted} of {whole} bytes");
        }
    }
}

/// RFC 7915 §4.2 keeps extensions; RFC 4443 §2.4 (c) and RFC 1812 §4.3.2.3 bound the whole error. The packet inside is cut.
#[test]
fn a_long_error_keeps_its_extensions_and_loses_the_end_of_the_packet_inside() {
    let (v4, v6) = segment(3000);
    let error = inside(&v4, 1020, 1020, &structure(&[&[1, 0x2c, 2, 9][..], &[7; 296]].concat()));
    let found = at_host(11, 0, 255 << 16, &error);
    // 1280 - 40 - 8 - 304 = 928 = 116 words of 64 bits.
    assert_eq!(found.len(), 1280);
    let structure = structure(&[&[1, 0x2c, 2, 9][..], &[7; 296]].concat());
    assert_eq!(found, expected_at_host(3, 0, 116 << 24, &inside(&v6, 928, 928, &structure)));

    let payload = pattern(2000);
    let (v6, v4) = (tcp_packet(IN6, &payload).bytes(), tcp_packet(IN4, &payload).bytes());
    let found = at_peer(1, 0, 125 << 24, &inside(&v6, 1000, 1000, &extensions()));
    // 576 - 20 - 8 - 28 = 520 = 130 words of 32 bits.
    assert_eq!(found.len(), 576);
    assert_eq!(found, expected_at_peer(3, 1, 130 << 16, &inside(&v4, 520, 520, &extensions())));
}

#[test]
fn extensions_that_leave_no_room_for_the_least_packet_are_left_out() {
    let long = structure(&[&[4, 0x50, 2, 9][..], &[7; 1100]].concat());
    let (v4, v6) = segment(128);
    assert_eq!(at_host(11, 0, 32 << 16, &inside(&v4, 128, 128, &long)), expected_at_host(3, 0, 0, &v6));

    let payload = pattern(64);
    let (v6, v4) = (tcp_packet(IN6, &payload).bytes(), tcp_packet(IN4, &payload));
    let v4 = Ip { dont_fragment: false, ..v4 }.bytes();
    let long = structure(&[&[1, 0xa4, 2, 9][..], &[7; 416]].concat());
    assert_eq!(at_peer(3, 0, 16 << 24, &inside(&v6, 128, 128, &long)), expected_at_peer(11, 0, 0, &v4));
}

/// Packet Too Big and Parameter Problem of `ICMPv6` have no length (RFC 4884 §4): what follows the packet inside is cut, so
/// that nobody reads it as part of that packet.
#[test]
fn extensions_are_cut_where_the_other_side_has_no_room_for_them() {
    let (v4, v6) = segment(128);
    let error = inside(&v4, 128, 128, &extensions());
    assert_eq!(at_host(3, 4, (32 << 16) + 1400, &error), expected_at_host(2, 0, 1420, &v6));
    assert_eq!(at_host(3, 2, 32 << 16, &error), expected_at_host(4, 1, 6, &v6));
    assert_eq!(at_host(12, 0, 32 << 16, &error), expected_at_host(4, 0, 0, &v6));
}

/// RFC 4884 §4: the packet inside has at least 128 bytes if extensions follow. Less is no length of that RFC.
#[test]
fn a_length_below_128_bytes_ends_the_packet_inside_and_promises_no_extensions() {
    let (v4, v6) = segment(100);
    for length in [100, 124] {
        let error = inside(&v4, 100, length, &extensions());
        assert_eq!(at_host(11, 0, (length as u32 / 4) << 16, &error), expected_at_host(3, 0, 0, &v6));
    }
    let payload = pattern(36);
    let (v6, v4) = (tcp_packet(IN6, &payload).bytes(), tcp_packet(IN4, &payload));
    let v4 = Ip { dont_fragment: false, ..v4 }.bytes();
    for length in [104, 120] {
        let error = inside(&v6, 100, length, &extensions());
        assert_eq!(at_peer(3, 0, (length as u32 / 8) << 24, &error), expected_at_peer(11, 0, 0, &v4));
    }
}

#[test]
fn a_length_past_the_end_of_the_error_promises_no_extensions() {
    let (v4, v6) = segment(140);
    assert_eq!(at_host(11, 0, 36 << 16, &v4), expected_at_host(3, 0, 0, &v6));
    assert_eq!(
        at_host(11, 0, 35 << 16, &v4),
        expected_at_host(3, 0, 0, &v6),
        "it ends where they would begin"
    );
}

/// The options of the packet inside go, and the extensions stay where they are: the packet moves up to them.
#[test]
fn options_of_the_packet_inside_are_taken_out_in_front_of_extensions() {
    let udp = udp_packet(OUT4, &pattern(200));
    let v4 = udp.clone().options(&[7, 39, 4].into_iter().chain([0; 37]).collect::<Vec<_>>()).bytes();
    let v6 = udp_packet(OUT6, &pattern(200)).bytes();
    let found = at_host(11, 0, 40 << 16, &inside(&v4, 160, 160, &extensions()));
    // 160 bytes less 40 bytes of options, with a header that is 20 bytes longer: 140, padded to 144.
    assert_eq!(found, expected_at_host(3, 0, 18 << 24, &inside(&v6, 140, 144, &extensions())));
}

#[test]
fn a_fragment_inside_keeps_its_fragment_header_in_front_of_extensions() {
    let payload = pattern(400);
    let fragment = |flow| Ip::new(flow, UDP, &payload[..]).piece(0x1234, 800, true).bytes();
    let found = at_host(11, 1, 33 << 16, &inside(&fragment(OUT4), 132, 132, &extensions()));
    // 132 - 20 + 48 = 160.
    let expected = expected_at_host(3, 1, 20 << 24, &inside(&fragment(OUT6), 160, 160, &extensions()));
    assert_eq!(found, expected);
    let found = at_peer(3, 1, 20 << 24, &inside(&fragment(IN6), 160, 160, &extensions()));
    let expected = expected_at_peer(11, 1, 33 << 16, &inside(&fragment(IN4), 132, 132, &extensions()));
    assert_eq!(found, expected);
}

/// The checksum of the whole error covers the extensions.
#[test]
fn an_error_with_broken_extensions_is_dropped() {
    let (v4, _) = segment(128);
    let mut packet = icmp_packet(IN4, 11, 0, 32 << 16, &inside(&v4, 128, 128, &extensions())).bytes();
    *packet.last_mut().unwrap() ^= 1;
    assert_eq!(refused4(&packet), DropReason::BadIcmpChecksum);
}
