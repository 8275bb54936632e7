//! Entries of an earlier engine are put back, one by one; what no longer fits is refused, with the reason.

use super::entries::{Bound, Standing, binding_key, endpoint};
use super::held::Held;
use super::tcp::Side;
use super::{
    Binding, Block, BlockRef, GiveError, Inbound, Ipv6Addr, Nat64, RestingPort, SavedSession, Timestamp, tick,
};
use crate::faults::{self, Point};

/// Why an entry is not put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotRestored {
    /// A session that has been silent for longer than it lives.
    #[error("it is over")]
    Over,
    /// The host's port has another binding.
    #[error("the host's port is bound to another address or port")]
    OtherBinding,
    /// The address or port is another host's, or reserved.
    #[error("the address or port is somebody else's, or reserved")]
    PortTaken,
    /// The address or the ports are in no pool that serves the host.
    #[error("it is in no pool that serves its host")]
    NotInPool,
    /// The host has another address (RFC 4787 REQ-2: paired).
    #[error("its host has another address")]
    OtherAddress,
    /// The port lies in none of the host's blocks.
    #[error("the host has no block with this port")]
    NoBlock,
    /// It is there already.
    #[error("it is there already")]
    Twice,
    /// The subscriber holds as much as it may.
    #[error("its subscriber holds as much as it may")]
    Quota,
    /// A table is full.
    #[error("the table is full")]
    Full,
}

impl NotRestored {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Over,
        Self::OtherBinding,
        Self::PortTaken,
        Self::NotInPool,
        Self::OtherAddress,
        Self::NoBlock,
        Self::Twice,
        Self::Quota,
        Self::Full,
    ];

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Over => "over",
            Self::OtherBinding => "other_binding",
            Self::PortTaken => "taken",
            Self::NotInPool => "not_in_pool",
            Self::OtherAddress => "other_address",
            Self::NoBlock => "no_block",
            Self::Twice => "twice",
            Self::Quota => "quota",
            Self::Full => "full",
        }
    }
}

impl Nat64 {
    /// To be called before the first entry is put back: otherwise all of them are looked at soon, whether their time has come or not.
    pub fn begin_restore(&self, now: Timestamp) {
        // Each call passes over a number of empty slots; an engine with anything in it comes to an end as well.
        for _ in 0..=super::SHARDS {
            if !self.expire(now, 1) {
                return;
            }
        }
    }

    /// Gives a host a block that it had before, since `given`. It counts as in use until now. See [`Self::give_block`].
    pub fn restore_block(
        &self,
        host: Ipv6Addr,
        block: &Block,
        given: Timestamp,
        now: Timestamp,
    ) -> Result<BlockRef, GiveError> {
        self.give_block_since(host, block, given, now)
    }

    /// Lets a port rest that nobody has. Of one block and protocol, those go first that have rested longest. `false`: it is not free, in
    /// no block of this host, or has rested enough.
    pub fn restore_resting(&self, host: Ipv6Addr, resting: &RestingPort, now: Timestamp) -> bool {
        let since = tick(resting.since).min(tick(now));
        if tick(now) - since > self.limits.rest[resting.protocol as usize].get() {
            return false;
        }
        let Some(mut held) = self.hold(self.shard_of(self.subscriber_prefix(host))) else { return false };
        let Some(owner) = held.host(self.lease_prefix(host)) else { return false };
        let (address, port) = (resting.address, resting.port);
        held.let_rest(owner, (resting.protocol, address, port), since)
    }

    /// Goes on with a session, and with its binding: with the very same address and port. Its block must be there, or its static
    /// binding. Costs its subscriber nothing of the rate at which it may open sessions, and is no event.
    pub fn restore_session(&self, saved: &SavedSession, now: Timestamp) -> Result<(), NotRestored> {
        let (flow, tick) = (&saved.outbound, tick(now));
        let standing = Standing::new(flow.protocol, saved.state).with_course(saved.course);
        let seen = self::tick(saved.last_seen).min(tick);
        if tick - seen > self.timer(flow.protocol, saved.state) {
            return Err(NotRestored::Over);
        }
        let prefix = self.subscriber_prefix(flow.host);
        let mut held = self.hold(self.shard_of(prefix)).ok_or(NotRestored::Full)?;
        let remote = endpoint(flow.remote, flow.remote_port);
        let known = self.binding_by_host(flow);
        if let Some((id, bound)) = known {
            if bound.endpoint() != (saved.address, saved.port) {
                return Err(NotRestored::OtherBinding);
            }
            if self.session_of(id, &bound, remote).is_some() {
                return Err(NotRestored::Twice);
            }
        } else if self.binding_by_address(&inbound(saved)).is_some() {
            return Err(NotRestored::PortTaken);
        }
        let owner = match &known {
            Some((_, bound)) => bound.owner,
            None => held.host(self.lease_prefix(flow.host)).ok_or(NotRestored::NoBlock)?,
        };
        let (subscriber, side) = (held.subscriber_of(owner), standing.opened_by());
        held.check_sessions(subscriber, side).map_err(|_| NotRestored::Quota)?;
        if self.sessions.is_full() {
            return Err(NotRestored::Full);
        }
        let (id, bound) = match known {
            Some(known) => known,
            None => held.restore_binding(owner, saved, tick)?,
        };
        faults::at(Point::RestoreSession);
        held.count_opened(subscriber, side);
        let put = held.put_session(id, &bound, remote, standing, seen, [(0, 0); 2]);
        if put.is_err() {
            held.refund(subscriber, side);
            let is_empty = self.bindings.get(id).is_some_and(Binding::has_no_session);
            if known.is_none() && is_empty {
                held.end_binding(id, &bound, tick);
            }
        }
        held.has_begun();
        put.map(drop).map_err(|_| NotRestored::Full)
    }
}

impl Held<'_> {
    /// A binding that its host had before.
    fn restore_binding(
        &mut self,
        owner: u32,
        saved: &SavedSession,
        tick: u32,
    ) -> Result<(u32, Bound), NotRestored> {
        let flow = &saved.outbound;
        if self.nat.bindings.is_full() {
            return Err(NotRestored::Full);
        }
        let port = self.take_this_port(owner, (flow.protocol, saved.address, saved.port))?;
        let key = binding_key(flow.prefix, flow.protocol, flow.port);
        let bound = Bound::new(key, flow.host, port.address, port.number, owner);
        let begun = self.begin_binding(&bound, self.nat.place_by_host(flow), port.block);
        let id = begun.map_err(|_| {
            self.put_back(owner, &port, flow.protocol, tick);
            NotRestored::Full
        })?;
        let bound = self.nat.bindings.get(id).and_then(Binding::read).ok_or(NotRestored::Full)?;
        Ok((id, bound))
    }

    /// One session more that this side has opened, whatever the rate says.
    fn count_opened(&self, subscriber: u32, side: Side) {
        self.with_subscriber(subscriber, |data| data.opened[side.index()] += 1);
    }
}

fn inbound(saved: &SavedSession) -> Inbound {
    let SavedSession { outbound, address, port, .. } = *saved;
    let (remote, remote_port) = (outbound.remote, outbound.remote_port);
    Inbound { protocol: outbound.protocol, address, port, remote, remote_port }
}
