//! What leases addresses and port blocks is told.

use fast_nat::{BlockPoolConfig, Lanes, PoolConfig, PortNet};

use super::Plan;
use crate::config::{PoolSettings, Settings, Sharing};

impl Plan {
    fn pools_that(&self, share: Sharing) -> impl Iterator<Item = &PoolSettings> {
        self.pools.iter().filter(move |pool| pool.sharing == share)
    }

    /// What the pool of whole addresses consists of, and by how many lanes it chooses.
    pub fn lease_pool(&self, settings: &Settings, lanes: Lanes) -> PoolConfig {
        let mapped = settings.mapped_within(self.nets().into_iter());
        PoolConfig {
            pools: self.pools_that(Sharing::Exclusive).map(|pool| pool.net).collect(),
            reserved: mapped.into_iter().chain([self.router_address]).collect(),
            max_leases_per_subnet: self.max_leases_per_subnet(settings),
            rest: settings.address_rest,
            lanes,
        }
    }

    /// What the pool of port blocks consists of. The router's own address is shared like the others: what is for nobody else is for the
    /// router.
    pub fn block_pool(&self, settings: &Settings) -> BlockPoolConfig {
        let nets = self.pools_that(Sharing::Ports).map(|pool| PortNet {
            net: pool.net,
            first_port: pool.ports.first(),
            last_port: pool.ports.last(),
            reserved_ports: pool.reserved(),
        });
        let forwards = settings.forwards.iter();
        BlockPoolConfig {
            nets: nets.collect(),
            block_size: settings.sessions.block_size,
            max_ports_per_subscriber: settings.quota.most_ports(self.automatic),
            reserved_addresses: settings.mapped_within(self.nets().into_iter()),
            reserved_endpoints: forwards.map(|forward| (forward.address, forward.port)).collect(),
            seed: None,
        }
    }
}
