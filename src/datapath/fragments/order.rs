//! Datagrams by age: all of them, and those of each source. Lists through the table, so that one can leave from the middle.

use super::table::{Place, Table};
use super::{Key, datagram::Datagram};

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Of all datagrams.
    Age,
    /// Of the datagrams of one source.
    Source,
}

/// Both ends of a list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct List {
    oldest: Option<Place>,
    newest: Option<Place>,
}

/// The neighbours of a datagram in a list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Link {
    older: Option<Place>,
    newer: Option<Place>,
}

type Datagrams = Table<Key, Datagram>;

impl List {
    pub(super) fn oldest(&self) -> Option<Place> {
        self.oldest
    }

    /// The oldest but this one.
    pub(super) fn oldest_but(&self, one: Place, order: Order, datagrams: &Datagrams) -> Option<Place> {
        match self.oldest? {
            oldest if oldest == one => datagrams.get(oldest)?.links[order as usize].newer,
            oldest => Some(oldest),
        }
    }

    /// Appends one as the newest.
    pub(super) fn append(&mut self, place: Place, order: Order, datagrams: &mut Datagrams) {
        let older = self.newest.replace(place);
        match older {
            Some(older) => set(older, order, datagrams, |link| link.newer = Some(place)),
            None => self.oldest = Some(place),
        }
        set(place, order, datagrams, |link| *link = Link { older, newer: None });
    }

    /// Takes one out that is in it.
    pub(super) fn unlink(&mut self, place: Place, order: Order, datagrams: &mut Datagrams) {
        let Some(Link { older, newer }) = datagrams.get(place).map(|datagram| datagram.links[order as usize])
        else {
            return;
        };
        match older {
            Some(older) => set(older, order, datagrams, |link| link.newer = newer),
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => set(newer, order, datagrams, |link| link.older = older),
            None => self.newest = older,
        }
    }
}

fn set(place: Place, order: Order, datagrams: &mut Datagrams, change: impl FnOnce(&mut Link)) {
    if let Some(datagram) = datagrams.get_mut(place) {
        change(&mut datagram.links[order as usize]);
    }
}

#[cfg(test)]
impl List {
    /// All of them from the oldest to the newest, which is found the same way back.
    pub(super) fn places(&self, order: Order, datagrams: &Datagrams) -> Vec<Place> {
        let link = |place| datagrams.get(place).expect("a datagram in a list").links[order as usize];
        let walk = |from, next: fn(Link) -> Option<Place>| {
            std::iter::successors(from, |place| next(link(*place))).take(1 << 20).collect::<Vec<_>>()
        };
        let places = walk(self.oldest, |link| link.newer);
        let back = walk(self.newest, |link| link.older);
        assert!(back.iter().rev().eq(&places), "the list is the same both ways");
        places
    }
}
