//! An index of entry numbers: found without a lock, and never moved.
//!
//! Every key has two buckets, cache lines with 15 places each. A number is put into the first one, unless [`CROWDED`] places of
//! it are taken: then into the emptier one. A bucket counts the numbers that have evaded it, so who finds nothing in the first
//! bucket, nor such a number, need not look at the second. Nothing is ever rehashed or shifted, and who reads while others
//! write misses nothing that stays. Filled to [`FILL`] entries a bucket on average, a pair of full buckets is practically never
//! met; if it is, the entry is refused as if the table were full.
//!
//! Which buckets a key has depends on a secret, so a stranger cannot fill them.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::memory::Mapped;
use crate::prefetch;

/// Words of a bucket: a cache line. The first one counts the numbers that are in their second bucket because this one, their
/// first, was crowded.
const WORDS: usize = 16;

/// Entries per bucket that the index is made for.
const FILL: usize = 11;

/// Buckets beside those: in a small index chance spreads entries less evenly.
const SPARE: usize = 16;

/// With so many taken places a bucket evades.
const CROWDED: usize = 12;

/// Upper eight bits: part of the hash, so that few wrong entries are looked at. Lower 24 bits: the number.
const TAG_SHIFT: u32 = 24;

/// An index for a given number of entries. Its memory (5.8 bytes an entry) is taken as it fills.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Mapped<[AtomicU32; WORDS]>,
}

/// The places of one key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    buckets: [u32; 2],
    tag: u32,
}

impl Index {
    pub(super) fn new(entries: u32) -> io::Result<Self> {
        Ok(Self { buckets: Mapped::new((entries as usize).div_ceil(FILL) + SPARE)? })
    }

    /// Its memory, once it is known to fill.
    pub(super) fn memory(&self) -> &Mapped<[AtomicU32; WORDS]> {
        &self.buckets
    }

    pub(super) fn place(&self, hash: u64) -> Place {
        // The upper bits of each half choose its bucket, the lowest bits are the tag.
        let buckets = self.buckets.len() as u32;
        let reduce = |half: u32| ((u64::from(half) * u64::from(buckets)) >> 32) as u32;
        let first = reduce(hash as u32);
        let second = reduce((hash >> 32) as u32);
        // Two buckets, whatever the hash says.
        let second = if first == second { (first + 1) % buckets } else { second };
        Place { buckets: [first, second], tag: hash as u32 & 0xff }
    }

    fn bucket(&self, bucket: u32) -> Bucket<'_> {
        Bucket(self.buckets.get(bucket as usize).unwrap_or(&NOTHING))
    }

    /// The number among those of this place that `is_it`.
    #[inline]
    pub(super) fn find(&self, place: Place, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut find_in = |bucket: Bucket<'_>| {
            bucket.places().iter().find_map(|word| {
                let word = word.load(Ordering::Acquire);
                let id = word & ((1 << TAG_SHIFT) - 1);
                (word >> TAG_SHIFT == place.tag && id != 0 && is_it(id)).then_some(id)
            })
        };
        let first = self.bucket(place.buckets[0]);
        find_in(first).or_else(|| find_in(self.second(first, place)?))
    }

    /// The second bucket, if the first one was evaded by anything.
    #[inline]
    fn second(&self, first: Bucket<'_>, place: Place) -> Option<Bucket<'_>> {
        (first.evaded().load(Ordering::Acquire) != 0).then(|| self.bucket(place.buckets[1]))
    }

    /// The number with the place's tag, right or wrong, that is the `nth` among those; 0: there is none.
    #[inline]
    pub(super) fn candidate(&self, place: Place, nth: u32) -> u32 {
        let mut left = nth;
        let mut candidate_in = |bucket: Bucket<'_>| {
            bucket.places().iter().find_map(|word| {
                let word = word.load(Ordering::Relaxed);
                let has_tag = word >> TAG_SHIFT == place.tag && word != 0;
                let is_it = has_tag && left == 0;
                left -= u32::from(has_tag && !is_it);
                is_it.then_some(word & ((1 << TAG_SHIFT) - 1))
            })
        };
        let first = self.bucket(place.buckets[0]);
        let found = candidate_in(first).or_else(|| candidate_in(self.second(first, place)?));
        found.unwrap_or_default()
    }

    /// Asks for the first bucket of a place.
    #[inline]
    pub(super) fn prefetch(&self, place: Place) {
        prefetch::line(self.bucket(place.buckets[0]).0);
    }

    /// Asks for the second bucket of a place, if it is needed. The first one is waited for.
    #[inline]
    pub(super) fn prefetch_second(&self, place: Place) {
        if let Some(second) = self.second(self.bucket(place.buckets[0]), place) {
            prefetch::line(second.0);
        }
    }

    /// Asks for the second bucket of a place, if a number more would be put into it. The first one is waited for.
    #[inline]
    pub(super) fn prefetch_to_insert(&self, place: Place) {
        let [first, second] = place.buckets.map(|bucket| self.bucket(bucket));
        if first.evaded().load(Ordering::Relaxed) != 0 || first.taken() >= CROWDED {
            prefetch::line(second.0);
        }
    }

    /// How many numbers are in it.
    #[cfg(feature = "fault-injection")]
    pub(super) fn count(&self) -> usize {
        (0..self.buckets.len() as u32).map(|bucket| self.bucket(bucket).taken()).sum()
    }

    /// Puts a number in. The caller sees to it that its key is not there. `false`: both buckets are full.
    pub(super) fn insert(&self, place: Place, id: u32) -> bool {
        let word = place.tag << TAG_SHIFT | id;
        let [a, b] = place.buckets.map(|bucket| self.bucket(bucket));
        let taken = a.taken();
        if taken >= CROWDED && b.taken() < taken {
            // Counted first: who sees the number missing from its first bucket must see that it was evaded.
            a.evaded().fetch_add(1, Ordering::Release);
            if b.insert(word) {
                return true;
            }
            a.evaded().fetch_sub(1, Ordering::Release);
        }
        a.insert(word)
    }

    /// Takes a number out.
    pub(super) fn remove(&self, place: Place, id: u32) {
        let word = place.tag << TAG_SHIFT | id;
        let first = self.bucket(place.buckets[0]);
        if !first.remove(word) && self.second(first, place).is_some_and(|second| second.remove(word)) {
            first.evaded().fetch_sub(1, Ordering::Release);
        }
    }
}

