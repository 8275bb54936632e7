//! Packets that a kernel hands over unfinished: partial checksums and super-packets.
//!
//! The law of `common::offloaded` at chosen places; `super_packets` has it for random ones.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::offloaded::*;
use common::packets::*;
use common::segmenter::*;
use common::*;
use interproto::{
    DropReason, HEADROOM, Icmpv4Error, Icmpv6Error, Ipv4Packet, Ipv6Packet, Params, PortRewrite, VirtioNetHdr,
};

#[test]
fn a_tcp_super_packet_from_ipv6_is_translated_as_its_segments_are() {
    for (length, gso_size) in
        [(1, 1428), (1428, 1428), (1429, 1428), (14_280, 1428), (60_000, 1380), (9000, 500)]
    {
        let packet = tcp_packet(OUT6, &pattern(length)).traffic_class(0x2a);
        let (packet, offload) = super_tcp(&packet, ACK | PSH | FIN, gso_size, false);
        let count = law_six(&packet, &offload, &outward(), IDENTIFICATION, &Params::default());
        assert_eq!(count, length.div_ceil(usize::from(gso_size)));
    }
}

#[test]
fn a_tcp_super_packet_from_ipv4_is_translated_as_its_segments_are() {
    for (length, gso_size) in
        [(1, 1428), (1428, 1428), (1429, 1428), (14_280, 1428), (60_000, 1380), (9000, 500)]
    {
        let packet = tcp_packet(IN4, &pattern(length)).traffic_class(0x2a);
        let (packet, offload) = super_tcp(&packet, ACK | PSH | FIN, gso_size, false);
        let count = law_four(&packet, &offload, &inward(), &Params::default());
        assert_eq!(count, length.div_ceil(usize::from(gso_size)));
    }
}

#[test]
fn a_udp_super_packet_is_translated_as_its_datagrams_are() {
    for (length, gso_size) in [(1, 1200), (1200, 1200), (12_000, 1200), (12_001, 1400), (600, 6)] {
        let (packet, offload) = super_udp(&udp_packet(OUT6, &pattern(length)), gso_size);
        law_six(&packet, &offload, &outward(), IDENTIFICATION, &Params::default());
        let (packet, offload) = super_udp(&udp_packet(IN4, &pattern(length)), gso_size);
        law_four(&packet, &offload, &inward(), &Params::default());
    }
}

/// RFC 3168 §6.1.2: the sender answers once.
#[test]
fn only_the_first_segment_of_a_super_packet_says_that_the_window_was_reduced() {
    let (packet, offload) = super_tcp(&tcp_packet(OUT6, &pattern(5000)), ACK | CWR, 1000, true);
    let translated = six(&packet, &offload, &outward(), 1, &Params::default()).unwrap().remove(0);
    assert_eq!(translated.1.gso_type, VirtioNetHdr::GSO_TCPV4 | VirtioNetHdr::GSO_ECN);
    law_six(&packet, &offload, &outward(), IDENTIFICATION, &Params::default());
    let (packet, offload) = super_tcp(&tcp_packet(IN4, &pattern(5000)), ACK | CWR, 1000, true);
    let translated = four(&packet, &offload, &inward(), &Params::default()).unwrap().remove(0);
    assert_eq!(translated.1.gso_type, VirtioNetHdr::GSO_TCPV6 | VirtioNetHdr::GSO_ECN);
    law_four(&packet, &offload, &inward(), &Params::default());
}

/// RFC 7915 §5.1 speaks of packets on the wire: 1260 bytes are those of a segment.
#[test]
fn df_and_identifications_follow_the_length_of_a_segment() {
    for (gso_size, dont_fragment) in [(1216, false), (1217, true)] {
        let (packet, offload) = super_tcp(&tcp_packet(OUT6, &pattern(20_000)), ACK, gso_size, false);
        let translated = six(&packet, &offload, &outward(), 0xfffe, &Params::default()).unwrap().remove(0).0;
        assert_eq!(translated[6] & 0x40 != 0, dont_fragment, "{gso_size}");
        let mut storage = storage(&packet);
        let checked = Ipv6Packet::check_offloaded(&mut storage, HEADROOM..HEADROOM + packet.len(), &offload);
        assert_eq!(checked.unwrap().segments(), 20_000_usize.div_ceil(usize::from(gso_size)));
        law_six(&packet, &offload, &outward(), IDENTIFICATION, &Params::default());
    }
}

