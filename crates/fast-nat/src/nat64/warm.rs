//! Bringing what will be needed into the cache, for many packets or sessions at once.
//!
//! Where there are millions of sessions, waiting for memory is what a packet costs, and a processor can wait for twenty
//! lines as long as for one, if it is asked for all of them at once. Reading is what fetches a line, and sums keep the reads
//! from being left out. What is computed from what was fetched has a loop of its own: a processor that waits looks some 300
//! instructions ahead, and that is to be as many fetches as possible.

use std::hint::black_box;
use std::sync::atomic::Ordering;

use super::entries::{Bound, Host, PortBlock, Subscriber, binding_key, endpoint};
use super::index::Place;
use super::{Binding, Inbound, Index, Ipv4Addr, Nat64, Outbound, Protocol, Session};

/// Flows that are warmed up at a time.
const BATCH: usize = 64;

impl Nat64 {
    /// Brings what the look-ups of these flows will need into the cache, for all of them at once: where there are millions of
    /// sessions, waiting for memory is what a look-up costs.
    pub fn warm_outbound(&self, flows: &[Outbound]) {
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
            self.warm_begins(begins.map(|(flow, _)| flow));
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

    /// Stage by stage over all flows, so that the processor waits for many lines at a time. Reading is what fetches them, and
    /// the sums keep the reads from being left out. What is computed from what was fetched has a loop of its own: a processor
    /// that waits looks some 300 instructions ahead, and that is to be as many fetches as possible.
    ///
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
        }
        let mut numbers = [0; BATCH];
        warm_entries(
            index,
            (&places[..flows.len()], &mut numbers),
            |number| self.bindings.get(number).map_or(0, Binding::touch),
            |n, number| {
                let bound = self.bindings.get(number).and_then(Binding::read);
                flows.get(n).zip(bound).is_some_and(|(flow, bound)| is_of(flow, &bound))
            },
        );
        let (mut hinted, mut hints) = (0, [0; BATCH]);
        let (mut asked, mut sought) = (0, [(0, 0); BATCH]);
        for (number, flow) in numbers.iter().zip(flows) {
            let Some(binding) = self.bindings.get(*number) else { continue };
            let remote = remote(flow);
            if binding.hint_remote.load(Ordering::Relaxed) == remote {
                hints[hinted] = binding.hint.load(Ordering::Relaxed);
                hinted += 1;
            } else if let Some(bound) = binding.read() {
                places[asked] = self.place_by_remote(&bound, remote);
                sought[asked] = (*number, remote);
                asked += 1;
            }
        }
        let mut sum = 0;
        for hint in &hints[..hinted] {
            sum ^= self.sessions.get(*hint).map_or(0, Session::touch);
        }
        black_box(sum);
        warm_entries(
            &self.by_remote,
            (&places[..asked], &mut [0; BATCH]),
            |number| self.sessions.get(number).map_or(0, Session::touch),
            |n, number| {
                let (binding, remote) = sought.get(n).copied().unwrap_or_default();
                self.read_session(number, binding, remote).is_some()
            },
        );
        numbers
    }

    /// Brings into the cache what these flows need, if they begin: the host and its subscriber, the block that they will get a
    /// port of, and the places of the new binding and session in the indexes.
    fn warm_begins<'f>(&self, flows: impl Iterator<Item = &'f Outbound>) {
        let mut all = [Begin::default(); BATCH];
        let mut count = 0;
        for (begin, flow) in all.iter_mut().zip(flows) {
            let key = binding_key(flow.prefix, flow.protocol, flow.port);
            let remote = endpoint(flow.remote, flow.remote_port);
            begin.prefix = self.lease_prefix(flow.host);
            begin.host = self.host_index.place(self.hasher.prefix(begin.prefix));
            begin.by_remote = self.by_remote.place(self.hasher.session(flow.host, key, remote));
            (begin.protocol, begin.parity) = (flow.protocol as usize, flow.port & 1);
            count += 1;
        }
        let begins = &mut all[..count];
        let mut sum = 0;
        for begin in begins.iter() {
            sum ^= self.by_remote.touch(begin.by_remote) ^ self.host_index.touch(begin.host);
        }
        for begin in begins.iter() {
            sum ^= self.by_remote.touch_second(begin.by_remote) ^ self.host_index.touch_second(begin.host);
        }
        for begin in begins.iter_mut() {
            begin.owner = self.host_index.candidate(begin.host, 0);
        }
        for begin in begins.iter() {
            sum ^= self.hosts.get(begin.owner).map_or(0, Host::touch);
        }
        for begin in begins.iter_mut() {
            if !self.is_host(begin.owner, begin.prefix) {
                begin.owner = self.host_index.candidate(begin.host, 1);
            }
            let Some(host) = self.hosts.get(begin.owner) else { continue };
            begin.subscriber = host.subscriber.load(Ordering::Relaxed);
            begin.block = host.first_block.load(Ordering::Relaxed);
        }
        for begin in begins.iter() {
            sum ^= self.subscribers.get(begin.subscriber).map_or(0, Subscriber::touch);
            sum ^= self.blocks.get(begin.block).map_or(0, PortBlock::touch);
        }
        for begin in begins.iter_mut() {
            let block = self.blocks.get(begin.block).and_then(|block| block.data.try_lock());
            begin.port = block.and_then(|block| {
                let parity = (begin.parity ^ block.first_port) & 1;
                let place = block.ports.get(begin.protocol)?.foresee(parity)?;
                Some((block.address, block.first_port + place))
            });
        }
        for begin in begins.iter_mut() {
            if let Some((address, port)) = begin.port {
                let protocol = Protocol::from_bits(begin.protocol as u8);
                let hash = self.hasher.address_port(Ipv4Addr::from_bits(address), port, protocol);
                begin.by_address = self.by_address.place(hash);
            }
        }
        for begin in begins.iter().filter(|begin| begin.port.is_some()) {
            sum ^= self.by_address.touch(begin.by_address);
        }
        for begin in begins.iter().filter(|begin| begin.port.is_some()) {
            sum ^= self.by_address.touch_second(begin.by_address);
        }
        black_box(sum);
    }

    fn is_host(&self, id: u32, prefix: u128) -> bool {
        let data = self.hosts.get(id).and_then(|host| host.data.try_lock());
        data.is_some_and(|data| data.prefix == prefix)
    }

    /// Brings into the cache what the end of these sessions needs, which are there already. Says what was found of each.
    pub(super) fn warm_ends(&self, sessions: &[u32]) -> [End; ENDS] {
        let mut all = [End::default(); ENDS];
        let count = sessions.len().min(ENDS);
        let ends = &mut all[..count];
        for (end, id) in ends.iter_mut().zip(sessions) {
            let Some(session) = self.sessions.get(*id) else { continue };
            end.session = *id;
            end.binding = session.binding.load(Ordering::Relaxed);
            end.remote = session.remote.load(Ordering::Relaxed);
        }
        let mut sum = 0;
        for end in ends.iter() {
            sum ^= self.bindings.get(end.binding).map_or(0, Binding::touch);
        }
        for end in ends.iter_mut() {
            let Some(binding) = self.bindings.get(end.binding) else { continue };
            let Some(bound) = binding.read() else { continue };
            end.version = bound.version;
            end.owner = bound.owner;
            end.by_remote = self.place_by_remote(&bound, end.remote);
            end.is_last = binding.sessions.load(Ordering::Relaxed) == 1;
            if end.is_last {
                (end.by_host, end.by_address) = self.places_of(&bound);
                end.block = binding.block.load(Ordering::Relaxed);
                end.protocol = bound.protocol();
            }
        }
        for end in ends.iter() {
            sum ^= self.by_remote.touch(end.by_remote);
            sum ^= self.hosts.get(end.owner).map_or(0, Host::touch);
            if end.is_last {
                sum ^= self.by_host.touch(end.by_host) ^ self.by_address.touch(end.by_address);
                sum ^= self.blocks.get(end.block).map_or(0, PortBlock::touch);
            }
        }
        for end in ends.iter() {
            sum ^= self.by_remote.touch_second(end.by_remote);
            if end.is_last {
                sum ^= self.by_host.touch_second(end.by_host) ^ self.by_address.touch_second(end.by_address);
            }
            let subscriber =
                self.hosts.get(end.owner).map_or(0, |host| host.subscriber.load(Ordering::Relaxed));
            sum ^= self.subscribers.get(subscriber).map_or(0, Subscriber::touch);
            let block = self.blocks.get(end.block).and_then(|block| block.data.try_lock());
            if let Some(block) = block {
                block.ports[end.protocol as usize].warm_release();
            }
        }
        black_box(sum);
        all
    }
}

