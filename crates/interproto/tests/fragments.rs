//! Fragments both ways, and IPv4 packets that become several fragments (RFC 7915 §4.1, §5.1.1).
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::packets::*;
use common::*;
use etherparse::{Ipv4HeaderSlice, Ipv6FragmentHeader};
use interproto::{DropReason, HEADROOM, Ipv4Packet, Ipv6Packet, Params, PortRewrite, Ports, Verdict};

/// One IPv6 fragment: its header, and what it carries.
fn fragment6(packet: &[u8]) -> (Ipv6FragmentHeader, &[u8]) {
    assert_eq!(packet[6], FRAGMENT, "a fragment header");
    Ipv6FragmentHeader::from_slice(&packet[40..]).unwrap()
}

/// The payload that IPv6 fragments make up, whatever offset they begin at. They lie one behind the other.
fn reassemble(fragments: &[Vec<u8>], identification: u32, start: u16, more: bool) -> Vec<u8> {
    let mut payload = Vec::new();
    for (at, packet) in fragments.iter().enumerate() {
        let (header, part) = fragment6(packet);
        assert_eq!(header.identification, identification);
        assert_eq!(usize::from(header.fragment_offset.byte_offset()), usize::from(start) + payload.len());
        assert_eq!(header.more_fragments, more || at + 1 < fragments.len(), "the M bit of fragment {at}");
        payload.extend_from_slice(part);
    }
    payload
}

#[test]
fn ipv6_fragments_keep_offset_flag_and_the_lower_half_of_the_identification() {
    let datagram = udp(OUT6, 40_000, 53, &pattern(3000));
    let expected = udp(OUT4, 40_000, 53, &pattern(3000));
    for (range, more) in [(0..1232, true), (1232..2464, true), (2464..3008, false)] {
        let packet =
            Ip::new(OUT6, UDP, &datagram[range.clone()]).piece(0xabcd_0123, range.start as u16, more);
        let translated = sent(&packet.bytes());
        let header = Ipv4HeaderSlice::from_slice(&translated).unwrap();
        assert_eq!(
            (header.identification(), header.more_fragments(), header.dont_fragment()),
            (0x0123, more, false)
        );
        assert_eq!(usize::from(header.fragments_offset().byte_offset()), range.start);
        assert_eq!((header.ttl(), header.protocol().0), (63, UDP));
        assert_eq!(translated[20..], expected[range]);
    }
}

#[test]
fn ipv4_fragments_keep_offset_flag_and_identification_whether_df_is_set_or_not() {
    let datagram = tcp(IN4, 443, 40_000, &pattern(3000));
    let expected = tcp(IN6, 443, 40_000, &pattern(3000));
    for df in [false, true] {
        for (range, more) in [(0..1200, true), (1200..2400, true), (2400..3024, false)] {
            let packet = Ip::new(IN4, TCP, &datagram[range.clone()]).piece(0xabcd, range.start as u16, more);
            let translated = received(&Ip { dont_fragment: df, ..packet }.bytes());
            let start = range.start as u16;
            let whole = Ip::new(IN6, TCP, &expected[range]).piece(0xabcd, start, more).hop_limit(63);
            assert_eq!(translated, whole.bytes());
        }
    }
}

/// Where the second fragment carries what would be ports and a checksum in the first.
#[test]
fn the_payload_of_later_fragments_is_never_touched() {
    let ports = PortRewrite::Pair { source: 1, destination: 2 };
    for protocol in [TCP, UDP, UDP_LITE, DCCP] {
        for length in [0, 1, 7, 8, 40] {
            let later = Ip::new(OUT6, protocol, pattern(length)).piece(5, 8, false).bytes();
            let translated = six_to_four(&later, &with_ports(outward(), ports), &Params::default()).unwrap();
            assert_eq!(translated[20..], pattern(length));
            let later = Ip::new(IN4, protocol, pattern(length)).piece(5, 8, false).bytes();
            let translated = four_to_six(&later, &with_ports(inward(), ports), &Params::default()).unwrap();
            assert_eq!(translated[0][48..], pattern(length));
        }
    }
}

#[test]
fn the_first_fragment_gets_new_ports() {
    let ports = PortRewrite::Pair { source: 1, destination: 2 };
    let datagram =
        |flow, source, destination| udp(flow, source, destination, &pattern(2000))[..1200].to_vec();
    let first = Ip::new(OUT6, UDP, datagram(OUT6, 9, 10)).piece(5, 0, true).bytes();
    let translated = six_to_four(&first, &with_ports(outward(), ports), &Params::default()).unwrap();
    assert_eq!(translated[20..], datagram(OUT4, 1, 2));
    let first = Ip::new(IN4, UDP, datagram(IN4, 9, 10)).piece(5, 0, true).bytes();
    let translated = four_to_six(&first, &with_ports(inward(), ports), &Params::default()).unwrap();
    assert_eq!(translated[0][48..], datagram(IN6, 1, 2));
}

