//! Blocks without a binding, in the order in which they became so.

use super::super::entries::BlockData;
use super::Held;
use crate::faults::{self, Point};

impl Held<'_> {
    pub(super) fn with_block<T>(&self, id: u32, work: impl FnOnce(&mut BlockData) -> T) -> Option<T> {
        self.nat.blocks.get(id).map(|block| work(&mut block.data.lock()))
    }

    pub(in crate::nat64) fn begin_idle(&mut self, id: u32, tick: u32) {
        let last = self.shard.idle_last;
        self.with_block(id, |block| {
            (block.idle_before, block.idle_behind, block.idle_since) = (last, 0, tick);
        });
        if last == 0 {
            self.shard.idle_first = id;
        } else {
            self.with_block(last, |block| block.idle_behind = id);
        }
        faults::at(Point::IdleBegin);
        self.shard.idle_last = id;
    }

    pub(in crate::nat64) fn end_idle(&mut self, id: u32) {
        let Some((before, behind)) = self.with_block(id, |block| (block.idle_before, block.idle_behind))
        else {
            return;
        };
        if before == 0 {
            self.shard.idle_first = behind;
        } else {
            self.with_block(before, |block| block.idle_behind = behind);
        }
        faults::at(Point::IdleEnd);
        if behind == 0 {
            self.shard.idle_last = before;
        } else {
            self.with_block(behind, |block| block.idle_before = before);
        }
    }
}
