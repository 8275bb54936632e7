//! The ports of one block for one protocol: which are free, and which rest.

use crate::faults::{self, Point};
use crate::lanes::Places;
use crate::prefetch;

/// No port.
const NONE: u16 = u16::MAX;

/// A port that rests, by its place in the block, and the tick in which it was freed.
#[derive(Debug, Clone, Copy, Default)]
struct Resting {
    port: u16,
    /// Upper half first: so that six bytes are enough.
    freed: [u16; 2],
}

impl Resting {
    fn new(port: u16, freed: u32) -> Self {
        Self { port, freed: [(freed >> 16) as u16, freed as u16] }
    }

    fn freed(self) -> u32 {
        u32::from(self.freed[0]) << 16 | u32::from(self.freed[1])
    }
}

/// Ports that fit in the set itself.
const SMALL: usize = 128;

/// One bit per port: here if there are few, or else there.
#[derive(Debug)]
enum Bits {
    Few([u64; SMALL / 64]),
    Many(Box<[u64]>),
}

impl Default for Bits {
    fn default() -> Self {
        Self::Few([0; SMALL / 64])
    }
}

/// Ports by their place in the block. Empty until it is [made](Self::make). A cache line, but for what rests.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct PortSet {
    free: Bits,
    /// Ports that rest, in the order in which they were freed: a ring with room for all.
    ring: Box<[Resting]>,
    /// The first of them, how many there are, and when the first one was freed.
    first: u16,
    resting: u16,
    oldest: u32,
    free_count: u16,
    /// By the slot of what is wanted, the port that is taken next, if it is still free then: so that it is known ahead.
    next: [u16; 4],
}

impl PortSet {
    /// All free but the reserved ones.
    pub(super) fn make(&mut self, size: u16, reserved: impl Iterator<Item = u16>) {
        let words = usize::from(size).div_ceil(64);
        let free = if usize::from(size) <= SMALL {
            let mut few = [0; SMALL / 64];
            few[..words].fill(u64::MAX);
            Bits::Few(few)
        } else {
            Bits::Many(vec![u64::MAX; words].into())
        };
        *self = Self {
            free,
            ring: vec![Resting::default(); size.into()].into(),
            first: 0,
            resting: 0,
            oldest: 0,
            free_count: size,
            next: [NONE; 4],
        };
        if !size.is_multiple_of(64)
            && let Some(last) = self.free_mut().get_mut(words - 1)
        {
            *last = (1 << (size % 64)) - 1;
        }
        for port in reserved {
            self.take(port);
        }
    }

    fn free_words(&self) -> &[u64] {
        match &self.free {
            Bits::Few(few) => few,
            Bits::Many(many) => many,
        }
    }

    fn free_mut(&mut self) -> &mut [u64] {
        match &mut self.free {
            Bits::Few(few) => few,
            Bits::Many(many) => many,
        }
    }

    pub(super) fn is_made(&self) -> bool {
        !self.ring.is_empty()
    }

    /// Ports that can be taken now.
    pub(super) fn free(&self) -> u16 {
        self.free_count
    }

    /// Lets at most `most` ports be taken again whose rest is over, or which are more than may rest; says how many.
    pub(super) fn promote(&mut self, tick: u32, rest: u32, (most, most_resting): (u16, u16)) -> u16 {
        let mut promoted = 0;
        while promoted < most
            && self.resting > 0
            && (tick.saturating_sub(self.oldest) > rest || self.resting > most_resting)
        {
            let Some(first) = self.ring.get(usize::from(self.first)).copied() else { break };
            self.first = self.place(1);
            self.resting -= 1;
            self.oldest = self.ring.get(usize::from(self.first)).map_or(0, |next| next.freed());
            faults::at(Point::PortPromote);
            self.set_free(first.port);
            promoted += 1;
        }
        promoted
    }

    /// Whether its counts are right, and each port is free, rests or is taken: one of these, unless it is kept.
    #[cfg(feature = "fault-injection")]
    pub(super) fn is_sound(&self, is_taken: impl Fn(u16) -> bool, is_kept: impl Fn(u16) -> bool) -> bool {
        let resting: Vec<u16> = self.resting_since(0).map(|(port, _)| port).collect();
        let free = (0..self.ring.len() as u16).filter(|port| self.is_free(*port)).count();
        free == usize::from(self.free_count)
            && resting.len() == usize::from(self.resting)
            && (0..self.ring.len() as u16).all(|port| {
                let places = resting.iter().filter(|other| **other == port).count();
                let places = places + usize::from(self.is_free(port)) + usize::from(is_taken(port));
                places == 1 || (places == 0 && is_kept(port))
            })
    }