#[test]
fn segments_without_df_that_are_too_long_are_cut_and_then_fragmented_one_by_one() {
    for (length, gso_size) in [(14_280, 1436), (1436, 1436), (1437, 1436), (60_000, 4000)] {
        let packet = tcp_packet(IN4, &pattern(length)).may_fragment(0xfffe);
        let (packet, offload) = super_tcp(&packet, ACK | PSH | CWR, gso_size, true);
        assert!(law_four(&packet, &offload, &inward(), &Params::default()) > length / usize::from(gso_size));
        let packet = udp_packet(IN4, &pattern(length)).may_fragment(7);
        let (packet, offload) = super_udp(&packet, gso_size);
        law_four(&packet, &offload, &inward(), &Params::default());
        law_four(&packet, &offload, &inward(), &Params { lowest_ipv6_mtu: 1500, ..Params::DEFAULT });
    }
}

#[test]
fn segments_that_are_too_big_get_what_one_packet_of_that_size_would_get() {
    let links = Params { ipv6_mtu: 1400, ipv4_mtu: 1380, ..Params::DEFAULT };
    // 24 bytes of TCP header.
    for (gso_size, fits) in [(1336, true), (1337, false)] {
        let (packet, offload) = super_tcp(&tcp_packet(OUT6, &pattern(20_000)), ACK, gso_size, false);
        let outcome = six(&packet, &offload, &outward(), 1, &links).map(|_| ());
        assert_eq!(outcome, if fits { Ok(()) } else { Err(DropReason::TooBig) });
        let (packet, offload) = super_tcp(&tcp_packet(IN4, &pattern(20_000)), ACK, gso_size, false);
        let outcome = four(&packet, &offload, &inward(), &links).map(|_| ());
        assert_eq!(outcome, if fits { Ok(()) } else { Err(DropReason::TooBig) });
    }
}

#[test]
fn an_error_quotes_the_first_segment_of_a_super_packet() {
    let links = Params { ipv6_mtu: 1400, ipv4_mtu: 1380, ..Params::DEFAULT };
    // One segment is shorter than what an error can hold, so that its end shows.
    let (packet, offload) = super_tcp(&tcp_packet(OUT6, &pattern(20_000)), ACK, 500, false);
    let mut buffer = storage(&packet);
    let range = HEADROOM..HEADROOM + packet.len();
    let checked = Ipv6Packet::check_offloaded(&mut buffer, range, &offload).unwrap();
    let error = checked.error(Icmpv6Error::PacketTooBig, OWN6, &links).unwrap().to_vec();
    referee::checksums(&error);
    assert_eq!(error[44..48], 1400_u32.to_be_bytes());
    // The checksum inside is still the kernel's partial one, which no receiver of an error looks at.
    let mut quote = cut(&packet, &offload).remove(0);
    quote[56..58].copy_from_slice(&packet[56..58]);
    assert_eq!(error[48..], quote);

    let (packet, offload) = super_udp(&udp_packet(IN4, &pattern(20_000)), 400);
    let mut buffer = storage(&packet);
    let range = HEADROOM..HEADROOM + packet.len();
    let checked = Ipv4Packet::check_offloaded(&mut buffer, range, &offload).unwrap();
    let error = checked.error(Icmpv4Error::FragmentationNeeded, OWN4, &links).unwrap().to_vec();
    referee::checksums(&error);
    assert_eq!(error[26..28], 1380_u16.to_be_bytes());
    let mut quote = cut(&packet, &offload).remove(0);
    quote[26..28].copy_from_slice(&packet[26..28]);
    assert_eq!(error[28..], quote);
}

