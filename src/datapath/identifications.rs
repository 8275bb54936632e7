//! Identifications of IPv4 packets.

/// The identifications of IPv4 packets that leave without DF and brought none of their own.
///
/// One worker gives out all 65,536 before it repeats one (RFC 6864 §4): runs of 64, and within each one after the other, as the
/// segments of a super-packet are numbered. The runs come in an order that an outsider cannot count along with: a congruential
/// generator of full period.
#[derive(Debug)]
pub struct Identifications {
    run: u16,
    /// How many of the run are given out.
    used: u16,
}

/// Identifications of a run. No super-packet that is made here has more segments.
const RUN: u16 = 64;

impl Identifications {
    /// Begins at `seed`, which should differ from worker to worker.
    pub fn new(seed: u16) -> Self {
        Self { run: seed % (u16::MAX / RUN + 1), used: 0 }
    }

    /// One.
    #[inline]
    pub fn next(&mut self) -> u16 {
        self.range(1)
    }

    /// The first of so many that follow each other. More than a run are taken from the runs behind it, without asking whether those
    /// were given out lately: such a super-packet is one of tiny segments that the kernel handed over.
    pub fn range(&mut self, count: usize) -> u16 {
        let count = count.clamp(1, usize::from(RUN)) as u16;
        if self.used + count > RUN {
            // Full period: the increment is odd, and the multiplier is one more than a multiple of four.
            self.run = self.run.wrapping_mul(613).wrapping_add(257) % (u16::MAX / RUN + 1);
            self.used = 0;
        }
        let first = self.run * RUN + self.used;
        self.used += count;
        first
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_are_given_out_before_one_is_repeated_whatever_the_seed() {
        for seed in [0, 1, 63, 1024, 65_535] {
            let mut identifications = Identifications::new(seed);
            let given: HashSet<_> = (0..65_536).map(|_| identifications.next()).collect();
            assert_eq!(given.len(), 65_536);
        }
    }

    #[test]
    fn those_of_super_packets_overlap_with_none_before() {
        let mut identifications = Identifications::new(7);
        let mut given = HashSet::new();
        for count in (1..=64).cycle().take(1000) {
            let first = identifications.range(count);
            for number in 0..count {
                assert!(given.insert(first.wrapping_add(number as u16)), "{count} from {first}");
            }
        }
    }

    #[test]
    fn more_than_a_run_and_none_are_answered_too() {
        let mut identifications = Identifications::new(0);
        identifications.range(65_535);
        identifications.range(0);
    }
}
