//! Bringing what will be needed into the cache, for many packets or sessions at once.
//!
//! Where there are millions of sessions, waiting for memory is what a packet costs, and a processor can wait for twenty
//! lines as long as for one, if it is asked for all of them at once. Reading is what fetches a line, and sums keep the reads
//! from being left out. What is computed from what was fetched has a loop of its own: a processor that waits looks some 300
//! instructions ahead, and that is to be as many fetches as possible.

use std::hint::black_box;
use std::sync::atomic::Ordering;

use super::entries::{Bound, Host, PortBlock, binding_key, endpoint};
use super::index::Place;
use super::{Binding, Inbound, Index, Nat64, Outbound, Session};

/// Flows that are warmed up at a time.
const BATCH: usize = 64;

impl Nat64 {
    /// Brings what the look-ups of these flows will need into the cache, for all of them at once: where there are millions of
    /// sessions, waiting for memory is what a look-up costs.
    pub fn warm_outbound(&self, flows: &[Outbound]) {
        for flows in flows.chunks(BATCH) {
            self.warm(
                &self.by_host,
                flows,
                |flow| self.place_by_host(flow),
                |flow, bound| {
                    bound.key == binding_key(flow.prefix, flow.protocol, flow.port) && bound.host == flow.host
                },
                |flow| endpoint(flow.remote, flow.remote_port),
            );
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
    fn warm<'f, F: 'f>(
        &self,
        index: &Index,
        flows: &'f [F],
        place: impl Fn(&'f F) -> Place,
        is_of: impl Fn(&'f F, &Bound) -> bool,
        remote: impl Fn(&'f F) -> u64,
    ) {
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
        let (mut asked, mut bound) = (0, [(0, 0); BATCH]);
        for (number, flow) in numbers.into_iter().zip(flows) {
            let Some(binding) = self.bindings.get(number) else { continue };
            let remote = remote(flow);
            if binding.hint_remote.load(Ordering::Relaxed) == remote {
                hints[hinted] = binding.hint.load(Ordering::Relaxed);
                hinted += 1;
            } else {
                places[asked] = self.by_remote.place(self.hasher.session(number, remote));
                bound[asked] = (number, remote);
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
            (&places[..asked], &mut numbers),
            |number| self.sessions.get(number).map_or(0, Session::touch),
            |n, number| {
                let (binding, remote) = bound.get(n).copied().unwrap_or_default();
                self.read_session(number, binding, remote).is_some()
            },
        );
    }

    /// Brings into the cache what the end of these sessions needs, which are there already.
    pub(super) fn warm_ends(&self, sessions: &[u32]) {
        let mut ends = [End::default(); BATCH];
        let ends = &mut ends[..sessions.len().min(BATCH)];
        for (end, id) in ends.iter_mut().zip(sessions) {
            let Some(session) = self.sessions.get(*id) else { continue };
            end.binding = session.binding.load(Ordering::Relaxed);
            let remote = session.remote.load(Ordering::Relaxed);
            end.by_remote = self.by_remote.place(self.hasher.session(end.binding, remote));
        }
        let mut sum = 0;
        for end in ends.iter() {
            sum ^= self.bindings.get(end.binding).map_or(0, Binding::touch)
                ^ self.by_remote.touch(end.by_remote);
        }
        for end in ends.iter_mut() {
            let Some(binding) = self.bindings.get(end.binding) else { continue };
            end.owner = binding.owner.load(Ordering::Relaxed);
            end.is_last = binding.sessions.load(Ordering::Relaxed) == 1;
            if let Some(bound) = binding.read().filter(|_| end.is_last) {
                let (address, port) = bound.endpoint();
                end.by_host = self.by_host.place(self.hasher.host_port(bound.host, bound.key));
                let outside = self.hasher.address_port(address, port, bound.protocol());
                end.by_address = self.by_address.place(outside);
                end.block = binding.block.load(Ordering::Relaxed);
            }
        }
        for end in ends.iter() {
            sum ^= self.hosts.get(end.owner).map_or(0, Host::touch);
            sum ^= self.blocks.get(end.block).map_or(0, PortBlock::touch);
            if end.is_last {
                sum ^= self.by_host.touch(end.by_host) ^ self.by_address.touch(end.by_address);
            }
        }
        black_box(sum);
    }
}

/// A session that will end, and what is found by it.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    binding: u32,
    owner: u32,
    block: u32,
    /// Its binding ends with it.
    is_last: bool,
    by_remote: Place,
    by_host: Place,
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
