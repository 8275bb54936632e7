//! Asking for the memory that will be needed, for many packets or sessions at once.
//!
//! Where there are millions of sessions, waiting for memory is what a packet costs, and a processor can wait for twenty
//! lines as long as for one, if it is asked for all of them at once. So everything here goes in stages: a stage asks for a line of each
//! packet, and the next one reads them all to see which lines come then. What is found is a guess, made without a lock or in passing: it
//! says only where to look.

use std::sync::atomic::Ordering;

use super::entries::{Bound, binding_key, endpoint};
use super::index::Place;
use super::{Binding, Inbound, Index, Ipv4Addr, Nat64, Outbound, Protocol, Timestamp, tick};
use crate::lanes::Like;
use crate::prefetch;

/// Flows that are warmed up at a time.
const BATCH: usize = 64;

impl Nat64 {
    /// Asks for the memory that these flows will need, for all of them at once, before the first of them is looked up: where there are
    /// millions of sessions, waiting for memory is what a look-up costs.
    pub fn warm_outbound(&self, flows: &[Outbound], now: Timestamp) {
        for flows in flows.chunks(BATCH) {
            let bindings = self.warm(
                &self.by_host,
                flows,
                |flow| self.place_by_host(flow),
                |flow, bound| {
                    bound.key == binding_key(flow.prefix, flow.protocol, flow.port) && bound.host == flow.host
                },
                |flow| endpoint(flow.remote, flow.remote_port),
            );
            let begins = flows.iter().zip(bindings).filter(|(_, binding)| *binding == 0);
            self.warm_begins(begins.map(|(flow, _)| flow), tick(now));
        }
    }

    /// The same for flows from the IPv4 side.
    pub fn warm_inbound(&self, flows: &[Inbound]) {
        for flows in flows.chunks(BATCH) {
            self.warm(
                &self.by_address,
                flows,
                |flow| self.place_by_address(flow),
                |flow, bound| {
                    bound.endpoint() == (flow.address, flow.port) && bound.protocol() == flow.protocol
                },
                |flow| endpoint(flow.remote, flow.remote_port),
            );
        }
    }

