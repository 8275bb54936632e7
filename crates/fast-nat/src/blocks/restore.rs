//! Blocks of an earlier engine are given to their hosts again, as far as they still are in the pool.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::BlockPool;
use crate::nat64::{Block, GiveError, Nat64, NotRestored, PortClass, SavedBlock};
use crate::{Timestamp, is_eligible_host};

impl BlockPool {
    /// Gives hosts the blocks that they had, those first that were given last: of two that have a port in common only one can be right.
    /// `fits` says whether a block may be its host's in this network; `refused` is told of each one that is not given.
    pub fn restore(
        &mut self,
        nat: &Nat64,
        mut blocks: Vec<SavedBlock>,
        now: Timestamp,
        fits: impl Fn(&SavedBlock, Ipv4Net) -> bool,
        mut refused: impl FnMut(&SavedBlock, NotRestored),
    ) {
        blocks.sort_by_key(|block| std::cmp::Reverse(block.given));
        let mut taken = Taken::default();
        for block in &blocks {
            if let Err(reason) = self.restore_one(nat, block, &mut taken, now, &fits) {
                refused(block, reason);
            }
        }
    }

    fn restore_one(
        &mut self,
        nat: &Nat64,
        saved: &SavedBlock,
        taken: &mut Taken,
        now: Timestamp,
        fits: &impl Fn(&SavedBlock, Ipv4Net) -> bool,
    ) -> Result<(), NotRestored> {
        let SavedBlock { host, address, first_port, size, given } = *saved;
        let last_port = size.checked_sub(1).and_then(|more| first_port.checked_add(more));
        let last_port = last_port.ok_or(NotRestored::NotInPool)?;
        let net = self.nets.iter().position(|net| net.serves(address));
        let net = net.filter(|net| self.nets.get(*net).is_some_and(|net| fits(saved, net.net())));
        let (Some(net), true) = (net, is_eligible_host(host)) else { return Err(NotRestored::NotInPool) };
        let reserved = self.reserved(net, address, (first_port, last_port));
        if reserved.len() == usize::from(size) {
            return Err(NotRestored::NotInPool);
        }
        if !taken.is_free(address.to_bits(), first_port, last_port) {
            return Err(NotRestored::PortTaken);
        }
        let ports = nat.standing(host, PortClass::of(first_port)).subscriber_ports;
        if ports.saturating_add(size.into()) > self.config.max_ports_per_subscriber {
            return Err(NotRestored::Quota);
        }
        let block = Block { address, first_port, size, reserved };
        nat.restore_block(host, &block, given, now).map_err(|error| match error {
            GiveError::Full => NotRestored::Full,
            GiveError::TooMany => NotRestored::Quota,
            GiveError::OtherAddress(_) => NotRestored::OtherAddress,
            GiveError::NotABlock => NotRestored::NotInPool,
        })?;
        taken.0.insert((address.to_bits(), first_port), last_port);
        if let Some(net) = self.nets.get_mut(net) {
            net.mark_used(address, first_port, size);
        }
        Ok(())
    }
}

/// Ranges of ports that were given, by address and first port. They may be of other sizes than those that the pool gives.
#[derive(Debug, Default)]
struct Taken(BTreeMap<(u32, u16), u16>);

impl Taken {
    fn is_free(&self, address: u32, first_port: u16, last_port: u16) -> bool {
        let before = self.0.range(..=(address, last_port)).next_back();
        before.is_none_or(|((other, _), last)| *other != address || *last < first_port)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::nat64::NatConfig;
    use crate::{BlockPoolConfig, Granted, PortNet};

    const NOW: Timestamp = Timestamp::from_millis(10_000_000);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    fn host(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, 1)
    }

    fn saved(n: u16, first_port: u16, size: u16, given: u64) -> SavedBlock {
        SavedBlock { host: host(n), address: ADDRESS, first_port, size, given: Timestamp::from_millis(given) }
    }

