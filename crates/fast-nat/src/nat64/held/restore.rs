//! Ports that are known by name: such as their host had before.

use std::sync::atomic::Ordering;

use super::super::{Ipv4Addr, NotRestored, Protocol};
use super::{Held, MOST_BLOCKS, ports::Port};
use crate::faults::{self, Point};

impl Held<'_> {
    /// The host's block with this port, and the one before it in the host's list; 0: none.
    fn block_with(&mut self, owner: u32, address: Ipv4Addr, port: u16) -> Option<(u32, u32)> {
        let nat = self.nat;
        let (mut before, mut at) = (0, self.first_block(owner));
        for _ in 0..MOST_BLOCKS {
            let data = nat.blocks.get(at)?.data.lock();
            self.touched += 1;
            let is_it = data.address == address.to_bits()
                && port.checked_sub(data.first_port).is_some_and(|place| place < data.size);
            if is_it {
                return Some((at, before));
            }
            (before, at) = (at, data.next);
        }
        None
    }

    /// Takes this port, for a binding more.
    pub(in crate::nat64) fn take_this_port(
        &mut self,
        owner: u32,
        (protocol, address, port): (Protocol, Ipv4Addr, u16),
    ) -> Result<Port, NotRestored> {
        let nat = self.nat;
        let (id, before) = self.block_with(owner, address, port).ok_or(NotRestored::NoBlock)?;
        let host = nat.hosts.get(owner).ok_or(NotRestored::NoBlock)?;
        let mut data = nat.blocks.get(id).ok_or(NotRestored::NoBlock)?.data.lock();
        let place = port - data.first_port;
        if !data.ports_of(protocol).take(place) {
            return Err(NotRestored::PortTaken);
        }
        let was_idle = data.is_idle();
        data.used[protocol as usize] += 1;
        let class = data.class();
        // Those of a retired one do not count as free.
        let counts = u32::from(!data.retired);
        if before != 0
            && let Some(previous) = nat.blocks.get(before)
        {
            // To the front: the next port is most likely of the same block.
            previous.data.lock().next = data.next;
            data.next = host.first_block.swap(id, Ordering::Relaxed);
        }
        drop(data);
        self.with_host(owner, |host| {
            host.free[class as usize][protocol as usize] -= counts;
            host.bindings += 1;
        });
        if was_idle {
            self.end_idle(id);
        }
        Ok(Port { block: id, address, number: port, wants_block: None })
    }

    /// Lets a free port rest as if it had been given back then.
    pub(in crate::nat64) fn let_rest(
        &mut self,
        owner: u32,
        (protocol, address, port): (Protocol, Ipv4Addr, u16),
        since: u32,
    ) -> bool {
        let Some((id, _)) = self.block_with(owner, address, port) else { return false };
        let rests = self.with_block(id, |data| {
            let place = port - data.first_port;
            let ports = data.ports_of(protocol);
            let is_free = ports.take(place);
            if is_free {
                faults::at(Point::RestoreResting);
                ports.release(place, since);
            }
            is_free.then(|| (data.class(), u32::from(!data.retired)))
        });
        let Some((class, counts)) = rests.flatten() else { return false };
        self.with_host(owner, |host| host.free[class as usize][protocol as usize] -= counts);
        true
    }
}
