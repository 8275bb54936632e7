//! Pools, and who is served from which.

use std::net::Ipv6Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{PortRange, Sharing};

/// What addresses are leased from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pools {
    /// A private pool that overlaps nothing here, masqueraded.
    Automatic,
    /// These.
    Explicit(Vec<PoolSettings>),
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Its addresses.
    pub net: Ipv4Net,
    /// Whether it is hidden behind this host's own IPv4 address.
    pub masquerade: bool,
    /// How hosts share its addresses.
    pub sharing: Sharing,
    /// The ports that are shared. At least one whole block of them is not reserved.
    pub ports: PortRange,
    /// Ports among them that no host gets.
    pub reserved_ports: Vec<PortRange>,
    /// Who is served from it; empty: everyone.
    pub hosts: Vec<Ipv6Net>,
    /// Where a host with an address of this pool for itself sees the IPv4 internet: a place in
    /// [`Settings::translation_prefixes`](super::Settings::translation_prefixes). Hosts that share addresses may use them all.
    pub prefix: u8,
}

impl PoolSettings {
    /// A pool for everyone, shared by ports and not masqueraded.
    pub fn new(net: Ipv4Net) -> Self {
        Self {
            net,
            masquerade: false,
            sharing: Sharing::default(),
            ports: PortRange::UNPRIVILEGED,
            reserved_ports: Vec::new(),
            hosts: Vec::new(),
            prefix: 0,
        }
    }

    /// The ports that no host gets, one by one and in ascending order, without those outside [`ports`](Self::ports).
    pub fn reserved(&self) -> Vec<u16> {
        let ranges = self.reserved_ports.iter().flat_map(|range| range.first()..=range.last());
        let mut reserved: Vec<_> = ranges.filter(|port| self.ports.contains(*port)).collect();
        reserved.sort_unstable();
        reserved.dedup();
        reserved
    }

    /// Whether the pool is there for this host.
    pub fn names(&self, host: Ipv6Addr) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|net| net.contains(&host))
    }
}

/// The pools that a host is served from, in the order in which they are used: the first one that is there for it decides how
/// its addresses are shared, and all that share the same way follow.
pub fn pools_of(pools: &[PoolSettings], host: Ipv6Addr) -> impl Iterator<Item = &PoolSettings> {
    let mut named = pools.iter().filter(move |pool| pool.names(host)).peekable();
    let sharing = named.peek().map(|first| first.sharing);
    named.filter(move |pool| Some(pool.sharing) == sharing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pool_that_names_a_host_decides_and_those_that_share_alike_follow() {
        let pool = |net: &str, sharing, hosts: &[&str]| PoolSettings {
            sharing,
            hosts: hosts.iter().map(|net| net.parse().unwrap()).collect(),
            ..PoolSettings::new(net.parse().unwrap())
        };
        let pools = [
            pool("192.0.2.0/28", Sharing::Exclusive, &["2001:db8:1::/48"]),
            pool("192.0.2.16/28", Sharing::Ports, &["2001:db8::/32"]),
            pool("192.0.2.32/28", Sharing::Exclusive, &[]),
            pool("192.0.2.48/28", Sharing::Ports, &["2001:db8:2::/48", "2001:db8:1::/48"]),
        ];
        let served = |host: &str| {
            let pools = pools_of(&pools, host.parse().unwrap());
            pools.map(|pool| pool.net.network().octets()[3]).collect::<Vec<_>>()
        };
        assert_eq!(served("2001:db8:1::1"), [0, 32]);
        assert_eq!(served("2001:db8:2::1"), [16, 48]);
        assert_eq!(served("2001:db8:3::1"), [16]);
        assert_eq!(served("fd00::1"), [32]);
    }
}
