//! The ports of one block for one protocol: which are free, and which rest.

/// No port.
const NONE: u16 = u16::MAX;

/// Ports by their place in the block.
#[derive(Debug)]
pub(super) struct PortSet {
    /// One bit per port.
    free: Box<[u64]>,
    /// Ports that rest, as a list in the order in which they were freed: the one behind each, and its tick.
    behind: Box<[u16]>,
    freed: Box<[u32]>,
    first: u16,
    last: u16,
    free_count: u16,
    resting: u16,
}

impl PortSet {
    /// All free but the reserved ones.
    pub(super) fn new(size: u16, reserved: impl Iterator<Item = u16>) -> Self {
        let words = usize::from(size).div_ceil(64);
        let mut set = Self {
            free: vec![u64::MAX; words].into(),
            behind: vec![NONE; size.into()].into(),
            freed: vec![0; size.into()].into(),
            first: NONE,
            last: NONE,
            free_count: size,
            resting: 0,
        };
        if !size.is_multiple_of(64)
            && let Some(last) = set.free.last_mut()
        {
            *last = (1 << (size % 64)) - 1;
        }
        for port in reserved {
            set.take(port);
        }
        set
    }

    /// Ports that can be taken now.
    pub(super) fn free(&self) -> u16 {
        self.free_count
    }

    /// Lets at most `most` ports be taken again whose rest is over, or which are more than may rest; says how many.
    pub(super) fn promote(&mut self, tick: u32, rest: u32, (most, most_resting): (u16, u16)) -> u16 {
        let mut promoted = 0;
        while promoted < most
            && let Some(freed) = self.freed.get(usize::from(self.first))
            && (tick.saturating_sub(*freed) > rest || self.resting > most_resting)
        {
            let port = self.first;
            self.first = self.behind.get(usize::from(port)).copied().unwrap_or(NONE);
            if self.first == NONE {
                self.last = NONE;
            }
            self.resting -= 1;
            self.set_free(port);
            promoted += 1;
        }
        promoted
    }

    /// Gives back a port that was taken and never used.
    pub(super) fn put_back(&mut self, port: u16) {
        self.set_free(port);
    }

    fn set_free(&mut self, port: u16) {
        if let Some(word) = self.free.get_mut(usize::from(port) / 64) {
            *word |= 1 << (port % 64);
            self.free_count += 1;
        }
    }

    /// Takes this port, if it is free.
    pub(super) fn take(&mut self, port: u16) -> bool {
        let Some(word) = self.free.get_mut(usize::from(port) / 64) else { return false };
        let bit = 1 << (port % 64);
        let is_free = *word & bit != 0;
        if is_free {
            *word &= !bit;
            self.free_count -= 1;
        }
        is_free
    }

    /// Takes a free port: the first one with this parity from a random place on (RFC 6056 §3.3.1).
    pub(super) fn take_any(&mut self, parity: Option<u16>, random: u64) -> Option<u16> {
        let mask = match parity {
            None => u64::MAX,
            Some(0) => 0x5555_5555_5555_5555,
            Some(_) => 0xaaaa_aaaa_aaaa_aaaa,
        };
        let words = self.free.len();
        let place = random % self.freed.len() as u64;
        let (start, turn) = ((place / 64) as usize, place % 64);
        // The first word comes twice: its end first, its beginning last.
        for step in 0..=words {
            let at = (start + step) % words;
            let mut word = self.free.get(at)? & mask;
            if step == 0 {
                word &= u64::MAX << turn;
            }
            if word != 0 {
                let port = (at * 64) as u16 + word.trailing_zeros() as u16;
                return self.take(port).then_some(port);
            }
        }
        None
    }

    /// The port is not used any more: it rests from now on.
    pub(super) fn release(&mut self, port: u16, tick: u32) {
        let Some(freed) = self.freed.get_mut(usize::from(port)) else { return };
        *freed = tick;
        if let Some(behind) = self.behind.get_mut(usize::from(port)) {
            *behind = NONE;
        }
        match self.behind.get_mut(usize::from(self.last)) {
            Some(behind) => *behind = port,
            None => self.first = port,
        }
        self.last = port;
        self.resting += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ports_are_given_once_and_again_after_their_rest_in_the_order_of_their_release() {
        for size in [16, 64, 100, 4096] {
            let mut set = PortSet::new(size, [3_u16].into_iter());
            let mut taken: Vec<_> = (0..size - 1)
                .map(|n| set.take_any(None, u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap())
                .collect();
            assert_eq!((set.take_any(None, 0), set.free()), (None, 0));
            for (n, port) in taken.iter().enumerate() {
                set.release(*port, n as u32);
            }
            assert_eq!(set.promote(10, 10, (9, size)), 0, "a rest of ten ticks is not over after ten");
            assert_eq!(set.promote(11, 10, (9, size)), 1);
            assert_eq!(set.take_any(None, 7), Some(taken[0]));
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len(), usize::from(size) - 1);
            assert!(!taken.contains(&3) && taken.iter().all(|port| *port < size));
        }
    }

    #[test]
    fn parity_is_kept_as_long_as_there_is_a_port_of_it() {
        let mut set = PortSet::new(128, std::iter::empty());
        for n in 0..64_u64 {
            assert_eq!(set.take_any(Some(1), n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap() % 2, 1);
        }
        assert_eq!(set.take_any(Some(1), 5), None);
        assert_eq!(set.take_any(Some(0), 5).unwrap() % 2, 0);
    }
}
