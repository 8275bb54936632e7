//! What ends by itself.

use std::sync::atomic::Ordering;

use super::held::Held;
use super::slab::Slab;
use super::warm::{ENDS, End};
use super::wheel::{Next, Wheel};
use super::{
    Event, Nat64, Output, Protocol, SHARDS, Session, SessionRef, SessionState, Timestamp, entries, tick,
};
use crate::faults::{self, Point};

/// Sessions that one call visits at most: each touches up to seven entries.
const STEP: usize = ENDS;

/// Empty slots of a shard's wheel that one call passes over at most.
const EMPTY_SLOTS: u32 = 1024;

/// For so many ticks after a look at all shards none is looked at again while there is no session.
const QUIET_TICKS: u32 = 50;

/// Shards whose lists are followed ahead: following one is waiting for one session after the other.
const ABREAST: usize = 8;

/// Steps along those lists for each session that is visited: more than enough to be ahead.
const STRIDE: usize = 2;

impl Nat64 {
    /// Ends what is over at `now`, in a step that visits at most `budget` entries, and no more than 32. `true`: more is to be
    /// looked at; call it again. When it has answered `false` nothing is left that was over at `now`.
    pub fn expire(&self, now: Timestamp, budget: usize) -> bool {
        self.widen_pages();
        let tick = tick(now);
        let mut left = budget.clamp(1, STEP);
        while let Some(packet) = self.stored.overdue(tick, self.limits.tcp_incoming_syn.get()) {
            self.output(Output::Unreachable(packet));
            left -= 1;
            if left == 0 {
                return true;
            }
        }
        // Looked at now and then all the same, so that the wheels keep up.
        let is_quiet = self.session_count() == 0;
        if is_quiet && tick.saturating_sub(self.quiet_at.load(Ordering::Relaxed)) < QUIET_TICKS {
            return false;
        }
        let first = self.expiry_at.load(Ordering::Relaxed);
        let mut due = self.warm_due(first, tick, left);
        for step in 0..SHARDS as u32 {
            let number = first.wrapping_add(step) % SHARDS as u32;
            let Some(cell) = self.shards.get(number as usize) else { continue };
            if cell.is_swept(tick) {
                continue;
            }
            let Some(mut held) = self.hold(number) else { continue };
            let done = held.sweep(tick, &mut due, &mut left);
            drop(held);
            if !done {
                self.expiry_at.store(number, Ordering::Relaxed);
                return true;
            }
            cell.swept.store(tick, Ordering::Relaxed);
        }
        if is_quiet {
            self.quiet_at.store(tick, Ordering::Relaxed);
        }
        false
    }

    /// Looks at the next sessions in the order in which they will be visited, and asks for the memory that this will need. Nothing is
    /// changed, and what is read without a lock need not be true: it says only where to look.
    fn warm_due(&self, first: u32, tick: u32, most: usize) -> Due<'_> {
        let (mut over, mut ending) = ([0; STEP], 0);
        let (mut later, mut staying) = ([(0, 0); STEP], 0);
        let mut shards = (0..SHARDS as u32).map(|step| first.wrapping_add(step) % SHARDS as u32);
        let (mut next, mut left) = (0, most);
        while left > 0 {
            let Some(number) = shards.next() else { break };
            next = self.first_due(number, tick);
            while left > 0
                && let Some(session) = self.sessions.get(next)
            {
                let deadline = self.deadline(session, session.standing());
                if tick >= deadline {
                    over[ending] = next;
                    ending += 1;
                } else {
                    later[staying] = (number, deadline);
                    staying += 1;
                    self.with_wheel(number, |wheel| wheel.prefetch_slot(deadline));
                }
                next = session.behind.load(Ordering::Relaxed);
                left -= 1;
            }
        }
        for (number, deadline) in &later[..staying] {
            self.with_wheel(*number, |wheel| self.sessions.prefetch(wheel.first_of_slot(*deadline)));
        }
        let ends = self.warm_ends(&over[..ending]);
        // What comes behind is followed while these are visited.
        let mut ahead = Ahead { sessions: &self.sessions, lists: [0; ABREAST], turn: 0 };
        ahead.lists[0] = next;
        for (list, number) in ahead.lists[1..].iter_mut().zip(shards) {
            *list = self.first_due(number, tick);
            self.sessions.prefetch(*list);
        }
        Due { ends, at: 0, ahead }
    }

    fn with_wheel<T>(&self, number: u32, look: impl FnOnce(&Wheel) -> T) -> Option<T> {
        let shard = self.shards.get(number as usize)?.shard.try_lock()?;
        Some(look(&shard.wheel))
    }

    /// The first session that is looked at in a shard in this tick; 0: none.
    fn first_due(&self, number: u32, tick: u32) -> u32 {
        let Some(cell) = self.shards.get(number as usize).filter(|cell| !cell.is_swept(tick)) else {
            return 0;
        };
        cell.shard.try_lock().map_or(0, |shard| shard.wheel.peek(tick))
    }

    /// Ends one session now. `false`: it is over already.
    pub fn end_session(&self, session: SessionRef, now: Timestamp) -> bool {
        let Some(entry) = self.sessions.get(session.id) else { return false };
        let Some(binding) = self.bindings.get(entry.binding.load(Ordering::Relaxed)) else { return false };
        let Some(host) = self.hosts.get(binding.owner.load(Ordering::Relaxed)) else { return false };
        let Some(mut held) = self.hold(host.shard.load(Ordering::Acquire)) else { return false };
        if entry.version.load(Ordering::Acquire) != session.version || !entries::in_use(session.version) {
            return false;
        }
        held.shard.wheel.take_out(&self.sessions, session.id);
        held.end_session(session.id, tick(now));
        true
    }
}

