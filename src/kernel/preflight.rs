//! Checks of what is configured against what the kernel holds, before anything is changed. Pure: all questions are
//! asked of a [`Snapshot`].

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnl::{Link, LinkKind, Route, RouteOwner, Snapshot, overlaps};

use super::LINK_ALIAS;

/// The pools tried in this order when none is given.
pub const DEFAULT_POOLS: [&str; 2] = ["192.168.255.0/24", "10.255.255.0/24"];

/// Unique local addresses (RFC 4193), which never come from the Internet.
const UNIQUE_LOCAL: &str = "fc00::/7";

/// What the router is about to set up.
#[derive(Debug, Clone, Copy)]
pub struct Intent<'a> {
    /// Name of the TUN interface.
    pub interface: &'a str,
    /// IPv4 pools.
    pub pools: &'a [Ipv4Net],
    /// Translation prefixes.
    pub prefixes: &'a [Ipv6Net],
}

/// Something that keeps the router from starting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// There is an interface of that name which this router did not make.
    #[error(
        "the interface name {name} is taken ({kind}{}); choose another with --interface, or remove it: `ip link delete {name}`",
        alias_text(.alias.as_ref())
    )]
    InterfaceTaken {
        /// The name.
        name: String,
        /// What the interface is.
        kind: LinkKind,
        /// Its alias.
        alias: Option<String>,
    },
    /// Two pools share addresses.
    #[error("the pools {first} and {second} overlap; remove one of them from --pool-prefix")]
    PoolsOverlap {
        /// The one given first.
        first: Ipv4Net,
        /// The other.
        second: Ipv4Net,
    },
    /// A pool holds an address of this host.
    #[error(
        "the pool {pool} holds this host's own address {address} ({device}); choose another --pool-prefix"
    )]
    PoolHoldsLocalAddress {
        /// The pool.
        pool: Ipv4Net,
        /// The address.
        address: IpAddr,
        /// Name of the interface that has it.
        device: String,
    },
    /// Packets to the pool, or to a part of it, would not come to us.
    #[error(
        "the pool {pool} is already routed elsewhere: {destination} ({owner}); {} or choose another --pool-prefix",
        remedy(.owner, &format!("ip route delete {destination}"))
    )]
    PoolRouted {
        /// The pool.
        pool: Ipv4Net,
        /// The route's destination: the pool, or a part of it.
        destination: IpNet,
        /// Whose route it is.
        owner: RouteOwner,
    },
    /// Two translation prefixes share addresses.
    #[error(
        "the translation prefixes {first} and {second} overlap; remove one of them from --translation-prefix"
    )]
    PrefixesOverlap {
        /// The one given first.
        first: Ipv6Net,
        /// The other.
        second: Ipv6Net,
    },
    /// A translation prefix holds an address of this host.
    #[error(
        "the translation prefix {prefix} holds this host's own address {address} ({device}); choose another --translation-prefix"
    )]
    PrefixHoldsLocalAddress {
        /// The prefix.
        prefix: Ipv6Net,
        /// The address.
        address: IpAddr,
        /// Name of the interface that has it.
        device: String,
    },
    /// Another route has the translation prefix as its destination.
    #[error(
        "the translation prefix {prefix} is already routed elsewhere ({owner}); {}, or choose another --translation-prefix",
        remedy(.owner, &format!("ip -6 route delete {prefix}"))
    )]
    PrefixRouted {
        /// The prefix.
        prefix: Ipv6Net,
        /// Whose route it is.
        owner: RouteOwner,
    },
}

fn alias_text(alias: Option<&String>) -> String {
    alias.map_or_else(String::new, |alias| format!(", alias {alias:?}"))
}

/// What to do about a route in the way.
fn remedy(owner: &RouteOwner, delete: &str) -> String {
    if owner.protocol_number == rtnl::ROUTE_PROTOCOL && owner.metric == rtnl::ROUTE_METRIC {
        return "end the other protomask, or remove what an earlier one left: `protomask cleanup`".to_owned();
    }
    format!("stop the program that owns that route, or remove it (`{delete} {}`)", route_arguments(owner))
}

fn route_arguments(owner: &RouteOwner) -> String {
    match &owner.device {
        Some(device) => format!("dev {device} metric {}", owner.metric),
        None => format!("metric {}", owner.metric),
    }
}

/// What is there under the name of our interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing<'a> {
    /// Nothing.
    Absent,
    /// A device that this router made and left, to be adopted.
    Ours(&'a Link),
    /// Somebody else's.
    Foreign(&'a Link),
}

/// Tells what is there under a name. Ours is a TUN device with our alias.
pub fn existing<'a>(snapshot: &'a Snapshot, interface: &str) -> Existing<'a> {
    match snapshot.link_by_name(interface) {
        None => Existing::Absent,
        Some(link) if is_ours(link) => Existing::Ours(link),
        Some(link) => Existing::Foreign(link),
    }
}

/// Whether a link carries our mark.
pub fn is_ours(link: &Link) -> bool {
    link.kind == LinkKind::Tun && link.alias.as_deref() == Some(LINK_ALIAS)
}

/// Everything that stands in the way; empty when the router may start.
pub fn check(intent: &Intent<'_>, snapshot: &Snapshot) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Existing::Foreign(link) = existing(snapshot, intent.interface) {
        problems.push(Problem::InterfaceTaken {
            name: link.name.clone(),
            kind: link.kind.clone(),
            alias: link.alias.clone(),
        });
    }
    let own = own_link(snapshot, intent.interface);
    for (index, pool) in intent.pools.iter().enumerate() {
        for first in &intent.pools[..index] {
            if overlaps(&IpNet::V4(*first), &IpNet::V4(*pool)) {
                problems.push(Problem::PoolsOverlap { first: *first, second: *pool });
            }
        }
        check_pool(*pool, own, snapshot, &mut problems);
    }
    for (index, prefix) in intent.prefixes.iter().enumerate() {
        for first in &intent.prefixes[..index] {
            if overlaps(&IpNet::V6(*first), &IpNet::V6(*prefix)) {
                problems.push(Problem::PrefixesOverlap { first: *first, second: *prefix });
            }
        }
        check_prefix(*prefix, own, snapshot, &mut problems);
    }
    problems
}

