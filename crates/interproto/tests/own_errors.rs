//! The translator's own ICMP errors (RFC 4443 §2.4, RFC 1812 §4.3.2), and the table of reasons that says when.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::packets::*;
use common::*;
use interproto::{DropReason, HEADROOM, Icmpv4Error, Icmpv6Error, Ipv4Packet, Ipv6Packet, Params, Verdict};
use std::net::{Ipv4Addr, Ipv6Addr};

const ALL6: [Icmpv6Error; 4] = [
    Icmpv6Error::DestinationUnreachable { code: 1 },
    Icmpv6Error::PacketTooBig,
    Icmpv6Error::TimeExceeded,
    Icmpv6Error::IncompleteHeaderChain,
];

const ALL4: [Icmpv4Error; 3] = [
    Icmpv4Error::DestinationUnreachable { code: 13 },
    Icmpv4Error::FragmentationNeeded,
    Icmpv4Error::TimeExceeded,
];

fn answer6(kind: u8, code: u8, rest: u32, quote: &[u8]) -> Vec<u8> {
    let flow = Flow { source: OWN6.into(), destination: HOST6.into() };
    icmp_packet(flow, kind, code, rest, quote).bytes()
}

fn answer4(kind: u8, code: u8, rest: u32, quote: &[u8]) -> Vec<u8> {
    let flow = Flow { source: OWN4.into(), destination: PEER4.into() };
    icmp_packet(flow, kind, code, rest, quote).traffic_class(0xc0).bytes()
}

#[test]
fn an_error_about_an_ipv6_packet_quotes_it_up_to_1280_bytes() {
    for payload in [0, 1, 1184, 1185, 1452, 9000] {
        let packet = udp_packet(OUT6, &pattern(payload)).bytes();
        let quote = &packet[..packet.len().min(1280 - 48)];
        let expected = [
            answer6(1, 1, 0, quote),
            answer6(2, 0, 1400, quote),
            answer6(3, 0, 0, quote),
            answer6(4, 3, 0, quote),
        ];
        for (error, expected) in ALL6.into_iter().zip(expected) {
            let answer = own_error6(&packet, error);
            assert!(answer.as_ref().is_some_and(|answer| answer.len() <= 1280));
            assert_eq!(answer, Some(expected));
        }
    }
}

#[test]
fn an_error_about_an_ipv4_packet_quotes_it_up_to_576_bytes() {
    for payload in [0, 1, 520, 521, 1472, 9000] {
        let packet = udp_packet(IN4, &pattern(payload)).bytes();
        let quote = &packet[..packet.len().min(576 - 28)];
        let expected = [answer4(3, 13, 0, quote), answer4(3, 4, 1400, quote), answer4(11, 0, 0, quote)];
        for (error, expected) in ALL4.into_iter().zip(expected) {
            let answer = own_error4(&packet, error);
            assert!(answer.as_ref().is_some_and(|answer| answer.len() <= 576));
            assert_eq!(answer, Some(expected));
        }
    }
}

/// RFC 7915 §5.1: Parameter Problem, code 0, with a pointer at the Segments Left field.
#[test]
fn a_routing_header_with_segments_left_is_answered_with_a_pointer_at_that_field() {
    let routing = |left| [0, 0, 4, left, 0, 0, 0, 0];
    let first = udp_packet(OUT6, b"x").extension(ROUTING, &routing(1)).bytes();
    let second = udp_packet(OUT6, b"x").extension(0, &[&[0, 1][..], &[0; 14]].concat());
    let second = second.extension(ROUTING, &routing(0)).extension(ROUTING, &routing(9)).bytes();
    let behind =
        udp_packet(OUT6, &[0; 8]).extension(DESTINATION_OPTIONS, &[0; 8]).extension(ROUTING, &routing(2));
    let behind = behind.piece(1, 0, true).bytes();
    for (packet, pointer) in [(first, 43), (second, 67), (behind, 51)] {
        assert_eq!(refused6(&packet), DropReason::SegmentsLeft);
        assert_ne!(packet[pointer as usize], 0, "segments left");
        assert_eq!(own_error6(&packet, Icmpv6Error::RoutingHeader), Some(answer6(4, 0, pointer, &packet)));
    }
    assert_eq!(DropReason::SegmentsLeft.answer_v6(), Some(Icmpv6Error::RoutingHeader));
    assert_eq!(
        own_error6(&udp_packet(OUT6, b"x").bytes(), Icmpv6Error::RoutingHeader),
        None,
        "there is none"
    );
}

