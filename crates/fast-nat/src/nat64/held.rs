//! A shard under its lock: what begins, changes and ends.

use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::entries::{
    BlockData, Bound, Bucket, HostData, Standing, SubscriberData, endpoint, endpoint_parts, turn,
};
use super::look_up::Found;
use super::ports::PortSet;
use super::slab::Entry;
use super::tcp::{self, Side};
use super::warm::End;
use super::wheel::Wheel;
use super::{
    AtomicU32, Binding, Event, Index, Ipv4Addr, Ipv6Addr, Nat64, Passing, PortClass, Protocol, Refused,
    SHARDS, Session, SessionRef, SessionState, SessionView, Signal, Slab, index,
};

/// Blocks of one host: as many are looked through for a free port. One that was found to have some comes first the next time.
pub(super) const MOST_BLOCKS: u32 = 128;

/// Ports whose rest is over that one call sets free.
const PROMOTED: u16 = 32;

/// What one lock guards.
#[derive(Debug)]
pub(super) struct Shard {
    number: u64,
    pub(super) wheel: Wheel,
    /// Ends of the list of blocks without a binding, in the order in which they became so.
    pub(super) idle_first: u32,
    idle_last: u32,
    /// Random numbers made so far.
    randoms: u64,
}

impl Shard {
    pub(super) fn new(number: usize) -> Self {
        Self { number: number as u64, wheel: Wheel::new(), idle_first: 0, idle_last: 0, randoms: 0 }
    }
}

/// An address that a binding lets in, with address-dependent filtering.
#[derive(Debug, Default)]
pub(super) struct Permit {
    binding: AtomicU32,
    address: AtomicU32,
    sessions: AtomicU32,
    link: AtomicU32,
}

impl Entry for Permit {
    fn link(&self) -> &AtomicU32 {
        &self.link
    }
}

/// A place for a binding: a port that has been taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Port {
    pub(super) block: u32,
    pub(super) address: Ipv4Addr,
    pub(super) number: u16,
    pub(super) wants_block: Option<PortClass>,
}

/// Adds to what only the holder of the shard's lock changes; says what that is then.
fn add(count: &AtomicU32, more: i32) -> u32 {
    let sum = count.load(Ordering::Relaxed).wrapping_add_signed(more);
    count.store(sum, Ordering::Relaxed);
    sum
}

/// A locked shard of an engine.
pub(super) struct Held<'n> {
    pub(super) nat: &'n Nat64,
    pub(super) shard: MutexGuard<'n, Shard>,
    pub(super) number: u32,
    touched: u32,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.nat.touched(self.touched);
    }
}

impl Nat64 {
    pub(super) fn shard_of(&self, subscriber: u128) -> u32 {
        u32::from(self.hasher.shard(subscriber)) % SHARDS as u32
    }

    pub(super) fn hold(&self, number: u32) -> Option<Held<'_>> {
        let cell = self.shards.get(number as usize)?;
        let shard = cell.shard.try_lock().unwrap_or_else(|| {
            self.contended.fetch_add(1, Ordering::Relaxed);
            cell.shard.lock()
        });
        Some(Held { nat: self, shard, number, touched: 0 })
    }

    /// The first tick in which a session is over.
    pub(super) fn deadline(&self, session: &Session, standing: Standing) -> u32 {
        let timer = self.timer(standing.protocol(), standing.state());
        session.last_seen.load(Ordering::Relaxed).saturating_add(timer).saturating_add(1)
    }

    fn timer(&self, protocol: Protocol, state: SessionState) -> u32 {
        use SessionState::{Established, V4FinRcv, V6FinRcv};
        match (protocol, state) {
            (Protocol::Tcp, Established | V4FinRcv | V6FinRcv) => self.timers.tcp_established,
            (Protocol::Tcp, _) => self.timers.tcp_transitory,
            (Protocol::Udp, _) => self.timers.udp,
            (Protocol::Icmp, _) => self.timers.icmp,
        }
    }
}

