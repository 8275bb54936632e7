//! Sessions.

use std::sync::atomic::Ordering;

use super::super::entries::{Bound, Standing, endpoint, endpoint_parts, turn};
use super::super::look_up::Found;
use super::super::tcp::{self, Side};
use super::super::warm::End;
use super::super::{
    Event, Ipv4Addr, Nat64, Passing, Protocol, Refused, Session, SessionRef, SessionState, SessionView,
    Signal, Slab,
};
use super::{Held, add};
use crate::faults::{self, Point};

impl Nat64 {
    /// The first tick in which a session is over.
    pub(in crate::nat64) fn deadline(&self, session: &Session, standing: Standing) -> u32 {
        let timer = self.timer(standing.protocol(), standing.state());
        session.last_seen.load(Ordering::Relaxed).saturating_add(timer).saturating_add(1)
    }

    /// The timer of a session that a host opens.
    pub(in crate::nat64) fn first_timer(&self, protocol: Protocol) -> u32 {
        self.timer(
            protocol,
            if protocol == Protocol::Tcp { tcp::first(Side::V6) } else { SessionState::OneWay },
        )
    }

    pub(in crate::nat64) fn timer(&self, protocol: Protocol, state: SessionState) -> u32 {
        use SessionState::{Established, V4FinRcv, V6FinRcv};
        match (protocol, state) {
            (Protocol::Tcp, Established | V4FinRcv | V6FinRcv) => self.limits.tcp_established.get(),
            (Protocol::Tcp, _) => self.limits.tcp_transitory.get(),
            (Protocol::Udp, _) => self.limits.udp.get(),
            (Protocol::Icmp, _) => self.limits.icmp.get(),
        }
    }
}

