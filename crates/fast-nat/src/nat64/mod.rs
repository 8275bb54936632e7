//! A stateful NAT64 engine (RFC 6146): binding information base, sessions, timers, port blocks and quotas, without I/O.
//!
//! ```text
//!  host, port ──▶ index ─▶ binding ─▶ session ◀─ binding ◀─ index ◀── address, port
//!                             │          │
//!                    lessee ◀─┴─▶ block   └─ the list of a tick of its shard's wheel
//!                      │
//!                  subscriber (quotas)
//! ```
//!
//! # What waits for what
//! A packet of a session that goes on is looked up without any lock: the indexes and the entries are atomics, and an
//! entry's version says whether what was read belongs together. What begins, changes its state or ends does so under the
//! lock of the subscriber's shard, of which there are [`SHARDS`]. All that belongs to one subscriber belongs to one shard, so
//! no two of them are ever locked together.
//!
//! # What a step costs
//! Nothing is rehashed and nothing is moved: indexes have their final size from the beginning, entries are made when they are needed, and
//! expiry goes in steps. No call touches more than 256 entries ([`Nat64::most_touched`]).
//!
//! # Memory
//! 64 bytes a session, 64 a binding, 6 per index and entry, 256 a block and 6 per port and protocol of it that is in use, about
//! 200 a host, and 4 MB for the timers' rings. Sessions, bindings and indexes have mappings of their own, with the addresses of their
//! final size from the start and memory as they fill ([`Nat64::mapped_bytes`]). Tracking changes takes a bit per session and block.
//!
//! # Waiting for memory
//! With millions of sessions nearly all that a packet costs is waiting for memory. Entries are cache lines, an index is asked for
//! one line in most cases, big tables are in huge pages, and whoever has many packets at a time says so
//! ([`Nat64::warm_outbound`], [`Nat64::warm_inbound`]): their waiting happens side by side then. [`Nat64::expire`] does the same for
//! what it ends.
//!
//! # Outliving the process
//! Whoever keeps a copy of the state elsewhere is told by a bit per entry what has changed ([`Nat64::take_changed_sessions`]), reads
//! that entry without a lock ([`Nat64::saved_session`]), and gives all of it to another engine in the end
//! ([`Nat64::restore_session`]).

#[cfg(feature = "fault-injection")]
mod audit;
mod blocks;
mod changes;
mod config;
mod entries;
mod expiry;
mod export;
mod hash;
mod held;
mod inbound;
mod index;
mod look_up;
mod outbound;
mod ports;
mod reserve;
mod restore;
mod slab;
mod statics;
mod stored;
mod tcp;
mod types;
mod view;
mod warm;
mod wheel;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;

pub use blocks::HostStanding;
pub use config::{Filtering, InvalidConfig, MOST_ENTRIES, NatConfig, Quota, Timers};
pub use export::{Course, RestingPort, SavedBlock, SavedSession};
pub use restore::NotRestored;
pub use types::{
    Block, BlockLease, BlockRef, Event, GiveError, Inbound, Mapped, NatUsage, Outbound, Output, Passing,
    PortClass, Protocol, Reached, Refused, Seen, SessionRef, SessionState, SessionView, Signal,
    StaticBinding, StaticError,
};

use crate::Timestamp;
use changes::Changes;
use config::{Limits, moment, tick};
use entries::{Binding, Host, PortBlock, Session, Subscriber};
pub(crate) use hash::Hasher;
use held::{Permit, Shard};
use index::Index;
use slab::Slab;
use stored::StoredSyns;

/// Shards: with two to sixteen workers, two of them rarely begin or end something in the same one at once.
pub const SHARDS: usize = 256;

/// Sessions from which on the indexes are in huge pages: nearly all of their small pages are in use then.
const MANY_SESSIONS: u32 = 65_536;

/// What may wait to be fetched by [`Nat64::poll_output`].
const OUTPUTS: usize = 4096;

