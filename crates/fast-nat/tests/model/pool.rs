//! What the pool of blocks may do: which block a host gets, and why it gets none.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::api::{
    Block, BlockPoolConfig, BlockRefusal, GiveError, Granted, PortClass, Protocol, Timestamp,
    is_eligible_host,
};
use super::leases::MOST_BLOCKS;
use super::{Model, Wrong, tick};

/// The blocks that a pool consists of: those that have a port.
pub fn all_blocks(pool: &BlockPoolConfig) -> Vec<Block> {
    let mut found = Vec::new();
    for net in &pool.nets {
        for address in net.net.network().to_bits()..=net.net.broadcast().to_bits() {
            let address = Ipv4Addr::from_bits(address);
            // The network's own address and the broadcast address, where a network has them.
            let is_edge =
                net.net.prefix_len() < 31 && (address == net.net.network() || address == net.net.broadcast());
            if is_edge || pool.reserved_addresses.contains(&address) {
                continue;
            }
            for first_port in (net.first_port & !(pool.block_size - 1)..=net.last_port)
                .step_by(usize::from(pool.block_size))
            {
                let last_port = first_port + (pool.block_size - 1);
                let is_reserved = |port: &u16| {
                    !(net.first_port..=net.last_port).contains(port)
                        || net.reserved_ports.contains(port)
                        || pool.reserved_endpoints.contains(&(address, *port))
                };
                let reserved: Vec<_> = (first_port..=last_port).filter(is_reserved).collect();
                if reserved.len() < usize::from(pool.block_size) {
                    found.push(Block { address, first_port, size: pool.block_size, reserved });
                }
            }
        }
    }
    found
}

impl Model {
    /// All blocks of a pool of which nobody holds a port.
    pub fn leasable(&self, pool: &BlockPoolConfig) -> Vec<Block> {
        let mut blocks = all_blocks(pool);
        blocks.retain(|block| {
            !self.blocks.iter().any(|held| {
                held.address == block.address
                    && held.first_port < block.first_port + block.size
                    && block.first_port <= held.last_port()
            })
        });
        blocks
    }
    /// The blocks that this host may be given: of this class, and of the address of its other blocks.
    fn grantable(&self, pool: &BlockPoolConfig, host: Ipv6Addr, class: PortClass) -> Vec<Block> {
        let paired = self.blocks_of(host).map(|block| block.address).next();
        let mut found = self.leasable(pool);
        found.retain(|block| {
            PortClass::of(block.first_port) == class && paired.is_none_or(|address| address == block.address)
        });
        found
    }

    /// Ports in the blocks of this host's subscriber, reserved ones too.
    fn ports_of_subscriber(&self, host: Ipv6Addr) -> u32 {
        let key = self.subscriber_key(host);
        let blocks = self.blocks.iter().filter(|block| self.subscriber_key(block.owner) == key);
        blocks.map(|block| u32::from(block.size)).sum()
    }

    /// The free ports of the protocol that has the fewest.
    fn fewest_free(&self, host: Ipv6Addr, class: PortClass, tick: u64) -> usize {
        let of = |protocol| {
            let free = self.free_ports(host, protocol, tick);
            free.iter().filter(|port| PortClass::of(port.outside.port) == class).count()
        };
        Protocol::ALL.into_iter().map(of).min().unwrap()
    }

    /// The pool has been asked for a block.
    pub fn grant(
        &mut self,
        pool: &BlockPoolConfig,
        host: Ipv6Addr,
        asked: PortClass,
        now: Timestamp,
        answer: &Result<Granted, BlockRefusal>,
    ) -> Result<(), Wrong> {
        // A quarter of a block are enough; which of the host's blocks is meant, if their sizes differ, is left open.
        let smallest = self.blocks_of(host).map(|block| usize::from(block.size)).min().unwrap_or(0);
        let has_enough = |class| {
            let fewest = self.fewest_free(host, class, tick(now));
            fewest > 0 && fewest >= smallest / 4
        };
        if *answer == Ok(Granted::Already) && has_enough(asked) {
            if asked == PortClass::Low {
                // Perhaps too few low ports have been seen to have rested, and there were enough high ones.
                self.doubt_low(host);
            }
            return Ok(());
        }
        // Where the address has no low ports high ones have to do.
        let low = self.grantable(pool, host, PortClass::Low);
        let mut grantable = self.grantable(pool, host, PortClass::High);
        let (has_low, has_high) = (!low.is_empty(), !grantable.is_empty());
        if asked == PortClass::Low {
            grantable.retain(|block| low.iter().all(|other| other.address != block.address));
            grantable.extend(low);
        }
        let ports = self.ports_of_subscriber(host);
        let limit = pool.max_ports_per_subscriber;
        let mut errors = Vec::new();
        if !is_eligible_host(host) {
            errors.push(BlockRefusal::NotEligible(host));
        }
        if ports + u32::from(pool.block_size) > limit {
            errors.push(BlockRefusal::PortQuota { ports, limit });
        }
        if self.blocks_of(host).count() >= MOST_BLOCKS {
            errors.push(BlockRefusal::TooManyBlocks);
        }
        if self.blocks.len() >= self.config.max_blocks as usize || self.is_no_room_for(host) {
            errors.push(BlockRefusal::TableFull);
        }
        // A low block that cannot be had for another reason makes it look for a high one, and tell of that.
        let may_tell_of_high = asked == PortClass::Low && !errors.is_empty() && !has_high;
        if grantable.is_empty() || may_tell_of_high {
            errors.push(match self.blocks_of(host).next() {
                Some(other) => BlockRefusal::AddressExhausted(other.address),
                None => BlockRefusal::PoolExhausted,
            });
        }
        let result = match answer {
            Err(refusal) if errors.contains(refusal) => Ok(()),
            Ok(Granted::Already) if (!has_low || !errors.is_empty()) && has_enough(PortClass::High) => Ok(()),
            Ok(Granted::New { reference, address, first_port, size }) if errors.is_empty() => {
                let chosen = grantable
                    .iter()
                    .find(|block| block.address == *address && block.first_port == *first_port);
                match chosen {
                    Some(block) if block.size == *size => {
                        let block = block.clone();
                        self.give(host, &block, now, &Ok::<_, GiveError>(*reference))
                    }
                    _ => Err(format!("{answer:?} is none of {grantable:?}")),
                }
            }
            _ => Err(format!("{answer:?}, where {grantable:?} could be had but for {errors:?}")),
        };
        let gets_high = match answer {
            Ok(Granted::New { first_port, .. }) => PortClass::of(*first_port) == PortClass::High,
            _ => true,
        };
        if asked == PortClass::Low && gets_high {
            self.deny_low(host);
        }
        result
    }

    fn doubt_low(&mut self, host: Ipv6Addr) {
        let key = self.host_key(host);
        for known in self.hosts.iter_mut().filter(|known| known.key == key && !known.no_low) {
            known.is_certain = false;
        }
    }

    /// The host gets high ports in place of low ones from now on.
    pub fn deny_low(&mut self, host: Ipv6Addr) {
        let key = self.host_key(host);
        for known in self.hosts.iter_mut().filter(|known| known.key == key) {
            (known.no_low, known.is_certain) = (true, true);
        }
    }
}
