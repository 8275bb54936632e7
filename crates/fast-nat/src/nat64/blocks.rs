//! Port blocks: given to hosts, and taken back.

use std::sync::atomic::Ordering;

use super::entries::{BlockData, Reserved, in_use, turn};
use super::held::{Held, MOST_BLOCKS};
use super::{
    Block, BlockLease, BlockRef, GiveError, Ipv4Addr, Ipv6Addr, Nat64, PortClass, SHARDS, Timestamp, tick,
};
use crate::faults::{self, Point};

/// The longest block.
const LONGEST: u16 = 4096;

/// What a pool needs to know of a host before it leases it a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostStanding {
    /// The address of its blocks, if it has any (RFC 4787 REQ-2: paired).
    pub address: Option<Ipv4Addr>,
    /// Whether it has so few free ports of the class that a block is due.
    pub needs_block: bool,
    /// Ports in the blocks of its subscriber's hosts.
    pub subscriber_ports: u32,
}

impl Nat64 {
    /// How a host stands.
    pub fn standing(&self, host: Ipv6Addr, class: PortClass) -> HostStanding {
        let unknown = HostStanding { address: None, needs_block: true, subscriber_ports: 0 };
        let prefix = self.subscriber_prefix(host);
        let Some(held) = self.hold(self.shard_of(prefix)) else { return unknown };
        let subscriber_ports = held
            .subscriber(prefix)
            .and_then(|id| held.with_subscriber(id, |subscriber| subscriber.ports))
            .unwrap_or_default();
        let known = held.host(self.lease_prefix(host)).and_then(|id| {
            let size = held.size_of(held.first_block(id));
            held.with_host(id, |data| {
                let fewest = data.free[class as usize].into_iter().min().unwrap_or_default();
                (data.address, fewest <= size / 4)
            })
        });
        let (address, needs_block) = known.unwrap_or((None, true));
        HostStanding { address, needs_block, subscriber_ports }
    }

    /// The first ports of a host's blocks: at most 128.
    pub fn first_ports_of(&self, host: Ipv6Addr) -> Vec<u16> {
        let Some(held) = self.hold(self.shard_of(self.subscriber_prefix(host))) else { return Vec::new() };
        let Some(id) = held.host(self.lease_prefix(host)) else { return Vec::new() };
        let mut at = held.first_block(id);
        let mut first_ports = Vec::new();
        while let Some(block) = self.blocks.get(at) {
            let data = block.data.lock();
            first_ports.push(data.first_port);
            at = data.next;
        }
        first_ports
    }

    /// The host gets no low ports: its low ports are mapped to high ones from now on, until it is forgotten.
    pub fn deny_low(&self, host: Ipv6Addr) {
        let Some(held) = self.hold(self.shard_of(self.subscriber_prefix(host))) else { return };
        if let Some(id) = held.host(self.lease_prefix(host)) {
            held.with_host(id, |data| data.low_denied = true);
        }
    }

    /// Gives a host a block. The pool sees to it that nobody else has one of its ports.
    pub fn give_block(&self, host: Ipv6Addr, block: &Block, now: Timestamp) -> Result<BlockRef, GiveError> {
        self.give_block_since(host, block, now, now)
    }

    /// The same, where it counts as given at another time.
    pub(super) fn give_block_since(
        &self,
        host: Ipv6Addr,
        block: &Block,
        given: Timestamp,
        now: Timestamp,
    ) -> Result<BlockRef, GiveError> {
        let last = u32::from(block.first_port) + u32::from(block.size);
        let one_class = block.first_port >= 1024 || last <= 1024;
        if !(1..=LONGEST).contains(&block.size) || last > 65_536 || !one_class {
            return Err(GiveError::NotABlock);
        }
        let mut held = self.hold(self.shard_of(self.subscriber_prefix(host))).ok_or(GiveError::Full)?;
        let owner = held.host_or_new(host, tick(now)).ok_or(GiveError::Full)?;
        let result = held.give(owner, block, given, tick(now));
        if result.is_err() {
            held.forget_host(owner);
        }
        result
    }

