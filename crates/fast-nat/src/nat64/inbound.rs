//! Packets from the IPv4 side.

use std::sync::atomic::Ordering;

use super::entries::endpoint;
use super::index::Place;
use super::look_up::reached;
use super::outbound::goes_on;
use super::tcp::{self, Side};
use super::{
    Binding, Inbound, Nat64, Passing, Protocol, Reached, Refused, SessionState, Signal, Timestamp, tick,
};

/// How often it is looked again when a binding has ended and another one begun under the same number meanwhile.
const ATTEMPTS: usize = 3;

impl Nat64 {
    /// A packet from the IPv4 side: where it goes, or why it does not.
    #[inline]
    pub fn inbound(&self, flow: &Inbound, packet: &Passing<'_>, now: Timestamp) -> Result<Reached, Refused> {
        let tick = tick(now);
        let place = self.place_by_address(flow);
        if let Some((id, bound)) = self.binding_by_address_at(place, flow)
            && let Some(found) = self.session_of(id, &bound, endpoint(flow.remote, flow.remote_port))
            && found.standing.answered()
            && let Some(refresh) = goes_on(found.standing, flow.protocol, packet.signal)
            && let Some(session) = self.sessions.get(found.id)
        {
            // Nobody outside keeps a session alive that its host has not taken part in (RFC 4787 REQ-6).
            if refresh && found.standing.taken_part() {
                session.refresh(tick);
            }
            session.count(Side::V4, packet.segments.into(), packet.bytes.into());
            return Ok(reached(&bound, Some(found.reference()), false));
        }
        self.inbound_locked(flow, place, packet, tick)
    }

    #[cold]
    fn inbound_locked(
        &self,
        flow: &Inbound,
        place: Place,
        packet: &Passing<'_>,
        tick: u32,
    ) -> Result<Reached, Refused> {
        let opens = flow.protocol != Protocol::Tcp || packet.signal == Signal::Syn;
        for _ in 0..ATTEMPTS {
            let Some((id, bound)) = self.binding_by_address_at(place, flow) else { break };
            // The host knows its shard, but is somewhere else in memory.
            let shard = self.shard_of(self.subscriber_prefix(bound.host));
            let Some(mut held) = self.hold(shard) else { break };
            // It may have ended before the lock was had.
            if self.bindings.get(id).and_then(Binding::read) != Some(bound) {
                continue;
            }
            if let Some(found) = self.session_of(id, &bound, endpoint(flow.remote, flow.remote_port)) {
                held.advance(&found, &bound, Side::V4, packet, tick);
                return Ok(reached(&bound, Some(found.reference()), false));
            }
            // The operator has opened a static binding by name.
            if !bound.is_static() && !held.is_permitted(id, flow.remote) {
                drop(held);
                return Err(self.store(flow, packet, tick).unwrap_or(Refused::Filtered));
            }
            if !opens {
                return Ok(reached(&bound, None, false));
            }
            // Sessions that only outsiders have opened do not keep a binding alive.
            let taken_part =
                self.bindings.get(id).is_some_and(|binding| binding.taken_part.load(Ordering::Relaxed) > 0);
            if !bound.is_static() && !taken_part {
                break;
            }
            let subscriber = held.subscriber_of(bound.owner);
            held.check_sessions(subscriber, Side::V4)?;
            self.check_room(Side::V4)?;
            held.charge(subscriber, Side::V4, tick)?;
            let state = if flow.protocol == Protocol::Tcp {
                // An earlier one of its SYNs may wait: it has been let in now, and nothing is to be sent about it (RFC 5382
                // REQ-4).
                self.stored.take(from_to(flow));
                tcp::first(Side::V4)
            } else {
                SessionState::OneWay
            };
            let remote = (flow.remote, flow.remote_port);
            let session = held.begin_session(id, &bound, remote, state, (Side::V4, packet, tick));
            let session = session.inspect_err(|_| held.refund(subscriber, Side::V4))?;
            return Ok(reached(&bound, Some(session), true));
        }
        let otherwise = if opens { Refused::NoBinding } else { Refused::NoSession };
        Err(self.store(flow, packet, tick).unwrap_or(otherwise))
    }

    /// Keeps a TCP SYN in case its host opens the same connection, if there is room.
    fn store(&self, flow: &Inbound, packet: &Passing<'_>, tick: u32) -> Option<Refused> {
        let is_syn = flow.protocol == Protocol::Tcp && packet.signal == Signal::Syn;
        (is_syn && self.stored.keep(from_to(flow), packet.packet, tick)).then_some(Refused::Stored)
    }
}

/// What a stored SYN is known by.
fn from_to(flow: &Inbound) -> super::stored::Flow {
    (endpoint(flow.remote, flow.remote_port), endpoint(flow.address, flow.port))
}