#[test]
fn a_source_route_is_answered_with_source_route_failed() {
    let packet = udp_packet(IN4, b"x").options(&[131, 7, 4, 192, 0, 2, 7, 0]).bytes();
    let error = refused4(&packet).answer_v4().unwrap();
    assert_eq!(own_error4(&packet, error), Some(answer4(3, 5, 0, &packet)));
}

#[test]
fn no_error_is_about_an_error() {
    let error6 = icmp_packet(OUT6, 1, 0, 0, &udp_packet(IN6, b"x").bytes()).hop_limit(1).bytes();
    assert_eq!(refused6(&error6), DropReason::HopLimitExceeded);
    assert!(ALL6.into_iter().all(|error| own_error6(&error6, error).is_none()));
    let error4 = icmp_packet(IN4, 11, 0, 0, &udp_packet(OUT4, b"x").bytes()).hop_limit(1).bytes();
    assert_eq!(refused4(&error4), DropReason::HopLimitExceeded);
    assert!(ALL4.into_iter().all(|error| own_error4(&error4, error).is_none()));
}

#[test]
fn an_error_is_about_an_echo_as_about_any_other_packet() {
    for packet in [echo_request(OUT6, 1, b"x").bytes(), echo_reply(OUT6, 1, b"x").bytes()] {
        assert_eq!(own_error6(&packet, Icmpv6Error::TimeExceeded), Some(answer6(3, 0, 0, &packet)));
    }
    let packet = echo_request(IN4, 1, b"x").bytes();
    assert_eq!(own_error4(&packet, Icmpv4Error::TimeExceeded), Some(answer4(11, 0, 0, &packet)));
}

/// RFC 1812 §4.3.2.7 forbids the answer to later fragments; RFC 4443 does not.
#[test]
fn no_error_is_about_an_ipv4_fragment_behind_the_first() {
    let later = Ip::new(IN4, UDP, [0; 16]).piece(1, 8, true).bytes();
    assert!(ALL4.into_iter().all(|error| own_error4(&later, error).is_none()));
    let first = udp_packet(IN4, &[0; 16]).piece(1, 0, true).bytes();
    assert!(ALL4.into_iter().all(|error| own_error4(&first, error).is_some()));
    let later = Ip::new(OUT6, UDP, [0; 16]).piece(1, 8, true).bytes();
    assert!(ALL6.into_iter().all(|error| own_error6(&later, error).is_some()));
}

#[test]
fn no_error_goes_to_a_source_that_is_nobody_or_is_about_a_packet_to_everybody() {
    let sources6 = [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)];
    for source in sources6 {
        let packet = udp_packet(Flow { source: source.into(), ..OUT6 }, b"x").bytes();
        assert!(ALL6.into_iter().all(|error| own_error6(&packet, error).is_none()), "{source}");
    }
    let group = Flow { destination: sources6[2].into(), ..OUT6 };
    assert!(ALL6.into_iter().all(|error| own_error6(&udp_packet(group, b"x").bytes(), error).is_none()));

    for source in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]] {
        let packet = udp_packet(Flow { source: Ipv4Addr::from(source).into(), ..IN4 }, b"x").bytes();
        assert!(ALL4.into_iter().all(|error| own_error4(&packet, error).is_none()), "{source:?}");
    }
    for everybody in [[224, 0, 0, 1], [239, 1, 1, 1], [255; 4]] {
        let group = Flow { destination: Ipv4Addr::from(everybody).into(), ..IN4 };
        assert!(ALL4.into_iter().all(|error| own_error4(&udp_packet(group, b"x").bytes(), error).is_none()));
    }
}

