//! Finding bindings and sessions without a lock.

use std::sync::atomic::Ordering;

use super::entries::{Bound, Standing, binding_key, endpoint, in_use};
use super::index::Place;
use super::{Binding, Inbound, Mapped, Nat64, Outbound, Reached, SessionRef};

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

impl Nat64 {
    #[inline]
    pub(super) fn place_by_host(&self, flow: &Outbound) -> Place {
        let key = binding_key(flow.prefix, flow.protocol, flow.port);
        self.by_host.place(self.hasher.host_port(flow.host, key))
    }

    #[inline]
    pub(super) fn place_by_address(&self, flow: &Inbound) -> Place {
        self.by_address.place(self.hasher.address_port(flow.address, flow.port, flow.protocol))
    }

    /// The place of a binding in the index by address.
    #[inline]
    pub(super) fn place_of_outside(&self, bound: &Bound) -> Place {
        let (address, port) = bound.endpoint();
        self.by_address.place(self.hasher.address_port(address, port, bound.protocol()))
    }

    /// The places of a binding in the indexes by host and by address.
    #[inline]
    pub(super) fn places_of(&self, bound: &Bound) -> (Place, Place) {
        (self.by_host.place(self.hasher.host_port(bound.host, bound.key)), self.place_of_outside(bound))
    }

    /// The place of a session of a binding.
    #[inline]
    pub(super) fn place_by_remote(&self, bound: &Bound, remote: u64) -> Place {
        self.by_remote.place(self.hasher.session(bound.host, bound.key, remote))
    }

    /// The binding of a host's port.
    #[inline]
    pub(super) fn binding_by_host(&self, flow: &Outbound) -> Option<(u32, Bound)> {
        self.binding_by_host_at(self.place_by_host(flow), flow)
    }

    /// The same, by its place.
    #[inline]
    pub(super) fn binding_by_host_at(&self, place: Place, flow: &Outbound) -> Option<(u32, Bound)> {
        let key = binding_key(flow.prefix, flow.protocol, flow.port);
        let mut found = None;
        let id = self.by_host.find(place, |id| {
            found = self.bindings.get(id).and_then(Binding::read);
            found.is_some_and(|bound| bound.key == key && bound.host == flow.host)
        })?;
        Some((id, found?))
    }

    /// The binding of an address and port.
    #[inline]
    pub(super) fn binding_by_address(&self, flow: &Inbound) -> Option<(u32, Bound)> {
        self.binding_by_address_at(self.place_by_address(flow), flow)
    }

    /// The same, by its place.
    #[inline]
    pub(super) fn binding_by_address_at(&self, place: Place, flow: &Inbound) -> Option<(u32, Bound)> {
        let wanted = (flow.address, flow.port);
        let mut found = None;
        let id = self.by_address.find(place, |id| {
            found = self.bindings.get(id).and_then(Binding::read);
            found.is_some_and(|bound| bound.endpoint() == wanted && bound.protocol() == flow.protocol)
        })?;
        Some((id, found?))
    }

    #[inline]
    pub(super) fn read_session(&self, id: u32, binding: u32, remote: u64) -> Option<Found> {
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
    pub(super) fn session_of(&self, binding: u32, bound: &Bound, remote: u64) -> Option<Found> {
        let entry = self.bindings.get(binding)?;
        if entry.hint_remote.load(Ordering::Relaxed) == remote
            && let Some(found) = self.read_session(entry.hint.load(Ordering::Acquire), binding, remote)
        {
            return Some(found);
        }
        let place = self.place_by_remote(bound, remote);
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
        let found = self.session_of(id, &bound, endpoint(flow.remote, flow.remote_port))?;
        Some(mapped(&bound, Some(found.reference()), false))
    }

    /// The host of this flow, for an ICMP error about one of its packets: only if it has a session. Changes and refreshes
    /// nothing (RFC 5508 REQ-6, RFC 4787 REQ-12).
    pub fn find_inbound(&self, flow: &Inbound) -> Option<Reached> {
        let (id, bound) = self.binding_by_address(flow)?;
        let found = self.session_of(id, &bound, endpoint(flow.remote, flow.remote_port))?;
        Some(reached(&bound, Some(found.reference()), false))
    }
}

pub(super) fn mapped(bound: &Bound, session: Option<SessionRef>, created: bool) -> Mapped {
    let (address, port) = bound.endpoint();
    Mapped { address, port, session, created, wants_block: None }
}

pub(super) fn reached(bound: &Bound, session: Option<SessionRef>, created: bool) -> Reached {
    Reached { prefix: bound.prefix(), host: bound.host, port: bound.host_port(), session, created }
}
