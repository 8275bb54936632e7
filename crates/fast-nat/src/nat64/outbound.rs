//! Packets from the IPv6 side.

use std::sync::atomic::Ordering;

use super::entries::{Bound, Standing, binding_key, endpoint};
use super::held::Held;
use super::index::Place;
use super::look_up::mapped;
use super::tcp::{self, Side};
use super::{
    Mapped, Nat64, Outbound, Passing, PortClass, Protocol, Refused, Seen, SessionRef, SessionState, Signal,
    Timestamp, tick,
};

impl Nat64 {
    /// A packet from the IPv6 side: what it leaves with, or why it does not.
    #[inline]
    pub fn outbound(&self, flow: &Outbound, packet: &Passing<'_>, now: Timestamp) -> Result<Mapped, Refused> {
        let tick = tick(now);
        let place = self.place_by_host(flow);
        if let Some((id, bound)) = self.binding_by_host_at(place, flow)
            && let Some(found) = self.session_of(id, &bound, endpoint(flow.remote, flow.remote_port))
            && found.standing.taken_part()
            && let Some(refresh) = goes_on(found.standing, flow.protocol, packet.signal)
            && let Some(session) = self.sessions.get(found.id)
        {
            if refresh {
                session.refresh(tick);
            }
            session.count(Side::V6, packet.segments.into(), packet.bytes.into());
            return Ok(mapped(&bound, Some(found.reference()), false));
        }
        self.outbound_locked(flow, place, packet, tick)
    }

    /// The same where something begins or changes.
    #[cold]
    fn outbound_locked(
        &self,
        flow: &Outbound,
        place: Place,
        packet: &Passing<'_>,
        tick: u32,
    ) -> Result<Mapped, Refused> {
        let prefix = self.subscriber_prefix(flow.host);
        let mut held = self.hold(self.shard_of(prefix)).ok_or(Refused::TableFull)?;
        let opens = flow.protocol != Protocol::Tcp || packet.signal == Signal::Syn;
        if let Some((id, bound)) = self.binding_by_host_at(place, flow) {
            if let Some(found) = self.session_of(id, &bound, endpoint(flow.remote, flow.remote_port)) {
                held.advance(&found, &bound, Side::V6, packet, tick);
                return Ok(mapped(&bound, Some(found.reference()), false));
            }
            if !opens {
                return Ok(mapped(&bound, None, false));
            }
            let subscriber = held.subscriber_of(bound.owner);
            held.check_sessions(subscriber, Side::V6)?;
            self.check_room(Side::V6)?;
            held.charge(subscriber, Side::V6, tick)?;
            let opened = held.open(id, &bound, flow, packet, tick);
            return opened.inspect_err(|_| held.refund(subscriber, Side::V6));
        }
        if !opens {
            return Err(Refused::NoSession);
        }
        let wants_low = self.config.low_ports && flow.protocol != Protocol::Icmp && flow.port < 1024;
        let owner = held.host(self.lease_prefix(flow.host));
        let subscriber =
            owner.map_or_else(|| held.subscriber(prefix), |owner| Some(held.subscriber_of(owner)));
        if let Some(subscriber) = subscriber {
            held.check_sessions(subscriber, Side::V6)?;
        }
        let Some((owner, subscriber)) = owner.zip(subscriber) else {
            return Err(Refused::NeedsBlock(if wants_low { PortClass::Low } else { PortClass::High }));
        };
        let low_denied = wants_low && held.with_host(owner, |host| host.low_denied).unwrap_or_default();
        let wanted = if flow.protocol == Protocol::Tcp {
            self.stored.wanted_by(flow.remote, flow.remote_port)
        } else {
            None
        };
        let like = self.config.lanes.like(flow.host, flow.port);
        let mut take = |class| held.take_port(owner, (flow.protocol, class, like), wanted, tick);
        let low = if wants_low { take(PortClass::Low) } else { None };
        let class = if wants_low && !low_denied { PortClass::Low } else { PortClass::High };
        let port = match low {
            None if class == PortClass::High => take(class).ok_or(class),
            found => found.ok_or(class),
        };
        let port = port.map_err(Refused::NeedsBlock)?;
        let key = binding_key(flow.prefix, flow.protocol, flow.port);
        let bound = Bound::new(key, flow.host, port.address, port.number, owner);
        let room = if self.bindings.is_full() { Err(Refused::TableFull) } else { self.check_room(Side::V6) };
        let made = room.and_then(|()| held.charge(subscriber, Side::V6, tick)).and_then(|()| {
            let begun = held.begin_binding(&bound, place, port.block);
            begun.inspect_err(|_| held.refund(subscriber, Side::V6))
        });
        let id = match made {
            Ok(id) => id,
            Err(refused) => {
                held.put_back(owner, &port, flow.protocol, tick);
                return Err(refused);
            }
        };
        match held.open(id, &bound, flow, packet, tick) {
            Ok(mapped) => Ok(Mapped { wants_block: port.wants_block, ..mapped }),
            Err(refused) => {
                held.refund(subscriber, Side::V6);
                held.end_binding(id, &bound, tick);
                Err(refused)
            }
        }
    }
}

