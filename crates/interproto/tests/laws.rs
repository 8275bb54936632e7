//! Laws that hold for every packet, by random packets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use std::ops::Range;

use common::packets::*;
use common::random::*;
use common::*;
use interproto::{
    DropReason, HEADROOM, Icmpv4Error, Icmpv6Error, Ipv4Packet, Ipv6Packet, Params, PortRewrite,
    TrafficClass, Verdict, ZeroChecksum,
};
use proptest::prelude::*;
use proptest::sample::select;

/// The lowest MTU is out of the way of these packets.
fn whole() -> Params {
    Params { lowest_ipv6_mtu: 9000, ..Params::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The packet that leaves is, bit for bit, the one that etherparse makes of the same content.
    #[test]
    fn an_ipv6_packet_leaves_as_etherparse_would_have_made_it(
        content in content(), from in flow6(), to in flow4(), ports in ports(),
        class: u8, hop_limit in 2_u8.., flow_label in 0_u32..1 << 20,
    ) {
        let packet = Ip { flow_label, ..content.packet(from).traffic_class(class).hop_limit(hop_limit) }.bytes();
        let translated = six_to_four(&packet, &rewrite_to4(to, ports), &whole()).unwrap();
        referee::checksums(&translated);
        let expected = content.rewritten(ports).packet(to).traffic_class(class).hop_limit(hop_limit - 1);
        let expected = if translated.len() <= 1260 { expected.may_fragment(IDENTIFICATION) } else { expected };
        prop_assert_eq!(translated, expected.bytes());
    }

    #[test]
    fn an_ipv4_packet_leaves_as_etherparse_would_have_made_it(
        content in content(), from in flow4(), to in flow6(), ports in ports(),
        tos: u8, ttl in 2_u8.., df: bool, identification: u16, options in prop::collection::vec(Just(1_u8), 0..40),
    ) {
        let options = &options[..options.len() / 4 * 4];
        let packet = content.packet(from).traffic_class(tos).hop_limit(ttl).options(options);
        let packet = Ip { dont_fragment: df, identification, ..packet }.bytes();
        let translated = four_to_six(&packet, &rewrite_to6(to, ports), &whole()).unwrap();
        referee::checksums(&translated[0]);
        let expected = content.rewritten(ports).packet(to).traffic_class(tos).hop_limit(ttl - 1).bytes();
        prop_assert_eq!(translated, vec![expected]);
    }

    /// There and back again: only the hop limit and the flow label are lost.
    #[test]
    fn a_packet_that_crosses_twice_is_the_same_packet(
        content in content(), there in flow6(), between in flow4(), class: u8, hop_limit in 3_u8..,
        piece in prop::option::of((any::<u16>(), 1_u16..8000, any::<bool>())),
    ) {
        let mut packet = content.packet(there).traffic_class(class).hop_limit(hop_limit);
        if let Some((identification, offset, more)) = piece {
            packet = Ip::new(there, UDP, packet.payload).traffic_class(class).hop_limit(hop_limit);
            packet.payload.truncate(packet.payload.len() / 8 * 8);
            // Half of the first fragments, since their number is small.
            let offset = if offset < 4000 && packet.payload.len() >= 8 { offset * 8 } else { 0 };
            packet = packet.piece(identification.into(), offset, more || offset == 0);
            if offset == 0 {
                let whole = udp(there, 1, 2, &pattern(80));
                packet.payload = whole[..80].to_vec();
            }
        }
        let middle = six_to_four(&packet.bytes(), &rewrite_to4(between, PortRewrite::Keep), &whole()).unwrap();
        let again = four_to_six(&middle, &rewrite_to6(there, PortRewrite::Keep), &whole()).unwrap();
        prop_assert_eq!(again, vec![packet.hop_limit(hop_limit - 2).bytes()]);
    }

    #[test]
    fn an_error_that_crosses_twice_is_the_same_error(
        content in content(), there in flow6(), between in flow4(), cut in 8_usize..500, kind in select(&[(1, 0), (1, 1), (1, 4), (3, 0), (3, 1)][..]),
    ) {
        let inside = content.packet(back(there)).bytes();
        let inside = &inside[..inside.len().min(40 + cut)];
        prop_assume!(inside.len() >= 48);
        let error = icmp_packet(there, kind.0, kind.1, 0, inside);
        let middle = six_to_four(&error.bytes(), &rewrite_to4(between, PortRewrite::Keep), &whole()).unwrap();
        referee::checksums(&middle);
        let again = four_to_six(&middle, &rewrite_to6(there, PortRewrite::Keep), &whole()).unwrap();
        referee::checksums(&again[0]);
        prop_assert_eq!(again, vec![error.hop_limit(62).bytes()]);
    }

    /// What arrived damaged must not leave as if it were whole: a receiver would believe it.
    #[test]
    fn a_wrong_checksum_stays_wrong_by_the_same_difference(
        content in content(), side6 in flow6(), side4 in flow4(), ports in ports(), damage in 1_u16..0xffff,
    ) {
        let Some(at) = content.checksum_at() else { return Ok(()) };
        let damaged = |mut packet: Vec<u8>, start: usize| {
            let right = word(&packet, start + at);
            let wrong = u32::from(right) + u32::from(damage);
            let wrong = if wrong > 0xffff { wrong - 0xffff } else { wrong } as u16;
            packet[start + at..start + at + 2].copy_from_slice(&wrong.to_be_bytes());
            packet
        };
        // Modulo 2^16 - 1, in which both zeros are one.
        let difference = |wrong: u16, right: u16| (u32::from(wrong) + 0xffff - u32::from(right)) % 0xffff;

        let packet = damaged(content.packet(side6).bytes(), 40);
        let found = six_to_four(&packet, &rewrite_to4(side4, ports), &whole()).unwrap();
        let right = content.rewritten(ports).packet(side4).payload;
        prop_assert_eq!(difference(word(&found, 20 + at), word(&right, at)), u32::from(damage));

        let packet = damaged(content.packet(side4).bytes(), 20);
        let found = four_to_six(&packet, &rewrite_to6(side6, ports), &whole()).unwrap();
        let right = content.rewritten(ports).packet(side6).payload;
        prop_assert_eq!(difference(word(&found[0], 40 + at), word(&right, at)), u32::from(damage));
    }

    /// Whatever MTU the IPv6 network has, and whether or not the packet was a fragment before.
    #[test]
    fn fragments_make_up_the_datagram_again(
        length in 1_usize..9000, lowest_ipv6_mtu: u16, piece in prop::option::of((1_u16..3000, any::<bool>())), identification: u16,
    ) {
        let length = if piece.is_some() { length.next_multiple_of(8) } else { length };
        let mut packet = Ip::new(IN4, ESP, pattern(length)).may_fragment(identification);
        let (mut offset, mut last_more) = (0, false);
        if let Some((at, more)) = piece {
            packet = packet.piece(identification.into(), at * 8, more);
            (offset, last_more) = (usize::from(at) * 8, more);
        }
        let params = Params { lowest_ipv6_mtu, ..Params::default() };
        let longest = usize::from(lowest_ipv6_mtu).max(1280);
        let all = four_to_six(&packet.bytes(), &inward(), &params).unwrap();
        let mut payload = Vec::new();
        for (number, part) in all.iter().enumerate() {
            prop_assert!(part.len() <= longest);
            if part[6] == ESP {
                prop_assert!(all.len() == 1 && piece.is_none());
                payload.extend_from_slice(&part[40..]);
                continue;
            }
            let more = last_more || number + 1 < all.len();
            prop_assert_eq!(usize::from(word(part, 42)), offset | usize::from(more));
            prop_assert_eq!(word(part, 46), identification);
            offset += part.len() - 48;
            payload.extend_from_slice(&part[48..]);
        }
        prop_assert_eq!(payload, pattern(length));
    }
}

/// Shows the bytes to one side: nothing panics, what comes out is a packet, and where nothing comes out nothing changed.
fn show(
    storage: &mut [u8],
    range: Range<usize>,
    six: bool,
    ports: PortRewrite,
    params: &Params,
) -> Option<DropReason> {
    let before = storage.to_vec();
    let error =
        if before.len().is_multiple_of(2) { Icmpv6Error::RoutingHeader } else { Icmpv6Error::TimeExceeded };
    let outcome = if six {
        Ipv6Packet::check(storage, range.clone()).and_then(|mut packet| {
            let reason = match packet.translate(&rewrite_to4(OUT4, ports), |_| IDENTIFICATION, params) {
                Verdict::Forward(mut packets) => {
                    while let Some(packet) = packets.next() {
                        referee::lengths(packet);
                    }
                    return Ok(());
                }
                Verdict::Reply(reason) | Verdict::Hold(reason) | Verdict::Drop(reason) => reason,
            };
            if let Some(answer) = packet.error(error, OWN6, params) {
                referee::checksums(answer);
            }
            Err(reason)
        })
    } else {
        Ipv4Packet::check(storage, range.clone()).and_then(|mut packet| {
            let reason = match packet.translate(&rewrite_to6(IN6, ports), params) {
                Verdict::Forward(mut packets) => {
                    while let Some(packet) = packets.next() {
                        referee::lengths(packet);
                    }
                    return Ok(());
                }
                Verdict::Reply(reason) | Verdict::Hold(reason) | Verdict::Drop(reason) => reason,
            };
            if let Some(answer) = packet.error(Icmpv4Error::TimeExceeded, OWN4, params) {
                referee::checksums(answer);
            }
            Err(reason)
        })
    };
    if outcome.is_err() {
        // The errors of our own have been written into the headroom, and nowhere else.
        let own = range.start.min(storage.len());
        assert_eq!(storage[own..], before[own..], "a dropped packet stays as it was");
    }
    outcome.err()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_makes_a_panic_or_comes_out_as_something_that_is_none(
        bytes in almost_a_packet(), other_side: bool, ports in ports(), lowest_ipv6_mtu: u16, ipv6_mtu: u32, ipv4_mtu: u16, drop: bool, dscp in prop::option::of(any::<u8>()),
    ) {
        let params = Params {
            lowest_ipv6_mtu,
            udp_zero_checksum: if drop { ZeroChecksum::Drop } else { ZeroChecksum::Compute },
            traffic_class: dscp.map_or(TrafficClass::Copy, TrafficClass::Dscp),
            ipv6_mtu,
            ipv4_mtu,
        };
        let six = bytes.first().is_some_and(|first| first >> 4 == 6) != (other_side && bytes.len() % 4 == 0);
        let mut storage = storage(&bytes);
        show(&mut storage, HEADROOM..HEADROOM + bytes.len(), six, ports, &params);
        // With nothing behind the packet.
        let mut storage = [&[0; HEADROOM][..], &bytes].concat();
        show(&mut storage, HEADROOM..HEADROOM + bytes.len(), six, ports, &params);
    }

    #[test]
    fn no_range_makes_a_panic(
        bytes in almost_a_packet(), start in 0_usize..200, length in 0_usize..2000, six: bool, headroom in 0_usize..100,
    ) {
        let mut storage = [&vec![0x60; headroom][..], &bytes].concat();
        show(&mut storage, start..start.saturating_add(length), six, PortRewrite::Keep, &Params::default());
        show(&mut storage, headroom..headroom + bytes.len(), six, PortRewrite::Keep, &Params::default());
    }
}

/// A law about packets says nothing where hardly any packet gets past the door.
#[test]
fn the_random_packets_reach_both_outcomes_and_most_reasons() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let (mut forwarded, mut reasons) = (0, Vec::new());
    for _ in 0..4096 {
        let bytes = almost_a_packet().new_tree(&mut runner).unwrap().current();
        let six = bytes.first().is_some_and(|first| first >> 4 == 6);
        let mut storage = storage(&bytes);
        let range = HEADROOM..HEADROOM + bytes.len();
        match show(&mut storage, range, six, PortRewrite::Keep, &Params::default()) {
            None => forwarded += 1,
            Some(reason) if reasons.contains(&reason) => {}
            Some(reason) => reasons.push(reason),
        }
    }
    assert!(forwarded > 1000, "{forwarded} of 4096 were forwarded");
    assert!(reasons.len() >= 12, "{reasons:?}");
}
