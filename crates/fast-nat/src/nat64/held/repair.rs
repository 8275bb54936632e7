//! What a panic in the midst of a change leaves is put in order, before anybody sees it.
//!
//! Of what belongs to the shard the entries in use are the truth: sessions that can be found, bindings that have some or are static,
//! blocks that were given. All else follows from these: counts, lists, timers, free ports. What was being made is not made, since nobody
//! was told of it; what was being ended has ended; a block that was being taken back is still given. A port that got lost on the way
//! rests.
//!
//! Nothing here may panic: the thread does already, and a second panic would end the process. So nothing is indexed, and what wraps
//! does so. It reads all entries of the engine, and costs what that costs; nothing but a panic brings it about.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::super::entries::{BlockData, Bound, PortBlock, in_use, turn};
use super::super::slab::{Entry, Slab};
use super::super::{Binding, Inbound, Ipv4Addr, PortClass, Protocol, Session, entries::HostData};
use super::Held;

/// The ports in use of each block and protocol, by their places.
type Bounds = HashSet<(u32, u8, u16)>;

impl Held<'_> {
    /// Puts the shard in order.
    pub(super) fn repair(&mut self) {
        let hand = std::mem::take(&mut self.hand);
        let nat = self.nat;
        end_what_was_begun(
            &nat.sessions,
            hand.session,
            |session| &session.version,
            |session| {
                // It is not found below, and so it ends.
                let remote = session.remote.load(Ordering::Relaxed);
                if let Some(bound) =
                    nat.bindings.get(session.binding.load(Ordering::Relaxed)).and_then(Binding::read)
                {
                    nat.by_remote.remove(nat.place_by_remote(&bound, remote), hand.session);
                }
            },
        );
        end_what_was_begun(&nat.bindings, hand.binding, |binding| &binding.version, |_| {});
        self.put_down_permit(hand.permit);
        self.put_down_block(hand.block, hand.block_back);
        let now = self.repair_sessions().max(self.shard.wheel.cursor());
        self.repair_permits();
        self.repair_bindings();
        self.put_down_lessees(hand.host, hand.subscriber);
        self.repair_lessees(now);
    }

    /// Whether it belongs to this shard: nobody else changes it, then.
    fn has(&self, bound: &Bound) -> bool {
        self.nat.shard_of(self.nat.subscriber_prefix(bound.host)) == self.number
    }

    fn has_host(&self, id: u32) -> bool {
        let Some(host) = self.nat.hosts.get(id) else { return false };
        if host.shard.load(Ordering::Acquire) != self.number {
            return false;
        }
        // Not in the same expression: looking for it takes this lock, too.
        let prefix = host.data.lock().prefix;
        self.host(prefix) == Some(id)
    }

    /// The bindings of this shard that are in use.
    fn bindings(&self) -> impl Iterator<Item = (u32, &Binding, Bound)> {
        self.nat.bindings.numbers().filter_map(|id| {
            let binding = self.nat.bindings.get(id)?;
            let bound = binding.read().filter(|bound| self.has(bound))?;
            Some((id, binding, bound))
        })
    }

    /// The sessions of this shard that are in use.
    fn sessions(&self) -> impl Iterator<Item = (u32, &Session, Bound)> {
        self.nat.sessions.numbers().filter_map(|id| {
            let session = self.nat.sessions.get(id)?;
            if !in_use(session.version.load(Ordering::Acquire)) {
                return None;
            }
            let binding = self.nat.bindings.get(session.binding.load(Ordering::Relaxed))?;
            Some((id, session, binding.read().filter(|bound| self.has(bound))?))
        })
    }

    /// The hosts of this shard.
    fn hosts(&self) -> impl Iterator<Item = u32> {
        self.nat.hosts.numbers().filter(|id| self.has_host(*id))
    }

    /// The subscribers of this shard.
    fn subscribers(&self) -> impl Iterator<Item = u32> {
        self.nat.subscribers.numbers().filter(|id| {
            let prefix = self.with_subscriber(*id, |subscriber| subscriber.prefix.to_bits());
            prefix.is_some_and(|prefix| {
                self.nat.shard_of(prefix) == self.number && self.subscriber(prefix) == Some(*id)
            })
        })
    }

    /// The blocks of this shard that are given.
    fn blocks(&self) -> impl Iterator<Item = (u32, &PortBlock)> {
        self.nat.blocks.numbers().filter_map(|id| {
            let block = self.nat.blocks.get(id)?;
            let is_ours = in_use(block.version.load(Ordering::Acquire))
                && self.nat.hosts.get(block.owner.load(Ordering::Relaxed)).is_some_and(|host| {
                    // An owner does not change as long as the block is given.
                    host.shard.load(Ordering::Acquire) == self.number
                });
            is_ours.then_some((id, block))
        })
    }

    fn put_down_permit(&self, id: u32) {
        let Some((permits, _)) = &self.nat.permits else { return };
        let Some(permit) = permits.get(id) else { return };
        let (binding, address) = (
            permit.binding.load(Ordering::Relaxed),
            Ipv4Addr::from_bits(permit.address.load(Ordering::Relaxed)),
        );
        // One that is found is counted below.
        if self.find_permit(binding, address).is_none_or(|(found, _)| found != id) {
            permit.binding.store(0, Ordering::Relaxed);
            permits.give_back(id);
        }
    }

    /// One that was being given is not; one that was being taken back is still given.
    fn put_down_block(&self, given: u32, taken: u32) {
        let nat = self.nat;
        for (id, ends) in [(given, true), (taken, false)] {
            let Some(block) = nat.blocks.get(id) else { continue };
            if in_use(block.version.load(Ordering::Acquire)) {
                if !ends {
                    continue;
                }
                turn(&block.version);
            }
            *block.data.lock() = BlockData::default();
            nat.block_changed(id);
            nat.blocks.give_back(id);
        }
    }

    /// A host that has something is found again, and one that has nothing is none.
    fn put_down_lessees(&self, host: u32, subscriber: u32) {
        let nat = self.nat;
        if let Some(entry) = nat.hosts.get(host) {
            let prefix = entry.data.lock().prefix;
            let is_found = self.host(prefix) == Some(host);
            let has_something = self.bindings().any(|(_, _, bound)| bound.owner == host)
                || self.blocks().any(|(_, block)| block.owner.load(Ordering::Relaxed) == host);
            let place = nat.host_index.place(nat.hasher.prefix(prefix));
            let is_back = is_found || (has_something && nat.host_index.insert(place, host));
            if !is_back {
                nat.hosts.give_back(host);
            }
        }
        if let Some(prefix) = self.with_subscriber(subscriber, |subscriber| subscriber.prefix.to_bits())
            && self.subscriber(prefix) != Some(subscriber)
        {
            nat.subscribers.give_back(subscriber);
        }
    }

    /// Sessions that can be found have a timer and are counted; others end. Answers with the last tick in which one was seen.
    fn repair_sessions(&mut self) -> u32 {
        let nat = self.nat;
        for (_, binding, _) in self.bindings() {
            for count in [&binding.sessions, &binding.taken_part, &binding.hint] {
                count.store(0, Ordering::Relaxed);
            }
        }
        self.shard.wheel.clear();
        let mut sessions = [0_u32; 3];
        let mut seen = 0;
        let all: Vec<(u32, Bound)> = self.sessions().map(|(id, _, bound)| (id, bound)).collect();
        for (id, bound) in all {
            let Some(session) = nat.sessions.get(id) else { continue };
            let binding_id = session.binding.load(Ordering::Relaxed);
            let Some(binding) = nat.bindings.get(binding_id) else { continue };
            let remote = session.remote.load(Ordering::Relaxed);
            nat.session_changed(id);
            if nat.by_remote.find(nat.place_by_remote(&bound, remote), |found| found == id).is_none() {
                turn(&session.version);
                nat.session_changed(id);
                nat.sessions.give_back(id);
                continue;
            }
            let standing = session.standing();
            seen = seen.max(session.last_seen.load(Ordering::Relaxed));
            self.shard.wheel.put(&nat.sessions, id, nat.deadline(session, standing));
            super::add(&binding.sessions, 1);
            if standing.taken_part() {
                super::add(&binding.taken_part, 1);
            }
            if binding.hint.load(Ordering::Relaxed) == 0 {
                binding.hint_remote.store(remote, Ordering::Relaxed);
                binding.hint.store(id, Ordering::Release);
            }
            if let Some(count) = sessions.get_mut(standing.protocol() as usize) {
                *count += 1;
            }
        }
        if let Some(cell) = nat.shards.get(self.number as usize) {
            for (count, sessions) in cell.sessions.iter().zip(sessions) {
                count.store(sessions, Ordering::Relaxed);
            }
        }
        seen
    }

    fn repair_permits(&mut self) {
        let Some((permits, index)) = &self.nat.permits else { return };
        let ours: Vec<u32> = permits
            .numbers()
            .filter(|id| {
                let binding = permits.get(*id).map_or(0, |permit| permit.binding.load(Ordering::Relaxed));
                let bound = self.nat.bindings.get(binding).and_then(Binding::read);
                bound.is_some_and(|bound| self.has(&bound))
            })
            .collect();
        for permit in ours.iter().filter_map(|id| permits.get(*id)) {
            permit.sessions.store(0, Ordering::Relaxed);
        }
        let let_in: Vec<(u32, Ipv4Addr)> = self
            .sessions()
            .filter(|(_, session, _)| session.standing().taken_part())
            .map(|(_, session, _)| (session.binding.load(Ordering::Relaxed), session.remote_address()))
            .collect();
        for (binding, address) in let_in {
            // Without room for it, answers to what the host sends come in by their sessions all the same.
            self.permit(binding, address);
        }
        for id in ours {
            let Some(permit) = permits.get(id) else { continue };
            if permit.sessions.load(Ordering::Relaxed) == 0 {
                let address = Ipv4Addr::from_bits(permit.address.load(Ordering::Relaxed));
                let binding = permit.binding.load(Ordering::Relaxed);
                index.remove(self.permit_place(index, binding, address), id);
                permit.binding.store(0, Ordering::Relaxed);
                permits.give_back(id);
            }
        }
    }

    /// A binding that nothing keeps, or that only one side finds, ends.
    fn repair_bindings(&mut self) {
        let nat = self.nat;
        for (id, binding, bound) in self.bindings() {
            let (inside, outside) = nat.places_of(&bound);
            let is_found = [(&nat.by_host, inside), (&nat.by_address, outside)]
                .map(|(index, place)| index.find(place, |found| found == id).is_some());
            if is_found == [true; 2] && (bound.is_static() || !binding.has_no_session()) {
                continue;
            }
            nat.by_host.remove(inside, id);
            nat.by_address.remove(outside, id);
            turn(&binding.version);
            nat.bindings.give_back(id);
        }
    }

    /// Blocks, their ports, hosts and subscribers, by what was repaired before.
    fn repair_lessees(&mut self, now: u32) {
        let nat = self.nat;
        let subscribers: Vec<u32> = self.subscribers().collect();
        for id in &subscribers {
            self.with_subscriber(*id, |data| (data.hosts, data.opened, data.ports) = (0, [0; 2], 0));
        }
        let hosts: Vec<u32> = self.hosts().collect();
        for id in &hosts {
            let Some(host) = nat.hosts.get(*id) else { continue };
            host.first_block.store(0, Ordering::Relaxed);
            {
                let mut data = host.data.lock();
                let HostData { prefix, low_denied, .. } = *data;
                *data = HostData { prefix, low_denied, ..HostData::default() };
            }
            self.with_subscriber(host.subscriber.load(Ordering::Relaxed), |data| data.hosts += 1);
        }
        for (_, session, bound) in self.sessions() {
            let side = session.standing().opened_by().index();
            self.with_subscriber_of(bound.owner, |data| {
                if let Some(opened) = data.opened.get_mut(side) {
                    *opened += 1;
                }
            });
        }
        let mut bounds = Bounds::new();
        let mut used = std::collections::HashMap::<u32, [u16; 3]>::new();
        for (_, binding, bound) in self.bindings() {
            self.with_host(bound.owner, |host| host.bindings += 1);
            let block = binding.block.load(Ordering::Relaxed);
            let Some(first) = self.with_block(block, |data| data.first_port) else { continue };
            bounds.insert((block, bound.protocol() as u8, bound.endpoint().1.wrapping_sub(first)));
            if let Some(used) = used.entry(block).or_default().get_mut(bound.protocol() as usize) {
                *used += 1;
            }
        }
        let mut idle = Vec::new();
        for (id, block) in self.blocks() {
            let owner = block.owner.load(Ordering::Relaxed);
            let Some(host) = nat.hosts.get(owner) else { continue };
            let mut data = block.data.lock();
            let rested = self.repair_block(id, &mut data, &bounds, now);
            let was_idle = data.is_idle();
            data.used = used.get(&id).copied().unwrap_or_default();
            data.next = host.first_block.swap(id, Ordering::Relaxed);
            (data.idle_before, data.idle_behind) = (0, 0);
            if data.is_idle() {
                let since = if was_idle { data.idle_since.max(rested) } else { now };
                idle.push((since, id));
            }
            let (usable, class) =
                (u32::from(data.size).saturating_sub(data.reserved().len() as u32), data.class());
            let free: [u32; 3] = std::array::from_fn(|kind| match data.ports.get(kind) {
                _ if data.retired => 0,
                Some(ports) if ports.is_made() => ports.free().into(),
                _ => usable,
            });
            let (address, is_retired, size) = (Ipv4Addr::from_bits(data.address), data.retired, data.size);
            drop(data);
            nat.block_changed(id);
            self.with_host(owner, |host| count_block(host, class, free, (!is_retired).then_some(address)));
            self.with_subscriber_of(owner, |data| data.ports += u32::from(size));
        }
        idle.sort_unstable();
        (self.shard.idle_first, self.shard.idle_last) = (0, 0);
        for (since, id) in idle {
            self.begin_idle(id, since);
        }
        for id in hosts {
            self.forget_host(id);
        }
        for id in subscribers {
            self.forget_subscriber_unless_gone(id);
        }
    }

    /// The ports of a block. Answers with the tick in which the last one began to rest.
    fn repair_block(&self, id: u32, data: &mut BlockData, bounds: &Bounds, now: u32) -> u32 {
        let (first_port, address) = (data.first_port, Ipv4Addr::from_bits(data.address));
        let BlockData { reserved, ports, .. } = data;
        let reserved: &[u16] = reserved.as_ref().map_or(&[], |reserved| &reserved.0);
        let mut last = 0;
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            let Some(ports) = ports.get_mut(protocol as usize).filter(|ports| ports.is_made()) else {
                continue;
            };
            let is_taken = |place: u16| {
                let port = first_port.wrapping_add(place);
                // A static binding's port may lie in anybody's block.
                let remote = (Ipv4Addr::UNSPECIFIED, 0);
                let flow = Inbound { protocol, address, port, remote: remote.0, remote_port: remote.1 };
                bounds.contains(&(id, protocol as u8, place))
                    || reserved.contains(&port)
                    || self.nat.binding_by_address(&flow).is_some_and(|(_, bound)| bound.is_static())
            };
            last = last.max(ports.repair(is_taken, now));
        }
        last
    }

    fn forget_subscriber_unless_gone(&mut self, id: u32) {
        let prefix = self.with_subscriber(id, |subscriber| subscriber.prefix.to_bits());
        if prefix.is_some_and(|prefix| self.subscriber(prefix) == Some(id)) {
            self.forget_subscriber(id);
        }
    }
}

/// A block more of this host.
fn count_block(host: &mut HostData, class: PortClass, free: [u32; 3], address: Option<Ipv4Addr>) {
    host.blocks += 1;
    host.address = host.address.or(address);
    if let Some(of_class) = host.free.get_mut(class as usize) {
        for (sum, free) in of_class.iter_mut().zip(free) {
            *sum += free;
        }
    }
}

/// Gives the number back that was taken for an entry which has not come into use, or that has not been given back after its end; an entry
/// in use is to end.
fn end_what_was_begun<T: Entry>(
    slab: &Slab<T>,
    id: u32,
    version: impl Fn(&T) -> &std::sync::atomic::AtomicU32,
    end: impl FnOnce(&T),
) {
    let Some(entry) = slab.get(id) else { return };
    if in_use(version(entry).load(Ordering::Acquire)) {
        end(entry);
    } else {
        slab.give_back(id);
    }
}
