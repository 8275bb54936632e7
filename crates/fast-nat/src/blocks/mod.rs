//! Which port blocks are free.

mod address;
mod restore;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

use crate::faults::{self, Point};
use crate::nat64::{Block, BlockLease, BlockRef, GiveError, Hasher, Nat64, PortClass};
use crate::{InvalidPool, Timestamp, is_eligible_host};
use address::{Addresses, Class};

/// A network whose addresses are shared by ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortNet {
    /// The network.
    pub net: Ipv4Net,
    /// The first port that is given.
    pub first_port: u16,
    /// The last one.
    pub last_port: u16,
    /// Ports that are not, on any address.
    pub reserved_ports: Vec<u16>,
}

impl PortNet {
    /// Whether a port is given, if the reserved ones are in order.
    fn gives(&self, port: u16) -> bool {
        (self.first_port..=self.last_port).contains(&port)
            && self.reserved_ports.binary_search(&port).is_err()
    }
}

/// What a pool of port blocks is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockPoolConfig {
    /// The networks, filled in this order.
    pub nets: Vec<PortNet>,
    /// Ports of a block: a power of two, 16 to 4096. Blocks begin at multiples of it.
    pub block_size: u16,
    /// Ports in the blocks of one subscriber's hosts (RFC 6888 REQ-4).
    pub max_ports_per_subscriber: u32,
    /// Addresses that are not shared: the router's own, and those of one-to-one mappings.
    pub reserved_addresses: Vec<Ipv4Addr>,
    /// Single ports that static bindings have.
    pub reserved_endpoints: Vec<(Ipv4Addr, u16)>,
    /// For tests and replays: a number that makes every choice repeatable.
    pub seed: Option<u64>,
}

/// Why a host gets no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockRefusal {
    /// No address has a free block.
    #[error("no port block is free")]
    PoolExhausted,
    /// The host's address has none, and a host keeps its address (RFC 4787 REQ-2).
    #[error("{0}, the host's address, has no free port block")]
    AddressExhausted(Ipv4Addr),
    /// The subscriber's hosts have as many ports as they may.
    #[error("its subscriber has {ports} ports, and may have {limit}")]
    PortQuota {
        /// What they have.
        ports: u32,
        /// What they may have.
        limit: u32,
    },
    /// The host has as many blocks as one may have.
    #[error("the host has 128 port blocks, the most that one may have")]
    TooManyBlocks,
    /// The source is not one that could hold a lease: see [`is_eligible_host`].
    #[error("{0} cannot hold a lease")]
    NotEligible(Ipv6Addr),
    /// Blocks or hosts are at their bound.
    #[error("the table of hosts or that of port blocks is full")]
    TableFull,
}

/// What a request has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// A new block.
    New {
        /// Which.
        reference: BlockRef,
        /// Its address.
        address: Ipv4Addr,
        /// Its first port.
        first_port: u16,
        /// How many.
        size: u16,
    },
    /// The host has enough free ports: an earlier request has been answered.
    Already,
}

/// How one network is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockUsage {
    /// The network.
    pub net: Ipv4Net,
    /// Blocks under lease.
    pub used: u64,
    /// Blocks that could be leased now.
    pub free: u64,
    /// Addresses with a block under lease.
    pub addresses: u64,
    /// The most blocks that were under lease at a time, as far as this pool has seen.
    pub high_water: u64,
}

/// Which port blocks are free: belongs to one owner. Leasing costs the same at any size of the pool; memory grows with the
/// addresses that were ever used (about 200 bytes each).
///
/// What it knows is derived from the engine: [`Self::rebuild`] reads it anew.
#[derive(Debug)]
pub struct BlockPool {
    config: BlockPoolConfig,
    nets: Vec<Addresses>,
    hasher: Hasher,
    randoms: u64,
}

impl BlockPool {
    /// A pool in which everything is free.
    pub fn new(config: &BlockPoolConfig) -> Result<Self, InvalidPool> {
        for (n, a) in config.nets.iter().enumerate() {
            let overlaps = |b: &&PortNet| b.net.contains(&a.net) || a.net.contains(&b.net);
            if let Some(b) = config.nets[..n].iter().find(overlaps) {
                return Err(InvalidPool::Overlap(b.net, a.net));
            }
        }
        if !config.block_size.is_power_of_two() || !(16..=4096).contains(&config.block_size) {
            return Err(InvalidPool::BlockSize(config.block_size));
        }
        for net in &config.nets {
            if net.first_port > net.last_port {
                return Err(InvalidPool::Ports(net.first_port, net.last_port));
            }
        }
        let mut config = config.clone();
        for net in &mut config.nets {
            // Nearly all of 65,536 ports may be reserved, and each is looked for.
            net.reserved_ports.sort_unstable();
        }
        let nets = Self::nets(&config);
        if let Some(net) = nets.iter().find(|net| net.blocks_per_address() == 0) {
            return Err(InvalidPool::NoBlock(net.net(), config.block_size));
        }
        let hasher = config.seed.map_or_else(Hasher::random, Hasher::seeded);
        Ok(Self { config, nets, hasher, randoms: 0 })
    }

    fn nets(config: &BlockPoolConfig) -> Vec<Addresses> {
        config.nets.iter().map(|net| Addresses::new(net, config)).collect()
    }

    /// Forgets everything and learns from the engine which blocks are under lease: after a restart of the owner.
    pub fn rebuild(&mut self, nat: &Nat64) {
        self.nets = Self::nets(&self.config);
        for lease in nat.blocks() {
            if let Some(net) = self.nets.iter_mut().find(|net| net.contains(lease.address)) {
                net.mark_used(lease.address, lease.first_port, lease.size);
            }
        }
    }