/// The engine. All packet workers share it; it outlives everything that manages it.
#[derive(Debug)]
pub struct Nat64 {
    config: NatConfig,
    limits: Limits,
    hasher: Hasher,
    shards: Box<[ShardCell]>,
    sessions: Slab<Session>,
    bindings: Slab<Binding>,
    hosts: Slab<Host>,
    subscribers: Slab<Subscriber>,
    blocks: Slab<PortBlock>,
    by_host: Index,
    by_address: Index,
    by_remote: Index,
    host_index: Index,
    subscriber_index: Index,
    /// Which addresses each binding lets in; with address-dependent filtering only.
    permits: Option<(Slab<Permit>, Index)>,
    stored: StoredSyns,
    /// What a copy elsewhere lacks; if there is one.
    changes: Option<Changes>,
    outputs: ArrayQueue<Output>,
    outputs_lost: AtomicU64,
    events: Option<ArrayQueue<Event>>,
    events_lost: AtomicU64,
    contended: AtomicU64,
    most_touched: AtomicU64,
    /// When all shards were looked at last while there was no session.
    quiet_at: AtomicU32,
    /// The shard that expiry looks at next.
    expiry_at: AtomicU32,
    idle_at: AtomicU32,
    /// Which part of the indexes is put into huge pages next.
    huge_at: AtomicUsize,
}

/// On a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct ShardCell {
    /// The tick as of which expiry has nothing more to do here.
    swept: AtomicU32,
    /// Sessions by protocol: changed under the lock.
    sessions: [AtomicU32; 3],
    shard: Mutex<Shard>,
}

impl ShardCell {
    /// Whether nothing is left to do here in this tick.
    fn is_swept(&self, tick: u32) -> bool {
        tick > 0 && self.swept.load(Ordering::Relaxed) >= tick
    }
}

impl Nat64 {
    /// An empty engine. The addresses of its tables are taken at once, memory as it is needed.
    pub fn new(config: NatConfig) -> Result<Self, InvalidConfig> {
        config.check()?;
        let shard = |number| ShardCell {
            swept: AtomicU32::new(0),
            sessions: [const { AtomicU32::new(0) }; 3],
            shard: Mutex::new(Shard::new(number)),
        };
        let permits = (config.filtering == Filtering::AddressDependent)
            .then(|| io::Result::Ok((Slab::new(config.max_sessions)?, Index::new(config.max_sessions)?)))
            .transpose()?;
        Ok(Self {
            limits: Limits::new(&config.timers, &config.quota),
            hasher: config.seed.map_or_else(Hasher::random, Hasher::seeded),
            shards: (0..SHARDS).map(shard).collect(),
            sessions: Slab::new(config.max_sessions)?,
            bindings: Slab::new(config.max_bindings)?,
            hosts: Slab::new(config.max_hosts)?,
            subscribers: Slab::new(config.max_hosts)?,
            blocks: Slab::new(config.max_blocks)?,
            by_host: Index::new(config.max_bindings)?,
            by_address: Index::new(config.max_bindings)?,
            by_remote: Index::new(config.max_sessions)?,
            host_index: Index::new(config.max_hosts)?,
            subscriber_index: Index::new(config.max_hosts)?,
            permits,
            stored: StoredSyns::new(config.max_stored_syns),
            changes: config.track_changes.then(|| Changes::new(config.max_sessions, config.max_blocks)),
            outputs: ArrayQueue::new(OUTPUTS),
            outputs_lost: AtomicU64::new(0),
            events: (config.events > 0).then(|| ArrayQueue::new(config.events)),
            events_lost: AtomicU64::new(0),
            contended: AtomicU64::new(0),
            most_touched: AtomicU64::new(0),
            quiet_at: AtomicU32::new(0),
            expiry_at: AtomicU32::new(0),
            idle_at: AtomicU32::new(0),
            huge_at: AtomicUsize::new(0),
            config,
        })
    }

    /// Has things last so long from now on. What is there already is looked at when it would have been over by the timers of before, so
    /// a shorter one may come to hold for it that late.
    pub fn set_timers(&self, timers: &Timers) {
        self.limits.set_timers(timers);
    }

    /// Lets each subscriber have so much from now on. Who has more keeps it, and gets nothing new.
    pub fn set_quota(&self, quota: &Quota) -> Result<(), InvalidConfig> {
        quota.check()?;
        self.limits.set_quota(quota);
        Ok(())
    }

    /// Its settings, as it was made with them.
    pub fn config(&self) -> &NatConfig {
        &self.config
    }

    /// What is to be sent; call it until `None` after [`Self::expire`]. At most 4096 wait.
    pub fn poll_output(&self, _now: Timestamp) -> Option<Output> {
        self.outputs.pop()
    }

