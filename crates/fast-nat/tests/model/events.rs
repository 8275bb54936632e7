//! The events that are due, and the queue with its bound.

use super::api::{Event, SessionView};

use super::Wrong;

/// What happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Started,
    Established,
    Changed,
    Ended,
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Happened {
    pub kind: Kind,
    pub view: SessionView,
}

impl From<Event> for Happened {
    fn from(event: Event) -> Self {
        let (kind, view) = match event {
            Event::Started(view) => (Kind::Started, view),
            Event::Established(view) => (Kind::Established, view),
            Event::Changed(view) => (Kind::Changed, view),
            Event::Ended(view) => (Kind::Ended, view),
        };
        Self { kind, view }
    }
}

/// The queue. What one operation adds has no order of its own, since the engine may visit entries in any.
#[derive(Debug, Default)]
pub struct Queue {
    groups: Vec<Group>,
    queued: usize,
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Group {
    happened: Vec<Happened>,
    /// How many of them found room.
    kept: usize,
}

impl Queue {
    /// What one operation did.
    pub fn push(&mut self, happened: Vec<Happened>, capacity: usize) {
        if happened.is_empty() {
            return;
        }
        let kept = happened.len().min(capacity - self.queued);
        self.queued += kept;
        self.lost += (happened.len() - kept) as u64;
        if kept > 0 {
            self.groups.push(Group { happened, kept });
        }
    }

    /// Compares what the engine's queue gave until it was empty.
    pub fn drain(&mut self, seen: impl IntoIterator<Item = Happened>) -> Result<(), Wrong> {
        let mut seen = seen.into_iter();
        for mut group in std::mem::take(&mut self.groups) {
            for _ in 0..group.kept {
                let Some(event) = seen.next() else {
                    return Err(format!("an event is missing: one of {:?}", group.happened));
                };
                let Some(index) = group.happened.iter().position(|happened| *happened == event) else {
                    return Err(format!("the event {event:?} is none of {:?}", group.happened));
                };
                group.happened.swap_remove(index);
            }
        }
        self.queued = 0;
        match seen.next() {
            Some(event) => Err(format!("the event {event:?} has no cause")),
            None => Ok(()),
        }
    }
}
