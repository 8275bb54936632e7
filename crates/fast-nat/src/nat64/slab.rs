//! Entries by number, which stay where they are.
//!
//! Taking and giving back a number waits for nobody. Whether the entry behind a number is in use is for the entry to say.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::memory::{Atoms, Mapped};
use crate::prefetch;

/// Entries of a chunk: making one is the longest step of growing.
pub(super) const CHUNK: usize = 64;

/// Huge pages begin behind so many mapped entries: a small table stays small.
const SMALL: usize = 32_768;

/// An entry that can be part of the list of free ones.
pub(super) trait Entry: Sized {
    /// Where entries of this kind are kept.
    type Memory: Memory<Self>;

    /// The next free one; free for other use while the entry is not.
    fn link(&self) -> &AtomicU32;
}

/// Where entries are.
pub(super) trait Memory<T>: Sized {
    fn new(capacity: usize) -> io::Result<Self>;

    /// The entry of this place, if it has been made.
    fn get(&self, place: usize) -> Option<&T>;

    /// Sees to it that there is one.
    fn make(&self, place: usize);

    /// Entries that making this one may have made.
    fn made_with(place: usize) -> usize;
}

/// Chunks that are made when they are first needed.
#[derive(Debug)]
pub(super) struct Chunks<T>(Box<[OnceLock<Box<[T; CHUNK]>>]>);

impl<T: Default> Memory<T> for Chunks<T> {
    fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self((0..capacity.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect()))
    }

    #[inline]
    fn get(&self, place: usize) -> Option<&T> {
        self.0.get(place / CHUNK)?.get()?.get(place % CHUNK)
    }

    fn make(&self, place: usize) {
        if let Some(chunk) = self.0.get(place / CHUNK) {
            chunk.get_or_init(|| Box::new(std::array::from_fn(|_| T::default())));
        }
    }

    fn made_with(place: usize) -> usize {
        if place.is_multiple_of(CHUNK) { CHUNK } else { 1 }
    }
}

impl<T: Atoms> Memory<T> for Mapped<T> {
    fn new(capacity: usize) -> io::Result<Self> {
        let mapped = Self::new(capacity)?;
        mapped.prefer_huge_pages(SMALL);
        Ok(mapped)
    }

    #[inline]
    fn get(&self, place: usize) -> Option<&T> {
        self.get(place)
    }

    fn make(&self, _place: usize) {}

    fn made_with(_place: usize) -> usize {
        1
    }
}

/// A cache line.
type Line = [u8; 64];

/// At most so many entries, by the numbers from 1 on.
#[derive(Debug)]
pub(super) struct Slab<T: Entry> {
    memory: T::Memory,
    capacity: u32,
    /// Numbers up to this one have been in use.
    used: AtomicU32,
    /// The first free number, and above it a count of changes, which tells a list from one that looks the same.
    free: AtomicU64,
    live: AtomicU32,
}

impl<T: Entry> Slab<T> {
    pub(super) fn new(capacity: u32) -> io::Result<Self> {
        Ok(Self {
            memory: T::Memory::new(capacity as usize)?,
            capacity,
            used: AtomicU32::new(0),
            free: AtomicU64::new(0),
            live: AtomicU32::new(0),
        })
    }

    /// The entry of a number that was taken at some time.
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.memory.get(id.wrapping_sub(1) as usize)
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
        self.memory.make(place as usize);
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
        T::Memory::made_with(id.wrapping_sub(1) as usize) as u32
    }

    /// Bytes that mapped entries have ever been in.
    pub(super) fn mapped_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed) as usize * size_of::<T>()
    }

    /// The numbers that were given back: each once, or there are more than were ever taken.
    #[cfg(feature = "fault-injection")]
    pub(super) fn free_numbers(&self) -> Vec<u32> {
        let mut free = Vec::new();
        let mut at = self.free.load(Ordering::Acquire) as u32;
        while let Some(entry) = self.get(at)
            && free.len() <= self.used.load(Ordering::Acquire) as usize
        {
            free.push(at);
            at = entry.link().load(Ordering::Relaxed);
        }
        free
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

    #[derive(Debug, Default)]
    struct Thing(AtomicU32);

    impl Entry for Thing {
        type Memory = Chunks<Self>;

        fn link(&self) -> &AtomicU32 {
            &self.0
        }
    }

    #[test]
    fn a_number_is_taken_once_until_it_is_given_back() {
        let slab = Slab::<Thing>::new(300).unwrap();
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
        let slab = Slab::<Thing>::new(64).unwrap();
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