    /// Takes a block back that has been without a binding for long enough; its ports have rested then.
    pub fn take_back(&self, block: BlockRef, now: Timestamp) -> Option<BlockLease> {
        let entry = self.blocks.get(block.id)?;
        let host = self.hosts.get(entry.owner.load(Ordering::Relaxed))?;
        let mut held = self.hold(host.shard.load(Ordering::Acquire))?;
        if entry.version.load(Ordering::Acquire) != block.version || !in_use(block.version) {
            return None;
        }
        let (since, is_idle) = held.idle(block.id)?;
        (is_idle && tick(now).saturating_sub(since) > self.limits.block_idle.get())
            .then(|| held.take_back(block))?
    }

    /// Has a block give no port any more: what uses its ports goes on, and it comes back when nothing does. Its host may have blocks of
    /// another address from now on.
    pub fn retire(&self, block: BlockRef) {
        let Some(entry) = self.blocks.get(block.id) else { return };
        let owner = entry.owner.load(Ordering::Relaxed);
        let Some(host) = self.hosts.get(owner) else { return };
        let Some(held) = self.hold(host.shard.load(Ordering::Acquire)) else { return };
        if entry.version.load(Ordering::Acquire) != block.version || !in_use(block.version) {
            return;
        }
        held.with_host(owner, |host| {
            let mut data = entry.data.lock();
            if std::mem::replace(&mut data.retired, true) {
                return;
            }
            faults::at(Point::BlockRetire);
            let usable = u32::from(data.size) - data.reserved().len() as u32;
            let class = data.class() as usize;
            for (free, ports) in host.free[class].iter_mut().zip(&data.ports) {
                *free -= if ports.is_made() { ports.free().into() } else { usable };
            }
            if host.address == Some(Ipv4Addr::from_bits(data.address)) {
                host.address = None;
            }
            host.asked = [false; 3];
        });
    }

    /// Blocks that could be taken back at `now`: at most `limit` of them, and not all if that takes many steps.
    pub fn idle_blocks(&self, now: Timestamp, limit: usize) -> Vec<BlockRef> {
        let mut idle = Vec::new();
        let first = self.idle_at.load(Ordering::Relaxed);
        for step in 0..SHARDS as u32 {
            let number = first.wrapping_add(step) % SHARDS as u32;
            let Some(held) = self.hold(number) else { continue };
            let mut id = held.shard.idle_first;
            while idle.len() < limit.min(64)
                && let Some(block) = self.blocks.get(id)
            {
                let data = block.data.lock();
                if tick(now).saturating_sub(data.idle_since) <= self.limits.block_idle.get() {
                    break;
                }
                idle.push(BlockRef { id, version: block.version.load(Ordering::Acquire) });
                id = data.idle_behind;
            }
            self.idle_at.store(number, Ordering::Relaxed);
            if idle.len() >= limit.min(64) {
                break;
            }
        }
        idle
    }

    /// All blocks under lease, in no order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockLease> + '_ {
        self.blocks.numbers().filter_map(|id| self.block_at(id))
    }

    pub(super) fn block_at(&self, id: u32) -> Option<BlockLease> {
        let block = self.blocks.get(id)?;
        let version = block.version.load(Ordering::Acquire);
        if !in_use(version) {
            return None;
        }
        let prefix = self.hosts.get(block.owner.load(Ordering::Relaxed))?.data.lock().prefix;
        let data = block.data.lock();
        let lease = BlockLease {
            reference: BlockRef { id, version },
            host: Ipv6Addr::from_bits(prefix),
            address: Ipv4Addr::from_bits(data.address),
            first_port: data.first_port,
            size: data.size,
            given: data.given,
            used: data.used,
        };
        (block.version.load(Ordering::Acquire) == version).then_some(lease)
    }
}