/// RFC 8021 says not to make them, RFC 6946 that they are no fragments.
#[test]
fn atomic_fragments_are_accepted_and_never_made() {
    for packet in
        [udp_packet(OUT6, b"data"), echo_request(OUT6, 3, b"data"), udp_packet(OUT6, &pattern(1400))]
    {
        let translated = sent(&packet.clone().piece(0xabcd_0123, 0, false).bytes());
        let header = Ipv4HeaderSlice::from_slice(&translated).unwrap();
        assert_eq!((header.dont_fragment(), header.identification()), (false, 0x0123));
        assert_eq!(translated[20..], sent(&packet.bytes())[20..]);
    }
    let small = received(&udp_packet(IN4, b"data").may_fragment(7).bytes());
    assert_eq!(small[6], UDP, "no fragment header, although DF is clear");
}

#[test]
fn extension_headers_in_front_of_a_fragment_header_are_taken_out() {
    let fragment = Ip::new(OUT6, UDP, pattern(16)).piece(1, 64, true);
    let with = fragment.clone().extension(0, &[0; 8]).extension(DESTINATION_OPTIONS, &[0; 8]);
    assert_eq!(sent(&with.bytes()), sent(&fragment.bytes()));
}

/// RFC 7915 §5.1.1: "including AH", but not ESP.
#[test]
fn an_extension_header_behind_a_fragment_header_drops_the_packet() {
    for (offset, more) in [(0, true), (64, false), (0, false)] {
        for protocol in [0, ROUTING, FRAGMENT, AH, DESTINATION_OPTIONS, 135, 139, 140] {
            let packet = Ip::new(OUT6, protocol, [0; 16]).piece(1, offset, more).bytes();
            assert_eq!(refused6(&packet), DropReason::ExtensionAfterFragment, "{protocol}");
        }
        let esp = sent(&Ip::new(OUT6, ESP, [0; 16]).piece(1, offset, more).bytes());
        assert_eq!(esp[9], ESP);
    }
}

/// RFC 7112 §5.
#[test]
fn a_first_fragment_without_its_whole_transport_header_is_dropped() {
    for protocol in [TCP, DCCP] {
        let first = |flow| Ip::new(flow, protocol, [0x70; 8]).piece(1, 0, true).bytes();
        assert_eq!(refused6(&first(OUT6)), DropReason::FirstFragmentTooShort);
        assert_eq!(refused4(&first(IN4)), DropReason::FirstFragmentTooShort);
    }
    for protocol in [UDP, UDP_LITE] {
        let first = |flow| Ip::new(flow, protocol, []).piece(1, 0, true).bytes();
        assert_eq!(refused6(&first(OUT6)), DropReason::FirstFragmentTooShort);
        assert_eq!(refused4(&first(IN4)), DropReason::FirstFragmentTooShort);
    }
    // 24 bytes of a TCP header whose options make it 28.
    let mut long = tcp(OUT6, 1, 2, b"");
    long[12] = 0x70;
    assert_eq!(
        refused6(&Ip::new(OUT6, TCP, long.clone()).piece(1, 0, true).bytes()),
        DropReason::FirstFragmentTooShort
    );
    assert_eq!(
        refused4(&Ip::new(IN4, TCP, long).piece(1, 0, true).bytes()),
        DropReason::FirstFragmentTooShort
    );
}

/// RFC 7915 §1.2: the checksum of ICMPv6 has a pseudo-header with the length, which no fragment knows.
#[test]
fn fragments_of_icmp_are_dropped() {
    for (offset, more) in [(0, true), (8, true), (8, false)] {
        assert_eq!(
            refused6(&echo_request(OUT6, 1, &[0; 8]).piece(1, offset, more).bytes()),
            DropReason::FragmentedIcmp
        );
        assert_eq!(
            refused4(&echo_request(IN4, 1, &[0; 8]).piece(1, offset, more).bytes()),
            DropReason::FragmentedIcmp
        );
    }
}