#[test]
fn a_partial_checksum_stays_partial_and_right() {
    let packets = |flow| {
        [(tcp_packet(flow, &pattern(99)), TCP), (udp_packet(flow, &pattern(99)), UDP)]
            .into_iter()
            .chain([(Ip::new(flow, UDP_LITE, udp_lite(flow, 7, 8, &pattern(99))), UDP_LITE)])
    };
    let ports = PortRewrite::Pair { source: 0xfeed, destination: 4242 };
    for ports in [PortRewrite::Keep, ports] {
        for (packet, protocol) in packets(OUT6).chain([(echo_request(OUT6, 7, b"echo"), ICMPV6)]) {
            let rewrite = with_ports(outward(), ports);
            let mut bytes = packet.bytes();
            let whole = six(&bytes, &VirtioNetHdr::default(), &rewrite, 1, &Params::default()).unwrap();
            let offload = make_partial(&mut bytes, protocol);
            let (found, offload) = six(&bytes, &offload, &rewrite, 1, &Params::default()).unwrap().remove(0);
            assert_eq!(offload.flags, VirtioNetHdr::NEEDS_CSUM);
            assert_eq!(offload.csum_start, 20);
            assert_eq!(complete(&found, &offload), whole[0].0, "{protocol}");
        }
        for (packet, protocol) in packets(IN4).chain([(echo_reply(IN4, 7, b"echo"), ICMPV4)]) {
            let rewrite = with_ports(inward(), ports);
            let mut bytes = packet.bytes();
            let whole = four(&bytes, &VirtioNetHdr::default(), &rewrite, &Params::default()).unwrap();
            let offload = match protocol {
                // ICMP has no pseudo-header, and so a partial sum of zero.
                ICMPV4 => {
                    bytes[22..24].fill(0);
                    let flags = VirtioNetHdr::NEEDS_CSUM;
                    VirtioNetHdr { flags, csum_start: 20, csum_offset: 2, ..VirtioNetHdr::default() }
                }
                protocol => make_partial(&mut bytes, protocol),
            };
            let (found, offload) = four(&bytes, &offload, &rewrite, &Params::default()).unwrap().remove(0);
            assert_eq!(offload.csum_start, 40);
            assert_eq!(complete(&found, &offload), whole[0].0, "{protocol}");
        }
    }
}

#[test]
fn a_partial_checksum_is_finished_where_the_packet_leaves_in_fragments() {
    for packet in [tcp_packet(IN4, &pattern(3000)), udp_packet(IN4, &pattern(3000))] {
        let protocol = packet.protocol;
        let mut bytes = packet.may_fragment(77).bytes();
        let offload = make_partial(&mut bytes, protocol);
        assert_eq!(law_four(&bytes, &offload, &inward(), &Params::default()), 3);
    }
}

/// The partial sum of a datagram may happen to be zero; it does not say that there is no checksum.
#[test]
fn a_partial_sum_of_zero_is_not_a_datagram_without_a_checksum() {
    let mut bytes = udp_packet(OUT6, b"data").bytes();
    let offload = make_partial(&mut bytes, UDP);
    bytes[46..48].fill(0);
    assert!(six(&bytes, &offload, &outward(), 1, &Params::default()).is_ok());
    let mut bytes = udp_packet(IN4, b"data").bytes();
    let offload = make_partial(&mut bytes, UDP);
    bytes[26..28].fill(0);
    let (found, offload) = four(&bytes, &offload, &inward(), &Params::default()).unwrap().remove(0);
    assert_eq!(offload.flags, VirtioNetHdr::NEEDS_CSUM);
    assert_eq!(found.len(), 52);
}

#[test]
fn a_verified_checksum_stays_verified() {
    let offload = VirtioNetHdr { flags: VirtioNetHdr::DATA_VALID, ..VirtioNetHdr::default() };
    let packet = udp_packet(OUT6, b"data").bytes();
    assert_eq!(six(&packet, &offload, &outward(), 1, &Params::default()).unwrap()[0].1, offload);
    let packet = udp_packet(IN4, b"data").bytes();
    assert_eq!(four(&packet, &offload, &inward(), &Params::default()).unwrap()[0].1, offload);
}