    /// Puts everything in order again, whatever was half done: a port is in use or kept, or rests, or is free. What is none of these
    /// rests from now on. Answers with the tick in which the last one began to rest.
    pub(super) fn repair(&mut self, is_taken: impl Fn(u16) -> bool, tick: u32) -> u32 {
        let size = self.ring.len() as u16;
        let mut rests = vec![false; size.into()];
        let mut resting: Vec<Resting> = Vec::with_capacity(size.into());
        for behind in 0..self.resting.min(size) {
            let there = self.ring.get(usize::from(self.place(behind))).copied().unwrap_or_default();
            if let Some(rests) = rests.get_mut(usize::from(there.port))
                && !*rests
                && !is_taken(there.port)
            {
                *rests = true;
                resting.push(there);
            }
        }
        for port in 0..size {
            let is_resting = rests.get(usize::from(port)).copied().unwrap_or_default();
            if is_taken(port) || is_resting {
                self.take(port);
            } else if !self.is_free(port) {
                resting.push(Resting::new(port, tick));
            }
        }
        self.free_count = self.free_words().iter().map(|word| word.count_ones() as u16).sum();
        (self.first, self.resting) = (0, resting.len() as u16);
        self.oldest = resting.first().map_or(0, |first| first.freed());
        let last = resting.last().map_or(0, |last| last.freed());
        for (place, there) in self.ring.iter_mut().zip(resting) {
            *place = there;
        }
        self.next = [NONE; 4];
        last
    }

    /// The place in the ring that is so many behind the first.
    fn place(&self, behind: u16) -> u16 {
        let place = usize::from(self.first) + usize::from(behind);
        (if place < self.ring.len() { place } else { place - self.ring.len() }) as u16
    }

    /// Gives back a port that was taken and never used.
    pub(super) fn put_back(&mut self, port: u16) {
        self.set_free(port);
    }

    fn set_free(&mut self, port: u16) {
        if let Some(word) = self.free_mut().get_mut(usize::from(port) / 64) {
            *word |= 1 << (port % 64);
            self.free_count += 1;
        }
    }

    /// Takes this port, if it is free.
    pub(super) fn take(&mut self, port: u16) -> bool {
        let Some(word) = self.free_mut().get_mut(usize::from(port) / 64) else { return false };
        let bit = 1 << (port % 64);
        let is_free = *word & bit != 0;
        if is_free {
            *word &= !bit;
            self.free_count -= 1;
        }
        is_free
    }

    /// Never gives this port again, once it is not in use any more. It may be free, or rest.
    pub(super) fn reserve(&mut self, port: u16) {
        if self.take(port) {
            return;
        }
        let resting = |set: &Self, behind: u16| set.ring.get(usize::from(set.place(behind))).copied();
        let Some(found) =
            (0..self.resting).find(|behind| resting(self, *behind).is_some_and(|there| there.port == port))
        else {
            return;
        };
        for behind in found..self.resting - 1 {
            let at = usize::from(self.place(behind));
            if let Some(next) = resting(self, behind + 1)
                && let Some(place) = self.ring.get_mut(at)
            {
                *place = next;
            }
        }
        self.resting -= 1;
        self.oldest = resting(self, 0).map_or(0, Resting::freed);
    }

    /// Takes a free port, and where some are wanted one of these, or at least of their parity (RFC 6056 §3.3.1).
    pub(super) fn take_any(&mut self, wanted: Option<Places>, random: u64) -> Option<u16> {
        let Some(wanted) = wanted else {
            let port = self.pick(u64::MAX, random)?;
            return self.take(port).then_some(port);
        };
        let port = self.foreseen(wanted).filter(|next| self.is_free(*next));
        let port = port.or_else(|| self.pick(wanted.mask(), random));
        let port = port.or_else(|| self.pick(wanted.mask_of_parity(), random))?;
        self.take(port);
        let next = self.pick(wanted.mask(), random.rotate_right(32)).unwrap_or(NONE);
        if let Some(known) = self.next.get_mut(wanted.slot()) {
            *known = next;
        }
        Some(port)
    }

    /// The first free port among those of the mask from a random place on.
    fn pick(&self, mask: u64, random: u64) -> Option<u16> {
        let free = self.free_words();
        let words = free.len();
        let place = (u64::from(random as u32) * self.ring.len() as u64) >> 32;
        let (start, turn) = ((place / 64) as usize, place % 64);
        // The first word comes twice: its end first, its beginning last.
        for step in 0..=words {
            let at = if start + step < words { start + step } else { start + step - words };
            let mut word = free.get(at)? & mask;
            if step == 0 {
                word &= u64::MAX << turn;
            }
            if word != 0 {
                return Some((at * 64) as u16 + word.trailing_zeros() as u16);
            }
        }
        None
    }