    /// Says which bindings the flows have; 0: none.
    fn warm<'f, F: 'f>(
        &self,
        index: &Index,
        flows: &'f [F],
        place: impl Fn(&'f F) -> Place,
        is_of: impl Fn(&'f F, &Bound) -> bool,
        remote: impl Fn(&'f F) -> u64,
    ) -> [u32; BATCH] {
        let mut places = [Place::default(); BATCH];
        for (place_of, flow) in places.iter_mut().zip(flows) {
            *place_of = place(flow);
            index.prefetch(*place_of);
        }
        let mut numbers = [0; BATCH];
        warm_entries(
            index,
            (&places[..flows.len()], &mut numbers),
            |number| self.bindings.prefetch(number),
            |n, number| {
                let bound = self.bindings.get(number).and_then(Binding::read);
                flows.get(n).zip(bound).is_some_and(|(flow, bound)| is_of(flow, &bound))
            },
        );
        let (mut asked, mut sought) = (0, [(0, 0); BATCH]);
        for (number, flow) in numbers.iter().zip(flows) {
            let Some(binding) = self.bindings.get(*number) else { continue };
            let remote = remote(flow);
            if binding.hint_remote.load(Ordering::Relaxed) == remote {
                self.sessions.prefetch(binding.hint.load(Ordering::Relaxed));
            } else if let Some(bound) = binding.read() {
                places[asked] = self.place_by_remote(&bound, remote);
                self.by_remote.prefetch(places[asked]);
                sought[asked] = (*number, remote);
                asked += 1;
            }
        }
        warm_entries(
            &self.by_remote,
            (&places[..asked], &mut [0; BATCH]),
            |number| self.sessions.prefetch(number),
            |n, number| {
                let (binding, remote) = sought.get(n).copied().unwrap_or_default();
                self.read_session(number, binding, remote).is_some()
            },
        );
        numbers
    }

    /// Asks for what these flows need, if they begin: the host and its subscriber, the block that they will get a port of, the places
    /// of the new binding and session in the indexes, and the session that will be next to it in its timer's slot.
    fn warm_begins<'f>(&self, flows: impl Iterator<Item = &'f Outbound>, tick: u32) {
        let mut all = [Begin::default(); BATCH];
        let mut count = 0;
        for (begin, flow) in all.iter_mut().zip(flows) {
            let key = binding_key(flow.prefix, flow.protocol, flow.port);
            let remote = endpoint(flow.remote, flow.remote_port);
            begin.prefix = self.lease_prefix(flow.host);
            begin.host = self.host_index.place(self.hasher.prefix(begin.prefix));
            self.host_index.prefetch(begin.host);
            begin.by_remote = self.by_remote.place(self.hasher.session(flow.host, key, remote));
            self.by_remote.prefetch(begin.by_remote);
            (begin.protocol, begin.like) = (flow.protocol, self.config.lanes.like(flow.host, flow.port));
            begin.deadline = tick.saturating_add(self.first_timer(flow.protocol)).saturating_add(1);
            count += 1;
        }
        let begins = &mut all[..count];
        for begin in begins.iter_mut() {
            self.host_index.prefetch_second(begin.host);
            begin.owner = self.host_index.candidate(begin.host, 0);
            self.hosts.prefetch(begin.owner);
        }
        for begin in begins.iter_mut() {
            if !self.is_host(begin.owner, begin.prefix) {
                begin.owner = self.host_index.candidate(begin.host, 1);
            }
            let Some(host) = self.hosts.get(begin.owner) else { continue };
            begin.block = host.first_block.load(Ordering::Relaxed);
            begin.shard = host.shard.load(Ordering::Relaxed);
            self.subscribers.prefetch(host.subscriber.load(Ordering::Relaxed));
            if let Some(block) = self.blocks.get(begin.block) {
                prefetch::line(block);
                prefetch::line(block.ports_line(begin.protocol));
            }
            if let Some(cell) = self.shards.get(begin.shard as usize) {
                prefetch::line(cell);
                prefetch::line(std::ptr::from_ref(cell).cast::<[u8; 64]>().wrapping_add(1));
            }
        }
        for begin in begins.iter_mut() {
            self.by_remote.prefetch_to_insert(begin.by_remote);
            let Some(block) = self.blocks.get(begin.block).and_then(|block| block.data.try_lock()) else {
                continue;
            };
            let places = begin.like.places(block.address, block.first_port);
            let Some(place) =
                block.ports.get(begin.protocol as usize).and_then(|ports| ports.foresee(places))
            else {
                continue;
            };
            let hash = self.hasher.address_port(
                Ipv4Addr::from_bits(block.address),
                block.first_port + place,
                begin.protocol,
            );
            begin.by_address = Some(self.by_address.place(hash));
            self.by_address.prefetch(self.by_address.place(hash));
        }
        for begin in begins.iter() {
            if let Some(shard) = self.shards.get(begin.shard as usize).and_then(|cell| cell.shard.try_lock())
            {
                shard.wheel.prefetch_slot(begin.deadline);
            }
        }
        for begin in begins.iter() {
            if let Some(place) = begin.by_address {
                self.by_address.prefetch_to_insert(place);
            }
            if let Some(shard) = self.shards.get(begin.shard as usize).and_then(|cell| cell.shard.try_lock())
            {
                self.sessions.prefetch(shard.wheel.first_of_slot(begin.deadline));
            }
        }
    }

    fn is_host(&self, id: u32, prefix: u128) -> bool {
        let data = self.hosts.get(id).and_then(|host| host.data.try_lock());
        data.is_some_and(|data| data.prefix == prefix)
    }

    /// Asks for what the end of these sessions needs, which are there already. Says what was found of each.
    pub(super) fn warm_ends(&self, sessions: &[u32]) -> [End; ENDS] {
        let mut all = [End::default(); ENDS];
        let count = sessions.len().min(ENDS);
        let ends = &mut all[..count];
        for (end, id) in ends.iter_mut().zip(sessions) {
            let Some(session) = self.sessions.get(*id) else { continue };
            end.session = *id;
            end.binding = session.binding.load(Ordering::Relaxed);
            end.remote = session.remote.load(Ordering::Relaxed);
            self.bindings.prefetch(end.binding);
        }
        for end in ends.iter_mut() {
            let Some(binding) = self.bindings.get(end.binding) else { continue };
            let Some(bound) = binding.read() else { continue };
            end.version = bound.version;
            end.owner = bound.owner;
            end.by_remote = self.place_by_remote(&bound, end.remote);
            self.by_remote.prefetch(end.by_remote);
            self.hosts.prefetch(end.owner);
            end.is_last = binding.sessions.load(Ordering::Relaxed) == 1;
            if end.is_last {
                (end.by_host, end.by_address) = self.places_of(&bound);
                self.by_host.prefetch(end.by_host);
                self.by_address.prefetch(end.by_address);
                end.block = binding.block.load(Ordering::Relaxed);
                end.protocol = bound.protocol();
                if let Some(block) = self.blocks.get(end.block) {
                    prefetch::line(block);
                    prefetch::line(block.ports_line(end.protocol));
                }
            }
        }
        for end in ends.iter() {
            self.by_remote.prefetch_second(end.by_remote);
            if end.is_last {
                self.by_host.prefetch_second(end.by_host);
                self.by_address.prefetch_second(end.by_address);
            }
            if let Some(host) = self.hosts.get(end.owner) {
                self.subscribers.prefetch(host.subscriber.load(Ordering::Relaxed));
            }
            if let Some(block) = self.blocks.get(end.block).and_then(|block| block.data.try_lock()) {
                block.ports[end.protocol as usize].prefetch_release();
            }
        }
        all
    }
}

/// Sessions whose ends are prepared at a time.
pub(super) const ENDS: usize = 32;

/// A session that will end, and what is found by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) session: u32,
    binding: u32,
    /// The binding's.
    version: u32,
    remote: u64,
    owner: u32,
    block: u32,
    protocol: Protocol,
    /// Its binding ends with it.
    pub(super) is_last: bool,
    pub(super) by_remote: Place,
    pub(super) by_host: Place,
    pub(super) by_address: Place,
}

impl Default for End {
    fn default() -> Self {
        let nowhere = Place::default();
        Self {
            session: 0,
            binding: 0,
            version: 0,
            remote: 0,
            owner: 0,
            block: 0,
            protocol: Protocol::Tcp,
            is_last: false,
            by_remote: nowhere,
            by_host: nowhere,
            by_address: nowhere,
        }
    }
}

impl End {
    /// Whether this is what was found of a session of this binding with this remote, and still is so.
    pub(super) fn is_of(&self, binding: u32, bound: &Bound, remote: u64) -> bool {
        self.binding == binding && self.version == bound.version && self.remote == remote
    }
}

/// A flow that will begin, and what is found by it.
#[derive(Debug, Clone, Copy)]
struct Begin {
    prefix: u128,
    protocol: Protocol,
    like: Like,
    owner: u32,
    shard: u32,
    block: u32,
    /// When its timer will be looked at.
    deadline: u32,
    host: Place,
    by_remote: Place,
    /// Of the address and port that it will most likely get.
    by_address: Option<Place>,
}

impl Default for Begin {
    fn default() -> Self {
        let nowhere = Place::default();
        Self {
            prefix: 0,
            protocol: Protocol::Tcp,
            like: Like::default(),
            owner: 0,
            shard: 0,
            block: 0,
            deadline: 0,
            host: nowhere,
            by_remote: nowhere,
            by_address: None,
        }
    }
}

/// Asks for the entries that these places most likely stand for; the first buckets have been asked for. Says which entries these are.
fn warm_entries(
    index: &Index,
    (places, numbers): (&[Place], &mut [u32; BATCH]),
    prefetch: impl Fn(u32),
    is_it: impl Fn(usize, u32) -> bool,
) {
    for place in places {
        index.prefetch_second(*place);
    }
    for (number, place) in numbers.iter_mut().zip(places) {
        *number = index.candidate(*place, 0);
        prefetch(*number);
    }
    // One in twelve is another one with the same tag.
    for (n, place) in places.iter().enumerate() {
        let number = numbers[n];
        if number != 0 && !is_it(n, number) {
            numbers[n] = index.candidate(*place, 1);
            prefetch(numbers[n]);
        }
    }
}
