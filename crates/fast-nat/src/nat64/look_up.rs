//! Finding bindings and sessions without a lock.

use std::sync::atomic::Ordering;

use super::entries::{Bound, Standing, binding_key, endpoint, in_use};
use super::index::Place;
use super::{Binding, Inbound, Index, Ipv4Addr, Mapped, Nat64, Outbound, Reached, SessionRef};

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
        let hint = self.bindings.get(binding)?.hint.load(Ordering::Relaxed);
        if let Some(found) = self.read_session(hint, binding, remote) {
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
            let places = flows.iter().map(|flow| self.place_by_host(flow));
            self.warm(&self.by_host, places, |n| flows.get(n).map(|flow| (flow.remote, flow.remote_port)));
        }
    }

    /// The same for flows from the IPv4 side.
    pub fn warm_inbound(&self, flows: &[Inbound]) {
        for flows in flows.chunks(BATCH) {
            let places = flows.iter().map(|flow| self.place_by_address(flow));
            self.warm(&self.by_address, places, |n| flows.get(n).map(|flow| (flow.remote, flow.remote_port)));
        }
    }

    /// Stage by stage over all flows, so that the processor waits for many lines at a time. Reading is what fetches them: the
    /// sums keep the reads from being left out.
    fn warm(
        &self,
        index: &Index,
        places: impl Iterator<Item = Place>,
        remote: impl Fn(usize) -> Option<(Ipv4Addr, u16)>,
    ) {
        let mut sum = 0;
        let mut buffer = [Place::default(); BATCH];
        let mut count = 0;
        for (place, known) in buffer.iter_mut().zip(places) {
            sum ^= index.touch(known);
            *place = known;
            count += 1;
        }
        let mut numbers = [0; BATCH];
        for (number, place) in numbers.iter_mut().zip(&buffer[..count]) {
            *number = index.guess(*place);
            sum ^= self.bindings.get(*number).map_or(0, |binding| binding.version.load(Ordering::Relaxed));
        }
        let mut hints = [0; BATCH];
        for (hint, number) in hints.iter_mut().zip(&numbers[..count]) {
            *hint = self.bindings.get(*number).map_or(0, |binding| binding.hint.load(Ordering::Relaxed));
            sum ^= self.sessions.get(*hint).map_or(0, |session| session.version.load(Ordering::Relaxed));
        }
        // Where the hint is another session of the same binding, the index of sessions will be asked.
        let mut asked = 0;
        for n in 0..count {
            let Some((address, port)) = remote(n) else { continue };
            let remote = endpoint(address, port);
            if self.read_session(hints[n], numbers[n], remote).is_none() && numbers[n] != 0 {
                let place = self.by_remote.place(self.hasher.session(numbers[n], remote));
                sum ^= self.by_remote.touch(place);
                buffer[asked] = place;
                asked += 1;
            }
        }
        for place in &buffer[..asked] {
            let number = self.by_remote.guess(*place);
            sum ^= self.sessions.get(number).map_or(0, |session| session.version.load(Ordering::Relaxed));
        }
        std::hint::black_box(sum);
    }
}

pub(super) fn mapped(bound: &Bound, session: Option<SessionRef>, created: bool) -> Mapped {
    let (address, port) = bound.endpoint();
    Mapped { address, port, session, created, wants_block: None }
}

pub(super) fn reached(bound: &Bound, session: Option<SessionRef>, created: bool) -> Reached {
    Reached { prefix: bound.prefix(), host: bound.host, port: bound.host_port(), session, created }
}
