//! An index of entry numbers: found without a lock, and never moved.
//!
//! Every key has two buckets of 16 places; a number is put into the emptier one. So nothing is ever rehashed or shifted, a
//! look-up reads at most two cache lines of the index, and who reads while others write misses nothing that stays. Filled to
//! [`FILL`] of its places on average, a pair of full buckets is practically never met (the difference of two choices: the
//! fullest bucket has a handful more than the average); if it is, the entry is refused as if the table were full.
//!
//! Which buckets a key has depends on a secret, so a stranger cannot fill them.

use std::sync::atomic::{AtomicU32, Ordering};

/// Places in a bucket: a cache line.
const PLACES: usize = 16;

/// Entries per bucket that the index is made for.
const FILL: usize = 11;

/// Words of the slice before the first whole cache line, at most.
const SLACK: usize = PLACES - 1;

/// Upper eight bits: part of the hash, so that few wrong entries are looked at. Lower 24 bits: the number.
const TAG_SHIFT: u32 = 24;

/// An index for a given number of entries. Its memory (6 bytes an entry) is taken at once and touched as it fills.
#[derive(Debug)]
pub(super) struct Index {
    words: Box<[AtomicU32]>,
    /// Where the first cache line begins.
    first: usize,
    buckets: u32,
}

/// The places of one key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    buckets: [u32; 2],
    tag: u32,
}

impl Index {
    pub(super) fn new(entries: u32) -> Self {
        let buckets = (entries as usize).div_ceil(FILL).max(2);
        let words: Box<[AtomicU32]> = bytemuck::allocation::zeroed_slice_box(buckets * PLACES + SLACK);
        let misplaced = words.as_ptr() as usize % 64 / size_of::<AtomicU32>();
        Self { first: (PLACES - misplaced) % PLACES, buckets: buckets as u32, words }
    }

    pub(super) fn place(&self, hash: u64) -> Place {
        // The upper bits of each half choose its bucket, the lowest bits are the tag.
        let reduce = |half: u32| ((u64::from(half) * u64::from(self.buckets)) >> 32) as u32;
        Place { buckets: [reduce(hash as u32), reduce((hash >> 32) as u32)], tag: hash as u32 & 0xff }
    }

    fn bucket(&self, bucket: u32) -> &[AtomicU32] {
        let start = self.first + bucket as usize * PLACES;
        self.words.get(start..start + PLACES).unwrap_or_default()
    }

    /// The number among those of this place that `is_it`.
    #[inline]
    pub(super) fn find(&self, place: Place, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        for bucket in place.buckets {
            for word in self.bucket(bucket) {
                let word = word.load(Ordering::Acquire);
                let id = word & ((1 << TAG_SHIFT) - 1);
                if word >> TAG_SHIFT == place.tag && id != 0 && is_it(id) {
                    return Some(id);
                }
            }
        }
        None
    }

    /// The number with the place's tag, right or wrong, that is the `nth` among those; 0: there is none.
    #[inline]
    pub(super) fn candidate(&self, place: Place, nth: u32) -> u32 {
        let mut left = nth;
        for bucket in place.buckets {
            for word in self.bucket(bucket) {
                let word = word.load(Ordering::Relaxed);
                if word >> TAG_SHIFT == place.tag && word != 0 {
                    if left == 0 {
                        return word & ((1 << TAG_SHIFT) - 1);
                    }
                    left -= 1;
                }
            }
        }
        0
    }

    /// Brings the buckets of a place into the cache.
    #[inline]
    pub(super) fn touch(&self, place: Place) -> u32 {
        place.buckets.iter().fold(0, |sum, bucket| {
            sum ^ self.bucket(*bucket).first().map_or(0, |word| word.load(Ordering::Relaxed))
        })
    }

    /// Puts a number in. The caller sees to it that its key is not there. `false`: both buckets are full.
    pub(super) fn insert(&self, place: Place, id: u32) -> bool {
        let filled =
            |bucket: u32| self.bucket(bucket).iter().filter(|word| word.load(Ordering::Relaxed) != 0).count();
        let [a, b] = place.buckets;
        let order = if filled(b) < filled(a) { [b, a] } else { [a, b] };
        let word = place.tag << TAG_SHIFT | id;
        order.into_iter().any(|bucket| {
            self.bucket(bucket).iter().any(|free| {
                free.load(Ordering::Relaxed) == 0
                    && free.compare_exchange(0, word, Ordering::Release, Ordering::Relaxed).is_ok()
            })
        })
    }

    /// Takes a number out.
    pub(super) fn remove(&self, place: Place, id: u32) {
        let word = place.tag << TAG_SHIFT | id;
        for bucket in place.buckets {
            for there in self.bucket(bucket) {
                if there.load(Ordering::Relaxed) == word
                    && there.compare_exchange(word, 0, Ordering::Release, Ordering::Relaxed).is_ok()
                {
                    return;
                }
            }
        }
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
            let index = Index::new(entries);
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
        let index = Index::new(1000);
        assert_eq!(index.bucket(0).as_ptr() as usize % 64, 0);
        assert_eq!(index.bucket(index.buckets - 1).len(), PLACES);
    }

    #[test]
    fn two_full_buckets_refuse() {
        let index = Index::new(1);
        let place = index.place(5);
        let room = if place.buckets[0] == place.buckets[1] { PLACES } else { 2 * PLACES };
        for id in 1..=room as u32 {
            assert!(index.insert(place, id));
        }
        assert!(!index.insert(place, 100));
    }
}
