//! What a packet of a host does (RFC 6146 §3.5.1.1, §3.5.2.2, §3.5.3).

use std::net::Ipv6Addr;

use super::api::{Mapped, Outbound, Passing, PortClass, Protocol, Refused, SessionRef, SessionState, Signal};

use super::bucket::Bucket;
use super::events::Kind;
use super::tcp::{Side, after, first};
use super::{Binding, Inside, Model, Outside, Remote, Session, Subscriber, Wrong};

impl From<&Outbound> for Inside {
    fn from(flow: &Outbound) -> Self {
        Self { prefix: flow.prefix, protocol: flow.protocol, host: flow.host, port: flow.port }
    }
}

impl From<&Outbound> for Remote {
    fn from(flow: &Outbound) -> Self {
        Self { address: flow.remote, port: flow.remote_port }
    }
}

impl Session {
    pub fn count(&mut self, side: Side, packet: &Passing<'_>) {
        let way = usize::from(side == Side::V4);
        self.packets[way] += u64::from(packet.segments);
        self.bytes[way] += u64::from(packet.bytes);
    }
}

impl Model {
    /// Does what the packet does. `answer` is the engine's: where it had a choice the model follows it.
    pub fn outbound(
        &mut self,
        flow: &Outbound,
        packet: &Passing<'_>,
        tick: u64,
        answer: &Result<Mapped, Refused>,
    ) -> Result<(), Wrong> {
        let (inside, remote) = (Inside::from(flow), Remote::from(flow));
        if let Some(index) = self.session(inside, remote) {
            let outside = self.outside_of(inside);
            self.passes(index, Side::V6, packet, tick);
            return expect_mapped(answer, outside, Some(self.sessions[index].reference), false);
        }
        let known = self.binding(inside).copied();
        if flow.protocol == Protocol::Tcp && packet.signal != Signal::Syn {
            return match known {
                Some(binding) => expect_mapped(answer, binding.outside, None, false),
                None => expect_refused(answer, Refused::NoSession),
            };
        }
        let key = self.host_key(inside.host);
        if let Some(host) = self.hosts.iter_mut().find(|host| host.key == key && !host.is_certain) {
            let asks_for_low = *answer == Err(Refused::NeedsBlock(PortClass::Low));
            (host.no_low, host.is_certain) = (!asks_for_low, asks_for_low);
        }
        let choice = match self.may_open(inside, remote, known, tick, answer) {
            Ok(choice) => choice,
            Err(refused) => return expect_refused(answer, refused),
        };
        let Ok(mapped) = answer else {
            return Err(format!("{answer:?} instead of a mapping to one of {choice:?}"));
        };
        let outside = Outside { address: mapped.address, port: mapped.port };
        if !choice.contains(&outside) {
            return Err(format!("{outside:?} is none of {choice:?}"));
        }
        let Some(reference) = mapped.session else { return Err("a session without a reference".into()) };
        expect_mapped(answer, outside, Some(reference), true)?;
        self.expect_new(reference)?;
        if known.is_none() {
            self.fairness.count(&choice, outside);
            // It rests no more, if it was one of too many.
            self.rests.retain(|rest| rest.protocol != inside.protocol || rest.outside != outside);
            self.bindings.push(Binding { inside, outside, is_static: false });
        }
        let state = match flow.protocol {
            Protocol::Tcp if self.take_up(outside, remote) => SessionState::Established,
            Protocol::Tcp => first(Side::V6),
            Protocol::Udp | Protocol::Icmp => SessionState::OneWay,
        };
        self.begin(inside, remote, state, Side::V6, packet, tick, reference);
        if state == SessionState::Established {
            self.happens(Kind::Established, self.sessions.len() - 1);
        }
        Ok(())
    }

    /// Whether the host may open a session, and the ports that it may get.
    fn may_open(
        &mut self,
        inside: Inside,
        remote: Remote,
        known: Option<Binding>,
        tick: u64,
        answer: &Result<Mapped, Refused>,
    ) -> Result<Vec<Outside>, Refused> {
        self.has_quota(inside.host, Side::V6)?;
        let choice = match known {
            Some(binding) => vec![binding.outside],
            None => self.choice(inside, remote, tick, answer)?,
        };
        let is_full = known.is_none() && self.bindings.len() >= self.config.max_bindings as usize;
        let paid = if is_full { Err(Refused::TableFull) } else { self.pay(inside.host, Side::V6, tick) };
        if paid.is_err() && known.is_none() {
            let key = self.host_key(inside.host);
            for block in self.blocks.iter_mut().filter(|block| block.owner == key) {
                block.tried = block.tried.max(block.quiet_since).max(tick);
                // By a clock that is behind.
                block.quiet_since = block.quiet_since.min(tick);
            }
        }
        paid.map(|()| choice)
    }

