//! What the router does with whom: one immutable generation, read once per batch.

use std::net::{Ipv4Addr, Ipv6Addr};

use interproto::Params;
use ipnet::{Ipv4Net, Ipv6Net};
use rfc6052::{NonGlobal, Prefix};

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
    /// Where the IPv4 internet appears on the IPv6 side.
    pub prefix: Prefix,
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
    /// The parameters of translation.
    pub params: Params,
}

#[cfg(test)]
mod tests {
    use super::*;

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