/// An empty bucket, for numbers of buckets that there are none of.
static NOTHING: [AtomicU32; WORDS] = [const { AtomicU32::new(0) }; WORDS];

/// The words of a bucket.
#[derive(Debug, Clone, Copy)]
struct Bucket<'i>(&'i [AtomicU32; WORDS]);

impl<'i> Bucket<'i> {
    fn evaded(self) -> &'i AtomicU32 {
        &self.0[0]
    }

    fn places(self) -> &'i [AtomicU32] {
        &self.0[1..]
    }

    fn taken(self) -> usize {
        self.places().iter().filter(|word| word.load(Ordering::Relaxed) != 0).count()
    }

    fn insert(self, word: u32) -> bool {
        self.places().iter().any(|free| {
            free.load(Ordering::Relaxed) == 0
                && free.compare_exchange(0, word, Ordering::Release, Ordering::Relaxed).is_ok()
        })
    }

    fn remove(self, word: u32) -> bool {
        self.places().iter().any(|there| {
            there.load(Ordering::Relaxed) == word
                && there.compare_exchange(word, 0, Ordering::Release, Ordering::Relaxed).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for a keyed hash: good enough to spread numbers.
    fn hash(n: u32) -> u64 {
        let mixed = u64::from(n).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 29).wrapping_mul(0x94d0_49bb_1331_11eb) ^ mixed >> 32
    }

    #[test]
    fn an_index_filled_to_its_last_entry_holds_them_all_and_gives_them_back() {
        for entries in [1, 2, 100, 100_000] {
            let index = Index::new(entries).unwrap();
            for id in 1..=entries {
                assert!(index.insert(index.place(hash(id)), id), "{id} of {entries}");
            }
            for id in 1..=entries {
                assert_eq!(index.find(index.place(hash(id)), |found| found == id), Some(id));
            }
            for id in (1..=entries).step_by(2) {
                index.remove(index.place(hash(id)), id);
            }
            for id in 1..=entries {
                let found = index.find(index.place(hash(id)), |found| found == id);
                assert_eq!(found, (id % 2 == 0).then_some(id));
            }
        }
    }

    #[test]
    fn buckets_begin_at_cache_lines() {
        let index = Index::new(1000).unwrap();
        assert_eq!(index.bucket(0).0.as_ptr() as usize % 64, 0);
        assert_ne!(index.bucket(index.buckets.len() as u32 - 1).0.as_ptr(), NOTHING.as_ptr());
    }

    #[test]
    fn two_full_buckets_refuse() {
        let index = Index::new(1).unwrap();
        let place = index.place(5);
        for id in 1..=2 * (WORDS - 1) as u32 {
            assert!(index.insert(place, id));
        }
        assert!(!index.insert(place, 100));
    }
}
