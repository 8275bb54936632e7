//! Ports that are kept for static bindings, in blocks that are under lease already.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::entries::{BlockData, in_use};
use super::{Nat64, PortClass, StaticBinding};
use crate::faults::{self, Point};

impl Nat64 {
    /// Keeps ports for static bindings, so that no host takes one whose block it lies in. A port in use stays in use, and
    /// [`Self::add_static`] says whose it is. Looks once at all blocks, and holds no lock for longer than one of them takes.
    pub fn reserve(&self, forwards: &[StaticBinding]) {
        let mut of_address: HashMap<u32, Vec<&StaticBinding>> = HashMap::new();
        for forward in forwards {
            of_address.entry(forward.address.to_bits()).or_default().push(forward);
        }
        if of_address.is_empty() {
            return;
        }
        for id in self.blocks.numbers() {
            let Some(block) = self.blocks.get(id) else { continue };
            let address = block.data.lock().address;
            for forward in of_address.get(&address).into_iter().flatten() {
                self.reserve_in(id, forward);
            }
        }
    }

    fn reserve_in(&self, id: u32, forward: &StaticBinding) {
        let holds = |data: &BlockData| {
            // One that is not under lease has no ports.
            let place = forward.port.checked_sub(data.first_port).filter(|place| *place < data.size);
            place.filter(|_| data.address == forward.address.to_bits())
        };
        let Some(block) = self.blocks.get(id).filter(|block| holds(&block.data.lock()).is_some()) else {
            return;
        };
        let owner = block.owner.load(Ordering::Relaxed);
        let Some(host) = self.hosts.get(owner) else { return };
        let Some(held) = self.hold(host.shard.load(Ordering::Acquire)) else { return };
        // It may have come back meanwhile, and be another one's.
        let is_owner = block.owner.load(Ordering::Relaxed) == owner;
        if !is_owner || !in_use(block.version.load(Ordering::Acquire)) {
            return;
        }
        let (class, kind) = (PortClass::of(forward.port) as usize, forward.protocol as usize);
        held.with_host(owner, |host| {
            let mut data = block.data.lock();
            let Some(place) = holds(&data).filter(|_| !data.retired) else { return };
            let ports = data.ports_of(forward.protocol);
            let before = ports.free();
            ports.reserve(place);
            faults::at(Point::PortReserve);
            host.free[class][kind] -= u32::from(before - ports.free());
        });
    }
}
