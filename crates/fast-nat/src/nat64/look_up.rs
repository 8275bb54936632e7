//! Finding bindings and sessions without a lock.

use std::hint::black_box;
use std::sync::atomic::Ordering;

use super::entries::{Bound, Standing, binding_key, endpoint, in_use};
use super::index::Place;
use super::{Binding, Inbound, Index, Mapped, Nat64, Outbound, Reached, Session, SessionRef};

/// A session that was found, as it stood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) id: u32,
    pub(super) version: u32,
    pub(super) standing: Standing,
}

impl Found {
    pub(super) const fn reference(&self) -> SessionRef {
        SessionRef { id: self.id, version: self.version }
    }
}

/// Flows that are warmed up at a time.
const BATCH: usize = 64;

impl Nat64 {
    #[inline]
    fn place_by_host(&self, flow: &Outbound) -> Place {
        let key = binding_key(flow.prefix, flow.protocol, flow.port);
        self.by_host.place(self.hasher.host_port(flow.host, key))
    }

    #[inline]
    fn place_by_address(&self, flow: &Inbound) -> Place {
        self.by_address.place(self.hasher.address_port(flow.address, flow.port, flow.protocol))
    }

    /// The binding of a host's port.
    #[inline]
    pub(super) fn binding_by_host(&self, flow: &Outbound) -> Option<(u32, Bound)> {
        let key = binding_key(flow.prefix, flow.protocol, flow.port);
        let mut found = None;
        let id = self.by_host.find(self.place_by_host(flow), |id| {
            found = self.bindings.get(id).and_then(Binding::read);
            found.is_some_and(|bound| bound.key == key && bound.host == flow.host)
        })?;
        Some((id, found?))
    }

    /// The binding of an address and port.
    #[inline]
    pub(super) fn binding_by_address(&self, flow: &Inbound) -> Option<(u32, Bound)> {
        let wanted = (flow.address, flow.port);
        let mut found = None;
        let id = self.by_address.find(self.place_by_address(flow), |id| {
            found = self.bindings.get(id).and_then(Binding::read);
            found.is_some_and(|bound| bound.endpoint() == wanted && bound.protocol() == flow.protocol)
        })?;
        Some((id, found?))
    }

    #[inline]
    fn read_session(&self, id: u32, binding: u32, remote: u64) -> Option<Found> {
        let session = self.sessions.get(id)?;
        let version = session.version.load(Ordering::Acquire);
        let is_it = session.binding.load(Ordering::Relaxed) == binding
            && session.remote.load(Ordering::Relaxed) == remote;
        let standing = session.standing();
        std::sync::atomic::fence(Ordering::Acquire);
        let is_it = is_it && in_use(version) && session.version.load(Ordering::Relaxed) == version;
        is_it.then_some(Found { id, version, standing })
    }

    /// The session of a binding with this remote.
    #[inline]
    pub(super) fn session_of(&self, binding: u32, remote: u64) -> Option<Found> {
        let entry = self.bindings.get(binding)?;
        if entry.hint_remote.load(Ordering::Relaxed) == remote
            && let Some(found) = self.read_session(entry.hint.load(Ordering::Acquire), binding, remote)
        {
            return Some(found);
        }
        let place = self.by_remote.place(self.hasher.session(binding, remote));
        let mut found = None;
        self.by_remote.find(place, |id| {
            found = self.read_session(id, binding, remote);
            found.is_some()
        })?;
        found
    }

    /// The mapping of this flow, for an ICMP error about one of its packets: only if it has a session. Changes and refreshes
    /// nothing (RFC 5508 REQ-6, RFC 4787 REQ-12).
    pub fn find_outbound(&self, flow: &Outbound) -> Option<Mapped> {
        let (id, bound) = self.binding_by_host(flow)?;
        let found = self.session_of(id, endpoint(flow.remote, flow.remote_port))?;
        Some(mapped(&bound, Some(found.reference()), false))
    }

    /// The host of this flow, for an ICMP error about one of its packets: only if it has a session. Changes and refreshes
    /// nothing (RFC 5508 REQ-6, RFC 4787 REQ-12).
    pub fn find_inbound(&self, flow: &Inbound) -> Option<Reached> {
        let (id, bound) = self.binding_by_address(flow)?;
        let found = self.session_of(id, endpoint(flow.remote, flow.remote_port))?;
        Some(reached(&bound, Some(found.reference()), false))
    }

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

pub(super) fn mapped(bound: &Bound, session: Option<SessionRef>, created: bool) -> Mapped {
    let (address, port) = bound.endpoint();
    Mapped { address, port, session, created, wants_block: None }
}

pub(super) fn reached(bound: &Bound, session: Option<SessionRef>, created: bool) -> Reached {
    Reached { prefix: bound.prefix(), host: bound.host, port: bound.host_port(), session, created }
}
