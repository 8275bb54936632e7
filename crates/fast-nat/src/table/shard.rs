//! One index, cut into shards, each under a lock of its own.

use std::hash::Hasher as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};
use siphasher::sip::SipHasher13;

use super::entry::Entry;

/// How an entry is found in this index.
pub(super) trait Key: Copy + Eq {
    fn of(entry: &Entry) -> Self;
    /// The bits of the key that a stranger can choose, hence the keyed hash.
    fn bits(self) -> u128;
}

impl Key for Ipv6Addr {
    fn of(entry: &Entry) -> Self {
        entry.host
    }
    fn bits(self) -> u128 {
        self.into()
    }
}

impl Key for Ipv4Addr {
    fn of(entry: &Entry) -> Self {
        entry.address
    }
    fn bits(self) -> u128 {
        u32::from(self).into()
    }
}

type Shard = Mutex<HashTable<Arc<Entry>>>;

/// An index of entries by `K`.
pub(super) struct Index<K> {
    hasher: SipHasher13,
    shards: Box<[Shard]>,
    contended: AtomicU64,
    key: std::marker::PhantomData<fn() -> K>,
}

impl<K: Key> Index<K> {
    /// An empty index with this many shards (a power of two).
    pub(super) fn new(shards: usize, hasher: SipHasher13) -> Self {
        debug_assert!(shards.is_power_of_two());
        Self {
            hasher,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            contended: AtomicU64::new(0),
            key: std::marker::PhantomData,
        }
    }

    /// Whether a lock is held by a thread that does not give it back within `patience`.
    pub(super) fn is_stuck(&self, patience: Duration) -> bool {
        self.shards.iter().any(|shard| shard.try_lock_for(patience).is_none())
    }

    fn hash(&self, key: K) -> u64 {
        let mut hasher = self.hasher;
        hasher.write_u128(key.bits());
        hasher.finish()
    }

    fn lock(&self, hash: u64) -> MutexGuard<'_, HashTable<Arc<Entry>>> {
        // The table uses the low bits to probe and the top seven as tags; the shard is taken from between.
        let shard = &self.shards[(hash >> 40) as usize & (self.shards.len() - 1)];
        shard.try_lock().unwrap_or_else(|| {
            self.contended.fetch_add(1, Ordering::Relaxed);
            shard.lock()
        })
    }

    /// Looks `key` up and reads from its entry, under the shard's lock.
    #[inline]
    pub(super) fn read<T>(&self, key: K, read: impl FnOnce(&Entry) -> T) -> Option<T> {
        let hash = self.hash(key);
        self.lock(hash).find(hash, |entry| K::of(entry) == key).map(|entry| read(entry))
    }

    /// Puts an entry in, unless its key is there: then that one is returned.
    pub(super) fn insert(&self, entry: &Arc<Entry>) -> Result<(), Arc<Entry>> {
        let key = K::of(entry);
        let hash = self.hash(key);
        match self.lock(hash).entry(hash, |other| K::of(other) == key, |other| self.hash(K::of(other))) {
            hashbrown::hash_table::Entry::Occupied(there) => Err(Arc::clone(there.get())),
            hashbrown::hash_table::Entry::Vacant(place) => {
                place.insert(Arc::clone(entry));
                Ok(())
            }
        }
    }

    /// Takes the entry of `key` out if `condition` holds, decided under the shard's lock.
    pub(super) fn remove_if(&self, key: K, condition: impl FnOnce(&Entry) -> bool) -> Option<Arc<Entry>> {
        let hash = self.hash(key);
        let mut shard = self.lock(hash);
        let found = shard.find_entry(hash, |entry| K::of(entry) == key).ok()?;
        condition(found.get()).then(|| found.remove().0)
    }

    pub(super) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The entries of one shard, copied out so that the lock is short.
    pub(super) fn shard(&self, number: usize) -> Vec<Arc<Entry>> {
        self.shards.get(number).map(|shard| shard.lock().iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn contended(&self) -> u64 {
        self.contended.load(Ordering::Relaxed)
    }
}
