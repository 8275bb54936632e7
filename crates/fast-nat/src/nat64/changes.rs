//! Which entries have begun, changed or ended: for whoever keeps a copy of them elsewhere.
//!
//! One bit per entry, set by who changes it and taken by who copies it. That costs the packets of a session that goes on nothing, what
//! begins, changes its state or ends one atomic operation, and however much happens, nothing is lost and nothing grows.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Nat64;

/// A bit per number, from 1 on.
#[derive(Debug)]
pub(super) struct Marks(Box<[AtomicU64]>);

impl Marks {
    fn new(capacity: u32) -> Self {
        Self((0..=capacity / 64).map(|_| AtomicU64::new(0)).collect())
    }

    /// To be called after the change: who takes the mark sees what was written before it.
    fn set(&self, id: u32) {
        if let Some(word) = self.0.get((id / 64) as usize) {
            word.fetch_or(1 << (id % 64), Ordering::AcqRel);
        }
    }

    fn take(&self, mut each: impl FnMut(u32)) {
        for (number, word) in self.0.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                each(number as u32 * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }
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
    /// Reads a bit per session that there may be. Waits for nobody.
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
        let marks = Marks::new(200);
        for id in [1, 63, 64, 200, 64] {
            marks.set(id);
        }
        marks.set(5000);
        let mut taken = Vec::new();
        marks.take(|id| taken.push(id));
        assert_eq!(taken, [1, 63, 64, 200]);
        marks.take(|id| panic!("{id} was taken before"));
    }
}
