//! Who goes before whom.

use super::shared::packets::SYN;
use super::*;

/// Whose frames they are: the last byte of the source address.
fn hosts(outs: &[Out]) -> Vec<u8> {
    outs.iter().map(|out| if out.frame[10] >> 4 == 4 { out.frame[25] } else { out.frame[33] }).collect()
}

#[test]
fn what_cannot_be_joined_goes_behind_what_waits_of_its_flow_and_leaves_other_flows_alone() {
    for made in kinds(800) {
        let other = Made { port: 1, host: 7, ..made.clone() };
        let mut alone = vec![Made { payload: Vec::new(), ..made.clone() }];
        if made.tcp {
            alone.push(Made { flags: ACK | SYN, ..made.clone() });
        }
        if made.four {
            alone.push(Made { ip_options: 8, ..made.clone() });
        }
        for alone in alone {
            let mut bench = Bench::new();
            for packet in [&other, &made, &made.next(), &other.next()] {
                assert_eq!(bench.push(&packet.frame()), []);
            }
            let outs = bench.push(&alone.frame());
            assert_eq!(segments(&outs), [2, 1]);
            assert_eq!(hosts(&outs), [1, 1]);
            assert_eq!(outs[1].frame, alone.frame());
            let outs = bench.flush();
            assert_eq!((segments(&outs), hosts(&outs)), (vec![2], vec![7]));
        }
    }
}

#[test]
fn a_super_packet_goes_behind_what_waits_of_its_flow() {
    for made in kinds(800) {
        let train = made.train(6);
        let whole = batch(&train[2..]).remove(0);
        let outs = frames(&[train[0].frame(), train[1].frame(), whole.frame.clone()]);
        assert_eq!(segments(&outs), [2, 4]);
        assert_eq!(outs[1], whole);
    }
}

/// A fragment may be of any flow, and so may be what is behind an extension header.
#[test]
fn all_that_waits_goes_before_what_nobody_can_read() {
    let fragment = Made { fragment: 0x20, host: 9, ..Made::new(true, false, &pattern(800)) }.frame();
    let mut later = fragment.clone();
    later[16..18].copy_from_slice(&[0, 100]);
    let mut cut_off = Made::new(true, true, &[]).frame();
    cut_off.truncate(10 + 23);
    let mut cut_off6 = Made::new(false, true, &[]).frame();
    cut_off6.truncate(10 + 43);
    let mut no_version = fragment.clone();
    no_version[10] = 0x55;
    let mut short_header = Made::new(true, true, &pattern(9)).frame();
    short_header[10] = 0x44;
    let mut unreadable = vec![
        fragment,
        later,
        cut_off,
        cut_off6,
        no_version,
        short_header,
        vec![0; 10],
        vec![0; 9],
        Vec::new(),
    ];
    for extension in [0, 43, 44, 51, 60, 135, 139, 140, 253, 254] {
        let mut frame = Made::new(false, true, &pattern(100)).frame();
        frame[16] = extension;
        unreadable.push(frame);
    }
    for frame in unreadable {
        let mut bench = Bench::new();
        for made in kinds(100) {
            assert_eq!(bench.push(&made.frame()), []);
        }
        let outs = bench.push(&frame);
        assert_eq!(outs.len(), 5, "{frame:02x?}");
        assert_eq!(outs[4].frame, frame);
        assert_eq!(outs[4].wire_length, frame.len().saturating_sub(10));
        assert!(bench.joiner.is_empty());
        let with: Vec<_> = kinds(100).iter().map(Made::frame).chain([frame]).collect();
        assert_eq!(frames(&with).len(), 5);
    }
}

#[test]
fn nothing_goes_before_its_time_for_icmp_and_other_protocols() {
    for (four, protocol) in [(true, 1), (false, 58), (true, 47), (false, 50), (true, 132), (false, 59)] {
        let mut frame = Made::new(four, true, &pattern(100)).frame();
        frame[10 + if four { 9 } else { 6 }] = protocol;
        let mut bench = Bench::new();
        for made in kinds(100) {
            assert_eq!(bench.push(&made.frame()), []);
        }
        let outs = bench.push(&frame);
        assert_eq!(outs.len(), 1, "{protocol}");
        assert_eq!(outs[0].frame, frame);
        assert_eq!(segments(&bench.flush()), [1, 1, 1, 1]);
    }
}

#[test]
fn a_flush_writes_the_oldest_first() {
    let mut bench = Bench::new();
    let flows: Vec<_> =
        (1..=5).map(|host| Made { host, ..Made::new(host % 2 == 0, true, &pattern(50)) }).collect();
    for made in &flows {
        assert_eq!(bench.push(&made.frame()), []);
    }
    // A new packet makes nothing younger, and one that leaves lets the others in their order.
    assert_eq!(bench.push(&flows[0].next().frame()), []);
    assert_eq!(hosts(&bench.push(&Made { flags: ACK | PSH, ..flows[2].next() }.frame())), [3]);
    assert!(!bench.joiner.is_empty());
    let outs = bench.flush();
    assert_eq!(hosts(&outs), [1, 2, 4, 5]);
    assert_eq!(segments(&outs), [2, 1, 1, 1]);
    assert!(bench.joiner.is_empty());
    assert_eq!(bench.flush(), []);
}

#[test]
fn a_ninth_flow_takes_the_place_of_the_oldest() {
    let flow = |host| Made { host, ..Made::new(true, true, &pattern(50)) };
    let mut bench = Bench::new();
    for host in 1..=8 {
        assert_eq!(bench.push(&flow(host).frame()), []);
    }
    assert_eq!(bench.push(&flow(1).next().frame()), []);
    let outs = bench.push(&flow(9).frame());
    assert_eq!((hosts(&outs), segments(&outs)), (vec![1], vec![2]));
    let outs = bench.push(&flow(10).frame());
    assert_eq!((hosts(&outs), segments(&outs)), (vec![2], vec![1]));
    assert_eq!(hosts(&bench.flush()), [3, 4, 5, 6, 7, 8, 9, 10]);
}
