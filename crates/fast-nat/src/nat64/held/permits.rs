//! Who is let in, where that depends on the address.

use std::sync::atomic::Ordering;

use super::super::slab::{Chunks, Entry};
use super::super::{AtomicU32, Index, Ipv4Addr, Slab, index};
use super::Held;
use crate::faults::{self, Point};

/// An address that a binding lets in, with address-dependent filtering.
#[derive(Debug, Default)]
pub(in crate::nat64) struct Permit {
    pub(in crate::nat64) binding: AtomicU32,
    pub(in crate::nat64) address: AtomicU32,
    pub(in crate::nat64) sessions: AtomicU32,
    link: AtomicU32,
}

impl Entry for Permit {
    type Memory = Chunks<Self>;

    fn link(&self) -> &AtomicU32 {
        &self.link
    }
}

impl Held<'_> {
    pub(super) fn permit_place(&self, index: &Index, binding: u32, address: Ipv4Addr) -> index::Place {
        index.place(self.nat.hasher.permit(binding, address))
    }

    pub(super) fn find_permit(&self, binding: u32, address: Ipv4Addr) -> Option<(u32, &Permit)> {
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
    pub(in crate::nat64) fn is_permitted(&self, binding: u32, address: Ipv4Addr) -> bool {
        self.nat.permits.is_none() || self.find_permit(binding, address).is_some()
    }

    /// One session more with this address. `false`: no room.
    pub(super) fn permit(&mut self, binding: u32, address: Ipv4Addr) -> bool {
        let Some((permits, index)) = &self.nat.permits else { return true };
        self.touch(1);
        if let Some((_, permit)) = self.find_permit(binding, address) {
            permit.sessions.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let Some(id) = permits.take() else { return false };
        self.hand.permit = id;
        self.touch(Slab::<Permit>::made_with(id));
        let Some(permit) = permits.get(id) else { return false };
        permit.binding.store(binding, Ordering::Relaxed);
        permit.address.store(address.to_bits(), Ordering::Relaxed);
        permit.sessions.store(1, Ordering::Relaxed);
        faults::at(Point::PermitBegin);
        let placed = index.insert(self.permit_place(index, binding, address), id);
        if !placed {
            permit.binding.store(0, Ordering::Relaxed);
            permits.give_back(id);
        }
        self.hand.permit = 0;
        placed
    }

    /// One session less with this address.
    pub(super) fn withdraw(&mut self, binding: u32, address: Ipv4Addr) {
        let Some((permits, index)) = &self.nat.permits else { return };
        self.touch(1);
        let Some((id, is_last)) = self
            .find_permit(binding, address)
            .map(|(id, permit)| (id, permit.sessions.fetch_sub(1, Ordering::Relaxed) == 1))
        else {
            return;
        };
        if is_last {
            self.hand.permit = id;
            index.remove(self.permit_place(index, binding, address), id);
            faults::at(Point::PermitEnd);
            if let Some(permit) = permits.get(id) {
                permit.binding.store(0, Ordering::Relaxed);
            }
            permits.give_back(id);
            self.hand.permit = 0;
        }
    }
}
