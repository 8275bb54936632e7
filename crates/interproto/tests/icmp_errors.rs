//! ICMP errors both ways, with the packet inside (RFC 7915 §4.2, §4.3, §5.2, §5.3).
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::packets::*;
use common::*;
use interproto::{
    DropReason, HEADROOM, Ipv4Packet, Ipv6Packet, Params, PortRewrite, Ports, Protocol, Rewrite, Tuple,
};

/// Makes a packet, or what it carries, from a flow and two ports.
type Make = fn(Flow, u16, u16) -> Ip;

/// Where the packet inside an error begins.
const INSIDE4: usize = 20 + 8;
const INSIDE6: usize = 40 + 8;

/// An error of the internet's about a packet that the host sent, as the translator sees it, and as the host should.
fn to_host(kind: u8, code: u8, rest: u32, inside: &[u8]) -> Vec<u8> {
    let flow = Flow { source: ROUTER4.into(), ..IN4 };
    icmp_packet(flow, kind, code, rest, inside).bytes()
}

fn at_host(kind: u8, code: u8, rest: u32, inside: &[u8]) -> Vec<u8> {
    let flow = Flow { source: ROUTER6.into(), ..IN6 };
    icmp_packet(flow, kind, code, rest, inside).hop_limit(63).bytes()
}

/// An error of the host's side about a packet that the peer sent, and as the peer should see it.
fn to_peer(kind: u8, code: u8, rest: u32, inside: &[u8]) -> Vec<u8> {
    icmp_packet(OUT6, kind, code, rest, inside).bytes()
}

fn at_peer(kind: u8, code: u8, rest: u32, inside: &[u8]) -> Vec<u8> {
    let packet = icmp_packet(OUT4, kind, code, rest, inside).hop_limit(63);
    Ip { identification: IDENTIFICATION, dont_fragment: false, ..packet }.bytes()
}

fn from_router() -> Rewrite<std::net::Ipv6Addr> {
    Rewrite { source: ROUTER6, ..inward() }
}

fn host_gets(packet: &[u8], rewrite: &Rewrite<std::net::Ipv6Addr>) -> Vec<u8> {
    let mut all = four_to_six(packet, rewrite, &Params::default()).unwrap();
    assert_eq!(all.len(), 1);
    referee::checksums(&all[0]);
    assert!(all[0].len() <= 1280, "RFC 4443 section 2.4 (c)");
    all.remove(0)
}

fn peer_gets(packet: &[u8], rewrite: &Rewrite<std::net::Ipv4Addr>) -> Vec<u8> {
    let translated = six_to_four(packet, rewrite, &Params::default()).unwrap();
    referee::checksums(&translated);
    assert!(translated.len() <= 576, "RFC 1812 section 4.3.2.3");
    translated
}

#[test]
fn every_ipv4_error_of_section_4_2_reaches_the_host_with_its_packet_inside() {
    let inside = udp_packet(OUT4, b"data").hop_limit(1).bytes();
    let translated = udp_packet(OUT6, b"data").hop_limit(1).bytes();
    let mut table = vec![
        (3, 2, 0, 4, 1, 6),
        (3, 3, 0, 1, 4, 0),
        (3, 4, 1400, 2, 0, 1420),
        (3, 4, 600, 2, 0, 1280),
        (3, 4, 0, 2, 0, 1280),
        (3, 9, 0, 1, 1, 0),
        (3, 10, 0, 1, 1, 0),
        (3, 13, 0, 1, 1, 0),
        (3, 15, 0, 1, 1, 0),
        (11, 0, 0, 3, 0, 0),
        (11, 1, 0, 3, 1, 0),
        (12, 0, 9 << 24, 4, 0, 6),
        (12, 2, 16 << 24, 4, 0, 24),
    ];
    table.extend([0, 1, 5, 6, 7, 8, 11, 12].map(|code| (3, code, 0, 1, 0, 0)));
    for (kind, code, rest, kind6, code6, rest6) in table {
        let found = host_gets(&to_host(kind, code, rest, &inside), &from_router());
        assert_eq!(found, at_host(kind6, code6, rest6, &translated), "{kind}/{code}");
    }
}

