//! Questions about a snapshot that need no kernel.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use crate::protocol;
use crate::snapshot::{RouteKind, Snapshot};

/// The IPv6 prefixes that are directly connected: on-link unicast routes that the kernel made for an address or a
/// router advertisement brought, except those of `except_link`.
///
/// Link-local, loopback, multicast and default routes are none. Sorted, without duplicates.
pub fn connected_prefixes(snapshot: &Snapshot, except_link: Option<u32>) -> Vec<Ipv6Net> {
    let mut prefixes: Vec<Ipv6Net> = snapshot
        .routes
        .iter()
        .filter(|route| matches!(route.protocol, protocol::KERNEL | protocol::RA))
        .filter(|route| route.kind == RouteKind::Unicast && !route.is_default() && route.gateway().is_none())
        .filter(|route| route.link().is_some_and(|link| Some(link) != except_link))
        .filter(|route| {
            route.link().and_then(|index| snapshot.link_by_index(index)).is_none_or(|link| !link.loopback)
        })
        .filter_map(|route| match route.destination {
            IpNet::V6(net) => Some(net),
            IpNet::V4(_) => None,
        })
        .filter(|net| {
            let address = net.addr();
            !address.is_unicast_link_local() && !address.is_multicast() && !address.is_loopback()
        })
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// All addresses of this host, those of the loopback interface included. Sorted, without duplicates.
pub fn local_addresses(snapshot: &Snapshot) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = snapshot.addresses.iter().map(|address| address.net.addr()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Whether two networks share an address. Networks of different families never do.
pub fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests;
