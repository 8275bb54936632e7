//! Every reason for dropping a packet is one that some packet is dropped for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::offloaded::six;
use common::packets::*;
use common::segmenter::super_udp;
use common::*;
use interproto::{DropReason, HEADROOM, Ipv6Packet, Params, VirtioNetHdr, ZeroChecksum};

fn with(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

/// Packets that are dropped, one or more for every reason that either side has.
fn examples() -> Vec<(Vec<u8>, DropReason)> {
    let (data6, data4) = (udp_packet(OUT6, b"data"), udp_packet(IN4, b"data"));
    let error6 = |kind, code, rest, inside: &[u8]| icmp_packet(OUT6, kind, code, rest, inside).bytes();
    let error4 = |kind, code, rest, inside: &[u8]| icmp_packet(IN4, kind, code, rest, inside).bytes();
    let (about6, about4) = (udp_packet(IN6, b"data").bytes(), udp_packet(OUT4, b"data").bytes());
    let many = (0..8).fold(data6.clone(), |packet, _| packet.extension(DESTINATION_OPTIONS, &[0; 8]));
    vec![
        (data6.bytes()[..51].to_vec(), DropReason::Truncated),
        (data4.bytes()[..31].to_vec(), DropReason::Truncated),
        (with(data6.bytes(), 0, &[0x50]), DropReason::MalformedHeader),
        (with(data4.bytes(), 0, &[0x44]), DropReason::MalformedHeader),
        (with(data4.bytes(), 10, &[0xff, 0xff]), DropReason::BadIpv4Checksum),
        (data4.clone().options(&[7, 0, 0, 0]).bytes(), DropReason::MalformedOptions),
        (data4.clone().options(&[131, 7, 4, 1, 2, 3, 4, 0]).bytes(), DropReason::SourceRoute),
        (data6.clone().extension(ROUTING, &[0, 0, 4, 1, 0, 0, 0, 0]).bytes(), DropReason::SegmentsLeft),
        (many.bytes(), DropReason::TooManyExtensionHeaders),
        (Ip::new(OUT6, AH, [0; 16]).piece(1, 0, true).bytes(), DropReason::ExtensionAfterFragment),
        (Ip::new(OUT6, TCP, [0; 16]).piece(1, 0, true).bytes(), DropReason::FirstFragmentTooShort),
        (Ip::new(IN4, TCP, [0; 16]).piece(1, 0, true).bytes(), DropReason::FirstFragmentTooShort),
        (Ip::new(OUT6, ICMPV6, [0; 16]).piece(1, 8, true).bytes(), DropReason::FragmentedIcmp),
        (Ip::new(IN4, ICMPV4, [0; 16]).piece(1, 8, true).bytes(), DropReason::FragmentedIcmp),
        (Ip::new(OUT6, ICMPV4, [0; 16]).bytes(), DropReason::ForbiddenProtocol),
        (Ip::new(IN4, ICMPV6, [0; 16]).bytes(), DropReason::ForbiddenProtocol),
        (Ip::new(OUT6, TCP, [0; 16]).bytes(), DropReason::MalformedTransport),
        (Ip::new(IN4, TCP, [0; 16]).bytes(), DropReason::MalformedTransport),
        (with(data6.bytes(), 46, &[0, 0]), DropReason::UdpZeroChecksumV6),
        (with(data4.bytes(), 26, &[0, 0]), DropReason::UdpZeroChecksum),
        (with(data4.clone().piece(1, 0, true).bytes(), 26, &[0, 0]), DropReason::MalformedHeader),
        (
            with(udp_packet(IN4, &[0; 8]).piece(1, 0, true).bytes(), 26, &[0, 0]),
            DropReason::UdpZeroChecksumFragment,
        ),
        (with(error6(1, 0, 0, &about6), 42, &[1, 2]), DropReason::BadIcmpChecksum),
        (with(error4(3, 0, 0, &about4), 22, &[1, 2]), DropReason::BadIcmpChecksum),
        (error6(1, 9, 0, &about6), DropReason::IcmpNotTranslatable),
        (error4(5, 0, 0, &about4), DropReason::IcmpNotTranslatable),
        (error6(4, 0, 256, &about6), DropReason::PointerNotTranslatable),
        (error4(12, 0, 4 << 24, &about4), DropReason::PointerNotTranslatable),
        (error6(1, 0, 0, &about6[..40]), DropReason::EmbeddedMalformed),
        (error4(3, 0, 0, &about4[..20]), DropReason::EmbeddedMalformed),
        (error6(1, 0, 0, &icmp_packet(IN6, 3, 0, 0, &about6).bytes()), DropReason::EmbeddedNotTranslatable),
        (error4(3, 0, 0, &icmp_packet(OUT4, 11, 0, 0, &about4).bytes()), DropReason::EmbeddedNotTranslatable),
        (data6.hop_limit(1).bytes(), DropReason::HopLimitExceeded),
        (data4.hop_limit(1).bytes(), DropReason::HopLimitExceeded),
        (Ip::new(OUT6, ESP, vec![0; 65_516]).bytes(), DropReason::TooBig),
        (Ip::new(IN4, ESP, vec![0; 65_515]).bytes(), DropReason::TooBig),
        (Ip::new(OUT6, ESP, vec![0; 16]).piece(1, 65_512, false).bytes(), DropReason::DatagramTooLong),
    ]
}

#[test]
fn every_reason_is_reached_by_a_packet() {
    let params = Params { udp_zero_checksum: ZeroChecksum::Drop, ipv6_mtu: 9000, ..Params::default() };
    let mut reached = vec![Ipv6Packet::check(&mut [0; 100], 0..100).unwrap_err()];
    assert_eq!(reached, [DropReason::NoHeadroom]);
    let packet = udp_packet(OUT6, b"data").bytes();
    let offload = VirtioNetHdr { gso_type: VirtioNetHdr::GSO_UDP_L4, ..VirtioNetHdr::default() };
    let mut buffer = storage(&packet);
    let bad_offload = Ipv6Packet::check_offloaded(&mut buffer, HEADROOM..HEADROOM + packet.len(), &offload);
    reached.push(bad_offload.unwrap_err());
    let (packet, offload) = super_udp(&udp_packet(OUT6, &pattern(65_515)), 1200);
    reached.push(six(&packet, &offload, &outward(), 1, &params).unwrap_err());
    for (at, (packet, expected)) in examples().into_iter().enumerate() {
        // A version that neither side knows is shown to the side that the packet was made for.
        let reason = if packet[0] >> 4 == 4 {
            four_to_six(&packet, &inward(), &params).unwrap_err()
        } else {
            six_to_four(&packet, &outward(), &params).unwrap_err()
        };
        assert_eq!(reason, expected, "example {at}");
        reached.push(reason);
    }
    for reason in DropReason::ALL {
        assert!(reached.contains(reason), "nothing is dropped for {reason}");
    }
}
