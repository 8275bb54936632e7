//! Checks of pools.

use rfc6052::Prefix;

use super::super::partial::PartialPool;
use super::super::{Placed, PoolSettings, PortRange, SHORTEST_POOL, Sharing};
use super::{Check, overlap, unusable, values};

impl Check<'_> {
    pub(in super::super) fn pools(
        &mut self,
        pools: Vec<PartialPool>,
        prefixes: &[Prefix],
        block_size: u16,
        masquerade_all: bool,
    ) -> Vec<PoolSettings> {
        let mut checked: Vec<(Placed<()>, PoolSettings)> = Vec::new();
        for pool in pools {
            let here = Placed { value: (), place: pool.net.place.clone() };
            self.pool_net(&pool, &checked);
            let settings = self.pool(pool, prefixes, block_size, masquerade_all);
            self.pool_is_reached(&here, &settings, &checked);
            checked.push((here, settings));
        }
        checked.into_iter().map(|(_, pool)| pool).collect()
    }

    fn pool_net(&mut self, pool: &PartialPool, before: &[(Placed<()>, PoolSettings)]) {
        let placed = &pool.net;
        let net = placed.value;
        if net.addr() != net.network() {
            let meant = net.trunc();
            self.wrong(placed, format!("pool: {net} has bits set behind its prefix; the network is {meant}"));
        }
        if net.prefix_len() < SHORTEST_POOL {
            self.wrong(placed, format!("pool: {net} is longer than a /{SHORTEST_POOL}, the largest pool"));
        }
        if let Some(denied) = unusable(net) {
            self.wrong(
                placed,
                format!("pool: {net} overlaps {denied}, which no host can have an address of"),
            );
        }
        if let Some((there, other)) = before.iter().find(|(_, other)| overlap(other.net, net)) {
            let (other, there) = (other.net, &there.place);
            self.wrong(placed, format!("pool: {net} overlaps the pool {other} ({there})"));
        }
    }

    fn pool(
        &mut self,
        pool: PartialPool,
        prefixes: &[Prefix],
        block_size: u16,
        masquerade_all: bool,
    ) -> PoolSettings {
        let sharing = pool.sharing.map_or(Sharing::default(), |placed| placed.value);
        if sharing == Sharing::Exclusive {
            let without = "one host has all ports of its address in a pool with sharing = \"exclusive\"";
            if let Some(placed) = &pool.ports {
                self.wrong(placed, format!("pool: ports has no meaning here: {without}"));
            }
            if let Some(placed) = &pool.reserved_ports {
                self.wrong(placed, format!("pool: reserved_ports has no meaning here: {without}"));
            }
        }
        let ports = pool.ports.as_ref().map_or(PortRange::UNPRIVILEGED, |placed| placed.value);
        let reserved = pool.reserved_ports.as_ref().map_or(&[][..], |placed| &placed.value);
        if sharing == Sharing::Ports && !has_block(ports, reserved, block_size) {
            let net = pool.net.value;
            let message = format!(
                "pool: {net} has no block of {block_size} ports to lease in {ports}; a block begins at a multiple of \
                 {block_size}, and not all of its ports are reserved"
            );
            match (&pool.ports, &pool.reserved_ports) {
                (Some(placed), _) => self.wrong(placed, message),
                (None, Some(placed)) => self.wrong(placed, message),
                (None, None) => self.wrong(&pool.net, message),
            }
        }
        if let Some(hosts) = &pool.hosts {
            if hosts.value.is_empty() {
                self.wrong(
                    hosts,
                    "pool: hosts names nobody; without this line the pool is for everyone".to_owned(),
                );
            }
            for placed in &hosts.value {
                self.network_v6(placed, "pool: hosts");
            }
        }
        let prefix = pool.translation_prefix.as_ref().map_or(0, |placed| {
            if sharing == Sharing::Ports {
                self.wrong(
                    placed,
                    "pool: translation_prefix has no meaning here: hosts that share addresses may use every translation \
                     prefix"
                        .to_owned(),
                );
            }
            let place = prefixes.iter().position(|prefix| *prefix == placed.value);
            if place.is_none() {
                let prefix = placed.value;
                self.wrong(placed, format!("pool: {prefix} is none of the translation prefixes"));
            }
            place.unwrap_or(0) as u8
        });
        PoolSettings {
            net: pool.net.value,
            prefix,
            masquerade: pool.masquerade || masquerade_all,
            sharing,
            ports,
            reserved_ports: pool.reserved_ports.map(|placed| placed.value).unwrap_or_default(),
            hosts: pool.hosts.map(|placed| values(placed.value)).unwrap_or_default(),
        }
    }

    /// A host belongs to the first pool that names it. Of a pool that shares differently it gets nothing.
    fn pool_is_reached(
        &mut self,
        here: &Placed<()>,
        pool: &PoolSettings,
        before: &[(Placed<()>, PoolSettings)],
    ) {
        let everyone = [ipnet::Ipv6Net::default()];
        let hosts = if pool.hosts.is_empty() { &everyone } else { &pool.hosts[..] };
        let mut takes_all = None;
        for net in hosts {
            // Who belongs to the pool that is the first to name any host of the network, if that is all of it.
            let first = before.iter().find(|(_, other)| {
                other.hosts.is_empty()
                    || other.hosts.iter().any(|named| named.contains(net) || net.contains(named))
            });
            match first {
                Some(first)
                    if first.1.sharing != pool.sharing
                        && (first.1.hosts.is_empty()
                            || first.1.hosts.iter().any(|named| named.contains(net))) =>
                {
                    takes_all = Some(first);
                }
                _ => return,
            }
        }
        if let Some((there, other)) = takes_all {
            let (net, other, there) = (pool.net, other.net, &there.place);
            self.wrong(
                here,
                format!(
                    "pool: {net} serves nobody: its hosts belong to the pool {other} ({there}), which comes first and \
                     shares differently; put this one before it, or name hosts in that one"
                ),
            );
        }
    }
}

/// Whether there is a whole block in which not every port is reserved.
fn has_block(ports: PortRange, reserved: &[PortRange], block_size: u16) -> bool {
    let is_free = |port: u16| !reserved.iter().any(|range| range.contains(port));
    ports.blocks(block_size).any(|first| (first..=first + (block_size - 1)).any(is_free))
}