    fn is_free(&self, port: u16) -> bool {
        self.free_words().get(usize::from(port) / 64).is_some_and(|word| word & (1 << (port % 64)) != 0)
    }

    /// The one of these ports that is taken next, if it is still free then. Others of the same slot may have come between; where all of these are
    /// taken, the next one is not known ahead.
    fn foreseen(&self, wanted: Places) -> Option<u16> {
        self.next.get(wanted.slot()).copied().filter(|next| *next != NONE && wanted.contain(*next))
    }

    /// The one of these ports that will most likely be taken next. Asks for the memory that taking it needs.
    pub(super) fn foresee(&self, wanted: Places) -> Option<u16> {
        let next = self.foreseen(wanted);
        self.prefetch_ring(0);
        if let Bits::Many(many) = &self.free
            && let Some(word) = many.get(usize::from(next.unwrap_or_default()) / 64)
        {
            prefetch::line(word);
        }
        next
    }

    /// Asks for the memory that the release of a port needs.
    pub(super) fn prefetch_release(&self) {
        self.prefetch_ring(self.resting);
    }

    fn prefetch_ring(&self, behind: u16) {
        if let Some(resting) = self.ring.get(usize::from(self.place(behind))) {
            prefetch::line(resting);
        }
    }

    /// What rests since this tick or later, by place, and since when: the last first.
    pub(super) fn resting_since(&self, since: u32) -> impl Iterator<Item = (u16, u32)> {
        let places = (0..self.resting).rev().map(|behind| self.place(behind));
        let ports = places.filter_map(|place| self.ring.get(usize::from(place)));
        ports.map(|resting| (resting.port, resting.freed())).take_while(move |(_, freed)| *freed >= since)
    }

    /// The port is not used any more: it rests from now on.
    pub(super) fn release(&mut self, port: u16, tick: u32) {
        let last = self.place(self.resting);
        let Some(resting) = self.ring.get_mut(usize::from(last)) else { return };
        *resting = Resting::new(port, tick);
        if self.resting == 0 {
            self.oldest = tick;
        }
        self.resting += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::Lanes;

    #[test]
    fn a_set_is_a_cache_line() {
        assert_eq!(size_of::<PortSet>(), 64);
    }

    #[test]
    fn all_ports_are_given_once_and_again_after_their_rest_in_the_order_of_their_release() {
        for size in [16, 64, 100, 4096] {
            let mut set = PortSet::default();
            set.make(size, [3_u16].into_iter());
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
        let mut set = PortSet::default();
        set.make(128, std::iter::empty());
        let odd = Places::of_parity(1);
        for n in 0..64_u64 {
            assert_eq!(set.take_any(Some(odd), n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap() % 2, 1);
        }
        assert_eq!(set.take_any(Some(odd), 5), None);
        assert_eq!(set.take_any(Some(Places::of_parity(0)), 5).unwrap() % 2, 0);
    }

    #[test]
    fn wanted_ports_are_given_first_and_then_others_of_their_parity() {
        let like = |lanes, port| Lanes::new(lanes).unwrap().like(Ipv6Addr::LOCALHOST, port).places(0, 0);
        for (size, lanes) in [(16, 32), (64, 2), (128, 4), (128, 32), (4096, 8)] {
            let mut set = PortSet::default();
            set.make(size, std::iter::empty());
            // Of the same slot by turns: what is known ahead for one of them is nothing for the other.
            let kinds = [like(lanes, 7), like(lanes, 7 + 4), like(lanes, 6)];
            let count = |places: Places| (0..size).filter(|place| places.contain(*place)).count();
            let mut left = kinds.map(count);
            let mut of_parity = [size / 2; 2];
            for n in 0..u64::from(size / 2) {
                let which = n as usize % 2;
                let port = set.take_any(Some(kinds[which]), n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
                assert_eq!(port % 2, 1, "{size} ports, {lanes} lanes");
                assert_eq!(
                    kinds[which].contain(port),
                    left[which] > 0,
                    "{size} ports, {lanes} lanes: {port} is the {n}th"
                );
                for (left, kind) in left.iter_mut().zip(kinds) {
                    *left -= usize::from(kind.contain(port));
                }
                of_parity[1] -= 1;
            }
            assert_eq!(
                (of_parity[1], set.take_any(Some(kinds[0]), 5), set.take_any(Some(kinds[1]), 6)),
                (0, None, None)
            );
            assert_eq!(set.free(), of_parity[0]);
            let even = set.take_any(Some(kinds[2]), 5).unwrap();
            assert!(even % 2 == 0 && (left[2] == 0 || kinds[2].contain(even)));
        }
    }
}
