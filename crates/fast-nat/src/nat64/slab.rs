//! Entries by number, in chunks that are made when they are first needed and stay where they are.
//!
//! Taking and giving back a number waits for nobody. Whether the entry behind a number is in use is for the entry to say.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::prefetch;

/// Entries of a chunk: making one is the longest step of growing.
pub(super) const CHUNK: usize = 64;

/// An entry that can be part of the list of free ones.
pub(super) trait Entry: Default {
    /// The next free one; free for other use while the entry is not.
    fn link(&self) -> &AtomicU32;
}

/// A cache line.
type Line = [u8; 64];

/// At most so many entries, by the numbers from 1 on.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// A chunk's place is one word and the state of its making: a look-up of many entries needs many of them at hand.
    chunks: Box<[OnceLock<Box<[T; CHUNK]>>]>,
    capacity: u32,
    /// Numbers up to this one have been in use.
    used: AtomicU32,
    /// The first free number, and above it a count of changes, which tells a list from one that looks the same.
    free: AtomicU64,
    live: AtomicU32,
}

impl<T: Entry> Slab<T> {
    pub(super) fn new(capacity: u32) -> Self {
        let chunks = (capacity as usize).div_ceil(CHUNK);
        Self {
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            capacity,
            used: AtomicU32::new(0),
            free: AtomicU64::new(0),
            live: AtomicU32::new(0),
        }
    }

    /// The entry of a number that was taken at some time.
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&T> {
        let place = id.wrapping_sub(1) as usize;
        self.chunks.get(place / CHUNK)?.get()?.get(place % CHUNK)
    }

    /// Asks for the entry of a number.
    #[inline]
    pub(super) fn prefetch(&self, id: u32) {
        let Some(entry) = self.get(id) else { return };
        let lines = std::ptr::from_ref(entry).cast::<Line>();
        for line in 0..size_of::<T>().div_ceil(size_of::<Line>()) {
            prefetch::line(lines.wrapping_add(line));
        }
    }

    /// A number that nobody has; `None`: all are taken.
    pub(super) fn take(&self) -> Option<u32> {
        let id = self.pop().or_else(|| self.next_unused())?;
        self.live.fetch_add(1, Ordering::Relaxed);
        Some(id)
    }

    fn pop(&self) -> Option<u32> {
        let mut head = self.free.load(Ordering::Acquire);
        loop {
            let id = head as u32;
            let next = self.get(id)?.link().load(Ordering::Relaxed);
            let changed = ((head >> 32).wrapping_add(1) << 32) | u64::from(next);
            match self.free.compare_exchange_weak(head, changed, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    // Who takes the next one would wait for it.
                    self.prefetch(next);
                    return Some(id);
                }
                Err(now) => head = now,
            }
        }
    }

    fn next_unused(&self) -> Option<u32> {
        let more = |used: u32| (used < self.capacity).then_some(used + 1);
        let place = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        self.chunks
            .get(place as usize / CHUNK)?
            .get_or_init(|| Box::new(std::array::from_fn(|_| T::default())));
        Some(place + 1)
    }

    /// Gives a number back. Its entry must say by itself that it is not in use.
    pub(super) fn give_back(&self, id: u32) {
        let Some(entry) = self.get(id) else { return };
        self.live.fetch_sub(1, Ordering::Relaxed);
        let mut head = self.free.load(Ordering::Relaxed);
        loop {
            entry.link().store(head as u32, Ordering::Relaxed);
            let changed = ((head >> 32).wrapping_add(1) << 32) | u64::from(id);
            match self.free.compare_exchange_weak(head, changed, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Entries that taking this number may have made.
    pub(super) fn made_with(id: u32) -> u32 {
        if id as usize % CHUNK == 1 { CHUNK as u32 } else { 1 }
    }

    /// Numbers that are taken.
    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether no number is left.
    pub(super) fn is_full(&self) -> bool {
        self.live() >= self.capacity
    }

    /// All numbers that were ever taken.
    pub(super) fn numbers(&self) -> std::ops::RangeInclusive<u32> {
        1..=self.used.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Thing(AtomicU32);

    impl Entry for Thing {
        fn link(&self) -> &AtomicU32 {
            &self.0
        }
    }

    #[test]
    fn a_number_is_taken_once_until_it_is_given_back() {
        let slab = Slab::<Thing>::new(300);
        let mut taken: Vec<_> = (0..300).map(|_| slab.take().unwrap()).collect();
        assert_eq!((slab.take(), slab.is_full()), (None, true));
        taken.sort_unstable();
        assert_eq!(taken, (1..=300).collect::<Vec<_>>());
        slab.give_back(17);
        assert_eq!((slab.take(), slab.take(), slab.live()), (Some(17), None, 300));
        assert!(slab.get(0).is_none() && slab.get(400).is_none());
    }

    #[test]
    fn threads_never_take_the_same_number() {
        let slab = Slab::<Thing>::new(64);
        let held: Vec<AtomicU32> = (0..=64).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let Some(id) = slab.take() else { continue };
                        assert_eq!(held[id as usize].swap(1, Ordering::AcqRel), 0);
                        held[id as usize].store(0, Ordering::Release);
                        slab.give_back(id);
                    }
                });
            }
        });
        assert_eq!(slab.live(), 0);
    }
}