/// What the router does: it asks for the error only after the translation has failed, and then may still retry.
#[test]
fn a_packet_that_could_not_be_translated_is_intact_for_the_error_and_after_it() {
    fn process6(storage: &mut [u8], length: usize) -> Result<Vec<u8>, (DropReason, Vec<u8>)> {
        let mut checked = Ipv6Packet::check(storage, HEADROOM..HEADROOM + length).unwrap();
        let reason = match checked.translate(&outward(), |_| IDENTIFICATION, &Params::default()) {
            Verdict::Forward(mut packets) => return Ok(packets.next().unwrap().to_vec()),
            Verdict::Reply(reason) => reason,
            other => panic!("{other:?}"),
        };
        Err((reason, checked.answer(reason, OWN6, &Params::default()).unwrap().to_vec()))
    }
    fn process4(storage: &mut [u8], length: usize) -> Result<Vec<u8>, (DropReason, Vec<u8>)> {
        let mut checked = Ipv4Packet::check(storage, HEADROOM..HEADROOM + length).unwrap();
        let reason = match checked.translate(&inward(), &Params::default()) {
            Verdict::Forward(mut packets) => return Ok(packets.next().unwrap().to_vec()),
            Verdict::Reply(reason) => reason,
            other => panic!("{other:?}"),
        };
        Err((reason, checked.answer(reason, OWN4, &Params::default()).unwrap().to_vec()))
    }
    for hop_limit in [0, 1] {
        let packet = tcp_packet(OUT6, &pattern(1400)).hop_limit(hop_limit).bytes();
        let mut buffer = storage(&packet);
        for _ in 0..2 {
            let (reason, answer) = process6(&mut buffer, packet.len()).unwrap_err();
            assert_eq!(reason, DropReason::HopLimitExceeded);
            assert_eq!(answer, answer6(3, 0, 0, &packet[..1232]));
            assert_eq!(buffer[HEADROOM..HEADROOM + packet.len()], packet);
        }
        let packet = tcp_packet(IN4, &pattern(1400)).hop_limit(hop_limit).bytes();
        let mut buffer = storage(&packet);
        for _ in 0..2 {
            let (reason, answer) = process4(&mut buffer, packet.len()).unwrap_err();
            assert_eq!(reason, DropReason::HopLimitExceeded);
            assert_eq!(answer, answer4(11, 0, 0, &packet[..548]));
            assert_eq!(buffer[HEADROOM..HEADROOM + packet.len()], packet);
        }
    }
    let packet = tcp_packet(OUT6, b"x").bytes();
    assert!(process6(&mut storage(&packet), packet.len()).is_ok());
    let packet = tcp_packet(IN4, b"x").bytes();
    assert!(process4(&mut storage(&packet), packet.len()).is_ok());
}

/// The table of reasons, written out a second time: every reason that is not here is silent.
#[test]
fn the_senders_that_are_told_are_those_that_an_rfc_wants_told() {
    let prohibited6 = Some(Icmpv6Error::DestinationUnreachable { code: 1 });
    let prohibited4 = Some(Icmpv4Error::DestinationUnreachable { code: 13 });
    for reason in DropReason::ALL.iter().copied() {
        let (v6, v4) = match reason {
            // RFC 7915 §5.1.
            DropReason::SegmentsLeft => (Some(Icmpv6Error::RoutingHeader), None),
            // RFC 7915 §4.1.
            DropReason::SourceRoute => (None, Some(Icmpv4Error::DestinationUnreachable { code: 5 })),
            // RFC 4443 §3.3, RFC 792.
            DropReason::HopLimitExceeded => {
                (Some(Icmpv6Error::TimeExceeded), Some(Icmpv4Error::TimeExceeded))
            }
            // RFC 4443 §3.2, RFC 1191 §4.
            DropReason::TooBig => (Some(Icmpv6Error::PacketTooBig), Some(Icmpv4Error::FragmentationNeeded)),
            // RFC 7112 §5.
            DropReason::FirstFragmentTooShort => (Some(Icmpv6Error::IncompleteHeaderChain), prohibited4),
            // RFC 7915 §4.4, §5.4.
            DropReason::FragmentedIcmp | DropReason::ForbiddenProtocol => (prohibited6, prohibited4),
            DropReason::DatagramTooLong => (prohibited6, None),
            DropReason::UdpZeroChecksum | DropReason::UdpZeroChecksumFragment => (None, prohibited4),
            _ => (None, None),
        };
        assert_eq!((reason.answer_v6(), reason.answer_v4()), (v6, v4), "{reason}");
    }
}

#[test]
fn every_reason_has_a_word_of_its_own() {
    let mut words: Vec<_> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
    for (word, reason) in words.iter().zip(DropReason::ALL) {
        assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'));
        assert_eq!(reason.to_string(), *word);
    }
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), DropReason::ALL.len());
}