#[test]
fn a_fragment_with_more_behind_it_that_is_no_multiple_of_eight_is_dropped() {
    for offset in [0, 64] {
        let odd = |flow| Ip::new(flow, UDP, [9; 20]).piece(1, offset, true).bytes();
        assert_eq!(refused6(&odd(OUT6)), DropReason::MalformedHeader);
        assert_eq!(refused4(&odd(IN4)), DropReason::MalformedHeader);
    }
}

/// Cut into IPv6 fragments, the end would have come out as an offset of zero: another first fragment.
#[test]
fn a_fragment_that_reaches_past_the_longest_datagram_is_dropped() {
    let last =
        |flow, offset: u16, length| Ip::new(flow, UDP, pattern(length)).piece(1, offset, false).bytes();
    let whole = 65_528;
    assert_eq!(refused4(&last(IN4, whole, 8)), DropReason::MalformedHeader);
    assert_eq!(refused4(&last(IN4, whole, 3000)), DropReason::MalformedHeader);
    assert_eq!(
        refused4(&last(IN4, 65_512, 4)),
        DropReason::MalformedHeader,
        "with the header it is 65,536 bytes long"
    );
    assert_eq!(received(&last(IN4, 65_512, 3)).len(), 40 + 8 + 3);
    assert_eq!(refused6(&last(OUT6, whole, 8)), DropReason::MalformedHeader);
    assert_eq!(
        refused6(&last(OUT6, whole, 7)),
        DropReason::DatagramTooLong,
        "IPv6 has room for this datagram, IPv4 has not"
    );
    assert_eq!(sent(&last(OUT6, 65_512, 3)).len(), 20 + 3);
}

/// RFC 7915 §4.1: the IPv6 sender of a path MTU of 1280 would never hear that it is too long.
#[test]
fn a_packet_without_df_that_would_be_longer_than_1280_bytes_becomes_fragments_of_at_most_1280() {
    for length in [1241, 1242, 2464, 2465, 8000, 65_515] {
        let datagram = |flow| udp(flow, 40_000, 53, &pattern(length - 8));
        let packet = Ip::new(IN4, UDP, datagram(IN4)).may_fragment(0xabcd).bytes();
        let all = four_to_six(&packet, &inward(), &Params::default()).unwrap();
        assert_eq!(all.len(), length.div_ceil(1232));
        assert!(all.iter().all(|fragment| fragment.len() <= 1280 && fragment[7] == 63));
        assert_eq!(reassemble(&all, 0xabcd, 0, false), datagram(IN6));
    }
}

#[test]
fn a_packet_without_df_that_fits_into_1280_bytes_stays_whole() {
    let translated = received(&udp_packet(IN4, &pattern(1232)).may_fragment(7).bytes());
    assert_eq!((translated.len(), translated[6]), (1280, UDP));
}

#[test]
fn a_long_echo_request_without_df_becomes_fragments_of_one_right_message() {
    let packet = echo_request(IN4, 5, &pattern(4000)).may_fragment(3).bytes();
    let all = four_to_six(&packet, &inward(), &Params::default()).unwrap();
    assert!(all.iter().all(|fragment| fragment6(fragment).0.next_header.0 == ICMPV6));
    assert_eq!(reassemble(&all, 3, 0, false), echo_request(IN6, 5, &pattern(4000)).payload);
}

#[test]
fn a_long_packet_with_df_passes_whole() {
    let translated = received(&udp_packet(IN4, &pattern(1400)).bytes());
    assert_eq!(translated, udp_packet(IN6, &pattern(1400)).hop_limit(63).bytes());
    let fragment = Ip { dont_fragment: true, ..Ip::new(IN4, ESP, pattern(1400)).piece(9, 64, true) };
    assert_eq!(received(&fragment.bytes()).len(), 1448);
}

#[test]
fn a_fragment_without_df_that_is_too_long_becomes_smaller_fragments_of_the_same_datagram() {
    for (offset, more) in [(0, true), (1480, true), (1480, false)] {
        let (before, after) = (tcp(IN4, 1, 2, &pattern(1456)), tcp(IN6, 1, 2, &pattern(1456)));
        let packet = Ip::new(IN4, TCP, before.clone()).piece(0x77, offset, more).bytes();
        let all = four_to_six(&packet, &inward(), &Params::default()).unwrap();
        assert_eq!(all.len(), 2);
        let expected = if offset == 0 { &after } else { &before };
        assert_eq!(&reassemble(&all, 0x77, offset, more), expected);
    }
}