    /// How much is to be sent. Who lets this come near 4096 loses probes.
    pub fn outputs_waiting(&self) -> usize {
        self.outputs.len()
    }

    /// Outputs that found no room to wait in. A session whose probe is lost ends as if it had not been answered.
    pub fn outputs_lost(&self) -> u64 {
        self.outputs_lost.load(Ordering::Relaxed)
    }

    /// The next event, in the order in which they happened to each session.
    pub fn poll_event(&self) -> Option<Event> {
        self.events.as_ref()?.pop()
    }

    /// Events that found no room to wait in: read [`Self::sessions`] anew.
    pub fn events_lost(&self) -> u64 {
        self.events_lost.load(Ordering::Relaxed)
    }

    /// How many sessions there are: one read, for who asks often.
    pub fn session_count(&self) -> u32 {
        self.sessions.live()
    }

    /// Bytes of the tables that no allocator knows of, as far as they have ever been in use: sessions and bindings up to the highest number,
    /// and the indexes.
    pub fn mapped_bytes(&self) -> usize {
        let permits = self.permits.as_ref().map(|(_, index)| index);
        let indexes: usize = self.indexes().chain(permits).map(|index| index.memory().bytes()).sum();
        self.sessions.mapped_bytes() + self.bindings.mapped_bytes() + indexes
    }

    /// The indexes that grow with sessions and bindings.
    fn indexes(&self) -> impl Iterator<Item = &Index> {
        [&self.by_host, &self.by_address, &self.by_remote].into_iter()
    }

    /// Puts 2 MiB more of the indexes into huge pages, once there are so many sessions that all of their pages are in use.
    fn widen_pages(&self) {
        if self.sessions.live() < MANY_SESSIONS {
            return;
        }
        let place = self.huge_at.load(Ordering::Relaxed);
        if place == 0 {
            self.indexes().for_each(|index| index.memory().prefer_huge_pages(0));
        }
        // `false` from all of them: that was the last part.
        if place < usize::MAX {
            let more = self.indexes().fold(false, |more, index| index.memory().collapse(place) | more);
            self.huge_at.store(if more { place + 1 } else { usize::MAX }, Ordering::Relaxed);
        }
    }

    /// How much is in the tables.
    pub fn usage(&self) -> NatUsage {
        NatUsage {
            sessions: std::array::from_fn(|n| {
                self.shards.iter().map(|cell| cell.sessions[n].load(Ordering::Relaxed)).sum()
            }),
            bindings: self.bindings.live(),
            hosts: self.hosts.live(),
            subscribers: self.subscribers.live(),
            blocks: self.blocks.live(),
            stored_syns: self.stored.len(),
        }
    }

    /// Attempts to take a lock that had to wait, so far.
    pub fn contended(&self) -> u64 {
        self.contended.load(Ordering::Relaxed)
    }

    /// Whether a lock is held by a thread that does not give it back within `patience`: it hangs, and whoever needs the lock hangs with it.
    pub fn is_stuck(&self, patience: Duration) -> bool {
        self.shards.iter().any(|cell| cell.shard.try_lock_for(patience).is_none())
            || self.stored.is_stuck(patience)
    }

    /// The most entries that one call has touched so far.
    pub fn most_touched(&self) -> u64 {
        self.most_touched.load(Ordering::Relaxed)
    }

    fn touched(&self, entries: u32) {
        let entries = u64::from(entries);
        if self.most_touched.load(Ordering::Relaxed) < entries {
            self.most_touched.fetch_max(entries, Ordering::Relaxed);
        }
    }

    fn subscriber_prefix(&self, host: Ipv6Addr) -> u128 {
        host.to_bits() & mask(self.config.subscriber_prefix_len)
    }

    fn lease_prefix(&self, host: Ipv6Addr) -> u128 {
        host.to_bits() & mask(self.config.lease_prefix_len)
    }

    fn output(&self, output: Output) {
        if self.outputs.push(output).is_err() {
            self.outputs_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn event(&self, session: u32, make: fn(SessionView) -> Event) {
        let Some(events) = &self.events else { return };
        if let Some(view) = self.view(session)
            && events.push(make(view)).is_err()
        {
            self.events_lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

const fn mask(prefix_len: u8) -> u128 {
    if prefix_len == 0 { 0 } else { u128::MAX << (128 - prefix_len as u32) }
}

#[cfg(test)]
mod tests;