    /// Restores these; says which were refused, and why.
    fn restore(blocks: &[SavedBlock]) -> (Nat64, BlockPool, Vec<(SavedBlock, NotRestored)>) {
        let net = PortNet {
            net: "198.51.100.0/30".parse().unwrap(),
            first_port: 1024,
            last_port: 65_535,
            reserved_ports: vec![2000, 2001],
        };
        let config = BlockPoolConfig {
            nets: vec![net],
            block_size: 64,
            max_ports_per_subscriber: 256,
            reserved_addresses: vec![Ipv4Addr::new(198, 51, 100, 2)],
            reserved_endpoints: Vec::new(),
            seed: Some(1),
        };
        let mut pool = BlockPool::new(&config).unwrap();
        let nat = Nat64::new(NatConfig { max_blocks: 64, seed: Some(1), ..NatConfig::default() }).unwrap();
        let mut refused = Vec::new();
        let fits = |block: &SavedBlock, _| block.host != host(99);
        pool.restore(&nat, blocks.to_vec(), NOW, fits, |block, reason| refused.push((*block, reason)));
        (nat, pool, refused)
    }

    #[test]
    fn a_block_is_its_hosts_again_and_nobody_elses() {
        let (nat, mut pool, refused) = restore(&[saved(1, 1984, 64, 5000)]);
        assert_eq!(refused, []);
        let lease = nat.blocks().next().unwrap();
        assert_eq!((lease.host, lease.address, lease.first_port, lease.size), (host(1), ADDRESS, 1984, 64));
        assert_eq!(lease.given, Timestamp::from_millis(5000));
        assert_eq!(pool.usage()[0].used, 1);
        // Its reserved ports are reserved again.
        let high = PortClass::High;
        assert_eq!(pool.grant(&nat, host(1), high, NOW), Ok(Granted::Already));
        let taken: Vec<_> = (0..62_u16)
            .map(|n| {
                let flow = crate::nat64::Outbound {
                    prefix: 0,
                    protocol: crate::nat64::Protocol::Udp,
                    host: host(1),
                    port: 3000 + n,
                    remote: Ipv4Addr::new(192, 0, 2, 1),
                    remote_port: 53,
                };
                nat.outbound(&flow, &crate::nat64::Passing::plain(100), NOW).unwrap().port
            })
            .collect();
        assert!(!taken.contains(&2000) && !taken.contains(&2001) && taken.contains(&2002));
    }

    #[test]
    fn what_no_longer_fits_is_refused_one_by_one() {
        let foreign = SavedBlock { address: Ipv4Addr::new(203, 0, 113, 1), ..saved(2, 4096, 64, 1) };
        let reserved = SavedBlock { address: Ipv4Addr::new(198, 51, 100, 2), ..saved(3, 4096, 64, 1) };
        let edge = SavedBlock { address: Ipv4Addr::new(198, 51, 100, 3), ..saved(4, 4096, 64, 1) };
        let loopback = SavedBlock { host: Ipv6Addr::LOCALHOST, ..saved(5, 4096, 64, 1) };
        let cases = [
            (foreign, NotRestored::NotInPool),
            (reserved, NotRestored::NotInPool),
            (edge, NotRestored::NotInPool),
            (loopback, NotRestored::NotInPool),
            (saved(6, 512, 64, 1), NotRestored::NotInPool),
            (saved(7, 65_500, 64, 1), NotRestored::NotInPool),
            (saved(8, 4096, 0, 1), NotRestored::NotInPool),
            (saved(9, 8192, 8192, 1), NotRestored::NotInPool),
            (saved(99, 4096, 64, 1), NotRestored::NotInPool),
            (saved(10, 16_384, 512, 1), NotRestored::Quota),
        ];
        for (block, reason) in cases {
            let good = saved(1, 4096, 64, 7);
            let (nat, _, refused) = restore(&[block, good]);
            let expected = if block.size == 8192 { NotRestored::Quota } else { reason };
            assert_eq!(refused, [(block, expected)]);
            assert_eq!(nat.blocks().count(), 1, "the others are not the worse for it");
        }
    }

    #[test]
    fn of_blocks_that_overlap_the_one_that_was_given_last_is_kept() {
        for (first_port, size) in [(4096, 64), (4100, 4), (4090, 16), (4150, 32), (4032, 256)] {
            let (nat, _, refused) = restore(&[saved(1, first_port, size, 1), saved(2, 4096, 64, 2)]);
            assert_eq!(refused, [(saved(1, first_port, size, 1), NotRestored::PortTaken)]);
            assert_eq!(nat.blocks().next().unwrap().host, host(2));
        }
        // Beside each other is not one over the other, whatever sizes the pool gives now.
        let (nat, _, refused) = restore(&[saved(1, 4096, 16, 1), saved(2, 4112, 16, 2)]);
        assert_eq!((refused, nat.blocks().count()), (vec![], 2));
    }
}