    /// Leases the host a block, if it needs one. May be repeated: a host that has enough free ports gets no more.
    ///
    /// Where there is no block of low ports it gets one of high ports, and its low ports are mapped to high ones from then on
    /// (RFC 4787 REQ-3 recommends the range, no more).
    pub fn grant(
        &mut self,
        nat: &Nat64,
        host: Ipv6Addr,
        class: PortClass,
        now: Timestamp,
    ) -> Result<Granted, BlockRefusal> {
        self.grant_from(nat, host, class, now, |_| true)
    }

    /// The same for a host that may have addresses of some of the networks only.
    pub fn grant_from(
        &mut self,
        nat: &Nat64,
        host: Ipv6Addr,
        class: PortClass,
        now: Timestamp,
        may_use: impl Fn(Ipv4Net) -> bool,
    ) -> Result<Granted, BlockRefusal> {
        if !is_eligible_host(host) {
            return Err(BlockRefusal::NotEligible(host));
        }
        match self.grant_of(nat, host, class, now, &may_use) {
            Err(_) if class == PortClass::Low => {
                let granted = self.grant_of(nat, host, PortClass::High, now, &may_use);
                nat.deny_low(host);
                granted
            }
            granted => granted,
        }
    }

    fn grant_of(
        &mut self,
        nat: &Nat64,
        host: Ipv6Addr,
        class: PortClass,
        now: Timestamp,
        may_use: &impl Fn(Ipv4Net) -> bool,
    ) -> Result<Granted, BlockRefusal> {
        let standing = nat.standing(host, class);
        if !standing.needs_block {
            return Ok(Granted::Already);
        }
        let limit = self.config.max_ports_per_subscriber;
        let ports = standing.subscriber_ports;
        let size = self.config.block_size;
        if ports.saturating_add(size.into()) > limit {
            return Err(BlockRefusal::PortQuota { ports, limit });
        }
        let kind = Class::from(class);
        self.randoms += 1;
        let random = self.hasher.random_number(self.randoms);
        let (net, address, first_port) = if let Some(address) = standing.address {
            self.nets
                .iter_mut()
                .enumerate()
                .find(|(_, net)| net.contains(address))
                .and_then(|(n, net)| Some((n, address, net.take_of(address, kind, random)?)))
                .ok_or(BlockRefusal::AddressExhausted(address))?
        } else {
            let taken = self
                .nets
                .iter_mut()
                .enumerate()
                .filter(|(_, net)| may_use(net.net()))
                .find_map(|(n, net)| net.take(kind, random).map(|(a, p)| (n, a, p)));
            taken.ok_or(BlockRefusal::PoolExhausted)?
        };
        let ports = (first_port, first_port + (size - 1));
        let block = Block { address, first_port, size, reserved: self.reserved(net, address, ports) };
        faults::at(Point::BlockPoolTake);
        match nat.give_block(host, &block, now) {
            Ok(reference) => Ok(Granted::New { reference, address, first_port, size }),
            Err(error) => {
                self.nets[net].mark_free(address, first_port);
                Err(match error {
                    GiveError::OtherAddress(address) => BlockRefusal::AddressExhausted(address),
                    GiveError::TooMany => BlockRefusal::TooManyBlocks,
                    GiveError::Full | GiveError::NotABlock => BlockRefusal::TableFull,
                })
            }
        }
    }

    /// Gives a host a certain block, which is its own by computation ([`crate::Deterministic`]), whatever it has already.
    pub fn give_fixed(
        &mut self,
        nat: &Nat64,
        host: Ipv6Addr,
        address: Ipv4Addr,
        first_port: u16,
        now: Timestamp,
    ) -> Result<BlockRef, GiveError> {
        let size = self.config.block_size;
        let net = self.nets.iter().position(|net| net.contains(address)).ok_or(GiveError::NotABlock)?;
        let ports = (first_port, first_port + (size - 1));
        let block = Block { address, first_port, size, reserved: self.reserved(net, address, ports) };
        let given = nat.give_block(host, &block, now)?;
        self.nets[net].mark_used(address, first_port, size);
        Ok(given)
    }

    /// Takes a block back from its host, if it is idle at `now`. May be repeated, also for blocks that are gone.
    pub fn take_back(&mut self, nat: &Nat64, block: BlockRef, now: Timestamp) -> Option<BlockLease> {
        let lease = nat.take_back(block, now)?;
        let size = self.config.block_size;
        if lease.size != size || !lease.first_port.is_multiple_of(size) {
            // From before the size of blocks was changed: what else lies beside it only the engine knows.
            self.rebuild(nat);
        } else if let Some(net) = self.nets.iter_mut().find(|net| net.contains(lease.address)) {
            net.mark_free(lease.address, lease.first_port);
        }
        Some(lease)
    }

    /// How each network is used.
    pub fn usage(&self) -> Vec<BlockUsage> {
        self.nets.iter().map(Addresses::usage).collect()
    }

    fn reserved(&self, net: usize, address: Ipv4Addr, (first_port, last_port): (u16, u16)) -> Vec<u16> {
        let net = &self.config.nets[net];
        let single = |port: u16| self.config.reserved_endpoints.contains(&(address, port));
        (first_port..=last_port).filter(|port| !net.gives(*port) || single(*port)).collect()
    }
}

#[cfg(test)]
mod tests;
