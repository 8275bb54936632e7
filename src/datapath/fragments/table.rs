//! A hash table of a fixed size: allocated once, it never grows, never rehashes, and a place in it stays the same.

use std::hash::{BuildHasher as _, Hash, RandomState};

/// No place.
const NONE: u32 = u32::MAX;

/// A place in a table. It is good until its entry is removed; whoever keeps it must forget it by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

#[derive(Debug)]
struct Slot<K, V> {
    entry: Option<(K, V)>,
    /// The next slot of the same chain, or the next free one.
    next: u32,
}

/// At most so many entries, in chains by a keyed hash: the keys are a stranger's choice.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    hasher: RandomState,
    /// The first slot of each chain: a power of two of them, or none.
    heads: Box<[u32]>,
    slots: Vec<Slot<K, V>>,
    /// The first free slot among those that were used before.
    free: u32,
    most: usize,
    len: usize,
}

impl<K: Eq + Hash, V> Table<K, V> {
    /// An empty table for at most `most` entries, which are fewer than 2^32 - 1.
    pub(super) fn new(most: usize) -> Self {
        let most = most.min(NONE as usize - 1);
        Self {
            hasher: RandomState::new(),
            heads: vec![NONE; if most == 0 { 0 } else { most.next_power_of_two() }].into_boxed_slice(),
            slots: Vec::with_capacity(most),
            free: NONE,
            most,
            len: 0,
        }
    }

    /// Bytes for each entry that a table can hold. The heads are less than two for each.
    pub(super) const fn memory_per_entry() -> usize {
        size_of::<Slot<K, V>>() + 2 * size_of::<u32>()
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many entries there can be.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Whether no further entry fits.
    pub(super) fn is_full(&self) -> bool {
        self.len == self.most
    }

    /// Where the entry of this key is.
    pub(super) fn find(&self, key: &K) -> Option<Place> {
        if self.len == 0 {
            return None;
        }
        let mut at = self.heads[self.chain(key)];
        while let Some(slot) = self.slots.get(at as usize) {
            if slot.entry.as_ref().is_some_and(|(other, _)| other == key) {
                return Some(Place(at));
            }
            at = slot.next;
        }
        None
    }

    /// Adds an entry, whose key must not be there yet. `None`: the table is full.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<Place> {
        if self.is_full() {
            return None;
        }
        let chain = self.chain(&key);
        let slot = Slot { entry: Some((key, value)), next: self.heads[chain] };
        let at = self.free;
        let at = if let Some(old) = self.slots.get_mut(at as usize) {
            self.free = std::mem::replace(old, slot).next;
            at
        } else {
            self.slots.push(slot);
            self.slots.len() as u32 - 1
        };
        self.heads[chain] = at;
        self.len += 1;
        Some(Place(at))
    }

    pub(super) fn get(&self, place: Place) -> Option<&V> {
        Some(&self.slots.get(place.0 as usize)?.entry.as_ref()?.1)
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut V> {
        Some(&mut self.slots.get_mut(place.0 as usize)?.entry.as_mut()?.1)
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, place: Place) -> Option<V> {
        let slot = self.slots.get_mut(place.0 as usize)?;
        let (key, value) = slot.entry.take()?;
        let next = std::mem::replace(&mut slot.next, self.free);
        self.free = place.0;
        self.len -= 1;
        let chain = self.chain(&key);
        let mut at = self.heads[chain];
        if at == place.0 {
            self.heads[chain] = next;
            return Some(value);
        }
        while let Some(slot) = self.slots.get_mut(at as usize) {
            if slot.next == place.0 {
                slot.next = next;
                break;
            }
            at = slot.next;
        }
        Some(value)
    }

    /// Not to be asked of a table for nothing.
    fn chain(&self, key: &K) -> usize {
        self.hasher.hash_one(key) as usize & (self.heads.len() - 1)
    }
}

#[cfg(test)]
impl<K, V> Table<K, V> {
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.slots.iter().filter_map(|slot| Some(&slot.entry.as_ref()?.1))
    }

    /// Bytes that are allocated, as they are.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.heads) + self.slots.capacity() * size_of::<Slot<K, V>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    /// Keys that fall into one chain here do not elsewhere.
    #[test]
    fn every_table_has_a_hash_of_its_own() {
        let chains: HashSet<_> = (0..8).map(|_| Table::<_, ()>::new(1 << 20).chain(&1)).collect();
        assert!(chains.len() > 1);
    }

    #[test]
    fn a_full_table_takes_nothing_more_until_something_is_removed() {
        let mut table = Table::new(2);
        let first = table.insert("a", 1).unwrap();
        table.insert("b", 2).unwrap();
        assert_eq!((table.insert("c", 3), table.is_full()), (None, true));
        assert_eq!(table.remove(first), Some(1));
        assert_eq!((table.remove(first), table.get(first)), (None, None), "once");
        assert_eq!(table.insert("c", 3), Some(first), "the slot is used again");
        assert_eq!((table.find(&"a"), table.find(&"c")), (None, Some(first)));
    }

    #[test]
    fn a_table_of_nothing_holds_nothing() {
        let mut table = Table::new(0);
        assert_eq!((table.insert(1, 1), table.find(&1), table.len()), (None, None, 0));
    }

    proptest! {
        #[test]
        fn a_table_says_what_a_map_says_and_does_not_grow(
            steps in prop::collection::vec((0_u8..40, any::<bool>()), 0..400)
        ) {
            let mut table = Table::new(16);
            let mut map = HashMap::new();
            let memory = table.memory();
            for (at, (key, insert)) in steps.into_iter().enumerate() {
                let found = table.find(&key);
                prop_assert_eq!(found.and_then(|place| table.get(place)), map.get(&key));
                match found {
                    Some(place) if !insert => prop_assert_eq!(table.remove(place), map.remove(&key)),
                    None if insert && map.len() < 16 => {
                        prop_assert!(table.insert(key, at).is_some());
                        map.insert(key, at);
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), map.len());
                prop_assert_eq!(table.values().count(), map.len());
            }
            prop_assert_eq!(table.memory(), memory);
            prop_assert!(memory <= 16 * Table::<u8, usize>::memory_per_entry());
        }
    }
}
