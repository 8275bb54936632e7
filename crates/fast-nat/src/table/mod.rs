//! Who holds which address.

mod entry;
mod saved;
mod shard;
mod timers;

use std::collections::{HashSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use crate::faults::{self, Point};
use crate::{Lease, LeaseKind, Timestamp, random_key};
use entry::Entry;
pub use saved::SavedLease;
use shard::Index;
use timers::Timers;

/// Shards of each index. With two to sixteen workers, two of them rarely meet in one of 256.
const SHARDS: usize = 256;

/// Why a lease could not be put into the table. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The host holds another address.
    #[error("{} already holds {}", .0.host, .0.address)]
    HostHasLease(Lease),
    /// Another host holds the address.
    #[error("{} is already held by {}", .0.address, .0.host)]
    AddressTaken(Lease),
    /// The table is at its bound.
    #[error("the lease table is full ({0} leases)")]
    Full(usize),
}

/// A lease that ended, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The lease.
    pub lease: Lease,
    /// When it ended.
    pub at: Timestamp,
}

/// Who holds which address: shared by all packet workers, and outliving whoever manages it.
///
/// Two indexes, by host and by address, are never locked together. A lease is put into the index by address first
/// (which reserves the address) and published by the one by host; it is taken out in the opposite order. No lock is
/// held while anything but the index itself is touched.
///
/// Memory: about 130 bytes a lease (entry, two index slots, a timer), and 72 bytes for each lease that ended within
/// the time that its address rests. The bound on both is the capacity.
pub struct LeaseTable {
    by_host: Index<Ipv6Addr>,
    by_address: Index<Ipv4Addr>,
    timers: Mutex<Timers>,
    /// Leases that ended lately, oldest first: a rebuilt pool learns from here which addresses still rest.
    ended: Mutex<VecDeque<Ended>>,
    /// In milliseconds.
    remember: AtomicU64,
    capacity: AtomicUsize,
    held: AtomicUsize,
    next_generation: AtomicU32,
    /// Addresses whose lease has begun or ended since somebody last asked, if anybody does: at most as many as there are.
    changed: Option<Mutex<HashSet<Ipv4Addr>>>,
}

