//! No packet gets a right checksum by being joined.

use super::shared::packets::fold;
use super::*;

#[test]
fn one_corrupted_packet_in_a_train_of_eight_arrives_corrupted_and_the_others_intact() {
    for made in kinds(1000) {
        for (corrupted, expected) in
            [(0, vec![1, 7]), (1, vec![1, 1, 6]), (3, vec![3, 1, 4]), (6, vec![6, 1, 1]), (7, vec![7, 1])]
        {
            let mut train: Vec<_> = made.train(8).iter().map(Made::frame).collect();
            *train[corrupted].last_mut().unwrap() ^= 0x10;
            let outs = frames(&train);
            assert_eq!(segments(&outs), expected, "{corrupted}");
            assert!(outs.iter().any(|out| out.frame == train[corrupted]), "{corrupted} is unchanged");
        }
    }
}

/// Each byte of the packet is covered by a checksum, or else is in a field that all have in common.
#[test]
fn a_packet_is_not_joined_whatever_bit_of_it_is_damaged() {
    for made in kinds(4) {
        let first = made.frame();
        let second = made.next().frame();
        for at in 10..second.len() {
            for bit in 0..8 {
                let mut damaged = second.clone();
                damaged[at] ^= 1 << bit;
                for batch in [[first.clone(), damaged.clone()], [damaged, second.clone()]] {
                    assert_eq!(segments(&frames(&batch)), [1, 1], "bit {bit} of byte {at}");
                }
            }
        }
    }
}

#[test]
fn what_the_kernel_has_verified_is_not_verified_again() {
    for made in kinds(1000) {
        let mut train: Vec<_> = made
            .train(3)
            .into_iter()
            .map(|made| Made { checksum: Checksum::Verified, ..made }.frame())
            .collect();
        *train[1].last_mut().unwrap() ^= 1;
        assert_eq!(segments(&frames(&train)), [3]);
    }
}

#[test]
fn the_checksum_of_an_ipv4_header_is_verified_whoever_has_seen_to_the_other_one() {
    for made in kinds(1000).into_iter().filter(|made| made.four) {
        for checksum in [Checksum::Whole, Checksum::Verified, Checksum::Partial] {
            for damaged in 0..2 {
                let mut train: Vec<_> =
                    made.train(2).into_iter().map(|made| Made { checksum, ..made }.frame()).collect();
                train[damaged][20] ^= 1;
                assert_eq!(segments(&frames(&train)), [1, 1]);
            }
        }
    }
}

#[test]
fn partial_checksums_are_joined_where_place_and_pseudo_header_are_right() {
    for made in kinds(1000) {
        let partial = Made { checksum: Checksum::Partial, ..made.clone() };
        let train: Vec<_> = partial.train(3).iter().map(Made::frame).collect();
        assert_eq!(segments(&frames(&train)), [3]);
        // With whole ones too, in any order.
        let next = made.next();
        assert_eq!(
            segments(&batch(&[made.clone(), Made { checksum: Checksum::Partial, ..next.clone() }])),
            [2]
        );
        assert_eq!(segments(&batch(&[partial, next])), [2]);
        let field = 10 + made.upper_at() + if made.tcp { 16 } else { 6 };
        // Where the sum begins, where it goes, and what it is.
        for at in [6, 7, 8, 9, field, field + 1] {
            for damaged in 0..2 {
                let mut train = train[..2].to_vec();
                train[damaged][at] ^= 1;
                assert_eq!(segments(&frames(&train)), [1, 1], "byte {at}");
            }
        }
    }
}

/// Between hosts whose pseudo-header sums up to `0xffff`, which as a number that is added on is zero.
#[test]
fn a_partial_sum_of_zero_is_a_sum_and_not_the_lack_of_a_checksum() {
    for made in kinds(1000) {
        let field = 10 + made.upper_at() + if made.tcp { 16 } else { 6 };
        let destination = if made.four { 28 } else { 48 };
        let partial = Made { checksum: Checksum::Partial, ..made };
        for sum in [[0xff, 0xff], [0, 0]] {
            let mut train: Vec<_> = partial.train(2).iter().map(Made::frame).collect();
            for frame in &mut train {
                let word = |at: usize| u64::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
                let word = fold(word(destination) + 0xffff - word(field)).to_be_bytes();
                frame[destination..destination + 2].copy_from_slice(&word);
                frame[field..field + 2].copy_from_slice(&sum);
                if partial.four {
                    seal(frame);
                }
            }
            assert_eq!(segments(&frames(&train)), [2]);
        }
    }
}

#[test]
fn udp_without_a_checksum_is_not_joined() {
    for made in kinds(1000).into_iter().filter(|made| !made.tcp) {
        let without = Made { checksum: Checksum::None, ..made.clone() };
        assert_eq!(segments(&batch(&without.train(3))), [1, 1, 1]);
        assert_eq!(segments(&batch(&[made.clone(), made.next(), without, made.clone(), made])), [2, 1, 2]);
    }
}

/// The payload whose checksum is zero: sent as `0xffff` by UDP (RFC 768), and as it is by TCP.
fn with_a_checksum_of_zero(made: &Made) -> Made {
    let mut made = made.clone();
    made.payload[..2].fill(0);
    let frame = made.frame();
    let field = 10 + made.upper_at() + if made.tcp { 16 } else { 6 };
    made.payload[..2].copy_from_slice(&frame[field..field + 2]);
    made
}

#[test]
fn a_checksum_of_zero_is_made_again_as_it_was_and_the_other_zero_is_left_alone() {
    for made in kinds(1000) {
        let train: Vec<_> = made.train(2).iter().map(with_a_checksum_of_zero).collect();
        let field = 10 + made.upper_at() + if made.tcp { 16 } else { 6 };
        let zero = if made.tcp { [0, 0] } else { [0xff, 0xff] };
        assert_eq!(train[0].frame()[field..field + 2], zero);
        assert_eq!(segments(&batch(&train)), [2]);
        for flags in [0, VirtioNetHdr::DATA_VALID] {
            for other in 0..2 {
                let mut train: Vec<_> = train.iter().map(Made::frame).collect();
                train[other][field] ^= 0xff;
                train[other][field + 1] ^= 0xff;
                train[other][0] = flags;
                assert_eq!(segments(&frames(&train)), [1, 1]);
            }
        }
    }
}

#[test]
fn a_header_checksum_of_zero_is_made_again_as_it_was_and_the_other_zero_is_left_alone() {
    for made in kinds(1000).into_iter().filter(|made| made.four) {
        let train: Vec<_> = made
            .train(2)
            .into_iter()
            .map(|made| {
                let checksum = u16::from_be_bytes([made.frame()[20], made.frame()[21]]);
                let identification = fold(u64::from(made.identification) + u64::from(checksum));
                Made { identification, ..made }.frame()
            })
            .collect();
        assert_eq!(train[0][20..22], [0, 0]);
        assert_eq!(segments(&frames(&train)), [2]);
        for other in 0..2 {
            let mut train = train.clone();
            train[other][20..22].fill(0xff);
            assert_eq!(segments(&frames(&train)), [1, 1]);
        }
    }
}
