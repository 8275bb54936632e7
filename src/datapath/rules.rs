//! What the router does with whom: one immutable generation, read once per batch.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fast_nat::EamTable;
use interproto::Params;
use ipnet::{Ipv4Net, Ipv6Net};
use rfc6052::{NonGlobal, Prefix};

use crate::config::Sharing;

/// A set of networks, matched in the time of its length (a handful of entries).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetSet<T>(Vec<(T, T)>);

impl NetSet<u128> {
    /// Whether `address` lies in one of the networks.
    #[inline]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        let bits = u128::from(address);
        self.0.iter().any(|(network, mask)| bits & mask == *network)
    }
}

impl NetSet<u32> {
    /// Whether `address` lies in one of the networks.
    #[inline]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let bits = u32::from(address);
        self.0.iter().any(|(network, mask)| bits & mask == *network)
    }
}

impl FromIterator<Ipv6Net> for NetSet<u128> {
    fn from_iter<I: IntoIterator<Item = Ipv6Net>>(nets: I) -> Self {
        Self(nets.into_iter().map(|net| (net.network().into(), net.netmask().into())).collect())
    }
}

impl FromIterator<Ipv4Net> for NetSet<u32> {
    fn from_iter<I: IntoIterator<Item = Ipv4Net>>(nets: I) -> Self {
        Self(nets.into_iter().map(|net| (net.network().into(), net.netmask().into())).collect())
    }
}

/// One immutable generation of the rules of the packet path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Where the IPv4 internet appears on the IPv6 side: at least one; a prefix is named by its place here.
    pub prefixes: Vec<Prefix>,
    /// The numbers of those that are not in use any more: nothing is sent to them, and what still belongs to them keeps its name.
    pub retired: Vec<u8>,
    /// The pools, in the order in which they are used.
    pub pools: Vec<PoolRule>,
    /// Whether any host can hold an address of its own: there is a pool of such, or a static pair.
    pub has_leases: bool,
    /// Explicit address mappings (RFC 7757).
    pub eam: Eams,
    /// Whether packets from the IPv4 side that filtering keeps out are answered.
    pub answer_filtered: bool,
    /// Whether non-global IPv4 addresses may appear under the well-known prefix (RFC 6052 §3.1).
    pub non_global: NonGlobal,
    /// IPv6 sources that may use the router; `None`: all.
    pub allow_from: Option<NetSet<u128>>,
    /// IPv4 destinations that nobody may reach through the router.
    pub deny_to: NetSet<u32>,
    /// The source of ICMPv4 errors of the router's own.
    pub icmp_source_v4: Ipv4Addr,
    /// The source of ICMPv6 errors of the router's own.
    pub icmp_source_v6: Ipv6Addr,
    /// The sources of errors from IPv6 routers without an IPv4 address; `None`: the address of the host that the error is
    /// from behind.
    pub router_pool: Option<RouterPool>,
    /// The parameters of translation.
    pub params: Params,
    /// The largest segments that TCP connections may announce; `None`: whatever they like.
    pub mss_clamp: Option<MssLimits>,
}

/// The largest maximum segment sizes (RFC 9293 §3.7.1) that leave the router in a SYN, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MssLimits {
    /// To the IPv4 side: what may be sent to an IPv6 host.
    pub to_v4: u16,
    /// To the IPv6 side: what an IPv6 host may send.
    pub to_v6: u16,
}

impl Rules {
    /// The IPv4 address inside an IPv6 address, and under which prefix.
    #[inline]
    pub fn extract(&self, address: Ipv6Addr) -> Option<(u8, Ipv4Addr)> {
        let mut prefixes = self.prefixes.iter().zip(0..);
        prefixes.find_map(|(prefix, number)| {
            let found = prefix.extract(address)?;
            (!self.retired.contains(&number)).then_some((number, found))
        })
    }

    /// Whether an address lies inside a translation prefix.
    #[inline]
    pub fn is_translated(&self, address: Ipv6Addr) -> bool {
        let mut prefixes = self.prefixes.iter().zip(0..);
        prefixes.any(|(prefix, number)| prefix.contains(address) && !self.retired.contains(&number))
    }

    /// The prefix with this number: the first one, if there is none.
    #[inline]
    pub fn prefix(&self, number: u8) -> Prefix {
        self.prefixes
            .get(usize::from(number))
            .or(self.prefixes.first())
            .copied()
            .unwrap_or(Prefix::WELL_KNOWN)
    }

    /// Whether non-global addresses may appear under this prefix, if this is one (RFC 6052 §3.1).
    #[inline]
    pub fn permits(&self, prefix: u8, address: Ipv4Addr) -> bool {
        self.prefix(prefix).permits(address, self.non_global)
    }

    /// How a host shares addresses: as the first pool does that is there for it. Pools that are being drained come last. `None`: there is none.
    #[inline]
    pub fn sharing_of(&self, host: Ipv6Addr) -> Option<Sharing> {
        let named =
            self.pools.iter().find(|pool| pool.hosts.as_ref().is_none_or(|hosts| hosts.contains(host)));
        named.map(|pool| pool.sharing)
    }

