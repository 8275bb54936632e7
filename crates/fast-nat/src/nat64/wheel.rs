//! When to look at which session again: one ring of slots, each a tick long, per shard.
//!
//! Lazy: a packet moves no timer. A session is in exactly one slot, that of its deadline when it was put there, or the
//! farthest one. When the slot's time comes it ends, or is put where its deadline is now. The list of a slot runs through the
//! sessions themselves, so setting a timer costs no memory and no search.

/// Slots: nearly seven minutes, so that all but established connections are looked at once.
const SLOTS: usize = 4096;

use std::sync::atomic::Ordering;

use super::entries::Session;
use super::slab::Slab;
use crate::prefetch;

#[derive(Debug)]
pub(super) struct Wheel {
    /// The first session of each slot; 0: none.
    slots: Box<[u32]>,
    /// The sessions of a slot that is being looked at.
    pending: u32,
    /// The tick whose slot is looked at next.
    cursor: u32,
    /// Sessions in all slots.
    count: u32,
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// This session's time may have come. It has been taken out.
    Visit(u32),
    /// Nothing more for now.
    Done,
    /// Enough empty slots for one step.
    Pause,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { slots: vec![0; SLOTS].into(), pending: 0, cursor: 0, count: 0 }
    }

    /// Puts a session, which is in no slot, where it will be visited in tick `deadline` or before.
    pub(super) fn put(&mut self, sessions: &Slab<Session>, id: u32, deadline: u32) {
        let Some(session) = sessions.get(id) else { return };
        let slot = self.slot_of(deadline);
        let Some(first) = self.slots.get_mut(slot) else { return };
        session.before.store(0, Ordering::Relaxed);
        session.behind.store(*first, Ordering::Relaxed);
        if let Some(behind) = sessions.get(*first) {
            behind.before.store(id, Ordering::Relaxed);
        }
        *first = id;
        self.count += 1;
        session.set_standing(session.standing().with_slot(slot));
    }

    /// The sessions of all slots, each with its slot; `None` for those that are being looked at.
    #[cfg(feature = "fault-injection")]
    pub(super) fn all(&self, sessions: &Slab<Session>) -> Vec<(u32, Option<usize>)> {
        let pending = std::iter::once((self.pending, None));
        let slots = self.slots.iter().enumerate().map(|(slot, first)| (*first, Some(slot)));
        let mut all = Vec::new();
        for (first, slot) in pending.chain(slots) {
            let mut at = first;
            while let Some(session) = sessions.get(at)
                && all.len() <= self.count as usize
            {
                all.push((at, slot));
                at = session.behind.load(Ordering::Relaxed);
            }
        }
        all
    }

    /// Forgets all sessions. What was to be looked at until now counts as looked at.
    pub(super) fn clear(&mut self) {
        self.slots.fill(0);
        (self.pending, self.count) = (0, 0);
    }

    /// The tick whose slot is looked at next.
    pub(super) const fn cursor(&self) -> u32 {
        self.cursor
    }

    /// Asks for the slot of this deadline.
    pub(super) fn prefetch_slot(&self, deadline: u32) {
        if let Some(slot) = self.slots.get(self.slot_of(deadline)) {
            prefetch::line(slot);
        }
    }

    /// The session that one more with this deadline would be put before; 0: none.
    pub(super) fn first_of_slot(&self, deadline: u32) -> u32 {
        self.slots.get(self.slot_of(deadline)).copied().unwrap_or_default()
    }

    fn slot_of(&self, deadline: u32) -> usize {
        // One less than there are: the slot before the cursor is that of the sessions that are being looked at.
        let farthest = self.cursor.saturating_add(SLOTS as u32 - 2);
        deadline.clamp(self.cursor, farthest) as usize % SLOTS
    }

    /// Whether a session in this slot would be visited later than in tick `deadline`.
    pub(super) fn is_later(&self, slot: usize, deadline: u32) -> bool {
        let turns = |slot: usize| (slot + SLOTS - self.cursor as usize % SLOTS) % SLOTS;
        let wanted = deadline.saturating_sub(self.cursor) as usize;
        turns(slot) > wanted && turns(slot) != SLOTS - 1
    }

    /// Takes a session out of its slot.
    pub(super) fn take_out(&mut self, sessions: &Slab<Session>, id: u32) {
        let Some(session) = sessions.get(id) else { return };
        self.count -= 1;
        let before = session.before.load(Ordering::Relaxed);
        let behind = session.behind.load(Ordering::Relaxed);
        if let Some(behind) = sessions.get(behind) {
            behind.before.store(before, Ordering::Relaxed);
        }
        if let Some(before) = sessions.get(before) {
            before.behind.store(behind, Ordering::Relaxed);
        } else if self.pending == id {
            self.pending = behind;
        } else if let Some(first) = self.slots.get_mut(session.standing().slot()) {
            *first = behind;
        }
    }

    /// The next session to visit in tick `now`. `pause_after` bounds the empty slots that are passed over.
    pub(super) fn next(&mut self, sessions: &Slab<Session>, now: u32, pause_after: u32) -> Next {
        for _ in 0..pause_after {
            if self.pending != 0 {
                let id = self.pending;
                self.take_out(sessions, id);
                return Next::Visit(id);
            }
            if self.cursor > now {
                return Next::Done;
            }
            if self.count == 0 {
                self.cursor = now.saturating_add(1);
                return Next::Done;
            }
            // After a long pause: what is in the ring is met within one turn.
            self.cursor = self.cursor.max(now.saturating_sub(SLOTS as u32 - 1));
            let Some(first) = self.slots.get_mut(self.cursor as usize % SLOTS) else { return Next::Done };
            self.pending = std::mem::take(first);
            self.cursor += 1;
        }
        Next::Pause
    }

    /// The first session that is visited in tick `now`, as far as it is easily found; 0: none.
    pub(super) fn peek(&self, now: u32) -> u32 {
        if self.pending != 0 {
            return self.pending;
        }
        let ahead = self.cursor..=now;
        let mut slots = ahead.take(SLOTS.min(8)).filter_map(|tick| self.slots.get(tick as usize % SLOTS));
        slots.find(|first| **first != 0).copied().unwrap_or_default()
    }
}
