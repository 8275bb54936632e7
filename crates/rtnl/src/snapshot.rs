//! What the kernel holds: links, addresses and the main routing table, as plain values.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// The kind of a link as far as this crate tells kinds apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// A TUN or TAP device (`IFLA_INFO_KIND` "tun").
    Tun,
    /// Another kind of virtual device, by the kernel's name for it ("veth", "bridge", ...).
    Other(String),
    /// A device without a kind: hardware, or the loopback interface.
    Unspecified,
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tun => f.write_str("tun"),
            Self::Other(kind) => f.write_str(kind),
            Self::Unspecified => f.write_str("no virtual device"),
        }
    }
}

/// Counters of a link since it was made (`struct rtnl_link_stats64`).
///
/// `rx` and `tx` are the kernel's view: for a TUN device `tx` is what the kernel hands to user space, so `tx_dropped`
/// counts packets that user space did not read in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets dropped on receipt.
    pub rx_dropped: u64,
    /// Packets dropped before they were sent.
    pub tx_dropped: u64,
    /// Broken packets received.
    pub rx_errors: u64,
    /// Errors while sending.
    pub tx_errors: u64,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index; unique within the network namespace until the interface is removed.
    pub index: u32,
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// What made it.
    pub kind: LinkKind,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has a carrier (`IFF_LOWER_UP`); a TUN device has one while a queue of it is open.
    pub carrier: bool,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// The alias (`ip link set dev X alias ...`), where there is one.
    pub alias: Option<String>,
    /// Whether the kernel makes a link-local IPv6 address on it when it comes up; `None` where IPv6 is off on it.
    pub link_local: Option<bool>,
    /// Its counters.
    pub stats: LinkStats,
}

/// One address of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Index of the interface that holds it.
    pub link: u32,
    /// The address with its prefix length; the host bits are those of the address.
    pub net: IpNet,
}

/// What a route does with a packet (`rtm_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Drops it without a word.
    Blackhole,
    /// Drops it and answers "unreachable".
    Unreachable,
    /// Drops it and answers "administratively prohibited".
    Prohibit,
    /// Ends the look-up in this table.
    Throw,
    /// Another type, by the kernel's number.
    Other(u8),
}

/// One next hop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// Index of the interface it leaves by.
    pub link: Option<u32>,
    /// The gateway; `None` where the destination is on the link.
    pub gateway: Option<IpAddr>,
}

/// One route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Destination; prefix length 0 is the default route.
    pub destination: IpNet,
    /// Priority: where several routes have the same destination, the lowest is used.
    pub metric: u32,
    /// Who made it (`rtm_protocol`); [`protocol_name`](crate::protocol_name) has the names.
    pub protocol: u8,
    /// Distance to the destination (`rtm_scope`): 0 is anywhere, 253 the link, 254 this host.
    pub scope: u8,
    /// What it does.
    pub kind: RouteKind,
    /// Where it leads; several for a multipath route, none for a route that drops.
    pub next_hops: Vec<NextHop>,
}

impl Route {
    /// Index of the first interface this route leaves by.
    pub fn link(&self) -> Option<u32> {
        self.next_hops.iter().find_map(|hop| hop.link)
    }

    /// The first gateway of this route.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.next_hops.iter().find_map(|hop| hop.gateway)
    }

    /// Whether this is a default route.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }

    /// Whether this crate made it for the interface with this index: own protocol number, own metric, that interface
    /// and no gateway.
    pub fn is_ours(&self, link: u32) -> bool {
        self.protocol == crate::ROUTE_PROTOCOL
            && self.metric == crate::ROUTE_METRIC
            && self.kind == RouteKind::Unicast
            && self.next_hops == [NextHop { link: Some(link), gateway: None }]
    }
}

/// Everything this crate knows of the kernel's configuration at one moment.
///
/// The parts are read one after the other, each consistent in itself. A change in between is announced to a
/// [`Watcher`](crate::Watcher) that was opened before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// All interfaces of the network namespace.
    pub links: Vec<Link>,
    /// All IPv4 and IPv6 addresses.
    pub addresses: Vec<Address>,
    /// The IPv4 and IPv6 unicast routes of the main table, with those that drop.
    pub routes: Vec<Route>,
}

impl Snapshot {
    /// The interface of this name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The interface with this index.
    pub fn link_by_index(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The name of the interface with this index, or "interface N" where it is gone.
    pub fn link_name(&self, index: u32) -> String {
        self.link_by_index(index).map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }
}