    /// The prefix under which a host with this address for itself sees the IPv4 internet.
    #[inline]
    pub fn prefix_of(&self, address: Ipv4Addr) -> u8 {
        self.pools.iter().find(|pool| pool.net.contains(&address)).map_or(0, |pool| pool.prefix)
    }

    /// The prefix under which a host that gets an address for itself will see the IPv4 internet.
    pub fn prefix_for(&self, host: Ipv6Addr) -> u8 {
        let named =
            self.pools.iter().find(|pool| pool.hosts.as_ref().is_none_or(|hosts| hosts.contains(host)));
        named.map_or(0, |pool| pool.prefix)
    }

    /// Whether hosts may still have sessions from a pool that is shared by ports and is being drained.
    pub fn drains_ports(&self) -> bool {
        self.pools.iter().any(|pool| pool.draining && pool.sharing == Sharing::Ports)
    }

    /// Whether an IPv4 address is shared by ports.
    #[inline]
    pub fn is_shared(&self, address: Ipv4Addr) -> bool {
        let mut pools = self.pools.iter();
        pools.any(|pool| pool.sharing == Sharing::Ports && pool.net.contains(&address))
    }
}

/// What the packet path knows of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRule {
    /// Its addresses.
    pub net: Ipv4Net,
    /// How they are shared.
    pub sharing: Sharing,
    /// Nobody is given anything of it any more; what was given lives on.
    pub draining: bool,
    /// Where a host with one of them for itself sees the IPv4 internet.
    pub prefix: u8,
    /// Who is served from it; `None`: everyone.
    pub hosts: Option<NetSet<u128>>,
}

/// The table of explicit address mappings, which all generations of the rules share.
#[derive(Debug, Clone, Default)]
pub struct Eams(pub Arc<EamTable>);

impl PartialEq for Eams {
    fn eq(&self, other: &Self) -> bool {
        self.0.eams() == other.0.eams()
    }
}

impl Eq for Eams {}

/// IPv4 addresses that stand for IPv6 routers which have none (RFC 6791).
///
/// RFC 6791 wants a random one for each error, so that two routers on a path rarely look like a loop. Here each router always
/// has the same one, spread over the pool by its own address: two of them look alike as rarely, and one router looks like
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterPool {
    first: u32,
    count: u64,
}

impl RouterPool {
    /// All addresses of the network, but for its own and its broadcast address where it has them.
    pub fn new(net: Ipv4Net) -> Self {
        let all = 1_u64 << (32 - net.prefix_len());
        let first = u32::from(net.network());
        if net.prefix_len() < 31 {
            Self { first: first + 1, count: all - 2 }
        } else {
            Self { first, count: all }
        }
    }

    /// The address that stands for this router.
    pub fn stand_in(&self, router: Ipv6Addr) -> Ipv4Addr {
        let bits = u128::from(router);
        // A multiplicative hash: its upper half depends on every bit of the address.
        let mixed = ((bits >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ bits as u64;
        let hash = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
        // Lemire's reduction: the hash's share of the range.
        let place = (hash * self.count) >> 32;
        Ipv4Addr::from(self.first.wrapping_add(place as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_are_spread_over_the_pool_and_each_keeps_its_address() {
        let stands_in = |pool: &str, router: u128| {
            RouterPool::new(pool.parse().unwrap()).stand_in(Ipv6Addr::from(router))
        };
        let router = |number: u128| 0x2001_0db8 << 96 | number << 64 | 1;
        let mut seen: Vec<_> = (0..256).map(|number| stands_in("192.0.2.0/28", router(number))).collect();
        assert_eq!(stands_in("192.0.2.0/28", router(7)), seen[7]);
        seen.sort_unstable();
        seen.dedup();
        let all: Vec<_> = (1..15).map(|host| Ipv4Addr::new(192, 0, 2, host)).collect();
        assert_eq!(seen, all, "every host address of the network, and neither its first nor its last");
        assert_eq!(stands_in("192.0.2.9/32", router(1)), Ipv4Addr::new(192, 0, 2, 9));
        let pair = stands_in("192.0.2.8/31", router(1));
        assert!(pair == Ipv4Addr::new(192, 0, 2, 8) || pair == Ipv4Addr::new(192, 0, 2, 9));
        // The largest pool there is makes nothing overflow.
        stands_in("0.0.0.0/0", u128::MAX);
    }

    #[test]
    fn a_set_holds_the_addresses_of_its_networks_and_no_others() {
        let set: NetSet<u128> =
            ["fc00::/7".parse().unwrap(), "2001:db8::/64".parse().unwrap()].into_iter().collect();
        assert!(set.contains("fd00::1".parse().unwrap()));
        assert!(set.contains("2001:db8::ffff".parse().unwrap()));
        assert!(!set.contains("2001:db8:0:1::1".parse().unwrap()));
        let empty: NetSet<u32> = std::iter::empty().collect();
        assert!(!empty.contains(Ipv4Addr::LOCALHOST));
        let all: NetSet<u32> = ["0.0.0.0/0".parse().unwrap()].into_iter().collect();
        assert!(all.contains(Ipv4Addr::LOCALHOST));
    }
}
