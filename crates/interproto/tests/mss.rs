//! The maximum segment size that a SYN announces.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use common::packets::*;
use common::segmenter::*;
use common::*;
use interproto::{HEADROOM, Ipv4Packet, Ipv6Packet, Params, Verdict, VirtioNetHdr};
use proptest::prelude::*;
use proptest::sample::select;

const SYN: u8 = 0x02;
const MSS: [u8; 2] = [2, 4];

/// A segment with these flags and these options as they are, and a right checksum.
fn segment(flow: Flow, flags: u8, options: &[u8], payload: &[u8]) -> Ip {
    let mut bytes = vec![0x9c, 0x40, 1, 187, 1, 2, 3, 4, 0, 0, 0, 9, 0, flags, 0x10, 0, 0, 0, 0, 0];
    bytes[12] = (((20 + options.len()) / 4) << 4) as u8;
    bytes.extend_from_slice(options);
    bytes.extend_from_slice(payload);
    let checksum = checksum(flow, TCP, &bytes).to_be_bytes();
    bytes[16..18].copy_from_slice(&checksum);
    Ip::new(flow, TCP, bytes)
}

/// The packet afterwards, and whether it was said to have changed.
fn clamped(packet: &[u8], said: &VirtioNetHdr, most: u16) -> (bool, Vec<u8>) {
    let mut storage = storage(packet);
    let range = HEADROOM..HEADROOM + packet.len();
    let changed = if packet[0] >> 4 == 6 {
        Ipv6Packet::check_offloaded(&mut storage, range.clone(), said).unwrap().clamp_mss(most)
    } else {
        Ipv4Packet::check_offloaded(&mut storage, range.clone(), said).unwrap().clamp_mss(most)
    };
    (changed, storage[range].to_vec())
}

#[track_caller]
fn stays(packet: &[u8]) {
    let (changed, after) = clamped(packet, &VirtioNetHdr::default(), 0);
    assert!(!changed);
    assert_eq!(after, packet);
}

#[test]
fn a_syn_and_its_answer_announce_no_more_than_the_bound() {
    for flow in [OUT6, IN4] {
        for flags in [SYN, SYN | ACK, SYN | ACK | 0x40, SYN | CWR | 0x40] {
            for (announced, most, expected) in [
                (1460, 1400, 1400),
                (1460, 0xff, 0xff),
                (65_535, 1, 1),
                (1400, 1400, 1400),
                (1399, 1400, 1399),
                (0, 1400, 0),
            ] {
                let make = |size: u16| {
                    let options = [&MSS[..], &size.to_be_bytes(), &[4, 2, 1, 1]].concat();
                    segment(flow, flags, &options, b"").bytes()
                };
                let found = clamped(&make(announced), &VirtioNetHdr::default(), most);
                assert_eq!(found, (announced != expected, make(expected)));
            }
        }
    }
}

/// The option may lie anywhere: at an odd place its halves belong to two words of the sum.
#[test]
fn the_option_is_found_behind_others_and_at_odd_places() {
    let make = |before: &[u8], size: u16, behind: &[u8]| {
        segment(OUT6, SYN, &[before, &MSS, &size.to_be_bytes(), behind].concat(), b"data").bytes()
    };
    let cases: [(&[u8], &[u8]); 6] = [
        (&[1], &[1, 1, 1]),
        (&[3, 3, 7], &[1]),
        (&[4, 2], &[3, 3, 7, 1, 1, 1]),
        (&[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1], &[0]),
        // Behind the end of the list lies what nobody reads, even if it looks like an announcement.
        (&[1, 1, 1], &[0, 2, 4, 0xff, 0xff]),
        (&[254, 2], &[255, 6, 1, 2, 3, 4, 1, 1, 1, 1]),
    ];
    for (before, behind) in cases {
        let found = clamped(&make(before, 1460, behind), &VirtioNetHdr::default(), 1220);
        assert_eq!(found, (true, make(before, 1220, behind)), "{before:?} {behind:?}");
    }
}