/// What will be visited.
struct Due<'n> {
    /// What was found of the sessions that are over, in the order in which they will be visited.
    ends: [End; ENDS],
    at: usize,
    ahead: Ahead<'n>,
}

impl Due<'_> {
    /// What was found of this session.
    fn end_of(&mut self, id: u32) -> Option<&End> {
        let found = self.ends.get(self.at..)?.iter().position(|end| end.session == id)?;
        self.at += found + 1;
        self.ends.get(self.at - 1)
    }
}

/// Lists of sessions that are followed ahead of their visits.
struct Ahead<'n> {
    sessions: &'n Slab<Session>,
    /// The next session of each, which has been asked for.
    lists: [u32; ABREAST],
    turn: usize,
}

impl Ahead<'_> {
    fn go_on(&mut self) {
        for _ in 0..STRIDE {
            self.turn = (self.turn + 1) % ABREAST;
            if let Some(next) = self.lists.get_mut(self.turn)
                && let Some(session) = self.sessions.get(*next)
            {
                *next = session.behind.load(Ordering::Relaxed);
                self.sessions.prefetch(*next);
            }
        }
    }
}

impl Held<'_> {
    /// Visits what may be over, as long as `left` allows. `true`: nothing is left for this tick.
    fn sweep(&mut self, tick: u32, due: &mut Due<'_>, left: &mut usize) -> bool {
        let nat = self.nat;
        loop {
            if *left == 0 {
                return false;
            }
            match self.shard.wheel.next(&nat.sessions, tick, EMPTY_SLOTS) {
                Next::Done => return true,
                Next::Pause => return false,
                Next::Visit(id) => {
                    *left -= 1;
                    self.visit(id, due, tick);
                    due.ahead.go_on();
                }
            }
        }
    }

    fn visit(&mut self, id: u32, due: &mut Due<'_>, tick: u32) {
        self.touch(1);
        let nat = self.nat;
        let Some(session) = nat.sessions.get(id) else { return };
        faults::at(Point::SessionVisit);
        let standing = session.standing();
        let deadline = nat.deadline(session, standing);
        if tick < deadline {
            self.shard.wheel.put(&nat.sessions, id, deadline);
            return;
        }
        if standing.protocol() == Protocol::Tcp && standing.state() == SessionState::Established {
            // RFC 6146 §3.5.2.2: the host is asked whether the connection is still there.
            let standing = standing.with_state(SessionState::Trans);
            session.set_standing(standing);
            session.refresh(tick);
            let deadline = nat.deadline(session, standing);
            self.shard.wheel.put(&nat.sessions, id, deadline);
            if let Some(view) = nat.view(id) {
                nat.output(Output::Probe(view.outbound));
            }
            nat.session_changed(id);
            nat.event(id, Event::Changed);
            return;
        }
        let end = due.end_of(id);
        self.end_session_at(id, end, tick);
    }
}
