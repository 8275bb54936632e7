//! How often a lock of a contender's tables was not free.

use std::ops::{AddAssign, Sub};

use serde::Serialize;

/// What has been counted since the start, or between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Locks {
    /// Attempts that found a lock taken.
    pub(crate) contended: u64,
    /// Packets that were received meanwhile.
    pub(crate) packets: u64,
}

impl Locks {
    /// Attempts that found a lock taken, of 10,000 packets; `None` before the first packet.
    pub(crate) fn of_ten_thousand(self) -> Option<f64> {
        (self.packets > 0).then(|| 10_000.0 * self.contended as f64 / self.packets as f64)
    }
}

impl Sub for Locks {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            contended: self.contended.saturating_sub(earlier.contended),
            packets: self.packets.saturating_sub(earlier.packets),
        }
    }
}

impl AddAssign for Locks {
    fn add_assign(&mut self, other: Self) {
        self.contended += other.contended;
        self.packets += other.packets;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_that_of_ten_thousand_packets_and_none_without_packets() {
        assert_eq!(Locks { contended: 8, packets: 40_000 }.of_ten_thousand(), Some(2.0));
        assert_eq!(Locks { contended: 3, packets: 0 }.of_ten_thousand(), None);
    }

    #[test]
    fn what_lies_between_two_looks_is_summed_over_rounds() {
        let mut sum = Locks::default();
        for (before, after) in [((5, 1000), (7, 1500)), ((90, 9000), (91, 9500))] {
            let [before, after] = [before, after].map(|(contended, packets)| Locks { contended, packets });
            sum += after - before;
        }
        assert_eq!(sum, Locks { contended: 3, packets: 1000 });
    }
}
