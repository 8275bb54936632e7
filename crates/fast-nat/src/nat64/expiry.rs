//! What ends by itself.

use std::sync::atomic::Ordering;

use super::held::Held;
use super::warm::{ENDS, End};
use super::wheel::Next;
use super::{Event, Nat64, Output, Protocol, SHARDS, SessionRef, SessionState, Timestamp, entries, tick};

/// Sessions that one call visits at most: each touches up to seven entries.
const STEP: usize = ENDS;

/// Empty slots of a shard's wheel that one call passes over at most.
const EMPTY_SLOTS: u32 = 1024;

/// Shards whose lists are followed at the same time: following one is waiting for one session after the other.
const ABREAST: usize = 8;

impl Nat64 {
    /// Ends what is over at `now`, in a step that visits at most `budget` entries, and no more than 32. `true`: more is to be
    /// looked at; call it again. When it has answered `false` nothing is left that was over at `now`.
    pub fn expire(&self, now: Timestamp, budget: usize) -> bool {
        let tick = tick(now);
        let mut left = budget.clamp(1, STEP);
        while let Some(packet) = self.stored.overdue(tick, self.timers.tcp_incoming_syn) {
            self.output(Output::Unreachable(packet));
            left -= 1;
            if left == 0 {
                return true;
            }
        }
        let first = self.expiry_at.load(Ordering::Relaxed);
        let ends = self.warm_due(first, tick, left);
        for step in 0..SHARDS as u32 {
            let number = first.wrapping_add(step) % SHARDS as u32;
            let Some(cell) = self.shards.get(number as usize) else { continue };
            if cell.is_swept(tick) {
                continue;
            }
            let Some(mut held) = self.hold(number) else { continue };
            let done = held.sweep(tick, &ends, &mut left);
            drop(held);
            if !done {
                self.expiry_at.store(number, Ordering::Relaxed);
                return true;
            }
            cell.swept.store(tick, Ordering::Relaxed);
        }
        false
    }

    /// Brings into the cache what ending the next sessions will need: first the sessions, then what is found by them. Nothing
    /// is changed, and what is read without a lock need not be true: it says only where to look.
    fn warm_due(&self, first: u32, tick: u32, most: usize) -> [End; ENDS] {
        let (mut next, mut count) = ([0; STEP], 0);
        let mut shards = (0..SHARDS as u32).map(|step| first.wrapping_add(step) % SHARDS as u32);
        while count < most {
            let (mut heads, mut abreast) = ([0; ABREAST], 0);
            for number in shards.by_ref() {
                let head = self.first_due(number, tick);
                if head != 0 {
                    heads[abreast] = head;
                    abreast += 1;
                }
                if abreast == ABREAST {
                    break;
                }
            }
            if abreast == 0 {
                break;
            }
            while count < most && heads[..abreast].iter().any(|head| *head != 0) {
                for head in &mut heads[..abreast] {
                    let Some(session) = self.sessions.get(*head) else { continue };
                    if count < most {
                        next[count] = *head;
                        count += 1;
                    }
                    *head = session.behind.load(Ordering::Relaxed);
                }
            }
        }
        let (mut over, mut ending) = ([0; STEP], 0);
        for id in &next[..count] {
            let session = self.sessions.get(*id);
            if session.is_some_and(|session| tick >= self.deadline(session, session.standing())) {
                over[ending] = *id;
                ending += 1;
            }
        }
        self.warm_ends(&over[..ending])
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

impl Held<'_> {
    /// Visits what may be over, as long as `left` allows. `true`: nothing is left for this tick.
    fn sweep(&mut self, tick: u32, ends: &[End], left: &mut usize) -> bool {
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
                    self.visit(id, ends, tick);
                }
            }
        }
    }

    fn visit(&mut self, id: u32, ends: &[End], tick: u32) {
        self.touch(1);
        let nat = self.nat;
        let Some(session) = nat.sessions.get(id) else { return };
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
            nat.event(id, Event::Changed);
            return;
        }
        let end = ends.iter().find(|end| end.session == id);
        self.end_session_at(id, end, tick);
    }
}