#[test]
fn every_ipv6_error_of_section_5_2_reaches_the_peer_with_its_packet_inside() {
    let inside = udp_packet(IN6, b"data").hop_limit(1).bytes();
    let translated = Ip { dont_fragment: false, ..udp_packet(IN4, b"data").hop_limit(1) }.bytes();
    for (kind, code, rest, kind4, code4, rest4) in [
        (1, 0, 0, 3, 1, 0),
        (1, 1, 0, 3, 10, 0),
        (1, 2, 0, 3, 1, 0),
        (1, 3, 0, 3, 1, 0),
        (1, 4, 0, 3, 3, 0),
        (2, 0, 1400, 3, 4, 1380),
        (2, 0, 1280, 3, 4, 1260),
        (3, 0, 0, 11, 0, 0),
        (3, 1, 0, 11, 1, 0),
        (4, 0, 7, 12, 0, 8 << 24),
        (4, 1, 6, 3, 2, 0),
    ] {
        let found = peer_gets(&to_peer(kind, code, rest, &inside), &outward());
        assert_eq!(found, at_peer(kind4, code4, rest4, &translated), "{kind}/{code}");
    }
}

#[test]
fn errors_without_a_counterpart_are_dropped() {
    let inside = udp_packet(OUT4, b"data").bytes();
    for (kind, code) in [(3, 14), (3, 16), (12, 1), (12, 3)] {
        assert_eq!(
            refused4(&to_host(kind, code, 0, &inside)),
            DropReason::IcmpNotTranslatable,
            "{kind}/{code}"
        );
    }
    for pointer in [4, 7, 10, 20, 255] {
        let reason = refused4(&to_host(12, 0, pointer << 24, &inside));
        assert_eq!(reason, DropReason::PointerNotTranslatable, "{pointer}");
    }
    let inside = udp_packet(IN6, b"data").bytes();
    for (kind, code) in [(1, 5), (1, 6), (4, 2), (4, 3)] {
        assert_eq!(
            refused6(&to_peer(kind, code, 0, &inside)),
            DropReason::IcmpNotTranslatable,
            "{kind}/{code}"
        );
    }
    for pointer in [2, 40, 256, 1 << 24] {
        assert_eq!(
            refused6(&to_peer(4, 0, pointer, &inside)),
            DropReason::PointerNotTranslatable,
            "{pointer}"
        );
    }
}

#[test]
fn the_packet_inside_is_translated_with_its_checksum_whatever_it_carries() {
    let pairs: [fn(Flow) -> Ip; 6] = [
        |flow| tcp_packet(flow, b"odd"),
        |flow| udp_packet(flow, b"odd"),
        |flow| echo_request(flow, 77, b"odd"),
        // An error about an echo reply is about a packet too.
        |flow| echo_reply(flow, 77, b"odd"),
        |flow| Ip::new(flow, UDP_LITE, udp_lite(flow, 1, 2, b"odd")),
        |flow| Ip::new(flow, ESP, pattern(30)),
    ];
    for make in pairs {
        let found = host_gets(&to_host(11, 0, 0, &make(OUT4).bytes()), &from_router());
        assert_eq!(found, at_host(3, 0, 0, &make(OUT6).bytes()));
        let found = peer_gets(&to_peer(3, 0, 0, &make(IN6).bytes()), &outward());
        let expected = Ip { dont_fragment: false, ..make(IN4) };
        assert_eq!(found, at_peer(11, 0, 0, &expected.bytes()));
    }
}

#[test]
fn what_is_left_of_a_packet_that_was_cut_is_translated_and_its_header_promises_the_whole() {
    for payload in [64, 1400] {
        let (out4, out6) =
            (tcp_packet(OUT4, &pattern(payload)).bytes(), tcp_packet(OUT6, &pattern(payload)).bytes());
        // RFC 792: the header and eight bytes; from 18 bytes on, the checksum of TCP is among them.
        for left in [8, 9, 16, 17, 18, 19, 40] {
            let found = host_gets(&to_host(3, 1, 0, &out4[..20 + left]), &from_router());
            let mut expected = at_host(1, 0, 0, &out6[..40 + left]);
            let inner = u16::from_be_bytes([found[INSIDE6 + 4], found[INSIDE6 + 5]]);
            assert_eq!(usize::from(inner), out6.len() - 40);
            if left < 18 {
                expected = at_host(1, 0, 0, &[&out6[..40], &out4[20..20 + left]].concat());
            }
            assert_eq!(found, expected, "{left} bytes left of {payload}");
        }
        let (in4, in6) = (
            Ip { dont_fragment: payload > 64, ..tcp_packet(IN4, &pattern(payload)) }.bytes(),
            tcp_packet(IN6, &pattern(payload)).bytes(),
        );
        for left in [8, 18, 40] {
            let found = peer_gets(&to_peer(1, 0, 0, &in6[..40 + left]), &outward());
            assert_eq!(found, at_peer(3, 1, 0, &in4[..20 + left]), "{left} bytes left of {payload}");
        }
    }
}

