//! How often a worker looks for more packets than the one that it was woken for.
//!
//! Each look is a system call, which is worth it if it finds something: packets that are met together leave together. Where packets come
//! one by one it finds nothing, and where they come in bursts it nearly always does. So looks that find something make looks more
//! frequent, and those that find nothing make them rarer. No clock is asked.

/// Behind every sixteenth packet, at the latest, a worker looks: fifteen leave alone at most, in a row, where others wait already.
const RAREST: u32 = 16;

/// So many looks in a row must find nothing before a worker that knows nothing of its packets yet makes them rarer.
const AT_FIRST: u32 = 64;

/// How many packets there are from look to look.
#[derive(Debug)]
pub(super) struct Pace {
    /// The worker looks at each turn that has this number, counted from the last look.
    interval: u32,
    turn: u32,
    /// Looks that may still find nothing.
    unsure: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { interval: 1, turn: 0, unsure: AT_FIRST }
    }
}

impl Pace {
    /// Whether this turn is to look for more than one packet.
    pub(super) fn looks(&self) -> bool {
        self.turn + 1 >= self.interval
    }

    /// A turn had so many packets. One without any says nothing.
    pub(super) fn count(&mut self, packets: usize) {
        match packets {
            0 => {}
            1 if !self.looks() => self.turn += 1,
            1 if self.unsure > 0 => self.unsure -= 1,
            1 => (self.interval, self.turn) = (RAREST.min(self.interval + 1), 0),
            _ => (self.interval, self.turn) = ((self.interval / 2).max(1), 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What turns do while one packet comes at a time.
    fn looks(pace: &mut Pace, turns: u32) -> Vec<bool> {
        let mut turn = || {
            let looks = pace.looks();
            pace.count(1);
            looks
        };
        (0..turns).map(|_| turn()).collect()
    }

    /// Packets have come one by one for long.
    fn lull() -> Pace {
        let mut pace = Pace::default();
        looks(&mut pace, 64 + 16 * 16);
        while !looks(&mut pace, 1)[0] {}
        pace
    }

    #[test]
    fn where_packets_come_one_by_one_every_sixteenth_turn_looks_in_the_end_and_for_ever() {
        let mut pace = Pace::default();
        let looked = looks(&mut pace, 100_000);
        let places: Vec<_> = (0..looked.len()).filter(|turn| looked[*turn]).collect();
        let apart: Vec<_> = places.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(looked[..65], [true; 65]);
        assert_eq!(apart[64..78], [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert!(apart[78..].iter().all(|apart| *apart == 16));
    }

    #[test]
    fn four_looks_that_find_something_are_enough_for_one_at_each_turn() {
        let mut pace = lull();
        for alone in [15, 7, 3, 1] {
            let looked = looks(&mut pace, alone);
            assert!(!looked.contains(&true), "{alone} leave alone");
            assert!(pace.looks());
            pace.count(5);
        }
        for _ in 0..100 {
            assert!(pace.looks());
            pace.count(2);
        }
    }

    #[test]
    fn a_turn_without_packets_changes_nothing() {
        let mut pace = lull();
        let expected = [[false; 15].as_slice(), &[true]].concat();
        let looked: Vec<_> = (0..16)
            .map(|_| {
                pace.count(0);
                looks(&mut pace, 1)[0]
            })
            .collect();
        assert_eq!(looked, expected);
    }
}
