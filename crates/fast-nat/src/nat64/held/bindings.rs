//! Bindings.

use std::sync::atomic::Ordering;

use super::super::entries::{Bound, turn};
use super::super::{Binding, Refused, Slab, index};
use super::Held;
use crate::faults::{self, Point};

impl Held<'_> {
    /// A new binding of this port, without a session. Its host has counted it.
    pub(in crate::nat64) fn begin_binding(
        &mut self,
        bound: &Bound,
        inside: index::Place,
        block: u32,
    ) -> Result<u32, Refused> {
        self.touch(2);
        let nat = self.nat;
        let id = nat.bindings.take().ok_or(Refused::TableFull)?;
        self.hand.binding = id;
        self.touch(Slab::<Binding>::made_with(id));
        let Some(binding) = nat.bindings.get(id) else { return Err(Refused::TableFull) };
        binding.begin(bound, block);
        let outside = nat.place_of_outside(bound);
        let placed = nat.by_address.insert(outside, id);
        faults::at(Point::BindingBegin);
        if !placed || !nat.by_host.insert(inside, id) {
            if placed {
                nat.by_address.remove(outside, id);
            }
            turn(&binding.version);
            nat.bindings.give_back(id);
            self.hand.binding = 0;
            return Err(Refused::TableFull);
        }
        self.hand.binding = 0;
        Ok(id)
    }

    /// Ends a binding without a session. Its port rests.
    pub(in crate::nat64) fn end_binding(&mut self, id: u32, bound: &Bound, tick: u32) {
        self.end_binding_at(id, bound, None, tick);
    }

    /// The same, where its places by host and by address are known.
    pub(super) fn end_binding_at(
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
        self.hand.binding = id;
        nat.by_host.remove(inside, id);
        faults::at(Point::BindingEnd);
        nat.by_address.remove(outside, id);
        turn(&binding.version);
        let block = binding.block.load(Ordering::Relaxed);
        nat.bindings.give_back(id);
        self.hand.binding = 0;
        self.release_port(block, port, bound.protocol(), tick);
        let is_left = self.with_host(bound.owner, |host| {
            host.bindings -= 1;
            host.bindings > 0 || host.blocks > 0
        });
        if is_left == Some(false) {
            self.forget_host(bound.owner);
        }
    }
}