/// The kernel's own error, whose checksum it has left to the device, is translated with a whole one.
#[test]
fn an_error_with_a_partial_checksum_leaves_with_a_whole_one() {
    let mut packet = icmp_packet(OUT6, 1, 4, 0, &udp_packet(IN6, b"data").bytes()).bytes();
    let whole = six(&packet, &VirtioNetHdr::default(), &outward(), 1, &Params::default());
    let offload = make_partial(&mut packet, ICMPV6);
    let found = six(&packet, &offload, &outward(), 1, &Params::default());
    assert_eq!(found, whole);
    assert_eq!(found.unwrap()[0].1, VirtioNetHdr::default());
}

#[test]
fn what_does_not_fit_its_packet_is_refused() {
    let (tcp6, right6) = super_tcp(&tcp_packet(OUT6, &pattern(5000)), ACK, 1000, false);
    let (tcp4, right4) = super_tcp(&tcp_packet(IN4, &pattern(5000)), ACK, 1000, false);
    let udp6 = super_udp(&udp_packet(OUT6, &pattern(5000)), 1000);
    let wrong = [
        VirtioNetHdr { gso_size: 0, ..right6 },
        VirtioNetHdr { gso_type: VirtioNetHdr::GSO_TCPV4, ..right6 },
        VirtioNetHdr { gso_type: VirtioNetHdr::GSO_UDP_L4, ..right6 },
        VirtioNetHdr { gso_type: 3, ..right6 },
        VirtioNetHdr { gso_type: VirtioNetHdr::GSO_ECN, ..right6 },
        VirtioNetHdr { flags: 0, ..right6 },
        VirtioNetHdr { csum_start: 41, ..right6 },
        VirtioNetHdr { csum_start: u16::MAX, ..right6 },
        VirtioNetHdr { csum_offset: 6, ..right6 },
    ];
    for wrong in wrong {
        let outcome = six(&tcp6, &wrong, &outward(), 1, &Params::default());
        assert_eq!(outcome, Err(DropReason::BadOffload), "{wrong:?}");
    }
    let wrong = VirtioNetHdr { gso_type: VirtioNetHdr::GSO_TCPV6, ..right4 };
    assert_eq!(four(&tcp4, &wrong, &inward(), &Params::default()), Err(DropReason::BadOffload));
    let wrong = VirtioNetHdr { gso_type: VirtioNetHdr::GSO_UDP_L4 | VirtioNetHdr::GSO_ECN, ..udp6.1 };
    assert_eq!(six(&udp6.0, &wrong, &outward(), 1, &Params::default()), Err(DropReason::BadOffload));
    // No fragment is a super-packet, and none has a checksum of its own.
    let fragment = Ip::new(OUT6, UDP, pattern(1600)).piece(1, 800, true).bytes();
    for wrong in [right6, VirtioNetHdr { csum_start: 48, csum_offset: 6, gso_type: 0, ..right6 }] {
        assert_eq!(six(&fragment, &wrong, &outward(), 1, &Params::default()), Err(DropReason::BadOffload));
    }
    let unknown = Ip::new(OUT6, ESP, pattern(64)).bytes();
    let wrong = VirtioNetHdr { csum_start: 40, csum_offset: 6, gso_type: 0, ..right6 };
    assert_eq!(six(&unknown, &wrong, &outward(), 1, &Params::default()), Err(DropReason::BadOffload));
}

#[test]
fn the_header_is_read_and_written_as_it_lies_in_memory() {
    let bytes = [1, 0x81, 0x34, 0x12, 0x78, 0x56, 0xbc, 0x9a, 0xf0, 0xde];
    let header = VirtioNetHdr::from_bytes(bytes);
    assert_eq!(header.to_bytes(), bytes);
    assert_eq!((header.flags, header.gso_type), (1, 0x81));
    assert_eq!(header.hdr_len, u16::from_ne_bytes([0x34, 0x12]));
    assert_eq!(header.gso_size, u16::from_ne_bytes([0x78, 0x56]));
    assert_eq!(header.csum_start, u16::from_ne_bytes([0xbc, 0x9a]));
    assert_eq!(header.csum_offset, u16::from_ne_bytes([0xf0, 0xde]));
}
