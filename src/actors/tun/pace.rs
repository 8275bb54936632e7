//! Whether packets come one by one.

/// Turns in a row with one packet each, after which packets are said to come one by one. Each look for a second packet is a system call,
/// and there it finds nothing.
const ONE_BY_ONE: u32 = 64;

/// So many packets leave alone at most, in a row, where others wait already: then a turn looks.
const UNSEEN: u32 = 15;

/// How packets come to one worker.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Turns with one packet, since there was another one; and from [`ONE_BY_ONE`] on, since somebody looked.
    singles: u32,
}

impl Pace {
    /// Each packet has come by itself, for long.
    pub(super) fn is_one_by_one(&self) -> bool {
        self.singles >= ONE_BY_ONE
    }

    /// Whether this turn is to look for more than the packet that it was woken for.
    pub(super) fn looks(&self) -> bool {
        !(ONE_BY_ONE..ONE_BY_ONE + UNSEEN).contains(&self.singles)
    }

    /// A turn had so many packets. One without any says nothing.
    pub(super) fn count(&mut self, packets: usize) {
        self.singles = match packets {
            0 => return,
            1 if self.singles >= ONE_BY_ONE + UNSEEN => ONE_BY_ONE,
            1 => self.singles + 1,
            _ => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What turns do while one packet comes at a time.
    fn looks(pace: &mut Pace, turns: u32) -> Vec<bool> {
        let mut look = || {
            let looks = pace.looks();
            pace.count(1);
            looks
        };
        (0..turns).map(|_| look()).collect()
    }

    #[test]
    fn every_turn_looks_until_packets_have_come_one_by_one_for_long() {
        let mut pace = Pace::default();
        assert_eq!(looks(&mut pace, 64), [true; 64]);
        assert!(pace.is_one_by_one() && !pace.looks());
    }

    #[test]
    fn from_then_on_every_sixteenth_turn_looks_for_ever() {
        let mut pace = Pace::default();
        looks(&mut pace, 64);
        for number in 1..=100_000 {
            let looked = looks(&mut pace, 1)[0];
            assert_eq!(looked, number % 16 == 0, "turn {number}");
            assert!(pace.is_one_by_one());
        }
    }

    #[test]
    fn a_second_packet_ends_it_and_a_turn_without_any_changes_nothing() {
        let mut pace = Pace::default();
        looks(&mut pace, 64 + 11);
        pace.count(0);
        assert_eq!(looks(&mut pace, 5), [false, false, false, false, true]);
        pace.count(2);
        assert!(!pace.is_one_by_one());
        assert_eq!(looks(&mut pace, 64), [true; 64]);
    }
}