fn check_pool(pool: Ipv4Net, own: Option<u32>, snapshot: &Snapshot, problems: &mut Vec<Problem>) {
    let net = IpNet::V4(pool.trunc());
    if let Some((address, device)) = local_address_within(&net, own, snapshot) {
        problems.push(Problem::PoolHoldsLocalAddress { pool, address, device });
    }
    // A wider route is no obstacle: ours is more specific, and carving a pool out of a routed block is usual.
    for route in foreign_routes(snapshot, own).filter(|route| net.contains(&route.destination)) {
        problems.push(Problem::PoolRouted {
            pool,
            destination: route.destination,
            owner: RouteOwner::of(route, snapshot),
        });
    }
}

fn check_prefix(prefix: Ipv6Net, own: Option<u32>, snapshot: &Snapshot, problems: &mut Vec<Problem>) {
    let net = IpNet::V6(prefix.trunc());
    if let Some((address, device)) = local_address_within(&net, own, snapshot) {
        problems.push(Problem::PrefixHoldsLocalAddress { prefix, address, device });
    }
    // A more specific route, say for a part of the IPv4 Internet that another translator serves, is the operator's will.
    for route in foreign_routes(snapshot, own).filter(|route| route.destination == net) {
        problems.push(Problem::PrefixRouted { prefix, owner: RouteOwner::of(route, snapshot) });
    }
}

fn own_link(snapshot: &Snapshot, interface: &str) -> Option<u32> {
    match existing(snapshot, interface) {
        Existing::Ours(link) => Some(link.index),
        _ => None,
    }
}

/// Routes that are not on our own device. The kernel's and our own ones there are taken over or removed.
fn foreign_routes(snapshot: &Snapshot, own: Option<u32>) -> impl Iterator<Item = &Route> {
    snapshot.routes.iter().filter(move |route| own.is_none() || route.link() != own)
}

fn local_address_within(net: &IpNet, own: Option<u32>, snapshot: &Snapshot) -> Option<(IpAddr, String)> {
    snapshot
        .addresses
        .iter()
        .filter(|address| Some(address.link) != own)
        .find(|address| net.contains(&address.net.addr()))
        .map(|address| (address.net.addr(), snapshot.link_name(address.link)))
}

/// No default pool is free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("every default pool is in use here ({}); give one that is free with --pool-prefix", tried_text(.tried))]
pub struct NoDefaultPool {
    /// Each pool that was tried, with what uses it.
    pub tried: Vec<(Ipv4Net, Occupant)>,
}

/// What uses a default pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupant {
    /// A route.
    Route(IpNet, RouteOwner),
    /// An address of this host.
    Address(IpNet, String),
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(destination, owner) => write!(f, "the route to {destination} {owner}"),
            Self::Address(address, device) => write!(f, "the address {address} of {device}"),
        }
    }
}

fn tried_text(tried: &[(Ipv4Net, Occupant)]) -> String {
    let texts: Vec<String> =
        tried.iter().map(|(pool, occupant)| format!("{pool} overlaps {occupant}")).collect();
    texts.join(", ")
}

/// Chooses the pool of a router that was given none: the first of [`DEFAULT_POOLS`] that overlaps no local route (the
/// default route aside) and no local address. What `interface` itself left behind does not count.
pub fn choose_default_pool(snapshot: &Snapshot, interface: &str) -> Result<Ipv4Net, NoDefaultPool> {
    let own = own_link(snapshot, interface);
    let mut tried = Vec::new();
    for pool in DEFAULT_POOLS.iter().filter_map(|text| text.parse::<Ipv4Net>().ok()) {
        let net = IpNet::V4(pool);
        let route = foreign_routes(snapshot, own)
            .find(|route| !covers_half_the_world(route) && overlaps(&route.destination, &net))
            .map(|route| Occupant::Route(route.destination, RouteOwner::of(route, snapshot)));
        let address = || {
            snapshot
                .addresses
                .iter()
                .find(|address| Some(address.link) != own && overlaps(&address.net, &net))
                .map(|address| Occupant::Address(address.net, snapshot.link_name(address.link)))
        };
        match route.or_else(address) {
            None => return Ok(pool),
            Some(occupant) => tried.push((pool, occupant)),
        }
    }
    Err(NoDefaultPool { tried })
}

/// A default route, or one of the two halves that tunnels use in its place (`0.0.0.0/1` and `128.0.0.0/1`).
fn covers_half_the_world(route: &Route) -> bool {
    route.destination.prefix_len() <= 1
}

/// Who may use a router that was told nothing: the directly connected IPv6 prefixes and the unique local addresses.
/// Sorted, without those that another one contains.
pub fn default_allow_from(snapshot: &Snapshot, interface: &str) -> Vec<Ipv6Net> {
    let own = snapshot.link_by_name(interface).map(|link| link.index);
    let mut prefixes = rtnl::connected_prefixes(snapshot, own);
    prefixes.extend(UNIQUE_LOCAL.parse::<Ipv6Net>());
    prefixes.sort_unstable();
    prefixes.dedup();
    let all = prefixes.clone();
    prefixes.retain(|prefix| !all.iter().any(|other| other != prefix && other.contains(prefix)));
    prefixes
}

#[cfg(test)]
mod tests;
