//! The ports of a host.

use std::sync::atomic::Ordering;

use super::super::entries::{BlockData, endpoint_parts};
use super::super::ports::PortSet;
use super::super::{Ipv4Addr, PortClass, Protocol};
use super::Held;
use crate::faults::{self, Point};
use crate::lanes::Like;

/// Blocks of one host: as many are looked through for a free port. One that was found to have some comes first the next time.
pub(in crate::nat64) const MOST_BLOCKS: u32 = 128;

/// Ports whose rest is over that one call sets free.
const PROMOTED: u16 = 32;

/// A place for a binding: a port that has been taken.
#[derive(Debug, Clone, Copy)]
pub(in crate::nat64) struct Port {
    pub(in crate::nat64) block: u32,
    pub(in crate::nat64) address: Ipv4Addr,
    pub(in crate::nat64) number: u16,
    pub(in crate::nat64) wants_block: Option<PortClass>,
}

impl Held<'_> {
    pub(super) fn release_port(&mut self, block_id: u32, port: u16, protocol: Protocol, tick: u32) {
        let Some(block) = self.nat.blocks.get(block_id) else { return };
        let mut data = block.data.lock();
        let place = port.wrapping_sub(data.first_port);
        data.ports[protocol as usize].release(place, tick);
        faults::at(Point::PortRelease);
        data.used[protocol as usize] -= 1;
        let is_idle = data.is_idle();
        drop(data);
        self.nat.block_changed(block_id);
        if is_idle {
            self.begin_idle(block_id, tick);
        }
    }

    /// Gives back a port that was taken and not used: it need not rest.
    pub(in crate::nat64) fn put_back(&mut self, owner: u32, port: &Port, protocol: Protocol, tick: u32) {
        let Some(block) = self.nat.blocks.get(port.block) else { return };
        let mut data = block.data.lock();
        let place = port.number.wrapping_sub(data.first_port);
        data.ports[protocol as usize].put_back(place);
        faults::at(Point::PortPutBack);
        data.used[protocol as usize] -= 1;
        let (class, is_idle) = (data.class(), data.is_idle());
        drop(data);
        self.with_host(owner, |host| {
            host.free[class as usize][protocol as usize] += 1;
            host.bindings -= 1;
        });
        if is_idle {
            self.begin_idle(port.block, tick);
        }
    }

    /// Takes a free port of the host for a binding more: `wanted` if that is free, else one of the class: of the first block
    /// that has one of the parity, and there of the lane if there is one.
    pub(in crate::nat64) fn take_port(
        &mut self,
        owner: u32,
        (protocol, class, like): (Protocol, PortClass, Like),
        wanted: Option<u64>,
        tick: u32,
    ) -> Option<Port> {
        let nat = self.nat;
        let host = nat.hosts.get(owner)?;
        let random = self.random();
        let mut data = host.data.lock();
        let kind = protocol as usize;
        let (rest, most_resting) = (nat.limits.rest[kind].get(), nat.config.max_resting_ports);
        let wanted = wanted.map(endpoint_parts);
        let (mut best, mut found) = (None, None);
        let (mut before, mut may_promote) = (0, PROMOTED);
        let mut at = host.first_block.load(Ordering::Relaxed);
        for _ in 0..MOST_BLOCKS {
            let Some(block) = nat.blocks.get(at) else { break };
            self.touched += 1;
            let mut this = block.data.lock();
            let (first_port, size, next) = (this.first_port, this.size, this.next);
            if this.class() == class && !this.retired {
                let own = this.address;
                let ports = this.ports_of(protocol);
                let promoted = ports.promote(tick, rest, (may_promote, most_resting));
                may_promote -= promoted;
                self.touched += u32::from(promoted);
                data.free[class as usize][kind] += u32::from(promoted);
                let here = wanted.and_then(|(wanted, port)| {
                    let place = port.checked_sub(first_port).filter(|place| *place < size)?;
                    (wanted.to_bits() == own && ports.take(place)).then_some(place)
                });
                let places = like.places(own, first_port);
                let taken = here.or_else(|| {
                    // Where a certain port is wanted, all blocks are looked at for it first.
                    (wanted.is_none()).then(|| ports.take_any(Some(places), random)).flatten()
                });
                if let Some(place) = taken {
                    best = Some((at, before));
                    found = Some((this, place));
                    break;
                }
                if best.is_none() && ports.free() > 0 {
                    best = Some((at, before));
                }
            }
            (before, at) = (at, next);
        }
        let (id, before) = best?;
        let (mut this, place) = if let Some(found) = found {
            found
        } else {
            if wanted.is_some() {
                // The wanted one is not to be had.
                drop(data);
                return self.take_port(owner, (protocol, class, like), None, tick);
            }
            let mut this = nat.blocks.get(id)?.data.lock();
            let place = this.ports_of(protocol).take_any(None, random)?;
            (this, place)
        };
        let address = Ipv4Addr::from_bits(this.address);
        let was_idle = this.is_idle();
        faults::at(Point::PortTake);
        this.used[kind] += 1;
        let number = this.first_port + place;
        if before != 0
            && let Some(previous) = nat.blocks.get(before)
        {
            // To the front: the next port is sought here first.
            previous.data.lock().next = this.next;
            this.next = host.first_block.swap(id, Ordering::Relaxed);
        }
        let quarter = u32::from(this.size) / 4;
        drop(this);
        data.bindings += 1;
        let free = &mut data.free[class as usize][kind];
        *free -= 1;
        let is_low = *free < quarter && class == PortClass::High && !data.asked[kind];
        if is_low {
            data.asked[kind] = true;
        }
        drop(data);
        if was_idle {
            self.end_idle(id);
        }
        Some(Port { block: id, address, number, wants_block: is_low.then_some(class) })
    }
}

impl BlockData {
    pub(in crate::nat64) fn ports_of(&mut self, protocol: Protocol) -> &mut PortSet {
        if !self.ports[protocol as usize].is_made() {
            let mut ports = PortSet::default();
            let reserved = self.reserved().iter();
            ports.make(self.size, reserved.filter_map(|port| port.checked_sub(self.first_port)));
            self.ports[protocol as usize] = ports;
        }
        &mut self.ports[protocol as usize]
    }
}
