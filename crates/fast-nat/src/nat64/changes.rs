//! Which entries have begun, changed or ended: for whoever keeps a copy of them elsewhere.
//!
//! One bit per entry, set by who changes it and taken by who copies it. That costs the packets of a session that goes on nothing, what
//! begins, changes its state or ends one atomic operation, and however much happens, nothing is lost and nothing grows.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Nat64;

/// A bit per number, from 1 on, and a bit per word of them that has one set: where nothing changes, little is looked at.
#[derive(Debug)]
pub(super) struct Marks {
    words: Box<[AtomicU64]>,
    marked: Box<[AtomicU64]>,
}

impl Marks {
    fn new(capacity: u32) -> Self {
        let zeros = |count: u32| (0..count).map(|_| AtomicU64::new(0)).collect();
        let words = capacity / 64 + 1;
        Self { words: zeros(words), marked: zeros(words.div_ceil(64)) }
    }

    /// To be called after the change: who takes the mark sees what was written before it.
    fn set(&self, id: u32) {
        let word = id / 64;
        let (Some(bits), Some(marked)) =
            (self.words.get(word as usize), self.marked.get((word / 64) as usize))
        else {
            return;
        };
        // Whoever set the first bit of a word marks it, after that: a taker in between comes again.
        if bits.fetch_or(1 << (id % 64), Ordering::AcqRel) == 0 {
            marked.fetch_or(1 << (word % 64), Ordering::AcqRel);
        }
    }

    fn take(&self, mut each: impl FnMut(u32)) {
        for word in each_taken(&self.marked) {
            let taken = each_taken(self.words.get(word as usize..=word as usize).unwrap_or_default());
            taken.for_each(|bit| each(word * 64 + bit));
        }
    }
}

/// The numbers of the bits that are set; each of them is cleared before it is told.
fn each_taken(words: &[AtomicU64]) -> impl Iterator<Item = u32> {
    words.iter().zip(0_u32..).filter(|(word, _)| word.load(Ordering::Relaxed) != 0).flat_map(
        |(word, number)| {
            let mut bits = word.swap(0, Ordering::AcqRel);
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| number * 64 + bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(bit)
            })
        },
    )
}

/// What has changed since it was last asked for.
#[derive(Debug)]
pub(super) struct Changes {
    sessions: Marks,
    blocks: Marks,
}

impl Changes {
    pub(super) fn new(sessions: u32, blocks: u32) -> Self {
        Self { sessions: Marks::new(sessions), blocks: Marks::new(blocks) }
    }
}

impl Nat64 {
    /// A session has begun, changed its standing or ended. A number that comes up again is somebody else's.
    pub(super) fn session_changed(&self, id: u32) {
        if let Some(changes) = &self.changes {
            changes.sessions.set(id);
        }
    }

    /// A block was given or taken back, or one of its ports has begun to rest.
    pub(super) fn block_changed(&self, id: u32) {
        if let Some(changes) = &self.changes {
            changes.blocks.set(id);
        }
    }

    /// The places of sessions of which something but their timer and their counts has changed since this was last asked, for
    /// [`Self::saved_session`]. None, unless [`track_changes`](super::NatConfig::track_changes) is set.
    ///
    /// Reads a bit per 64 sessions that there may be, and one per session where something has changed. Waits for nobody.
    pub fn take_changed_sessions(&self, each: impl FnMut(u32)) {
        if let Some(changes) = &self.changes {
            changes.sessions.take(each);
        }
    }

    /// The places of blocks that were given or taken back, or whose ports have begun to rest, since this was last asked, for
    /// [`Self::saved_block`] and [`Self::resting_ports`]. None, unless [`track_changes`](super::NatConfig::track_changes) is set.
    pub fn take_changed_blocks(&self, each: impl FnMut(u32)) {
        if let Some(changes) = &self.changes {
            changes.blocks.take(each);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_taken_once() {
        let marks = Marks::new(20_000);
        let all = [1, 63, 64, 200, 4095, 4096, 8191, 19_999, 20_000];
        for _ in 0..2 {
            for id in all.into_iter().chain([64, 25_000]) {
                marks.set(id);
            }
            let mut taken = Vec::new();
            marks.take(|id| taken.push(id));
            assert_eq!(taken, all);
            marks.take(|id| panic!("{id} was taken before"));
        }
    }

    #[test]
    fn what_is_marked_while_others_are_taken_is_taken_then_or_later() {
        const NUMBERS: u32 = 10_000;
        let marks = Marks::new(NUMBERS);
        let mut seen = vec![0_u32; NUMBERS as usize + 1];
        std::thread::scope(|scope| {
            let setters: Vec<_> = (0..2)
                .map(|half| {
                    let marks = &marks;
                    scope.spawn(move || {
                        for round in 0..20 {
                            (1..=NUMBERS).filter(|id| (id + round) % 2 == half).for_each(|id| marks.set(id));
                        }
                    })
                })
                .collect();
            while !setters.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                marks.take(|id| seen[id as usize] += 1);
            }
        });
        // What was marked last is still to be taken, and nothing else is.
        seen.fill(0);
        (1..=NUMBERS).for_each(|id| marks.set(id));
        marks.take(|id| seen[id as usize] += 1);
        assert!(seen[1..].iter().all(|times| *times == 1));
        assert!(marks.words.iter().chain(&marks.marked).all(|word| word.load(Ordering::Relaxed) == 0));
    }
}