#[test]
fn a_fragment_counts_with_its_fragment_header() {
    let fits = Ip::new(IN4, ESP, pattern(1232)).piece(1, 0, true).bytes();
    assert_eq!(received(&fits).len(), 1280);
    let too_long = Ip::new(IN4, ESP, pattern(1240)).piece(1, 0, true).bytes();
    let all = four_to_six(&too_long, &inward(), &Params::default()).unwrap();
    assert_eq!(reassemble(&all, 1, 0, true), pattern(1240));
}

#[test]
fn the_lowest_mtu_of_the_ipv6_network_can_be_larger_and_never_smaller_than_1280() {
    let packet = udp_packet(IN4, &pattern(3000)).may_fragment(1).bytes();
    let expected = udp(IN6, 40_000, 53, &pattern(3000));
    for (lowest_ipv6_mtu, longest, count) in [
        (0, 1280, 3),
        (1279, 1280, 3),
        (1280, 1280, 3),
        (1500, 1496, 3),
        (2000, 2000, 2),
        (3047, 3040, 2),
        (3048, 3048, 1),
    ] {
        let params = Params { lowest_ipv6_mtu, ..Params::default() };
        let all = four_to_six(&packet, &inward(), &params).unwrap();
        assert_eq!(all.len(), count, "{lowest_ipv6_mtu}");
        if count > 1 {
            assert_eq!(all[0].len(), longest);
            assert_eq!(reassemble(&all, 1, 0, false), expected);
        } else {
            assert_eq!(all[0].len(), longest);
            assert_eq!(all[0][40..], expected);
        }
    }
}

/// The fragments of a datagram, and the datagram that a caller puts together: the first one's headers, and all payload.
fn reassembled(flow: Flow, protocol: u8, payload: &[u8], each: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
    let piece = |at: usize| {
        let end = payload.len().min(at + each);
        Ip::new(flow, protocol, &payload[at..end]).piece(0x1234_5678, at as u16, end < payload.len()).bytes()
    };
    let fragments: Vec<_> = (0..payload.len()).step_by(each).map(piece).collect();
    let headers = fragments[0].len() - each.min(payload.len());
    (fragments.clone(), [&fragments[0][..headers], payload].concat())
}

/// RFC 7915 §1.2: a fragmented ICMP message is translated when it is whole again.
#[test]
fn a_reassembled_echo_is_translated_whole() {
    let payload = pattern(4000);
    let (fragments, whole) = reassembled(OUT6, ICMPV6, &icmp(OUT6, 128, 0, 7 << 16 | 1, &payload), 1448);
    assert!(fragments.iter().all(|fragment| refused6(fragment) == DropReason::FragmentedIcmp));
    let mut buffer = storage(&whole);
    let mut checked = Ipv6Packet::check_reassembled(&mut buffer, HEADROOM..HEADROOM + whole.len()).unwrap();
    assert_eq!(checked.tuple().ports, Ports::Identifier(7));
    assert_eq!(checked.fragment(), None);
    let Verdict::Forward(mut packets) = checked.translate(&outward(), |_| IDENTIFICATION, &Params::default())
    else {
        panic!("an echo request")
    };
    // Without DF, with the datagram's own identification: routers on the way may cut it again.
    let expected = echo_request(OUT4, 7, &payload).may_fragment(0x5678);
    let expected = Ip { payload: icmp(OUT4, 8, 0, 7 << 16 | 1, &payload), ..expected }.hop_limit(63).bytes();
    assert_eq!(packets.next(), Some(&expected[..]));

    let (fragments, whole) = reassembled(IN4, ICMPV4, &icmp(IN4, 0, 0, 7 << 16 | 1, &payload), 1480);
    assert!(fragments.iter().all(|fragment| refused4(fragment) == DropReason::FragmentedIcmp));
    let mut buffer = storage(&whole);
    let mut checked = Ipv4Packet::check_reassembled(&mut buffer, HEADROOM..HEADROOM + whole.len()).unwrap();
    let Verdict::Forward(mut packets) = checked.translate(&inward(), &Params::default()) else {
        panic!("an echo reply")
    };
    let expected = icmp(IN6, 129, 0, 7 << 16 | 1, &payload);
    let (mut at, mut count) = (0, 0);
    while let Some(packet) = packets.next() {
        referee::lengths(packet);
        assert_eq!(packet[44..48], 0x5678_u32.to_be_bytes(), "the datagram's own identification");
        assert_eq!(packet[48..], expected[at..at + packet.len() - 48]);
        (at, count) = (at + packet.len() - 48, count + 1);
    }
    assert_eq!((at, count), (expected.len(), 4));
}