/// The pseudo-header of `ICMPv6` counts the length that the message had, not what is left of it.
#[test]
fn the_checksum_of_an_echo_that_was_cut_stays_that_of_the_whole() {
    let whole = |flow| echo_request(flow, 77, &pattern(1000));
    let found = host_gets(&to_host(3, 1, 0, &whole(OUT4).bytes()[..28]), &from_router());
    assert_eq!(found, at_host(1, 0, 0, &whole(OUT6).bytes()[..48]));
    let found = peer_gets(&to_peer(1, 0, 0, &whole(IN6).bytes()[..48]), &outward());
    let expected = Ip { dont_fragment: false, ..whole(IN4) }.bytes();
    assert_eq!(found, at_peer(3, 1, 0, &expected[..28]));
}

#[test]
fn a_long_error_is_cut_to_1280_or_576_bytes() {
    let found = host_gets(&to_host(3, 4, 1400, &udp_packet(OUT4, &pattern(1472)).bytes()), &from_router());
    assert_eq!(found, at_host(2, 0, 1420, &udp_packet(OUT6, &pattern(1472)).bytes()[..1280 - INSIDE6]));
    let fragment = |flow| Ip::new(flow, UDP, udp(flow, 1, 2, &pattern(1464))).piece(3, 0, true);
    let found = host_gets(&to_host(11, 1, 0, &fragment(OUT4).bytes()), &from_router());
    assert_eq!(found, at_host(3, 1, 0, &fragment(OUT6).bytes()[..1280 - INSIDE6]));
    let inside = udp_packet(IN6, &pattern(1400)).bytes();
    let found = peer_gets(&to_peer(2, 0, 1300, &inside[..1232]), &outward());
    assert_eq!(found, at_peer(3, 4, 1280, &udp_packet(IN4, &pattern(1400)).bytes()[..576 - INSIDE4]));
}

#[test]
fn a_fragment_inside_stays_a_fragment() {
    for (offset, more) in [(0, true), (1232, true), (1232, false)] {
        let piece = |flow, identification| {
            let payload = if offset == 0 { udp(flow, 1, 2, &pattern(1224)) } else { pattern(1232) };
            Ip::new(flow, UDP, payload).piece(identification, offset, more).bytes()
        };
        let found = host_gets(&to_host(11, 1, 0, &piece(OUT4, 0x1234)[..100]), &from_router());
        assert_eq!(found, at_host(3, 1, 0, &piece(OUT6, 0x1234)[..128]));
        let found = peer_gets(&to_peer(3, 1, 0, &piece(IN6, 0xabcd_1234)[..128]), &outward());
        assert_eq!(found, at_peer(11, 1, 0, &piece(IN4, 0x1234)[..100]));
    }
}

/// RFC 7915 §5.2: the IPv4 sender's packet has neither the longer header nor the fragment header.
#[test]
fn a_fragment_header_inside_packet_too_big_counts_in_the_mtu() {
    let inside = Ip::new(IN6, UDP, pattern(1232)).piece(9, 1232, true).bytes();
    let found = peer_gets(&to_peer(2, 0, 1300, &inside[..200]), &outward());
    assert_eq!(found[20..22], [3, 4]);
    assert_eq!(found[26..28], 1272_u16.to_be_bytes());
}

/// RFC 7915 §4.2: a router that does not know RFC 1191.
#[test]
fn fragmentation_needed_without_an_mtu_means_the_plateau_below_the_packets_length() {
    let inside = udp_packet(OUT4, &pattern(3972)).bytes();
    let found = host_gets(&to_host(3, 4, 0, &inside[..28]), &from_router());
    assert_eq!(found[44..48], (2002_u32 + 20).to_be_bytes(), "4000 bytes long: 2002");
}

#[test]
fn extension_headers_inside_are_taken_out() {
    let with =
        udp_packet(IN6, b"data").extension(0, &[0; 8]).extension(ROUTING, &[0, 0, 4, 1, 0, 0, 0, 0]).bytes();
    let without = Ip { dont_fragment: false, ..udp_packet(IN4, b"data") }.bytes();
    assert_eq!(peer_gets(&to_peer(1, 4, 0, &with), &outward()), at_peer(3, 3, 0, &without));
    let with = udp_packet(OUT4, b"data").options(&[7, 7, 4, 0, 0, 0, 0, 0]).bytes();
    let found = host_gets(&to_host(3, 3, 0, &with), &from_router());
    assert_eq!(found, at_host(1, 4, 0, &udp_packet(OUT6, b"data").bytes()));
}

