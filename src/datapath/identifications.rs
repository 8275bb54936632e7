//! Identifications of IPv4 packets.

/// The identifications of IPv4 packets that leave without DF and brought none of their own.
///
/// One worker gives out all 65,536 before it repeats one (RFC 6864 §4): runs of 256, and within each one after the other, as the
/// segments of a super-packet are numbered. Only what is left of a run when a super-packet needs more is left out. The runs come in a
/// mixed order, so that two numbers do not tell at a glance how many packets lie between them: a congruential generator of full period.
///
/// A super-packet of more than a run, which is one of tiny segments, gets runs that lie side by side and were not given out yet.
/// Where none do, all count as not given out again.
#[derive(Debug)]
pub struct Identifications {
    /// The upper byte of what is given out.
    run: u8,
    /// How many of the run are given out.
    used: usize,
    /// The runs that were given out.
    given: [bool; RUNS],
}

/// Identifications of a run: those with the same upper byte.
const RUN: usize = 256;

/// Runs that there are.
const RUNS: usize = 256;

impl Identifications {
    /// Begins at `seed`, which should differ from worker to worker.
    pub fn new(seed: u16) -> Self {
        let run = seed as u8;
        let mut given = [false; RUNS];
        given[usize::from(run)] = true;
        Self { run, used: 0, given }
    }

    /// The first of so many that follow each other, where 0 follows 65,535. More than there are count as all.
    #[inline]
    pub fn range(&mut self, count: usize) -> u16 {
        if count > RUN - self.used {
            return self.range_of_new_runs(count.min(RUN * RUNS));
        }
        let first = self.at(self.used);
        self.used += count;
        first
    }

    /// The identification at this place of the run.
    fn at(&self, place: usize) -> u16 {
        u16::from(self.run) << 8 | place as u16
    }

    #[cold]
    fn range_of_new_runs(&mut self, count: usize) -> u16 {
        let runs = count.div_ceil(RUN);
        if !self.find(runs) {
            self.given = [false; RUNS];
            self.find(runs);
        }
        self.used = 0;
        let first = self.at(0);
        for _ in 0..runs {
            self.given[usize::from(self.run)] = true;
            self.run = self.run.wrapping_add(1);
        }
        // The last one may have some left.
        self.run = self.run.wrapping_sub(1);
        self.used = count - (runs - 1) * RUN;
        first
    }

    /// Goes on to the next run that was not given out, nor so many from it on; `false` if there is none.
    fn find(&mut self, runs: usize) -> bool {
        (0..RUNS).any(|_| {
            // Full period: the increment is odd, and the multiplier is one more than a multiple of four.
            self.run = self.run.wrapping_mul(101).wrapping_add(89);
            (0..runs).all(|further| !self.given[(usize::from(self.run) + further) % RUNS])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which identifications were given out.
    struct Given(Vec<bool>);

    impl Given {
        fn none() -> Self {
            Self(vec![false; 65_536])
        }

        /// So many from `first` on, of which none was given out before.
        fn are_new(&mut self, first: u16, count: usize) {
            for number in (first..=u16::MAX).chain(0..=u16::MAX).take(count) {
                let given = std::mem::replace(&mut self.0[usize::from(number)], true);
                assert!(!given, "{number} of {count} from {first}");
            }
        }

        fn count(&self) -> usize {
            self.0.iter().filter(|given| **given).count()
        }
    }

    #[test]
    fn identifications_do_not_repeat_before_all_were_given_out() {
        for seed in [0, 1, 63, 1024, 65_535] {
            let mut identifications = Identifications::new(seed);
            // Again and again, also where the first ones were given out in another order.
            for _ in 0..3 {
                let mut given = Given::none();
                (0..65_536).for_each(|_| given.are_new(identifications.range(1), 1));
                assert_eq!(given.count(), 65_536);
            }
        }
    }

    #[test]
    fn those_of_super_packets_repeat_none_before_all_runs_were_given_out() {
        // What two of these leave of a run is less than the larger one.
        for (large, small) in [(45, 1), (54, 1), (64, 1), (125, 1), (128, 1), (128, 125), (256, 256)] {
            let mut identifications = Identifications::new(7);
            let mut given = Given::none();
            let mut begun = 1;
            let mut run = identifications.run;
            for count in [large, small].into_iter().cycle() {
                let first = identifications.range(count);
                begun += usize::from(run != identifications.run);
                run = identifications.run;
                if begun > RUNS {
                    break;
                }
                given.are_new(first, count);
            }
            assert!(given.count() > RUNS * (RUN - large), "{} with {large} and {small}", given.count());
        }
    }

    #[test]
    fn a_super_packet_of_more_than_a_run_gets_numbers_that_nobody_was_given() {
        for count in [257, 512, 513, 1365, 5000, 65_535, 65_536] {
            for seed in [0, 255] {
                let mut identifications = Identifications::new(seed);
                let mut given = Given::none();
                // The end of the first run, which nothing else lies beside.
                given.are_new(identifications.range(200), 200);
                let mut given = if count > 65_536 - 256 { Given::none() } else { given };
                for each in [count, 1, 100, 56] {
                    if given.count() + each <= 65_536 {
                        given.are_new(identifications.range(each), each);
                    }
                }
            }
        }
    }

    #[test]
    fn tiny_segments_among_others_repeat_none_while_runs_are_left_side_by_side() {
        let mut identifications = Identifications::new(3);
        let mut given = Given::none();
        // A third of all runs, three at a time. Of 26 gaps that they leave one is long enough.
        for _ in 0..25 {
            given.are_new(identifications.range(600), 600);
            given.are_new(identifications.range(64), 64);
            given.are_new(identifications.range(1), 1);
        }
        for _ in 0..10_000 {
            given.are_new(identifications.range(1), 1);
        }
    }

    #[test]
    fn more_than_there_are_and_none_are_answered_too() {
        let mut identifications = Identifications::new(0);
        let mut given = Given::none();
        given.are_new(identifications.range(1_000_000), 65_536);
        let before = (identifications.run, identifications.used);
        identifications.range(0);
        assert_eq!((identifications.run, identifications.used), before, "none is taken");
        identifications.range(1);
        assert_eq!(identifications.used, 1, "all are there again");
    }
}
