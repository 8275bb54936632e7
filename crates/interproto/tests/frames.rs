//! Packets as a device with `IFF_VNET_HDR` takes them: behind their description.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::packets::*;
use common::segmenter::*;
use common::*;
use interproto::{
    DropReason, HEADROOM, Icmpv4Error, Icmpv6Error, Ipv4Packet, Ipv6Packet, Packets, Params, Verdict,
    VirtioNetHdr,
};
use proptest::prelude::*;

const LENGTH: usize = VirtioNetHdr::LENGTH;

/// What comes out, each with its description; `framed` says for which of them the whole frame is asked.
fn out(verdict: Verdict<'_>, framed: impl Fn(usize) -> bool) -> Vec<(VirtioNetHdr, Vec<u8>)> {
    let Verdict::Forward(mut packets) = verdict else { panic!("{verdict:?}") };
    let mut all = Vec::new();
    while let Some(packet) = one(&mut packets, framed(all.len())) {
        all.push(packet);
        assert!(all.len() < 10_000, "the packets come to an end");
    }
    all
}

fn one(packets: &mut Packets<'_>, framed: bool) -> Option<(VirtioNetHdr, Vec<u8>)> {
    let offload = packets.offload();
    if !framed {
        return packets.next().map(|packet| (offload, packet.to_vec()));
    }
    packets.next_framed().map(|frame| {
        let (header, packet) = frame.split_first_chunk::<LENGTH>().unwrap();
        (VirtioNetHdr::from_bytes(*header), packet.to_vec())
    })
}

fn six(packet: &[u8], said: &VirtioNetHdr, framed: impl Fn(usize) -> bool) -> Vec<(VirtioNetHdr, Vec<u8>)> {
    let mut storage = storage(packet);
    let range = HEADROOM..HEADROOM + packet.len();
    let mut checked = Ipv6Packet::check_offloaded(&mut storage, range, said).unwrap();
    out(checked.translate(&outward(), |_| IDENTIFICATION, &Params::default()), framed)
}

fn four(packet: &[u8], said: &VirtioNetHdr, framed: impl Fn(usize) -> bool) -> Vec<(VirtioNetHdr, Vec<u8>)> {
    let mut storage = storage(packet);
    let range = HEADROOM..HEADROOM + packet.len();
    let mut checked = Ipv4Packet::check_offloaded(&mut storage, range, said).unwrap();
    out(checked.translate(&inward(), &Params::default()), framed)
}

#[test]
fn a_frame_is_the_packet_behind_what_is_said_of_it() {
    let nothing = VirtioNetHdr::default();
    let [(header, packet)] = &six(&udp_packet(OUT6, b"data").bytes(), &nothing, |_| true)[..] else {
        panic!("one packet")
    };
    assert_eq!(*header, nothing);
    referee::checksums(packet);

    let (bytes, said) = super_tcp(&tcp_packet(OUT6, &pattern(9000)), 0x10, 1400, false);
    let [(header, packet)] = &six(&bytes, &said, |_| true)[..] else { panic!("one super-packet") };
    assert_eq!((header.gso_type, header.gso_size), (VirtioNetHdr::GSO_TCPV4, 1400));
    assert_eq!(cut(packet, header).len(), 7);
}

/// The description of a packet lies over the payload of the one before, from whose headers it was made.
#[test]
fn fragments_and_cut_segments_are_the_same_in_frames() {
    let fragmented = udp_packet(IN4, &pattern(9000)).may_fragment(7).bytes();
    let (segmented, said) = super_tcp(&tcp_packet(IN4, &pattern(9001)).may_fragment(9), 0x19, 2000, false);
    for (packet, said, count) in [(&fragmented, VirtioNetHdr::default(), 8), (&segmented, said, 9)] {
        let plain = four(packet, &said, |_| false);
        assert_eq!(plain.len(), count);
        assert!(plain.iter().all(|(offload, _)| *offload == VirtioNetHdr::default()));
        assert_eq!(four(packet, &said, |_| true), plain);
        assert_eq!(four(packet, &said, |index| index % 2 == 0), plain);
    }
}

/// The deepest packet: 52 bytes more than came, and the description in front of them.
#[test]
fn there_is_room_for_a_frame_in_front_of_the_longest_headers() {
    // A quote of 34 words (RFC 4884): with an IPv6 header and a fragment header it is no multiple of eight bytes.
    let inside = Ip::new(OUT4, ESP, pattern(116)).piece(1, 8, true).bytes();
    let quote = [&inside[..], &[0x20, 0, 0, 0]].concat();
    let error = icmp_packet(IN4, 11, 0, 34 << 16, &quote).bytes();
    let frames = four(&error, &VirtioNetHdr::default(), |_| true);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].1.len(), error.len() + 52);
    assert_eq!(frames, four(&error, &VirtioNetHdr::default(), |_| false));
}