#[test]
fn ports_and_identifiers_of_the_packet_inside_are_rewritten_with_its_checksum() {
    let ports = PortRewrite::Pair { source: 5001, destination: 5002 };
    let identifier = PortRewrite::Identifier(5003);
    let makes: [(Make, PortRewrite, [u16; 2]); 4] = [
        (|flow, a, b| Ip::new(flow, TCP, tcp(flow, a, b, b"odd")), ports, [5001, 5002]),
        (|flow, a, b| Ip::new(flow, UDP, udp(flow, a, b, b"odd")), ports, [5001, 5002]),
        (|flow, a, _| echo_request(flow, a, b"odd"), identifier, [5003, 0]),
        (|flow, a, _| echo_reply(flow, a, b"odd"), identifier, [5003, 0]),
    ];
    for (make, wanted, [a, b]) in makes {
        let rewrite = with_inner_ports(from_router(), wanted);
        let found = host_gets(&to_host(11, 0, 0, &make(OUT4, 1, 2).bytes()), &rewrite);
        assert_eq!(found, at_host(3, 0, 0, &make(OUT6, a, b).bytes()));
        let rewrite = with_inner_ports(outward(), wanted);
        let found = peer_gets(&to_peer(3, 0, 0, &make(IN6, 1, 2).bytes()), &rewrite);
        assert_eq!(found, at_peer(11, 0, 0, &Ip { dont_fragment: false, ..make(IN4, a, b) }.bytes()));
    }
}

/// The outer rewrite's ports are for packets with ports; an error has none.
#[test]
fn ports_for_the_error_itself_change_nothing() {
    let error = to_host(11, 0, 0, &udp_packet(OUT4, b"x").bytes());
    for ports in [PortRewrite::Pair { source: 1, destination: 2 }, PortRewrite::Identifier(3)] {
        assert_eq!(host_gets(&error, &with_ports(from_router(), ports)), host_gets(&error, &from_router()));
    }
}

#[test]
fn both_tuples_are_given_out() {
    let mut out = storage(&to_peer(1, 4, 0, &udp_packet(IN6, b"x").bytes()));
    let range = HEADROOM..out.len();
    let checked = Ipv6Packet::check(&mut out, range).unwrap();
    let error = Tuple { source: HOST6, destination: PEER6, protocol: Protocol::Icmp, ports: Ports::None };
    assert_eq!(checked.tuple(), error);
    let ports = Ports::Pair { source: 40_000, destination: 53 };
    let inside = Tuple { source: PEER6, destination: HOST6, protocol: Protocol::Udp, ports };
    assert_eq!(checked.embedded(), Some(inside));

    let mut back = storage(&to_host(3, 3, 0, &echo_request(OUT4, 8, b"x").bytes()));
    let range = HEADROOM..back.len();
    let checked = Ipv4Packet::check(&mut back, range).unwrap();
    let ports = Ports::Identifier(8);
    let inside = Tuple { source: HOST4, destination: PEER4, protocol: Protocol::Icmp, ports };
    assert_eq!(checked.embedded(), Some(inside));
}

#[test]
fn an_error_inside_an_error_is_dropped() {
    let inner = icmp_packet(OUT4, 3, 1, 0, &udp_packet(IN4, b"x").bytes()).bytes();
    assert_eq!(refused4(&to_host(11, 0, 0, &inner)), DropReason::EmbeddedNotTranslatable);
    let inner = icmp_packet(IN6, 1, 0, 0, &udp_packet(OUT6, b"x").bytes()).bytes();
    assert_eq!(refused6(&to_peer(3, 0, 0, &inner)), DropReason::EmbeddedNotTranslatable);
}

#[test]
fn a_packet_inside_that_would_never_have_been_translated_is_dropped() {
    for inner in [
        icmp_packet(OUT4, 13, 0, 0, &[0; 12]).bytes(),
        Ip::new(OUT4, ICMPV6, [0; 8]).bytes(),
        echo_request(OUT4, 1, &[0; 8]).piece(1, 0, true).bytes(),
    ] {
        assert_eq!(refused4(&to_host(11, 0, 0, &inner)), DropReason::EmbeddedNotTranslatable);
    }
    for inner in [
        icmp_packet(IN6, 135, 0, 0, &[0; 16]).bytes(),
        Ip::new(IN6, ICMPV4, [0; 8]).bytes(),
        echo_request(IN6, 1, &[0; 8]).piece(1, 0, true).bytes(),
        Ip::new(IN6, AH, [0; 8]).piece(1, 0, true).bytes(),
    ] {
        assert_eq!(refused6(&to_peer(3, 0, 0, &inner)), DropReason::EmbeddedNotTranslatable);
    }
    let without = Rewrite { embedded: None, ..inward() };
    let error = to_host(11, 0, 0, &udp_packet(OUT4, b"x").bytes());
    assert_eq!(four_to_six(&error, &without, &Params::default()), Err(DropReason::EmbeddedNotTranslatable));
}