/// RFC 7915 §4.5: the first fragment cannot get the checksum of what it does not hold.
#[test]
fn a_reassembled_datagram_without_a_checksum_gets_one() {
    let mut datagram = udp(IN4, 53, 40_000, &pattern(3000));
    datagram[6..8].fill(0);
    let (fragments, whole) = reassembled(IN4, UDP, &datagram, 1480);
    assert_eq!(refused4(&fragments[0]), DropReason::UdpZeroChecksumFragment);
    let mut buffer = storage(&whole);
    let mut checked = Ipv4Packet::check_reassembled(&mut buffer, HEADROOM..HEADROOM + whole.len()).unwrap();
    let params = Params { lowest_ipv6_mtu: 9000, ..Params::default() };
    let Verdict::Forward(mut packets) = checked.translate(&inward(), &params) else { panic!("a datagram") };
    let packet = packets.next().unwrap();
    referee::checksums(packet);
    assert_eq!(packet[40..], udp(IN6, 53, 40_000, &pattern(3000)));
}

#[test]
fn fragments_that_only_the_whole_datagram_can_be_are_held_and_say_where_they_belong() {
    let fragment = Ip::new(OUT6, ICMPV6, pattern(800)).extension(DESTINATION_OPTIONS, &[0; 8]);
    let bytes = fragment.piece(0xdead_beef, 1600, true).bytes();
    let mut buffer = storage(&bytes);
    let mut checked = Ipv6Packet::check(&mut buffer, HEADROOM..HEADROOM + bytes.len()).unwrap();
    assert_eq!(checked.refusal(), Some(DropReason::FragmentedIcmp));
    let part = checked.fragment().unwrap();
    assert_eq!((part.identification, part.offset, part.more), (0xdead_beef, 1600, true));
    assert_eq!((part.headers, part.payload), (56, HEADROOM + 56..HEADROOM + 856));
    let verdict = checked.translate(&outward(), |_| 1, &Params::default());
    assert!(matches!(verdict, Verdict::Hold(DropReason::FragmentedIcmp)), "{verdict:?}");

    let bytes = Ip::new(IN4, ICMPV4, pattern(800)).piece(0xbeef, 1600, false).bytes();
    let mut buffer = storage(&bytes);
    let mut checked = Ipv4Packet::check(&mut buffer, HEADROOM..HEADROOM + bytes.len()).unwrap();
    let part = checked.fragment().unwrap();
    assert_eq!((part.identification, part.offset, part.more), (0xbeef, 1600, false));
    assert_eq!((part.headers, part.payload), (20, HEADROOM + 20..HEADROOM + 820));
    let verdict = checked.translate(&inward(), &Params::default());
    assert!(matches!(verdict, Verdict::Hold(DropReason::FragmentedIcmp)), "{verdict:?}");
}

/// What was put together can be longer than any packet, or be no packet at all.
#[test]
fn what_cannot_be_a_reassembled_datagram_is_refused() {
    let mut long = Ip::new(IN4, ICMPV4, [0; 8]).bytes();
    long.resize(65_536, 0);
    let range = HEADROOM..HEADROOM + long.len();
    let refused = Ipv4Packet::check_reassembled(&mut storage(&long), range).unwrap_err();
    assert_eq!(refused, DropReason::MalformedHeader);
    let mut long = Ip::new(OUT6, ICMPV6, [0; 8]).piece(1, 0, true).bytes();
    long.resize(40 + 65_536, 0);
    let range = HEADROOM..HEADROOM + long.len();
    let refused = Ipv6Packet::check_reassembled(&mut storage(&long), range).unwrap_err();
    assert_eq!(refused, DropReason::MalformedHeader);
    for length in 0..60 {
        for first in [0x45, 0x4f, 0x60] {
            let mut bytes = vec![44; length];
            bytes.iter_mut().take(1).for_each(|byte| *byte = first);
            let range = HEADROOM..HEADROOM + length;
            let four = Ipv4Packet::check_reassembled(&mut storage(&bytes), range.clone()).is_ok();
            let six = Ipv6Packet::check_reassembled(&mut storage(&bytes), range).is_ok();
            assert!(!four || (length >= 20 && first == 0x45), "{length} bytes");
            assert!(!six || (length >= 48 && first == 0x60), "{length} bytes");
        }
    }
    assert_eq!(Ipv4Packet::check_reassembled(&mut [0; 100], 0..100).unwrap_err(), DropReason::NoHeadroom);
    assert_eq!(Ipv6Packet::check_reassembled(&mut [0; 100], 0..100).unwrap_err(), DropReason::NoHeadroom);
}
