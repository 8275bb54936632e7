//! The state that files describe, as it was when the last of it was written.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use fast_nat::nat64::{MOST_ENTRIES, Protocol, RestingPort, SavedBlock, SavedSession};
use fast_nat::{SavedLease, Timestamp};
use rfc6052::Prefix;
use zerocopy::FromBytes as _;

use super::format::{
    BlockRecord, Kind, LeaseRecord, Moment, PlaceRecord, PrefixRecord, Record, RestingRecord, SessionRecord,
};

/// All of the state at one moment.
#[derive(Debug, Default)]
pub(super) struct Image {
    /// Translation prefixes by number.
    pub(super) prefixes: Vec<Prefix>,
    /// The name of the boot that times since boot are of.
    pub(super) boot: [u8; 16],
    /// A fingerprint of the configuration that it was written under.
    pub(super) configuration: u32,
    /// When the router last wrote: it ran at least until then.
    pub(super) last: Moment,
    pub(super) sessions: Places<SavedSession>,
    pub(super) blocks: Places<SavedBlock>,
    /// Since when ports rest. A port may be in use again since.
    pub(super) resting: HashMap<(Protocol, Ipv4Addr, u16), Timestamp>,
    pub(super) leases: HashMap<Ipv4Addr, SavedLease>,
    /// Who had an address last, until `last_seen`. Somebody may have it again since.
    pub(super) ended: HashMap<Ipv4Addr, SavedLease>,
}

/// A record with a right checksum that means nothing: whoever wrote it does not go by this layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonsense;

impl Image {
    /// Takes up a frame: what came before of the same place is no more.
    pub(super) fn apply(&mut self, kind: Kind, moment: Moment, records: &[u8]) -> Result<(), Nonsense> {
        match kind {
            Kind::Prefixes => {
                let prefixes = of::<PrefixRecord>(records)?.iter().map(PrefixRecord::prefix);
                self.prefixes = prefixes.collect::<Option<_>>().ok_or(Nonsense)?;
            }
            Kind::Sessions => {
                for record in of::<SessionRecord>(records)? {
                    self.sessions.put(record.place.get(), record.session().ok_or(Nonsense)?)?;
                }
            }
            Kind::SessionsGone => {
                of::<PlaceRecord>(records)?.iter().for_each(|gone| self.sessions.remove(gone.place.get()));
            }
            Kind::Blocks => {
                for record in of::<BlockRecord>(records)? {
                    self.blocks.put(record.place.get(), record.block())?;
                }
            }
            Kind::BlocksGone => {
                of::<PlaceRecord>(records)?.iter().for_each(|gone| self.blocks.remove(gone.place.get()));
            }
            Kind::Resting => {
                for record in of::<RestingRecord>(records)? {
                    let RestingPort { protocol, address, port, since } = record.resting().ok_or(Nonsense)?;
                    self.resting.insert((protocol, address, port), since);
                }
            }
            Kind::Leases => {
                for record in of::<LeaseRecord>(records)? {
                    let lease = record.lease();
                    self.leases.insert(lease.address, lease);
                }
            }
            Kind::LeasesEnded => {
                for record in of::<LeaseRecord>(records)? {
                    let lease = record.lease();
                    self.leases.remove(&lease.address);
                    self.ended.insert(lease.address, lease);
                }
            }
            Kind::Alive | Kind::End => {}
        }
        self.last = moment;
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.len() == 0 && self.blocks.len() == 0 && self.leases.is_empty() && self.ended.is_empty()
    }
}

fn of<R: Record>(records: &[u8]) -> Result<&[R], Nonsense> {
    <[R]>::ref_from_bytes(records).map_err(|_| Nonsense)
}

/// Entries by place. Takes 4 bytes for each place up to the last, which are 64 MiB at most, whatever a file says.
#[derive(Debug)]
pub(super) struct Places<T> {
    /// Where the entry of a place is, counted from 1; 0: there is none.
    index: Vec<u32>,
    entries: Vec<(u32, T)>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { index: Vec::new(), entries: Vec::new() }
    }
}

impl<T> Places<T> {
    fn put(&mut self, place: u32, entry: T) -> Result<(), Nonsense> {
        if !(1..=MOST_ENTRIES).contains(&place) {
            return Err(Nonsense);
        }
        let at = place as usize;
        if at >= self.index.len() {
            self.index.resize(at + 1, 0);
        }
        let Some(number) = self.index.get_mut(at) else { return Err(Nonsense) };
        if let Some(there) = number.checked_sub(1).and_then(|number| self.entries.get_mut(number as usize)) {
            there.1 = entry;
        } else {
            self.entries.push((place, entry));
            *number = self.entries.len() as u32;
        }
        Ok(())
    }

    fn remove(&mut self, place: u32) {
        let Some(number) = self.index.get_mut(place as usize) else { return };
        let Some(at) = std::mem::take(number).checked_sub(1) else { return };
        self.entries.swap_remove(at as usize);
        if let Some((moved, _)) = self.entries.get(at as usize)
            && let Some(number) = self.index.get_mut(*moved as usize)
        {
            *number = at + 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All entries, in no order.
    pub(super) fn into_entries(self) -> Vec<T> {
        self.entries.into_iter().map(|(_, entry)| entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_what_was_put_there_last() {
        let mut places = Places::default();
        let mut expected = std::collections::BTreeMap::new();
        let mut random = 1_u64;
        for step in 0..10_000_u32 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let place = (random >> 33) as u32 % 50 + 1;
            if random >> 63 == 0 {
                places.put(place, step).unwrap();
                expected.insert(place, step);
            } else {
                places.remove(place);
                expected.remove(&place);
            }
            assert_eq!(places.len(), expected.len());
        }
        let mut found = places.into_entries();
        let mut expected: Vec<_> = expected.into_values().collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn places_that_there_cannot_be_are_nonsense() {
        let mut places = Places::default();
        assert_eq!(places.put(0, ()), Err(Nonsense));
        assert_eq!(places.put(MOST_ENTRIES + 1, ()), Err(Nonsense));
        assert_eq!(places.put(MOST_ENTRIES, ()), Ok(()));
        places.remove(0);
        places.remove(u32::MAX);
        assert_eq!(places.len(), 1);
    }
}