/// Sessions that are brought into the cache for their end at a time.
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
#[derive(Debug, Clone, Copy, Default)]
struct Begin {
    prefix: u128,
    protocol: usize,
    parity: u16,
    owner: u32,
    subscriber: u32,
    block: u32,
    /// The address and port that it will most likely get.
    port: Option<(u32, u16)>,
    host: Place,
    by_remote: Place,
    by_address: Place,
}

/// Brings the buckets of these places into the cache, and the entries that they most likely stand for. Says which these
/// are.
fn warm_entries(
    index: &Index,
    (places, numbers): (&[Place], &mut [u32; BATCH]),
    touch: impl Fn(u32) -> u32,
    is_it: impl Fn(usize, u32) -> bool,
) {
    let mut sum = 0;
    for place in places {
        sum ^= index.touch(*place);
    }
    for place in places {
        sum ^= index.touch_second(*place);
    }
    for (number, place) in numbers.iter_mut().zip(places) {
        *number = index.candidate(*place, 0);
    }
    for number in &numbers[..places.len()] {
        sum ^= touch(*number);
    }
    // One in twelve is another one with the same tag.
    let (mut again, mut wrong) = (0, [0; BATCH]);
    for (n, place) in places.iter().enumerate() {
        let number = numbers[n];
        if number != 0 && !is_it(n, number) {
            numbers[n] = index.candidate(*place, 1);
            wrong[again] = numbers[n];
            again += 1;
        }
    }
    for number in &wrong[..again] {
        sum ^= touch(*number);
    }
    black_box(sum);
}