impl std::fmt::Debug for LeaseTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LeaseTable({} of {} leases)", self.len(), self.capacity())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl LeaseTable {
    /// An empty table for at most `capacity` leases, which remembers leases that ended for `remember`.
    pub fn new(capacity: usize, remember: Duration) -> Self {
        let key = random_key();
        let hasher = SipHasher13::new_with_key(&key);
        Self {
            by_host: Index::new(SHARDS, hasher),
            by_address: Index::new(SHARDS, hasher),
            timers: Mutex::default(),
            ended: Mutex::default(),
            remember: AtomicU64::new(millis(remember)),
            capacity: AtomicUsize::new(capacity),
            held: AtomicUsize::new(0),
            next_generation: AtomicU32::new(1),
            changed: None,
        }
    }

    /// The lease of a host that has just sent a packet; the lease is refreshed (RFC 4787 REQ-6, outbound).
    #[inline]
    pub fn by_host(&self, host: Ipv6Addr, now: Timestamp) -> Option<Lease> {
        self.by_host.read(host, |entry| {
            entry.refresh(now);
            entry.lease()
        })
    }

    /// The lease of an address, for an inbound packet. Refreshes nothing: an outsider must not be able to pin a lease.
    #[inline]
    pub fn by_address(&self, address: Ipv4Addr) -> Option<Lease> {
        self.by_address.read(address, Entry::lease)
    }

    /// The lease of a host, left as it is.
    #[inline]
    pub fn peek_host(&self, host: Ipv6Addr) -> Option<Lease> {
        self.by_host.read(host, Entry::lease)
    }

    /// Leases held, static ones included.
    pub fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether nobody holds anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most leases that can be held.
    pub fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Holds at most `capacity` leases from now on, and remembers those that end for `remember`. What is held already stays.
    pub fn set_bounds(&self, capacity: usize, remember: Duration) {
        self.capacity.store(capacity, Ordering::Relaxed);
        self.remember.store(millis(remember), Ordering::Relaxed);
    }

    /// Whether a lock is held by a thread that does not give it back within `patience`: it hangs, and whoever needs the lock hangs with it.
    pub fn is_stuck(&self, patience: Duration) -> bool {
        self.by_host.is_stuck(patience)
            || self.by_address.is_stuck(patience)
            || self.timers.try_lock_for(patience).is_none()
            || self.ended.try_lock_for(patience).is_none()
    }

    /// How often a shard's lock was not free at the first try.
    pub fn contended(&self) -> u64 {
        self.by_host.contended() + self.by_address.contended()
    }

    /// Gives `address` to `host`. Giving it once more to the same host returns the lease that is there.
    pub fn insert(
        &self,
        host: Ipv6Addr,
        address: Ipv4Addr,
        kind: LeaseKind,
        now: Timestamp,
    ) -> Result<Lease, InsertError> {
        self.insert_since(host, address, kind, (now, now))
    }

    /// The same with the times at which it was granted and its host was last seen.
    fn insert_since(
        &self,
        host: Ipv6Addr,
        address: Ipv4Addr,
        kind: LeaseKind,
        times: (Timestamp, Timestamp),
    ) -> Result<Lease, InsertError> {
        // Also in a full table a host that has the lease has it.
        if let Some(there) = self.by_address(address)
            && there.host == host
        {
            return Ok(there);
        }
        let capacity = self.capacity();
        let held_before = self.held.fetch_add(1, Ordering::Relaxed);
        let mut beginning = Beginning { table: self, entry: None, is_done: false };
        if held_before >= capacity {
            return Err(InsertError::Full(capacity));
        }
        let generation = self.next_generation.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry::new(host, address, kind, generation, times));
        if let Err(there) = self.by_address.insert(&entry) {
            return if there.host == host {
                Ok(there.lease())
            } else {
                Err(InsertError::AddressTaken(there.lease()))
            };
        }
        beginning.entry = Some(Arc::clone(&entry));
        faults::at(Point::LeaseBegin);
        if let Err(there) = self.by_host.insert(&entry) {
            return Err(InsertError::HostHasLease(there.lease()));
        }
        faults::at(Point::LeaseArm);
        if kind == LeaseKind::Dynamic {
            // Not before its host has it: a timer that fires without a lease is gone.
            self.timers.lock().arm(times.1, host, generation);
            self.note_change(address);
        }
        beginning.is_done = true;
        Ok(entry.lease())
    }

    /// Ends the lease of an address, whatever its kind.
    pub fn remove(&self, address: Ipv4Addr, now: Timestamp) -> Option<Lease> {
        let lease = self.by_address(address)?;
        self.end(lease.host, now, |entry| entry.generation == lease.generation, &mut |_| {})
    }

    /// Ends leases whose host has been silent for `lifetime`. Visits at most `budget` timers; when the answer says
    /// that more are due, call again.
    pub fn expire(&self, now: Timestamp, lifetime: Duration, budget: usize) -> (Vec<Lease>, bool) {
        let mut expired = Vec::new();
        let more = self.expire_each(now, lifetime, budget, |lease| expired.push(lease));
        (expired, more)
    }

    /// The same; `each` is told of a lease at its end, even if there is a panic on the way. It must not panic itself.
    pub fn expire_each(
        &self,
        now: Timestamp,
        lifetime: Duration,
        budget: usize,
        mut each: impl FnMut(Lease),
    ) -> bool {
        let mut due = Due { table: self, left: VecDeque::new(), now };
        due.left.extend(self.timers.lock().due(now, budget));
        let more = due.left.len() == budget;
        while let Some((host, generation)) = due.left.front().copied() {
            faults::at(Point::LeaseExpire);
            let is_over =
                |entry: &Entry| entry.generation == generation && entry.last_seen() + lifetime <= now;
            // Still active: the timer is lazy, and is set anew from when the host was last seen.
            if self.end(host, now, is_over, &mut each).is_none()
                && let Some(lease) = self.peek_host(host).filter(|lease| lease.generation == generation)
            {
                self.timers.lock().arm(lease.last_seen + lifetime, host, generation);
            }
            due.left.pop_front();
        }
        more
    }

    /// What does not belong together, one sentence each; nothing if all is well. Nobody may use the table meanwhile.
    #[cfg(feature = "fault-injection")]
    pub fn audit(&self) -> Vec<String> {
        let entries = |count: usize, shard: &dyn Fn(usize) -> Vec<Arc<Entry>>| {
            let mut all: Vec<u32> = (0..count).flat_map(shard).map(|entry| entry.generation).collect();
            all.sort_unstable();
            all
        };
        let by_host = entries(self.by_host.shard_count(), &|number| self.by_host.shard(number));
        let by_address = entries(self.by_address.shard_count(), &|number| self.by_address.shard(number));
        let mut findings = Vec::new();
        if by_host != by_address {
            findings.push(format!("leases by host {by_host:?}, by address {by_address:?}"));
        }
        if self.len() != by_host.len() {
            findings.push(format!("{} leases are counted, and there are {}", self.len(), by_host.len()));
        }
        let timed = self.timers.lock().generations();
        let dynamic = self.leases().filter(|lease| lease.kind == LeaseKind::Dynamic);
        findings.extend(
            dynamic
                .filter(|lease| !timed.contains(&lease.generation))
                .map(|lease| format!("the lease of {} has no timer", lease.host)),
        );
        findings
    }

    /// Leases that ended within the time that is remembered, oldest first.
    pub fn ended(&self) -> Vec<Ended> {
        self.ended.lock().iter().copied().collect()
    }

    /// All leases, copied shard by shard: each shard is locked for the time of copying it.
    pub fn leases(&self) -> impl Iterator<Item = Lease> {
        (0..self.by_host.shard_count())
            .flat_map(|number| self.by_host.shard(number))
            .map(|entry| entry.lease())
    }

    fn end(
        &self,
        host: Ipv6Addr,
        now: Timestamp,
        condition: impl FnOnce(&Entry) -> bool,
        told: &mut dyn FnMut(Lease),
    ) -> Option<Lease> {
        let entry = self.by_host.remove_if(host, condition)?;
        let lease = entry.lease();
        let ending = Ending { table: self, entry, now, told };
        faults::at(Point::LeaseEnd);
        drop(ending);
        Some(lease)
    }
}