#[test]
fn a_packet_inside_that_was_cut_before_its_ports_or_is_none_is_dropped() {
    for make in [|flow| tcp_packet(flow, b"data"), |flow| echo_request(flow, 1, b"data")] {
        let (inner4, inner6) = (make(OUT4).bytes(), make(IN6).bytes());
        for left in 0..28 {
            assert_eq!(refused4(&to_host(11, 0, 0, &inner4[..left])), DropReason::EmbeddedMalformed);
        }
        for left in 0..48 {
            assert_eq!(refused6(&to_peer(3, 0, 0, &inner6[..left])), DropReason::EmbeddedMalformed);
        }
    }
    assert_eq!(
        refused4(&to_host(11, 0, 0, &udp_packet(IN6, b"data").bytes())),
        DropReason::EmbeddedMalformed
    );
    assert_eq!(
        refused6(&to_peer(3, 0, 0, &udp_packet(IN4, &[0; 40]).bytes())),
        DropReason::EmbeddedMalformed
    );
}

/// RFC 5508 REQ-3: the translation gets a new checksum, so that damage would be hidden.
#[test]
fn an_error_whose_checksum_is_wrong_is_dropped() {
    let mut error = to_host(11, 0, 0, &udp_packet(OUT4, b"data").bytes());
    for at in 20..error.len() {
        error[at] ^= 0x10;
        let reason = refused4(&error);
        error[at] ^= 0x10;
        let expected = if at == 20 { DropReason::IcmpNotTranslatable } else { DropReason::BadIcmpChecksum };
        assert_eq!(reason, expected, "byte {at}");
    }
    let mut error = to_peer(3, 0, 0, &udp_packet(IN6, b"data").bytes());
    for at in 41..error.len() {
        error[at] ^= 0x10;
        assert_eq!(refused6(&error), DropReason::BadIcmpChecksum, "byte {at}");
        error[at] ^= 0x10;
    }
}

/// Of the packet inside no more than ports can be trusted: routers on the way have changed it.
#[test]
fn the_packet_inside_may_have_wrong_checksums_and_they_stay_wrong() {
    let mut inside = udp_packet(OUT4, b"data").bytes();
    inside[10] ^= 1;
    let found = host_gets(&to_host(11, 0, 0, &inside), &from_router());
    assert_eq!(found, at_host(3, 0, 0, &udp_packet(OUT6, b"data").bytes()));
    inside[26..28].fill(0);
    let found = host_gets(&to_host(11, 0, 0, &inside), &from_router());
    assert_eq!(found[INSIDE6 + 46..INSIDE6 + 48], [0, 0], "no checksum: none is made up");
}

#[test]
fn a_length_past_the_end_of_the_error_is_not_believed() {
    let found = host_gets(&to_host(11, 0, 255 << 16, &udp_packet(OUT4, b"data").bytes()), &from_router());
    assert_eq!(found, at_host(3, 0, 0, &udp_packet(OUT6, b"data").bytes()));
}

#[test]
fn the_traffic_class_inside_is_that_of_the_packet_and_not_the_operators() {
    let params = Params { traffic_class: interproto::TrafficClass::Dscp(46), ..Params::default() };
    let inside = udp_packet(OUT4, b"data").traffic_class(0x29).bytes();
    let found = four_to_six(&to_host(11, 0, 0, &inside), &from_router(), &params).unwrap().remove(0);
    assert_eq!(found[INSIDE6..INSIDE6 + 2], [0x62, 0x90]);
    assert_eq!(found[..2], [0x6b, 0x80]);
}

#[test]
fn an_error_in_an_atomic_fragment_is_an_error() {
    let inside = udp_packet(IN6, b"data").bytes();
    let packet = icmp_packet(OUT6, 1, 4, 0, &inside).piece(0x99, 0, false).bytes();
    assert_eq!(peer_gets(&packet, &outward())[20..], peer_gets(&to_peer(1, 4, 0, &inside), &outward())[20..]);
}
