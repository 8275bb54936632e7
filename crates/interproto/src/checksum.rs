//! The internet checksum (RFC 1071) and its incremental update (RFC 1624).

use core::net::{Ipv4Addr, Ipv6Addr};

/// A one's complement sum of 16-bit words in progress.
///
/// It counts modulo 2^64 - 1, of which 2^16 - 1 is a divisor: words of 32 and 64 bits are added as they are, a carry out of
/// 64 bits comes back in at the lower end, and the complement of a sum is its negative.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of bytes that begin at an even offset of what is summed.
    ///
    /// The order of bytes in a word does not matter to a sum but for the order in the result (RFC 1071 §2.B), and eight words
    /// at a time are added side by side: of 1400 bytes that takes a third of the time.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        let word = |word: [u8; 4]| u64::from(u32::from_ne_bytes(word));
        // 64 bits hold the sum of 2^32 words of 32 bits.
        let mut lanes = [0_u64; 8];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            for (lane, four) in lanes.iter_mut().zip(block.as_chunks().0) {
                *lane += word(*four);
            }
        }
        let (words, rest) = rest.as_chunks();
        let at = |place: usize| rest.get(place).copied().unwrap_or(0);
        let mut sum = word([at(0), at(1), at(2), 0]);
        for four in words {
            sum += word(*four);
        }
        for lane in lanes {
            sum += lane;
        }
        Self(u64::from(u16::from_be(Self(sum).fold())))
    }

    /// The sum of words that are at hand.
    #[inline(always)]
    pub(crate) const fn of_words<const N: usize>(words: [u32; N]) -> Self {
        let (mut sum, mut at) = (0, 0);
        while at < N {
            sum += words[at] as u64;
            at += 1;
        }
        Self(sum)
    }

    /// This sum and one more word.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, word: u16) -> Self {
        self.plus(Self(word as u64))
    }

    /// This sum and another one.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        Self(sum + carry as u64)
    }

    /// This sum without another one.
    #[inline(always)]
    pub(crate) const fn minus(self, other: Self) -> Self {
        self.plus(Self(!other.0))
    }

    /// The sum in 16 bits. Zero only if every word was zero.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        // A number and the same with its halves exchanged: the sum of the halves is in the upper half, and the carry of the
        // lower one has come in.
        let sum = (self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32;
        (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
    }

    /// The checksum of what was summed.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// A checksum brought up to date with a change (RFC 1624, equation 3). One that was wrong stays wrong by the same
    /// difference.
    #[inline(always)]
    pub(crate) const fn update(self, checksum: u16) -> u16 {
        self.and(!checksum).checksum()
    }
}

/// An address as part of a pseudo-header.
pub(crate) trait Summed: Copy {
    /// The sum of its words.
    fn sum(self) -> Sum;
}

impl Summed for Ipv4Addr {
    #[inline(always)]
    fn sum(self) -> Sum {
        Sum(u64::from(self.to_bits()))
    }
}

impl Summed for Ipv6Addr {
    #[inline(always)]
    fn sum(self) -> Sum {
        let bits = self.to_bits();
        Sum((bits >> 64) as u64).plus(Sum(bits as u64))
    }
}

/// A checksum as it is sent: where zero would say that there is none (UDP by RFC 768, UDP-Lite by RFC 3828 §3.1), zero is
/// `0xffff`.
#[inline(always)]
pub(crate) const fn as_sent(checksum: u16, never_zero: bool) -> u16 {
    if never_zero && checksum == 0 { 0xffff } else { checksum }
}

/// The addresses of a pseudo-header. Length and protocol are equal on both sides for everything but ICMP.
#[inline(always)]
pub(crate) fn addresses<A: Summed>(source: A, destination: A) -> Sum {
    source.sum().plus(destination.sum())
}

/// The whole IPv6 pseudo-header (RFC 8200 §8.1).
pub(crate) fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, length: usize, next_header: u8) -> Sum {
    let length = length as u32;
    addresses(source, destination).and((length >> 16) as u16).and(length as u16).and(u16::from(next_header))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn carries_come_in_again_and_all_ones_is_the_other_zero() {
        let all_ones = Sum(u64::MAX);
        assert_eq!(Sum::default().fold(), 0);
        assert_eq!(all_ones.fold(), 0xffff);
        assert_eq!(all_ones.plus(Sum(1)).fold(), 1);
        assert_eq!(Sum(0x0001_ffff_ffff).fold(), 1);
        assert_eq!(Sum(0x1_0000).fold(), 1);
        assert_eq!(Sum(0xffff_0001_8000_0000).fold(), 0x8001);
        assert_eq!(Sum(7).minus(Sum(7)).fold(), 0xffff);
        assert_eq!(Sum(3).minus(Sum(7)).fold(), 0xffff - 4);
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
    }

    #[test]
    fn an_odd_byte_counts_as_the_upper_half_of_a_word() {
        assert_eq!(Sum::of(&[0x12]).fold(), 0x1200);
        assert_eq!(Sum::of(&[0, 0, 0, 0, 0x12, 0x34, 0x56]).fold(), 0x1234 + 0x5600);
    }

    proptest! {
        #[test]
        fn a_sum_is_that_of_its_words_one_by_one(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            let sum: u32 = bytes.chunks(2).map(word).sum();
            prop_assert_eq!(Sum::of(&bytes).fold(), Sum(sum.into()).fold());
        }

        #[test]
        fn an_update_equals_a_new_computation(
            before in prop::collection::vec(any::<u8>(), 2..64),
            at in any::<prop::sample::Index>(),
            word: u16,
        ) {
            let mut after = before.clone();
            let at = at.index(before.len() / 2) * 2;
            let old = u16::from_be_bytes([before[at], before[at + 1]]);
            after[at..at + 2].copy_from_slice(&word.to_be_bytes());
            prop_assume!(Sum::of(&before).fold() != 0 && Sum::of(&after).fold() != 0);
            let change = Sum::default().and(word).minus(Sum::default().and(old));
            prop_assert_eq!(change.update(Sum::of(&before).checksum()), Sum::of(&after).checksum());
        }
    }
}
