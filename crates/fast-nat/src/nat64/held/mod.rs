//! A shard under its lock: what begins, changes and ends.

mod bindings;
mod idle;
mod lessees;
mod permits;
mod ports;
mod repair;
mod restore;
mod sessions;

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::wheel::Wheel;
use super::{AtomicU32, Nat64, SHARDS};

pub(super) use permits::Permit;
pub(super) use ports::MOST_BLOCKS;

/// What one lock guards.
#[derive(Debug)]
pub(super) struct Shard {
    number: u64,
    pub(super) wheel: Wheel,
    /// Ends of the list of blocks without a binding, in the order in which they became so.
    pub(super) idle_first: u32,
    idle_last: u32,
    /// Random numbers made so far.
    randoms: u64,
}

impl Shard {
    pub(super) fn new(number: usize) -> Self {
        Self { number: number as u64, wheel: Wheel::new(), idle_first: 0, idle_last: 0, randoms: 0 }
    }
}

#[cfg(feature = "fault-injection")]
impl Shard {
    pub(super) const fn idle_last(&self) -> u32 {
        self.idle_last
    }
}

/// Adds to what only the holder of the shard's lock changes; says what that is then.
fn add(count: &AtomicU32, more: i32) -> u32 {
    let sum = count.load(Ordering::Relaxed).wrapping_add_signed(more);
    count.store(sum, Ordering::Relaxed);
    sum
}

/// A locked shard of an engine.
pub(super) struct Held<'n> {
    pub(super) nat: &'n Nat64,
    pub(super) shard: MutexGuard<'n, Shard>,
    pub(super) number: u32,
    touched: u32,
    /// What is being made or ended, and is therefore in no order.
    pub(super) hand: Hand,
}

/// Numbers that are taken and not in use yet, or not in use any more and not given back; 0: none. Were there a panic, nobody else would
/// know of them.
#[derive(Debug, Default)]
pub(super) struct Hand {
    session: u32,
    binding: u32,
    permit: u32,
    /// A block that is being given.
    pub(super) block: u32,
    /// A block that is being taken back.
    pub(super) block_back: u32,
    host: u32,
    subscriber: u32,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // The lock is still held: nobody sees what a panic has left half done.
        if std::thread::panicking() {
            self.repair();
        }
        self.nat.touched(self.touched);
    }
}

impl Nat64 {
    pub(super) fn shard_of(&self, subscriber: u128) -> u32 {
        u32::from(self.hasher.shard(subscriber)) % SHARDS as u32
    }

    pub(super) fn hold(&self, number: u32) -> Option<Held<'_>> {
        let cell = self.shards.get(number as usize)?;
        let shard = cell.shard.try_lock().unwrap_or_else(|| {
            self.contended.fetch_add(1, Ordering::Relaxed);
            cell.shard.lock()
        });
        Some(Held { nat: self, shard, number, touched: 0, hand: Hand::default() })
    }
}

impl Held<'_> {
    /// One entry more has been looked at or changed.
    pub(super) fn touch(&mut self, entries: u32) {
        self.touched += entries;
    }

    fn random(&mut self) -> u64 {
        self.shard.randoms += 1;
        self.nat.hasher.random_number(self.shard.number << 48 | self.shard.randoms)
    }
}