impl Held<'_> {
    /// One entry more has been looked at or changed.
    pub(super) fn touch(&mut self, entries: u32) {
        self.touched += entries;
    }

    fn random(&mut self) -> u64 {
        self.shard.randoms += 1;
        self.nat.hasher.random_number(self.shard.number << 48 | self.shard.randoms)
    }

    fn count_session(&self, protocol: Protocol, more: i32) {
        if let Some(cell) = self.nat.shards.get(self.number as usize) {
            add(&cell.sessions[protocol as usize], more);
        }
    }

    // --- sessions

    /// A packet of a session that is there.
    pub(super) fn advance(
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
        session.count(side, packet.segments.into(), packet.bytes.into());
        self.sooner(found.id, session, standing);
        if let Some(event) = event {
            nat.event(found.id, event);
        }
    }

    /// Moves a session's timer forward, if its deadline is sooner than when it would be looked at.
    pub(super) fn sooner(&mut self, id: u32, session: &Session, standing: Standing) {
        let deadline = self.nat.deadline(session, standing);
        if self.shard.wheel.is_later(standing.slot(), deadline) {
            self.shard.wheel.take_out(&self.nat.sessions, id);
            self.shard.wheel.put(&self.nat.sessions, id, deadline);
        }
    }

    /// A new session of a binding, which its subscriber has been charged for. All checks have been made but for the room in the
    /// table.
    pub(super) fn begin_session(
        &mut self,
        binding_id: u32,
        bound: &Bound,
        remote: (Ipv4Addr, u16),
        state: SessionState,
        (side, packet, tick): (Side, &Passing<'_>, u32),
    ) -> Result<SessionRef, Refused> {
        self.touch(3);
        let nat = self.nat;
        let binding = nat.bindings.get(binding_id).ok_or(Refused::TableFull)?;
        let id = nat.sessions.take().ok_or(Refused::TableFull)?;
        self.touch(Slab::<Session>::made_with(id));
        let Some(session) = nat.sessions.get(id) else { return Err(Refused::TableFull) };
        let remote_bits = endpoint(remote.0, remote.1);
        // Only who was sent to lets others of its address in: an outsider's sessions do not keep the door open.
        if side == Side::V6 && !self.permit(binding_id, remote.0) {
            nat.sessions.give_back(id);
            return Err(Refused::TableFull);
        }
        let mut standing = Standing::new(bound.protocol(), state);
        standing = match side {
            Side::V6 => standing.with_taken_part(),
            Side::V4 => standing.with_answered().opened_from_outside(),
        };
        if state == SessionState::Established {
            standing = standing.with_answered().with_established();
        }
        session.binding.store(binding_id, Ordering::Relaxed);
        session.remote.store(remote_bits, Ordering::Relaxed);
        session.last_seen.store(tick, Ordering::Relaxed);
        session.set_standing(standing);
        session.count_anew(side, packet.segments.into(), packet.bytes.into());
        let deadline = nat.deadline(session, standing);
        let version = turn(&session.version);
        let place = nat.place_by_remote(bound, remote_bits);
        if !nat.by_remote.insert(place, id) {
            turn(&session.version);
            if side == Side::V6 {
                self.withdraw(binding_id, remote.0);
            }
            nat.sessions.give_back(id);
            return Err(Refused::TableFull);
        }
        self.shard.wheel.put(&nat.sessions, id, deadline);
        add(&binding.sessions, 1);
        if side == Side::V6 {
            add(&binding.taken_part, 1);
        }
        if binding.hint.load(Ordering::Relaxed) == 0 {
            binding.hint_remote.store(remote_bits, Ordering::Relaxed);
            binding.hint.store(id, Ordering::Release);
        }
        self.count_session(bound.protocol(), 1);
        nat.event(id, Event::Started);
        if state == SessionState::Established {
            nat.event(id, Event::Established);
        }
        Ok(SessionRef { id, version })
    }

    /// Ends a session, which is in no timer's slot any more, and its binding with it if it was the last one.
    pub(super) fn end_session(&mut self, id: u32, tick: u32) {
        self.end_session_at(id, None, tick);
    }

    /// The same, where its places are known.
    pub(super) fn end_session_at(&mut self, id: u32, end: Option<&End>, tick: u32) {
        self.touch(3);
        let nat = self.nat;
        let Some(session) = nat.sessions.get(id) else { return };
        let binding_id = session.binding.load(Ordering::Relaxed);
        let remote = session.remote.load(Ordering::Relaxed);
        let Some(binding) = nat.bindings.get(binding_id) else { return };
        let Some(bound) = binding.read() else { return };
        nat.event(id, Event::Ended);
        let end = end.filter(|end| end.is_of(binding_id, &bound, remote));
        let place = end.map_or_else(|| nat.place_by_remote(&bound, remote), |end| end.by_remote);
        nat.by_remote.remove(place, id);
        if binding.hint.load(Ordering::Relaxed) == id {
            binding.hint.store(0, Ordering::Relaxed);
        }
        let standing = session.standing();
        turn(&session.version);
        self.count_session(bound.protocol(), -1);
        if standing.taken_part() {
            self.withdraw(binding_id, endpoint_parts(remote).0);
            add(&binding.taken_part, -1);
        }
        nat.sessions.give_back(id);
        let side = standing.opened_by().index();
        self.with_subscriber_of(bound.owner, |subscriber| subscriber.opened[side] -= 1);
        if add(&binding.sessions, -1) == 0 && !bound.is_static() {
            let places = end.filter(|end| end.is_last).map(|end| (end.by_host, end.by_address));
            self.end_binding_at(binding_id, &bound, places, tick);
        }
    }

    // --- permits

    fn permit_place(&self, index: &Index, binding: u32, address: Ipv4Addr) -> index::Place {
        index.place(self.nat.hasher.permit(binding, address))
    }

    fn find_permit(&self, binding: u32, address: Ipv4Addr) -> Option<(u32, &Permit)> {
        let (permits, index) = self.nat.permits.as_ref()?;
        let is_it = |permit: &Permit| {
            permit.binding.load(Ordering::Relaxed) == binding
                && permit.address.load(Ordering::Relaxed) == address.to_bits()
        };
        let place = self.permit_place(index, binding, address);
        let id = index.find(place, |id| permits.get(id).is_some_and(is_it))?;
        Some((id, permits.get(id)?))
    }

    /// Whether packets of this address get in, where that depends on the address.
    pub(super) fn is_permitted(&self, binding: u32, address: Ipv4Addr) -> bool {
        self.nat.permits.is_none() || self.find_permit(binding, address).is_some()
    }

    /// One session more with this address. `false`: no room.
    fn permit(&mut self, binding: u32, address: Ipv4Addr) -> bool {
        let Some((permits, index)) = &self.nat.permits else { return true };
        self.touch(1);
        if let Some((_, permit)) = self.find_permit(binding, address) {
            permit.sessions.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let Some(id) = permits.take() else { return false };
        self.touch(Slab::<Permit>::made_with(id));
        let Some(permit) = permits.get(id) else { return false };
        permit.binding.store(binding, Ordering::Relaxed);
        permit.address.store(address.to_bits(), Ordering::Relaxed);
        permit.sessions.store(1, Ordering::Relaxed);
        let placed = index.insert(self.permit_place(index, binding, address), id);
        if !placed {
            permit.binding.store(0, Ordering::Relaxed);
            permits.give_back(id);
        }
        placed
    }

    /// One session less with this address.
    fn withdraw(&mut self, binding: u32, address: Ipv4Addr) {
        let Some((permits, index)) = &self.nat.permits else { return };
        self.touch(1);
        let Some((id, permit)) = self.find_permit(binding, address) else { return };
        if permit.sessions.fetch_sub(1, Ordering::Relaxed) == 1 {
            index.remove(self.permit_place(index, binding, address), id);
            permit.binding.store(0, Ordering::Relaxed);
            permits.give_back(id);
        }
    }

    // --- bindings

    /// A new binding of this port, without a session. Its host has counted it.
    pub(super) fn begin_binding(
        &mut self,
        bound: &Bound,
        inside: index::Place,
        block: u32,
    ) -> Result<u32, Refused> {
        self.touch(2);
        let nat = self.nat;
        let id = nat.bindings.take().ok_or(Refused::TableFull)?;
        self.touch(Slab::<Binding>::made_with(id));
        let Some(binding) = nat.bindings.get(id) else { return Err(Refused::TableFull) };
        binding.begin(bound, block);
        let outside = nat.place_of_outside(bound);
        let placed = nat.by_address.insert(outside, id);
        if !placed || !nat.by_host.insert(inside, id) {
            if placed {
                nat.by_address.remove(outside, id);
            }
            turn(&binding.version);
            nat.bindings.give_back(id);
            return Err(Refused::TableFull);
        }
        Ok(id)
    }

    /// Ends a binding without a session. Its port rests.
    pub(super) fn end_binding(&mut self, id: u32, bound: &Bound, tick: u32) {
        self.end_binding_at(id, bound, None, tick);
    }

    /// The same, where its places by host and by address are known.
    fn end_binding_at(
        &mut self,
        id: u32,
        bound: &Bound,
        places: Option<(index::Place, index::Place)>,
        tick: u32,
    ) {
        self.touch(3);
        let nat = self.nat;
        let Some(binding) = nat.bindings.get(id) else { return };
        let port = bound.endpoint().1;
        let (inside, outside) = places.unwrap_or_else(|| nat.places_of(bound));
        nat.by_host.remove(inside, id);
        nat.by_address.remove(outside, id);
        turn(&binding.version);
        let block = binding.block.load(Ordering::Relaxed);
        nat.bindings.give_back(id);
        self.release_port(block, port, bound.protocol(), tick);
        let is_left = self.with_host(bound.owner, |host| {
            host.bindings -= 1;
            host.bindings > 0 || host.blocks > 0
        });
        if is_left == Some(false) {
            self.forget_host(bound.owner);
        }
    }

    // --- ports

    fn release_port(&mut self, block_id: u32, port: u16, protocol: Protocol, tick: u32) {
        let Some(block) = self.nat.blocks.get(block_id) else { return };
        let mut data = block.data.lock();
        let place = port.wrapping_sub(data.first_port);
        data.ports[protocol as usize].release(place, tick);
        data.used[protocol as usize] -= 1;
        let is_idle = data.is_idle();
        drop(data);
        if is_idle {
            self.begin_idle(block_id, tick);
        }
    }

    /// Gives back a port that was taken and not used: it need not rest.
    pub(super) fn put_back(&mut self, owner: u32, port: &Port, protocol: Protocol, tick: u32) {
        let Some(block) = self.nat.blocks.get(port.block) else { return };
        let mut data = block.data.lock();
        let place = port.number.wrapping_sub(data.first_port);
        data.ports[protocol as usize].put_back(place);
        data.used[protocol as usize] -= 1;
        let (class, is_idle) = (data.class(), data.is_idle());
        drop(data);
        self.with_host(owner, |host| {
            host.free[class as usize][protocol as usize] += 1;
            host.bindings -= 1;
        });
        if is_idle {
            self.begin_idle(port.block, tick);
        }
    }

    /// Takes a free port of the host for a binding more: `wanted` if that is free, else one of the class, and of the parity if there is one.
    pub(super) fn take_port(
        &mut self,
        owner: u32,
        (protocol, class, parity): (Protocol, PortClass, u16),
        wanted: Option<u64>,
        tick: u32,
    ) -> Option<Port> {
        let nat = self.nat;
        let host = nat.hosts.get(owner)?;
        let random = self.random();
        let mut data = host.data.lock();
        let kind = protocol as usize;
        let (rest, most_resting) = (nat.timers.rest[kind], nat.config.max_resting_ports);
        let wanted = wanted.map(endpoint_parts);
        let (mut best, mut found) = (None, None);
        let (mut before, mut may_promote) = (0, PROMOTED);
        let mut at = host.first_block.load(Ordering::Relaxed);
        for _ in 0..MOST_BLOCKS {
            let Some(block) = nat.blocks.get(at) else { break };
            self.touched += 1;
            let mut this = block.data.lock();
            let (first_port, size, next) = (this.first_port, this.size, this.next);
            if this.class() == class {
                let own = this.address;
                let ports = this.ports_of(protocol);
                let promoted = ports.promote(tick, rest, (may_promote, most_resting));
                may_promote -= promoted;
                self.touched += u32::from(promoted);
                data.free[class as usize][kind] += u32::from(promoted);
                let here = wanted.and_then(|(wanted, port)| {
                    let place = port.checked_sub(first_port).filter(|place| *place < size)?;
                    (wanted.to_bits() == own && ports.take(place)).then_some(place)
                });
                let parity = (parity ^ first_port) & 1;
                let taken = here.or_else(|| {
                    // Where a certain port is wanted, all blocks are looked at for it first.
                    (wanted.is_none()).then(|| ports.take_any(Some(parity), random)).flatten()
                });
                if let Some(place) = taken {
                    best = Some((at, before));
                    found = Some((this, place));
                    break;
                }
                if best.is_none() && ports.free() > 0 {
                    best = Some((at, before));
                }
            }
            (before, at) = (at, next);
        }
        let (id, before) = best?;
        let (mut this, place) = if let Some(found) = found {
            found
        } else {
            if wanted.is_some() {
                // The wanted one is not to be had.
                drop(data);
                return self.take_port(owner, (protocol, class, parity), None, tick);
            }
            let mut this = nat.blocks.get(id)?.data.lock();
            let place = this.ports_of(protocol).take_any(None, random)?;
            (this, place)
        };
        let address = Ipv4Addr::from_bits(this.address);
        let was_idle = this.is_idle();
        this.used[kind] += 1;
        let number = this.first_port + place;
        if before != 0
            && let Some(previous) = nat.blocks.get(before)
        {
            // To the front: the next port is sought here first.
            previous.data.lock().next = this.next;
            this.next = host.first_block.swap(id, Ordering::Relaxed);
        }
        let quarter = u32::from(this.size) / 4;
        drop(this);
        data.bindings += 1;
        let free = &mut data.free[class as usize][kind];
        *free -= 1;
        let is_low = *free < quarter && class == PortClass::High && !data.asked[kind];
        if is_low {
            data.asked[kind] = true;
        }
        drop(data);
        if was_idle {
            self.end_idle(id);
        }
        Some(Port { block: id, address, number, wants_block: is_low.then_some(class) })
    }

    // --- hosts and subscribers

    pub(super) fn with_host<T>(&self, id: u32, work: impl FnOnce(&mut HostData) -> T) -> Option<T> {
        self.nat.hosts.get(id).map(|host| work(&mut host.data.lock()))
    }

    pub(super) fn with_subscriber<T>(
        &self,
        id: u32,
        work: impl FnOnce(&mut SubscriberData) -> T,
    ) -> Option<T> {
        self.nat.subscribers.get(id).map(|subscriber| work(&mut subscriber.data.lock()))
    }

    pub(super) fn with_subscriber_of<T>(
        &self,
        host: u32,
        work: impl FnOnce(&mut SubscriberData) -> T,
    ) -> Option<T> {
        self.with_subscriber(self.subscriber_of(host), work)
    }

    /// A host's subscriber.
    pub(super) fn subscriber_of(&self, host: u32) -> u32 {
        self.nat.hosts.get(host).map_or(0, |host| host.subscriber.load(Ordering::Relaxed))
    }

    /// The first block of a host.
    pub(super) fn first_block(&self, host: u32) -> u32 {
        self.nat.hosts.get(host).map_or(0, |host| host.first_block.load(Ordering::Relaxed))
    }

    /// The lessee with this prefix.
    pub(super) fn host(&self, prefix: u128) -> Option<u32> {
        let place = self.nat.host_index.place(self.nat.hasher.prefix(prefix));
        self.nat.host_index.find(place, |id| {
            // An entry of another shard may be in the course of a change: its lock is waited for, never for long.
            self.with_host(id, |host| host.prefix == prefix).unwrap_or_default()
        })
    }

    pub(super) fn subscriber(&self, prefix: u128) -> Option<u32> {
        let place = self.nat.subscriber_index.place(self.nat.hasher.prefix(prefix));
        self.nat.subscriber_index.find(place, |id| {
            self.with_subscriber(id, |subscriber| subscriber.prefix.to_bits() == prefix).unwrap_or_default()
        })
    }

    /// The lessee with this prefix, made where there is none.
    pub(super) fn host_or_new(&mut self, host: Ipv6Addr, tick: u32) -> Option<u32> {
        let nat = self.nat;
        let prefix = nat.lease_prefix(host);
        self.touch(1);
        if let Some(id) = self.host(prefix) {
            return Some(id);
        }
        let subscriber = self.subscriber_or_new(nat.subscriber_prefix(host), tick)?;
        let made = self.new_host(prefix, subscriber);
        if made.is_none() {
            self.forget_subscriber(subscriber);
        }
        made
    }

    fn new_host(&mut self, prefix: u128, subscriber: u32) -> Option<u32> {
        let nat = self.nat;
        let id = nat.hosts.take()?;
        let host = nat.hosts.get(id)?;
        *host.data.lock() = HostData { prefix, ..HostData::default() };
        host.subscriber.store(subscriber, Ordering::Relaxed);
        host.first_block.store(0, Ordering::Relaxed);
        host.shard.store(self.number, Ordering::Release);
        if !nat.host_index.insert(nat.host_index.place(nat.hasher.prefix(prefix)), id) {
            nat.hosts.give_back(id);
            return None;
        }
        self.with_subscriber(subscriber, |subscriber| subscriber.hosts += 1);
        Some(id)
    }

    fn subscriber_or_new(&mut self, prefix: u128, tick: u32) -> Option<u32> {
        if let Some(id) = self.subscriber(prefix) {
            return Some(id);
        }
        let nat = self.nat;
        let id = nat.subscribers.take()?;
        let full = Bucket { tokens: nat.config.quota.burst * 10, filled: tick };
        *nat.subscribers.get(id)?.data.lock() = SubscriberData {
            prefix: Ipv6Addr::from_bits(prefix),
            buckets: [full; 2],
            ..SubscriberData::default()
        };
        if !nat.subscriber_index.insert(nat.subscriber_index.place(nat.hasher.prefix(prefix)), id) {
            nat.subscribers.give_back(id);
            return None;
        }
        Some(id)
    }

    /// Forgets a lessee without a block or a binding.
    pub(super) fn forget_host(&mut self, id: u32) {
        let nat = self.nat;
        let Some(host) = nat.hosts.get(id) else { return };
        let data = host.data.lock();
        if data.blocks > 0 || data.bindings > 0 {
            return;
        }
        let prefix = data.prefix;
        drop(data);
        let subscriber = host.subscriber.load(Ordering::Relaxed);
        nat.host_index.remove(nat.host_index.place(nat.hasher.prefix(prefix)), id);
        nat.hosts.give_back(id);
        self.with_subscriber(subscriber, |subscriber| subscriber.hosts -= 1);
        self.forget_subscriber(subscriber);
    }

    fn forget_subscriber(&mut self, id: u32) {
        let nat = self.nat;
        let Some(prefix) =
            self.with_subscriber(id, |data| (data.hosts == 0).then_some(data.prefix.to_bits())).flatten()
        else {
            return;
        };
        nat.subscriber_index.remove(nat.subscriber_index.place(nat.hasher.prefix(prefix)), id);
        nat.subscribers.give_back(id);
    }

    /// Whether a subscriber may have one session more that this side opens (RFC 6888 REQ-4).
    pub(super) fn check_sessions(&self, subscriber: u32, side: Side) -> Result<(), Refused> {
        let most = self.nat.config.quota.sessions;
        let is_full =
            self.with_subscriber(subscriber, |data| data.opened[side.index()] >= most).unwrap_or_default();
        if is_full { Err(Refused::SessionQuota) } else { Ok(()) }
    }

    /// Counts a session that this side opens, and takes a token of the rate that it may do so at (RFC 6888 REQ-5).
    pub(super) fn charge(&self, subscriber: u32, side: Side, tick: u32) -> Result<(), Refused> {
        let quota = &self.nat.config.quota;
        let rate = u64::from(quota.new_sessions_per_second);
        let full = quota.burst * 10;
        let charged = self.with_subscriber(subscriber, |data| {
            if rate > 0 {
                // A tick is a tenth of a second, and a token is counted in tenths.
                let bucket = &mut data.buckets[side.index()];
                let gained = u64::from(tick.saturating_sub(bucket.filled)) * rate;
                bucket.tokens = (u64::from(bucket.tokens) + gained).min(full.into()) as u32;
                bucket.filled = bucket.filled.max(tick);
                bucket.tokens = bucket.tokens.checked_sub(10)?;
            }
            data.opened[side.index()] += 1;
            Some(())
        });
        charged.flatten().ok_or(Refused::RateQuota)
    }

    /// The session has not come about. Its token is spent.
    pub(super) fn refund(&self, subscriber: u32, side: Side) {
        self.with_subscriber(subscriber, |data| data.opened[side.index()] -= 1);
    }

    // --- blocks without a binding

    fn with_block<T>(&self, id: u32, work: impl FnOnce(&mut BlockData) -> T) -> Option<T> {
        self.nat.blocks.get(id).map(|block| work(&mut block.data.lock()))
    }

    pub(super) fn begin_idle(&mut self, id: u32, tick: u32) {
        let last = self.shard.idle_last;
        self.with_block(id, |block| {
            (block.idle_before, block.idle_behind, block.idle_since) = (last, 0, tick);
        });
        if last == 0 {
            self.shard.idle_first = id;
        } else {
            self.with_block(last, |block| block.idle_behind = id);
        }
        self.shard.idle_last = id;
    }

    pub(super) fn end_idle(&mut self, id: u32) {
        let Some((before, behind)) = self.with_block(id, |block| (block.idle_before, block.idle_behind))
        else {
            return;
        };
        if before == 0 {
            self.shard.idle_first = behind;
        } else {
            self.with_block(before, |block| block.idle_behind = behind);
        }
        if behind == 0 {
            self.shard.idle_last = before;
        } else {
            self.with_block(behind, |block| block.idle_before = before);
        }
    }
}

impl BlockData {
    fn ports_of(&mut self, protocol: Protocol) -> &mut PortSet {
        if !self.ports[protocol as usize].is_made() {
            let mut ports = PortSet::default();
            let reserved = self.reserved().iter();
            ports.make(self.size, reserved.filter_map(|port| port.checked_sub(self.first_port)));
            self.ports[protocol as usize] = ports;
        }
        &mut self.ports[protocol as usize]
    }
}
