//! What two packets must have in common.

use super::shared::packets::{CWR, ECE, RST, SYN, URG};
use super::*;

type Change = (&'static str, fn(&mut Made));

/// Two packets that follow each other, the second one changed.
fn second_changed(made: &Made, change: fn(&mut Made)) -> Vec<usize> {
    let mut packets = made.train(2);
    change(&mut packets[1]);
    segments(&batch(&packets))
}

/// Three packets that follow each other and are changed alike.
fn all_changed(made: &Made, change: fn(&mut Made)) -> Vec<usize> {
    let mut made = made.clone();
    change(&mut made);
    segments(&batch(&made.train(3)))
}

#[test]
fn packets_that_differ_in_a_field_are_not_joined_and_those_that_have_it_in_common_are() {
    let of_all: [Change; 4] = [
        ("traffic class", |made| made.tos = 0x28),
        ("congestion experienced", |made| made.tos = 3),
        ("hop limit", |made| made.ttl -= 1),
        ("source port", |made| made.port += 1),
    ];
    let of_v4: [Change; 1] = [("DF", |made| made.fragment = 0)];
    let of_v6: [Change; 2] =
        [("flow label", |made| made.flow_label = 0xf_0000), ("flow label", |made| made.flow_label = 1)];
    let of_tcp: [Change; 12] = [
        ("acknowledgment", |made| made.acknowledgment += 1),
        ("acknowledgment", |made| made.acknowledgment += 1 << 24),
        ("window", |made| made.window += 1),
        ("window", |made| made.window += 0x100),
        ("urgent pointer", |made| made.urgent = 1),
        ("urgent pointer", |made| made.urgent = 0x100),
        ("accurate ECN", |made| made.reserved = 1),
        ("ECE", |made| made.flags |= ECE),
        ("first option", |made| made.options[0] = 0),
        ("last option", |made| made.options[11] += 1),
        ("fewer options", |made| made.options.truncate(8)),
        ("more options", |made| made.options.extend([1, 1, 1, 1])),
    ];
    for made in kinds(700) {
        let by_family: &[Change] = if made.four { &of_v4 } else { &of_v6 };
        let by_protocol: &[Change] = if made.tcp { &of_tcp } else { &[] };
        for (name, change) in of_all.iter().chain(by_family).chain(by_protocol) {
            assert_eq!(second_changed(&made, *change), [1, 1], "{name}");
            assert_eq!(all_changed(&made, *change), [3], "{name}");
        }
    }
}

#[test]
fn flows_that_differ_in_an_address_or_the_protocol_are_not_joined() {
    for made in kinds(700) {
        assert_eq!(second_changed(&made, |made| made.host += 1), [1, 1]);
    }
    // Each byte of both addresses, each byte of the ports.
    for made in kinds(700) {
        let [first, second] = [made.clone(), made.next()].map(|made| made.frame());
        let ip = if made.four { 12..20 } else { 8..40 };
        for at in ip.chain(made.upper_at()..made.upper_at() + 4) {
            let mut second = second.clone();
            second[10 + at] ^= 1;
            // Its checksum is taken at its word.
            second[0] = VirtioNetHdr::DATA_VALID;
            if made.four {
                seal(&mut second);
            }
            let outs = frames(&[first.clone(), second.clone()]);
            assert_eq!(outs.len(), 2, "byte {at}");
        }
    }
    let tcp = Made { sequence: 0, ..Made::new(true, true, &pattern(700)) };
    let udp = Made { tcp: false, ..tcp.clone() };
    assert_eq!(segments(&batch(&[tcp.clone(), udp, tcp.next()])), [2, 1]);
}

#[test]
fn tcp_is_joined_only_where_it_goes_on() {
    for made in kinds(1000).into_iter().filter(|made| made.tcp) {
        assert_eq!(second_changed(&made, |made| made.sequence += 1), [1, 1]);
        assert_eq!(second_changed(&made, |made| made.sequence -= 1), [1, 1]);
        assert_eq!(second_changed(&made, |made| made.sequence -= 1000), [1, 1], "sent again");
        // A gap begins a new super-packet.
        let mut train = made.train(8);
        train.remove(3);
        assert_eq!(segments(&batch(&train)), [3, 4]);
        // Two in the wrong order.
        let mut train = made.train(8);
        train.swap(3, 4);
        assert_eq!(segments(&batch(&train)), [3, 1, 1, 3]);
        let around = Made { sequence: u32::MAX - 1500, ..made };
        assert_eq!(segments(&batch(&around.train(8))), [8]);
    }
}

#[test]
fn fin_and_push_are_those_of_the_last_packet_which_is_written_at_once() {
    for made in kinds(1000).into_iter().filter(|made| made.tcp) {
        for flags in [PSH, FIN, PSH | FIN] {
            let mut train = made.train(5);
            train[2].flags |= flags;
            let outs = batch(&train);
            assert_eq!(segments(&outs), [3, 2]);
            assert_eq!(outs[0].frame[10 + made.upper_at() + 13], ACK | flags);
            let mut bench = Bench::new();
            assert_eq!(bench.push(&train[0].frame()), []);
            assert_eq!(bench.push(&train[1].frame()), []);
            assert_eq!(segments(&bench.push(&train[2].frame())), [3]);
            // The first of a group is the last one too.
            assert_eq!(segments(&bench.push(&Made { flags: ACK | flags, ..made.clone() }.frame())), [1]);
            assert!(bench.joiner.is_empty());
        }
    }
}

#[test]
fn no_packet_with_another_flag_is_joined() {
    for made in kinds(1000).into_iter().filter(|made| made.tcp) {
        for flags in [SYN, RST, URG, CWR].map(|flag| ACK | flag).into_iter().chain([0, ECE]) {
            let train: Vec<_> = made.train(3).into_iter().map(|made| Made { flags, ..made }).collect();
            assert_eq!(segments(&batch(&train)), [1, 1, 1], "{flags:#x}");
            let mut train = made.train(5);
            train[2].flags = flags;
            assert_eq!(segments(&batch(&train)), [2, 1, 2], "{flags:#x}");
        }
    }
}

#[test]
fn a_shorter_payload_is_the_last_one_and_a_longer_one_begins_anew() {
    for made in kinds(1000) {
        let mut bench = Bench::new();
        let second = Made { payload: pattern(999), ..made.next() };
        assert_eq!(bench.push(&made.frame()), []);
        assert_eq!(segments(&bench.push(&second.frame())), [2], "written at once");
        let third = second.next();
        assert_eq!(bench.push(&third.frame()), []);
        let longer = Made { payload: pattern(1000), ..third.next() };
        assert_eq!(segments(&bench.push(&longer.frame())), [1]);
        assert_eq!(bench.push(&longer.next().frame()), []);
        assert_eq!(segments(&bench.flush()), [2]);
        assert_eq!(segments(&batch(&[made, second, third, longer.clone(), longer.next()])), [2, 1, 2]);
    }
}

#[test]
fn a_packet_without_payload_is_not_joined() {
    for made in kinds(1000) {
        let empty = Made { payload: Vec::new(), ..made.next() };
        assert_eq!(segments(&batch(&[made.clone(), empty.clone(), empty.next(), made.next()])), [1; 4]);
    }
}

#[test]
fn a_packet_with_more_than_plain_headers_is_not_joined() {
    for made in kinds(1000) {
        assert_eq!(all_changed(&made, |made| made.trailing = 1), [1, 1, 1]);
        if made.four {
            assert_eq!(all_changed(&made, |made| made.ip_options = 4), [1, 1, 1]);
            assert_eq!(all_changed(&made, |made| made.fragment |= 0x80), [1, 1, 1], "the reserved bit");
            assert_eq!(all_changed(&made, |made| made.fragment = 0x20), [1, 1, 1], "a fragment");
        }
        // The length of the IP header or of UDP says less than there is.
        let length = if made.four { 3 } else { 5 };
        let of_udp = made.upper_at() + 5;
        for at in [length, of_udp] {
            let train: Vec<_> = made.train(3).iter().map(Made::frame).collect();
            let damaged = train.into_iter().map(|mut frame| {
                frame[10 + at] ^= 1;
                frame[0] = VirtioNetHdr::DATA_VALID;
                frame
            });
            let damaged: Vec<_> = damaged.collect();
            if at == length || !made.tcp {
                assert_eq!(segments(&frames(&damaged)), [1, 1, 1], "byte {at}");
            }
        }
        // Data that would begin inside the TCP header, and goes on where it would end.
        if made.tcp {
            let inside = |number: u32| {
                let sequence = made.sequence.wrapping_add(1016 * number);
                let mut frame = Made { sequence, checksum: Checksum::Verified, ..made.clone() }.frame();
                frame[10 + made.upper_at() + 12] = 0x40;
                frame
            };
            assert_eq!(segments(&frames(&[inside(0), inside(1), inside(2)])), [1, 1, 1]);
        }
    }
}

#[test]
fn a_super_packet_is_not_joined_and_counts_as_its_segments() {
    for made in kinds(1000) {
        let train = made.train(4);
        let whole = batch(&train).remove(0);
        let rest = Made { sequence: made.sequence.wrapping_add(4000), ..made.clone() };
        let outs = frames(&[whole.frame.clone(), whole.frame.clone(), rest.frame(), rest.next().frame()]);
        assert_eq!(outs[..2], [whole.clone(), whole]);
        assert_eq!(segments(&outs), [4, 4, 2]);
    }
}

#[test]
fn a_frame_of_which_is_said_what_nobody_knows_is_not_joined() {
    for made in kinds(1000) {
        let with = |flags| {
            let mut frame = made.next().frame();
            frame[0] = flags;
            segments(&frames(&[made.frame(), frame]))
        };
        assert_eq!(with(VirtioNetHdr::DATA_VALID), [2]);
        assert_eq!(with(VirtioNetHdr::DATA_VALID | 4), [1, 1]);
        assert_eq!(with(0x80), [1, 1]);
    }
}

#[test]
fn a_super_packet_without_df_gets_identifications_of_its_own_unless_those_of_its_packets_count_on() {
    let numbered = |made: &Made, fragment, numbers: [u16; 4]| {
        let mut train = Made { fragment, ..made.clone() }.train(4);
        for (made, number) in train.iter_mut().zip(numbers) {
            made.identification = number;
        }
        let outs = batch(&train);
        assert_eq!(segments(&outs), [4]);
        u16::from_be_bytes([outs[0].frame[14], outs[0].frame[15]])
    };
    for made in kinds(1000).into_iter().filter(|made| made.four) {
        for numbers in [[7, 7, 7, 7], [7, 9, 11, 13], [7, 8, 9, 11], [7, 8, 10, 10], [9, 8, 7, 6]] {
            assert_eq!(numbered(&made, 0, numbers), 1000, "{numbers:?}");
            assert_eq!(numbered(&made, DF, numbers), numbers[0]);
        }
        for first in [7, 0xfffd_u16] {
            let numbers = [0, 1, 2, 3].map(|number| first.wrapping_add(number));
            assert_eq!(numbered(&made, 0, numbers), first);
        }
        // Whatever the super-packet before was like.
        let odd = Made { fragment: 0, identification: 9, ..made.clone() };
        let even = Made { identification: 20, window: 9, urgent: 9, ttl: 9, ..odd.next().next() };
        let last = Made { identification: 21, ..even.next() };
        let second = Made { identification: 30, ..odd.next() };
        let outs = batch(&[odd, second, even, last]);
        assert_eq!(segments(&outs), [2, 2]);
        assert_eq!([&outs[0].frame[14..16], &outs[1].frame[14..16]], [1000_u16.to_be_bytes(), [0, 20]]);
    }
}