/// A lease that begins: unless it is done in the end nobody has it, also if there is a panic. One without a timer would never end.
struct Beginning<'t> {
    table: &'t LeaseTable,
    /// Once it has its address.
    entry: Option<Arc<Entry>>,
    is_done: bool,
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        if let Some(entry) = &self.entry {
            let is_it = |other: &Entry| other.generation == entry.generation;
            self.table.by_host.remove_if(entry.host, is_it);
            self.table.by_address.remove_if(entry.address, is_it);
        }
        self.table.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A lease that its host does not have any more: all else that belongs to its end is done here, also if there is a panic.
struct Ending<'t> {
    table: &'t LeaseTable,
    entry: Arc<Entry>,
    now: Timestamp,
    told: &'t mut dyn FnMut(Lease),
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let Self { table, entry, now, told } = self;
        table.by_address.remove_if(entry.address, |other| other.generation == entry.generation);
        let held = table.held.fetch_sub(1, Ordering::Relaxed).saturating_sub(1);
        table.timers.lock().tidy(held);
        let mut ended = table.ended.lock();
        let remember = Duration::from_millis(table.remember.load(Ordering::Relaxed));
        while ended.front().is_some_and(|oldest| oldest.at + remember <= *now)
            || ended.len() >= table.capacity().max(1)
        {
            ended.pop_front();
        }
        ended.push_back(Ended { lease: entry.lease(), at: *now });
        drop(ended);
        table.note_change(entry.address);
        told(entry.lease());
    }
}

/// Timers that have been taken out: those that were not looked at fire again, also if there is a panic.
struct Due<'t> {
    table: &'t LeaseTable,
    left: VecDeque<(Ipv6Addr, u32)>,
    now: Timestamp,
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        if self.left.is_empty() {
            return;
        }
        let mut timers = self.table.timers.lock();
        for (host, generation) in self.left.drain(..) {
            timers.arm(self.now, host, generation);
        }
    }
}

#[cfg(test)]
mod tests;