impl Held<'_> {
    pub(super) fn count_session(&self, protocol: Protocol, more: i32) {
        if let Some(cell) = self.nat.shards.get(self.number as usize) {
            add(&cell.sessions[protocol as usize], more);
        }
    }

    /// A packet of a session that is there.
    pub(in crate::nat64) fn advance(
        &mut self,
        found: &Found,
        bound: &Bound,
        side: Side,
        packet: &Passing<'_>,
        tick: u32,
    ) {
        self.touch(2);
        let nat = self.nat;
        let Some(session) = nat.sessions.get(found.id) else { return };
        let Some(binding) = nat.bindings.get(session.binding.load(Ordering::Relaxed)) else { return };
        let before = session.standing();
        let mut standing = before;
        match side {
            // Without room for the permit it goes on as it was: nobody more is let in by it.
            Side::V6
                if packet.signal != Signal::Rst
                    && !standing.taken_part()
                    && self.permit(session.binding.load(Ordering::Relaxed), session.remote_address()) =>
            {
                standing = standing.with_taken_part();
                add(&binding.taken_part, 1);
                faults::at(Point::SessionAdvance);
            }
            Side::V6 => {}
            Side::V4 => standing = standing.with_answered(),
        }
        let refresh = if bound.protocol() == Protocol::Tcp {
            let step = tcp::step(standing.state(), side, packet.signal);
            standing = standing.with_state(step.next);
            step.refresh
        } else {
            if standing.taken_part() && standing.answered() {
                standing = standing.with_state(SessionState::Established);
            }
            // Nobody outside keeps a session alive that its host has not taken part in (RFC 4787 REQ-6).
            standing.taken_part()
        };
        let event: Option<fn(SessionView) -> Event> = if standing.state() == before.state() {
            None
        } else if standing.state() == SessionState::Established && !standing.was_established() {
            standing = standing.with_established();
            Some(Event::Established)
        } else {
            Some(Event::Changed)
        };
        session.set_standing(standing);
        if refresh {
            session.refresh(tick);
        }
        if standing != before {
            nat.session_changed(found.id);
        }
        session.count(side, packet.segments.into(), packet.bytes.into());
        self.sooner(found.id, session, standing);
        if let Some(event) = event {
            nat.event(found.id, event);
        }
    }

    /// Moves a session's timer forward, if its deadline is sooner than when it would be looked at.
    pub(in crate::nat64) fn sooner(&mut self, id: u32, session: &Session, standing: Standing) {
        let deadline = self.nat.deadline(session, standing);
        if self.shard.wheel.is_later(standing.slot(), deadline) {
            self.shard.wheel.take_out(&self.nat.sessions, id);
            faults::at(Point::SessionMove);
            self.shard.wheel.put(&self.nat.sessions, id, deadline);
        }
    }

    /// A new session of a binding, which its subscriber has been charged for. All checks have been made but for the room in the
    /// table.
    pub(in crate::nat64) fn begin_session(
        &mut self,
        binding_id: u32,
        bound: &Bound,
        remote: (Ipv4Addr, u16),
        state: SessionState,
        (side, packet, tick): (Side, &Passing<'_>, u32),
    ) -> Result<SessionRef, Refused> {
        let mut standing = Standing::new(bound.protocol(), state);
        standing = match side {
            Side::V6 => standing.with_taken_part(),
            Side::V4 => standing.with_answered().opened_from_outside(),
        };
        if state == SessionState::Established {
            standing = standing.with_answered().with_established();
        }
        let mut counts = [(0, 0); 2];
        counts[side.index()] = (packet.segments.into(), packet.bytes.into());
        let begun =
            self.put_session(binding_id, bound, endpoint(remote.0, remote.1), standing, tick, counts)?;
        self.nat.event(begun.id, Event::Started);
        if state == SessionState::Established {
            self.nat.event(begun.id, Event::Established);
        }
        self.has_begun();
        Ok(begun)
    }

    /// The session that was put into the table last has begun: were there a panic before, it would have to end.
    pub(in crate::nat64) fn has_begun(&mut self) {
        self.hand.session = 0;
    }

    /// Puts a session into the table, until it [has begun](Self::has_begun). `counts` are packets and bytes so far, from the IPv6 and from the IPv4 side.
    pub(in crate::nat64) fn put_session(
        &mut self,
        binding_id: u32,
        bound: &Bound,
        remote: u64,
        standing: Standing,
        seen: u32,
        counts: [(u64, u64); 2],
    ) -> Result<SessionRef, Refused> {
        self.touch(3);
        let nat = self.nat;
        let binding = nat.bindings.get(binding_id).ok_or(Refused::TableFull)?;
        let id = nat.sessions.take().ok_or(Refused::TableFull)?;
        self.hand.session = id;
        self.touch(Slab::<Session>::made_with(id));
        let Some(session) = nat.sessions.get(id) else { return Err(Refused::TableFull) };
        // Only who was sent to lets others of its address in: an outsider's sessions do not keep the door open.
        let address = endpoint_parts(remote).0;
        if standing.taken_part() && !self.permit(binding_id, address) {
            nat.sessions.give_back(id);
            self.hand.session = 0;
            return Err(Refused::TableFull);
        }
        session.binding.store(binding_id, Ordering::Relaxed);
        session.remote.store(remote, Ordering::Relaxed);
        session.last_seen.store(seen, Ordering::Relaxed);
        session.set_standing(standing);
        session.count_anew(counts);
        let deadline = nat.deadline(session, standing);
        let version = turn(&session.version);
        let place = nat.place_by_remote(bound, remote);
        if !nat.by_remote.insert(place, id) {
            turn(&session.version);
            if standing.taken_part() {
                self.withdraw(binding_id, address);
            }
            nat.sessions.give_back(id);
            self.hand.session = 0;
            return Err(Refused::TableFull);
        }
        faults::at(Point::SessionBegin);
        self.shard.wheel.put(&nat.sessions, id, deadline);
        add(&binding.sessions, 1);
        if standing.taken_part() {
            add(&binding.taken_part, 1);
        }
        if binding.hint.load(Ordering::Relaxed) == 0 {
            binding.hint_remote.store(remote, Ordering::Relaxed);
            binding.hint.store(id, Ordering::Release);
        }
        self.count_session(bound.protocol(), 1);
        nat.session_changed(id);
        Ok(SessionRef { id, version })
    }

    /// Ends a session, which is in no timer's slot any more, and its binding with it if it was the last one.
    pub(in crate::nat64) fn end_session(&mut self, id: u32, tick: u32) {
        self.end_session_at(id, None, tick);
    }

    /// The same, where its places are known.
    pub(in crate::nat64) fn end_session_at(&mut self, id: u32, end: Option<&End>, tick: u32) {
        self.touch(3);
        let nat = self.nat;
        let Some(session) = nat.sessions.get(id) else { return };
        let binding_id = session.binding.load(Ordering::Relaxed);
        let remote = session.remote.load(Ordering::Relaxed);
        let Some(binding) = nat.bindings.get(binding_id) else { return };
        let Some(bound) = binding.read() else { return };
        self.hand.session = id;
        nat.event(id, Event::Ended);
        let end = end.filter(|end| end.is_of(binding_id, &bound, remote));
        let place = end.map_or_else(|| nat.place_by_remote(&bound, remote), |end| end.by_remote);
        nat.by_remote.remove(place, id);
        if binding.hint.load(Ordering::Relaxed) == id {
            binding.hint.store(0, Ordering::Relaxed);
        }
        faults::at(Point::SessionEnd);
        let standing = session.standing();
        turn(&session.version);
        nat.session_changed(id);
        self.count_session(bound.protocol(), -1);
        if standing.taken_part() {
            self.withdraw(binding_id, endpoint_parts(remote).0);
            add(&binding.taken_part, -1);
        }
        nat.sessions.give_back(id);
        self.hand.session = 0;
        let side = standing.opened_by().index();
        self.with_subscriber_of(bound.owner, |subscriber| subscriber.opened[side] -= 1);
        if add(&binding.sessions, -1) == 0 && !bound.is_static() {
            let places = end.filter(|end| end.is_last).map(|end| (end.by_host, end.by_address));
            self.end_binding_at(binding_id, &bound, places, tick);
        }
    }
}