impl Nat64 {
    /// Whether there is room for a session more that this side opens. The last eighth of the table is for the hosts: outsiders
    /// alone cannot fill it.
    pub(super) fn check_room(&self, side: Side) -> Result<(), Refused> {
        let most = match side {
            Side::V6 => self.config.max_sessions,
            Side::V4 => self.config.max_sessions - self.config.max_sessions / 8,
        };
        if self.sessions.live() >= most { Err(Refused::TableFull) } else { Ok(()) }
    }
}

impl Held<'_> {
    /// Opens a session from the IPv6 side.
    fn open(
        &mut self,
        id: u32,
        bound: &Bound,
        flow: &Outbound,
        packet: &Passing<'_>,
        tick: u32,
    ) -> Result<Mapped, Refused> {
        let state = if flow.protocol == Protocol::Tcp {
            let (address, port) = bound.endpoint();
            let waited =
                self.nat.stored.take((endpoint(flow.remote, flow.remote_port), endpoint(address, port)));
            if waited { SessionState::Established } else { tcp::first(Side::V6) }
        } else {
            SessionState::OneWay
        };
        let remote = (flow.remote, flow.remote_port);
        let session = self.begin_session(id, bound, remote, state, (Side::V6, packet, tick))?;
        Ok(mapped(bound, Some(session), true))
    }
}

/// Whether a packet changes nothing of a session but its timer, and if so whether it does that.
#[inline]
pub(super) fn goes_on(standing: Standing, protocol: Protocol, signal: Signal) -> Option<bool> {
    use SessionState::{Established, OneWay, Trans, V4FinRcv, V4FinV6FinRcv, V4Init, V6FinRcv, V6Init};
    if protocol == Protocol::Tcp && signal != Signal::None {
        return None;
    }
    match standing.state() {
        OneWay | Established | V4FinRcv | V6FinRcv => Some(true),
        V4Init | V6Init | V4FinV6FinRcv => Some(false),
        Trans => None,
    }
}

impl Nat64 {
    /// What a faster path has seen of a session.
    pub fn report(&self, session: SessionRef, seen: &Seen) {
        let Some(entry) = self.sessions.get(session.id) else { return };
        if entry.version.load(Ordering::Acquire) != session.version {
            return;
        }
        for (side, n) in [(Side::V6, 0), (Side::V4, 1)] {
            entry.count(side, seen.packets[n], seen.bytes[n]);
        }
        // A connection that is being opened or closed is not kept by what passes: those packets are not for a faster path.
        let keeps = matches!(
            entry.standing().state(),
            SessionState::Established
                | SessionState::V4FinRcv
                | SessionState::V6FinRcv
                | SessionState::OneWay
        );
        if keeps && entry.standing().taken_part() && seen.packets != [0, 0] {
            entry.refresh(tick(seen.last_seen));
        }
    }
}
