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

/// One byte more or less decides whether ten packets fit into 65,535 bytes of IP packet.
#[test]
fn no_super_packet_is_longer_than_65535_bytes() {
    for made in kinds(1) {
        let headers = made.frame().len() - 11;
        let longest = (65_535 - headers) / 10;
        for (length, expected) in [(longest, vec![10, 1]), (longest + 1, vec![9, 2])] {
            let packets = Made { payload: pattern(length), ..made.clone() }.train(11);
            let outs = batch(&packets);
            assert_eq!(segments(&outs), expected, "{length}");
            // It is written as soon as no other one fits.
            let mut bench = Bench::new();
            for made in &packets[..expected[0] - 1] {
                assert_eq!(bench.push(&made.frame()), []);
            }
            assert_eq!(segments(&bench.push(&packets[expected[0] - 1].frame())), expected[..1]);
        }
    }
}

#[test]
fn a_super_packet_of_65535_bytes_fills_the_room_for_it() {
    for made in kinds(1) {
        let headers = made.frame().len() - 11;
        let rest = 65_535 - headers;
        let first = Made { payload: pattern(rest.div_ceil(2)), ..made.clone() };
        let second = Made { payload: pattern(rest / 2), ..first.next() };
        // Two of the longer one would fit, or be one byte too long.
        let outs = batch(&[first.clone(), second]);
        let fits = headers + 2 * first.payload.len() <= 65_535;
        assert_eq!(segments(&outs), if fits { vec![2] } else { vec![1, 1] });
        if fits {
            assert_eq!(outs[0].frame.len(), 10 + 65_535);
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
