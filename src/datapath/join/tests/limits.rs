//! How long a super-packet gets.

use super::*;

#[test]
fn sixty_four_packets_are_written_at_once_and_the_next_one_begins_anew() {
    for made in kinds(100) {
        let train = made.train(130);
        let mut bench = Bench::new();
        for made in &train[..63] {
            assert_eq!(bench.push(&made.frame()), []);
        }
        assert_eq!(segments(&bench.push(&train[63].frame())), [64]);
        assert!(bench.joiner.is_empty());
        assert_eq!(segments(&batch(&train)), [64, 64, 2]);
    }
}

/// As many packets of equal length as make up so many bytes with one IP header, from a number of packets on.
fn of_length(made: &Made, total: usize, least: usize) -> Vec<Made> {
    let rest = total - (made.frame().len() - 10 - made.payload.len());
    let count = (least..64).find(|count| rest.is_multiple_of(*count)).unwrap();
    Made { payload: pattern(rest / count), ..made.clone() }.train(count)
}

#[test]
fn a_super_packet_of_65535_bytes_is_written_at_once() {
    for made in kinds(1) {
        let mut packets = of_length(&made, 65_535, 2);
        let count = packets.len();
        let mut bench = Bench::new();
        for made in &packets[..count - 1] {
            assert_eq!(bench.push(&made.frame()), []);
        }
        let outs = bench.push(&packets[count - 1].frame());
        assert_eq!((segments(&outs), outs[0].frame.len()), (vec![count], 10 + 65_535));
        packets.push(packets[count - 1].next());
        assert_eq!(segments(&batch(&packets)), [count, 1]);
    }
}

#[test]
fn a_super_packet_of_65536_bytes_is_never_made_and_nothing_waits_for_it() {
    for made in kinds(1) {
        for least in [2, 3] {
            let packets = of_length(&made, 65_536, least);
            let count = packets.len();
            let mut bench = Bench::new();
            for made in &packets[..count - 2] {
                assert_eq!(bench.push(&made.frame()), []);
            }
            assert_eq!(segments(&bench.push(&packets[count - 2].frame())), [count - 1]);
            assert_eq!(segments(&batch(&packets)), [count - 1, 1]);
        }
    }
}

/// What comes from outside may be longer than any packet.
#[test]
fn a_frame_of_any_length_passes() {
    for made in kinds(40_000) {
        assert_eq!(segments(&batch(&made.train(3))), [1, 1, 1]);
        let too_long = Made { payload: pattern(70_000), ..made.clone() }.frame();
        let mut six = Made { payload: pattern(65_500), ..made }.frame();
        six[0] = VirtioNetHdr::DATA_VALID;
        for frame in [too_long, six] {
            assert_eq!(segments(&frames(&[frame.clone(), frame])), [1, 1]);
        }
    }
}