    /// Whether this side may open one session more of this host's subscriber: each side has a quota of its own.
    pub fn has_quota(&self, host: Ipv6Addr, side: Side) -> Result<(), Refused> {
        let key = self.subscriber_key(host);
        let is_counted =
            |session: &&Session| session.opener == side && self.subscriber_key(session.inside.host) == key;
        let held = self.sessions.iter().filter(is_counted).count();
        if held >= self.config.quota.sessions as usize { Err(Refused::SessionQuota) } else { Ok(()) }
    }

    /// Takes a token of this side, if there is room for a session.
    pub fn pay(&mut self, host: Ipv6Addr, side: Side, tick: u64) -> Result<(), Refused> {
        let all = self.config.max_sessions as usize;
        // The last eighth is for what hosts open.
        if self.sessions.len() >= if side == Side::V4 { all - all / 8 } else { all } {
            return Err(Refused::TableFull);
        }
        let (rate, burst) = (self.config.quota.new_sessions_per_second, self.config.quota.burst);
        let key = self.subscriber_key(host);
        let subscriber = self.subscribers.iter_mut().find(|subscriber| subscriber.key == key).unwrap();
        let bucket = &mut subscriber.buckets[usize::from(side == Side::V4)];
        if bucket.take(rate, burst, tick) { Ok(()) } else { Err(Refused::RateQuota) }
    }

    /// A host is known from its first block or static binding on, and its subscriber with it.
    pub fn know(&mut self, host: Ipv6Addr, tick: u64) {
        let (key, subscriber) = (self.host_key(host), self.subscriber_key(host));
        if !self.hosts.iter().any(|known| known.key == key) {
            self.hosts.push(super::Host { key, no_low: false, is_certain: true });
        }
        if !self.subscribers.iter().any(|known| known.key == subscriber) {
            let bucket = Bucket::new(self.config.quota.burst, tick);
            self.subscribers.push(Subscriber { key: subscriber, buckets: [bucket.clone(), bucket] });
        }
    }

    #[allow(clippy::too_many_arguments, reason = "all that a session begins with")]
    pub fn begin(
        &mut self,
        inside: Inside,
        remote: Remote,
        state: SessionState,
        side: Side,
        packet: &Passing<'_>,
        tick: u64,
        reference: SessionRef,
    ) {
        let mut session = Session {
            inside,
            remote,
            state,
            seen: tick,
            opener: side,
            sent: side == Side::V6,
            received: side == Side::V4,
            was_established: state == SessionState::Established,
            packets: [0; 2],
            bytes: [0; 2],
            reference,
        };
        session.count(side, packet);
        self.sessions.push(session);
        self.happens(Kind::Started, self.sessions.len() - 1);
    }

    /// A packet of a session passes: its state, its lifetime, its counters.
    pub fn passes(&mut self, index: usize, side: Side, packet: &Passing<'_>, tick: u64) {
        let session = &mut self.sessions[index];
        session.count(side, packet);
        match side {
            // A host that refuses a connection takes no part in it.
            Side::V6 => session.sent |= packet.signal != Signal::Rst,
            Side::V4 => session.received = true,
        }
        let before = session.state;
        let refreshes = if session.inside.protocol == Protocol::Tcp {
            self.steps[before as usize][usize::from(side == Side::V4)][packet.signal as usize] += 1;
            let (after, refreshes) = after(before, side, packet.signal);
            session.state = after;
            refreshes
        } else {
            if session.sent && session.received {
                session.state = SessionState::Established;
            }
            session.sent
        };
        if refreshes {
            session.seen = session.seen.max(tick);
        }
        let after = session.state;
        if before != after {
            let opens = after == SessionState::Established && !session.was_established;
            session.was_established |= opens;
            self.happens(if opens { Kind::Established } else { Kind::Changed }, index);
        }
    }

    /// A reference that is neither that of another session nor one of those that have ended.
    pub fn expect_new(&self, reference: SessionRef) -> Result<(), Wrong> {
        let is_known = self.sessions.iter().any(|session| session.reference == reference)
            || self.dead.contains(&reference);
        if is_known { Err(format!("{reference:?} was used before")) } else { Ok(()) }
    }
}

fn expect_mapped(
    answer: &Result<Mapped, Refused>,
    outside: Outside,
    session: Option<SessionRef>,
    created: bool,
) -> Result<(), Wrong> {
    // Whether another block is wanted is compared by the caller.
    let wants_block = answer.as_ref().ok().and_then(|mapped| mapped.wants_block);
    let expected = Mapped { address: outside.address, port: outside.port, session, created, wants_block };
    if *answer == Ok(expected) { Ok(()) } else { Err(format!("{answer:?} instead of {expected:?}")) }
}

fn expect_refused(answer: &Result<Mapped, Refused>, refused: Refused) -> Result<(), Wrong> {
    if *answer == Err(refused) { Ok(()) } else { Err(format!("{answer:?} instead of {refused:?}")) }
}