/// Which of them an endpoint believes is its own affair.
#[test]
fn every_announcement_of_several_is_lowered() {
    let make = |first: u16, second: u16, third: u16| {
        let [first, second, third] = [first, second, third].map(u16::to_be_bytes);
        let options = [&MSS[..], &first, &[1], &MSS, &second, &MSS, &third, &[1, 1, 1]].concat();
        segment(IN4, SYN, &options, b"").bytes()
    };
    let found = clamped(&make(1460, 9000, 536), &VirtioNetHdr::default(), 1300);
    assert_eq!(found, (true, make(1300, 1300, 536)));
}

#[test]
fn what_announces_nothing_stays_as_it_is() {
    let announcement = [2, 4, 0xff, 0xff];
    for flow in [OUT6, IN4] {
        // No SYN, no option, and options of other kinds.
        stays(&segment(flow, ACK, &announcement, b"").bytes());
        stays(&segment(flow, !SYN, &announcement, b"").bytes());
        stays(&segment(flow, SYN, b"", b"").bytes());
        stays(&segment(flow, SYN, b"", &announcement).bytes());
        stays(&segment(flow, SYN, &[3, 4, 0xff, 0xff], b"").bytes());
        stays(&segment(flow, SYN, &[0, 2, 4, 0xff, 0xff, 0, 0, 0], b"").bytes());
        // What only looks like a SYN with its option.
        let payload = segment(flow, SYN, &announcement, &[0; 64]).payload;
        stays(&Ip::new(flow, UDP, udp(flow, 1, 2, &payload)).bytes());
        stays(&Ip::new(flow, DCCP, payload.clone()).bytes());
        stays(&Ip::new(flow, TCP, payload[..48].to_vec()).piece(9, 0, true).bytes());
        stays(&Ip::new(flow, TCP, payload).piece(9, 80, false).bytes());
        let inside =
            segment(Flow { source: flow.destination, destination: flow.source }, SYN, &announcement, b"");
        let kind = if flow == OUT6 { 1 } else { 3 };
        stays(&icmp_packet(flow, kind, 0, 0, &inside.bytes()).bytes());
    }
}

#[test]
fn malformed_options_stay_as_they_are() {
    let malformed: [&[u8]; 9] = [
        // An announcement of another length.
        &[2, 3, 0xff, 1],
        &[2, 2, 2, 4],
        &[2, 5, 0xff, 0xff, 0xff, 1, 1, 1],
        &[2, 4, 0xff, 0xff, 2, 6, 0, 0, 0, 0, 1, 1],
        // Lengths that lead nowhere, or out of the header, in front of one and behind one.
        &[9, 0, 2, 4, 0xff, 0xff, 1, 1],
        &[9, 1, 2, 4, 0xff, 0xff, 1, 1],
        &[2, 4, 0xff, 0xff, 9, 5, 0, 0],
        &[2, 4, 0xff, 0xff, 1, 1, 1, 9],
        &[1, 1, 2, 4],
    ];
    for flow in [OUT6, IN4] {
        for options in malformed {
            stays(&segment(flow, SYN, options, &[0xff; 8]).bytes());
        }
    }
}

/// It holds the sum of the pseudo-header alone, which has no options.
#[test]
fn a_partial_checksum_stays_as_it_is() {
    for flow in [OUT6, IN4] {
        let make = |size: u16| {
            let options = [&MSS[..], &size.to_be_bytes()].concat();
            segment(flow, SYN, &options, b"data").bytes()
        };
        let (mut before, whole) = (make(1460), make(1220));
        let said = make_partial(&mut before, TCP);
        let (changed, after) = clamped(&before, &said, 1220);
        assert!(changed);
        assert_eq!(complete(&after, &said), whole);
    }
}

fn option() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![1]),
        any::<u16>().prop_map(|size| [&MSS[..], &size.to_be_bytes()].concat()),
        Just(vec![4, 2]),
        any::<u8>().prop_map(|shift| vec![3, 3, shift]),
        (select(&[8_u8, 19, 30, 253][..]), prop::collection::vec(any::<u8>(), 0..12))
            .prop_map(|(kind, value)| [&[kind, value.len() as u8 + 2][..], &value].concat()),
    ]
}

fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    /// The reference writes the same list with other numbers, and lets etherparse compute the checksum.
    #[test]
    fn nothing_but_the_size_and_the_checksum_changes_and_a_wrong_checksum_stays_as_wrong(
        list in prop::collection::vec(option(), 0..8), most: u16, flags: u8, payload in prop::collection::vec(any::<u8>(), 0..40),
        damage in prop_oneof![Just(0_u16), 0_u16..0xffff], six: bool, general: bool,
    ) {
        let flow = if six { OUT6 } else { IN4 };
        let make = |most: u16| {
            let mut options = Vec::new();
            for mut option in list.iter().cloned() {
                if options.len() + option.len() > 40 {
                    break;
                }
                if option[0] == MSS[0] && flags & SYN != 0 {
                    let size = word(&option, 2).min(most);
                    option[2..].copy_from_slice(&size.to_be_bytes());
                }
                options.extend(option);
            }
            options.resize(options.len().next_multiple_of(4), 0);
            let packet = segment(flow, flags, &options, &payload);
            // By the general way too.
            match (general, six) {
                (false, _) => packet,
                (true, true) => packet.extension(DESTINATION_OPTIONS, &[0; 8]),
                (true, false) => packet.options(&[1; 4]),
            }
        };
        let at = if six { 40 } else { 20 } + if general { if six { 8 } else { 4 } } else { 0 } + 16;
        // Modulo 2^16 - 1, in which both zeros are one.
        let add = |packet: &mut [u8]| {
            let sum = (u32::from(word(packet, at)) + u32::from(damage)) % 0xffff;
            packet[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        };
        let (mut before, mut expected) = (make(u16::MAX).bytes(), make(most).bytes());
        let differ = before[..at] != expected[..at] || before[at + 2..] != expected[at + 2..];
        add(&mut before);
        add(&mut expected);
        let (changed, mut after) = clamped(&before, &VirtioNetHdr::default(), most);
        prop_assert_eq!(changed, differ);
        if !changed {
            prop_assert_eq!(&after, &before);
        }
        let sum = word(&after, at) % 0xffff;
        after[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        prop_assert_eq!(after, expected);
    }

    /// Between the check and the translation, whose own changes go on from there.
    #[test]
    fn a_clamped_syn_is_translated_as_one_that_announced_less(size: u16, most: u16, six: bool, odd in 0_usize..4) {
        let flow = if six { OUT6 } else { IN4 };
        let make = |size: u16| {
            segment(flow, SYN, &[&[1; 3][..odd], &MSS, &size.to_be_bytes(), &[1; 4][..4 - odd]].concat(), b"").bytes()
        };
        let (packet, expected) = (make(size), make(size.min(most)));
        let mut buffer = storage(&packet);
        let range = HEADROOM..HEADROOM + packet.len();
        let translated = |verdict: Verdict<'_>| match verdict {
            Verdict::Forward(mut packets) => packets.next().unwrap().to_vec(),
            other => panic!("{other:?}"),
        };
        let found = if six {
            let mut checked = Ipv6Packet::check(&mut buffer, range).unwrap();
            prop_assert_eq!(checked.clamp_mss(most), size > most);
            translated(checked.translate(&outward(), |_| IDENTIFICATION, &Params::default()))
        } else {
            let mut checked = Ipv4Packet::check(&mut buffer, range).unwrap();
            prop_assert_eq!(checked.clamp_mss(most), size > most);
            translated(checked.translate(&inward(), &Params::default()))
        };
        let expected = if six { sent(&expected) } else { received(&expected) };
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_options_make_a_panic_or_change_anything_else(
        mut options in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..6], 0..41), most: u16, six: bool,
    ) {
        options.resize(options.len() / 4 * 4, 0);
        let packet = segment(if six { OUT6 } else { IN4 }, SYN, &options, &[0xff; 9]).bytes();
        let (changed, after) = clamped(&packet, &VirtioNetHdr::default(), most);
        let at = if six { 40 } else { 20 };
        prop_assert_eq!(changed, packet != after);
        prop_assert_eq!(&after[..at + 16], &packet[..at + 16]);
        prop_assert_eq!(&after[at + 18..at + 20], &packet[at + 18..at + 20]);
        prop_assert_eq!(&after[at + 20 + options.len()..], &packet[at + 20 + options.len()..]);
        referee::checksums(&after);
    }
}