impl Held<'_> {
    fn size_of(&self, block: u32) -> u32 {
        self.nat.blocks.get(block).map_or(0, |block| u32::from(block.data.lock().size))
    }

    fn idle(&self, block: u32) -> Option<(u32, bool)> {
        let data = self.nat.blocks.get(block)?.data.lock();
        Some((data.idle_since, data.is_idle()))
    }

    fn give(
        &mut self,
        owner: u32,
        block: &Block,
        given: Timestamp,
        tick: u32,
    ) -> Result<BlockRef, GiveError> {
        self.touch(3);
        let nat = self.nat;
        let host = nat.hosts.get(owner).ok_or(GiveError::Full)?;
        let mut data = host.data.lock();
        if let Some(address) = data.address
            && address != block.address
        {
            return Err(GiveError::OtherAddress(address));
        }
        if data.blocks >= MOST_BLOCKS {
            return Err(GiveError::TooMany);
        }
        let id = nat.blocks.take().ok_or(GiveError::Full)?;
        self.hand.block = id;
        let entry = nat.blocks.get(id).ok_or(GiveError::Full)?;
        let within = |port: &u16| port.checked_sub(block.first_port).is_some_and(|place| place < block.size);
        let mut reserved: Vec<u16> = block.reserved.iter().copied().filter(within).collect();
        reserved.sort_unstable();
        reserved.dedup();
        let usable = u32::from(block.size) - reserved.len() as u32;
        *entry.data.lock() = BlockData {
            address: block.address.to_bits(),
            first_port: block.first_port,
            size: block.size,
            given,
            next: host.first_block.load(Ordering::Relaxed),
            reserved: (!reserved.is_empty()).then(|| Box::new(Reserved(reserved.into()))),
            ..BlockData::default()
        };
        entry.owner.store(owner, Ordering::Relaxed);
        host.first_block.store(id, Ordering::Relaxed);
        data.blocks += 1;
        data.address = Some(block.address);
        for free in &mut data.free[PortClass::of(block.first_port) as usize] {
            *free += usable;
        }
        data.asked = [false; 3];
        drop(data);
        faults::at(Point::BlockGive);
        let subscriber = host.subscriber.load(Ordering::Relaxed);
        self.with_subscriber(subscriber, |subscriber| subscriber.ports += u32::from(block.size));
        let version = turn(&entry.version);
        self.begin_idle(id, tick);
        nat.block_changed(id);
        self.hand.block = 0;
        Ok(BlockRef { id, version })
    }

    fn take_back(&mut self, block: BlockRef) -> Option<BlockLease> {
        let nat = self.nat;
        let lease = nat.block_at(block.id)?;
        let entry = nat.blocks.get(block.id)?;
        let owner = entry.owner.load(Ordering::Relaxed);
        let entry_of_host = nat.hosts.get(owner)?;
        let mut host = entry_of_host.data.lock();
        // The one before it in its host's list.
        let (mut before, mut at) = (0, entry_of_host.first_block.load(Ordering::Relaxed));
        while at != block.id {
            self.touch(1);
            (before, at) = (at, nat.blocks.get(at)?.data.lock().next);
        }
        self.hand.block_back = block.id;
        self.end_idle(block.id);
        // What it is stays in its place until it counts as given no longer: a panic before leaves it given.
        let mut data = entry.data.lock();
        match nat.blocks.get(before) {
            Some(previous) => previous.data.lock().next = data.next,
            None => entry_of_host.first_block.store(data.next, Ordering::Relaxed),
        }
        faults::at(Point::BlockTakeBack);
        for (protocol, ports) in data.ports.iter().enumerate() {
            let usable = u32::from(data.size) - data.reserved().len() as u32;
            let free = if ports.is_made() { ports.free().into() } else { usable };
            // Those of a retired one count no longer.
            host.free[data.class() as usize][protocol] -= if data.retired { 0 } else { free };
        }
        host.blocks -= 1;
        if host.blocks == 0 {
            host.address = None;
        }
        drop(host);
        let subscriber = entry_of_host.subscriber.load(Ordering::Relaxed);
        self.with_subscriber(subscriber, |subscriber| subscriber.ports -= u32::from(data.size));
        let was_last = self.lose_host(owner);
        turn(&entry.version);
        *data = BlockData::default();
        drop(data);
        nat.block_changed(block.id);
        nat.blocks.give_back(block.id);
        self.hand.block_back = 0;
        if was_last {
            self.end_host(owner);
        }
        Some(lease)
    }
}