#[test]
fn errors_and_replies_of_the_routers_own_have_frames_that_say_nothing() {
    let (super6, said6) = super_tcp(&tcp_packet(OUT6, &pattern(9000)), 0x10, 500, false);
    let (super4, said4) = super_udp(&udp_packet(IN4, &pattern(9000)), 400);
    let framed = |packet: &[u8]| [&[0; LENGTH], packet].concat();
    for (packet, said) in [(tcp_packet(OUT6, b"data").bytes(), VirtioNetHdr::default()), (super6, said6)] {
        let range = HEADROOM..HEADROOM + packet.len();
        let (mut one, mut other) = (storage(&packet), storage(&packet));
        let one = Ipv6Packet::check_offloaded(&mut one, range.clone(), &said).unwrap();
        let one = one.error(Icmpv6Error::PacketTooBig, OWN6, &LINKS).unwrap();
        let other = Ipv6Packet::check_offloaded(&mut other, range.clone(), &said).unwrap();
        assert_eq!(other.error_framed(Icmpv6Error::PacketTooBig, OWN6, &LINKS), Some(&framed(one)[..]));
        let mut answered = storage(&packet);
        let answered = Ipv6Packet::check_offloaded(&mut answered, range, &said).unwrap();
        assert_eq!(answered.answer_framed(DropReason::TooBig, OWN6, &LINKS), Some(&framed(one)[..]));
    }
    for (packet, said) in [(udp_packet(IN4, b"data").bytes(), VirtioNetHdr::default()), (super4, said4)] {
        let range = HEADROOM..HEADROOM + packet.len();
        let (mut one, mut other) = (storage(&packet), storage(&packet));
        let one = Ipv4Packet::check_offloaded(&mut one, range.clone(), &said).unwrap();
        let one = one.error(Icmpv4Error::TimeExceeded, OWN4, &LINKS).unwrap();
        let other = Ipv4Packet::check_offloaded(&mut other, range.clone(), &said).unwrap();
        assert_eq!(other.error_framed(Icmpv4Error::TimeExceeded, OWN4, &LINKS), Some(&framed(one)[..]));
        let mut answered = storage(&packet);
        let answered = Ipv4Packet::check_offloaded(&mut answered, range, &said).unwrap();
        assert_eq!(
            answered.answer_framed(DropReason::HopLimitExceeded, OWN4, &LINKS),
            Some(&framed(one)[..])
        );
    }
    let request = echo_request(OUT6, 7, b"ping").bytes();
    let range = HEADROOM..HEADROOM + request.len();
    let (mut one, mut other) = (storage(&request), storage(&request));
    let one = Ipv6Packet::check(&mut one, range.clone()).unwrap().echo_reply().unwrap();
    let other = Ipv6Packet::check(&mut other, range).unwrap().echo_reply_framed();
    assert_eq!(other, Some(&framed(one)[..]));
    let request = echo_request(IN4, 7, b"ping").bytes();
    let range = HEADROOM..HEADROOM + request.len();
    let (mut one, mut other) = (storage(&request), storage(&request));
    let one = Ipv4Packet::check(&mut one, range.clone()).unwrap().echo_reply().unwrap();
    let other = Ipv4Packet::check(&mut other, range).unwrap().echo_reply_framed();
    assert_eq!(other, Some(&framed(one)[..]));
}

#[test]
fn an_error_that_may_not_be_sent_has_no_frame() {
    let error = icmp_packet(OUT6, 1, 0, 0, &udp_packet(IN6, b"x").bytes()).bytes();
    let mut storage = storage(&error);
    let checked = Ipv6Packet::check(&mut storage, HEADROOM..HEADROOM + error.len()).unwrap();
    assert_eq!(checked.error_framed(Icmpv6Error::TimeExceeded, OWN6, &LINKS), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is on the wire is counted alike before the translation, after it, and by the kernel's own cutting.
    #[test]
    fn segments_and_their_lengths_are_counted_as_they_are_cut(
        length in 1_usize..30_000, gso_size in 1_u16.., is_super: bool, tcp: bool, options in 0_usize..4,
    ) {
        prop_assume!(length / usize::from(gso_size) < 2000);
        for flow in [OUT6, IN4] {
            let packet = if tcp { tcp_packet(flow, &pattern(length)) } else { udp_packet(flow, &pattern(length)) };
            let packet = match flow {
                _ if options == 0 => packet,
                OUT6 => packet.extension(DESTINATION_OPTIONS, &[&[0, options as u8 - 1][..], &vec![0; 8 * options - 2]].concat()),
                _ => packet.options(&vec![1; 4 * options]),
            };
            let (bytes, said) = if is_super && tcp { super_tcp(&packet, 0x10, gso_size, false) }
                else if is_super { super_udp(&packet, gso_size) }
                else { (packet.bytes(), VirtioNetHdr::default()) };
            let headers = if flow == OUT6 { 40 } else { 20 } + options * if flow == OUT6 { 8 } else { 4 };
            let transport = if tcp { 24 } else { 8 };
            let count = if is_super { length.div_ceil(usize::from(gso_size)) } else { 1 };
            let mut storage = storage(&bytes);
            let range = HEADROOM..HEADROOM + bytes.len();
            let (counted, on_the_wire, verdict) = if flow == OUT6 {
                let mut checked = Ipv6Packet::check_offloaded(&mut storage, range, &said).unwrap();
                (checked.segments(), checked.wire_length(), out(checked.translate(&outward(), |_| 1, &Params::default()), |_| true))
            } else {
                let mut checked = Ipv4Packet::check_offloaded(&mut storage, range, &said).unwrap();
                (checked.segments(), checked.wire_length(), out(checked.translate(&inward(), &Params::default()), |_| true))
            };
            prop_assert_eq!(counted, count);
            prop_assert_eq!(on_the_wire, count * (headers + transport) + length);
            let [(header, packet)] = &verdict[..] else { panic!("one packet with DF") };
            let segments = cut(packet, header);
            prop_assert_eq!(header.segments(packet.len()), segments.len());
            prop_assert_eq!(header.wire_length(packet.len()), segments.iter().map(Vec::len).sum::<usize>());
        }
    }

    /// Whatever is written in a description.
    #[test]
    fn counting_neither_panics_nor_overflows(bytes: [u8; LENGTH], length in prop_oneof![any::<usize>(), 0_usize..70_000]) {
        let header = VirtioNetHdr::from_bytes(bytes);
        prop_assert!(header.segments(length) >= 1);
        prop_assert!(header.wire_length(length) >= length);
    }
}
