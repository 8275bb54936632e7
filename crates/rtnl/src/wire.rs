//! Between netlink messages and this crate's own values. No other module names a netlink attribute, and none of them
//! leaves the crate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use crate::snapshot::{Address, Link, LinkKind, LinkStats, NextHop, Route, RouteKind};
use crate::{ROUTE_METRIC, ROUTE_PROTOCOL};

fn family_of(net: &IpNet) -> AddressFamily {
    match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    }
}

pub(crate) fn link_from(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Unspecified,
        loopback: flags.contains(LinkFlags::Loopback),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        alias: None,
        link_local: None,
        stats: LinkStats::default(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::IfAlias(alias) if !alias.is_empty() => link.alias = Some(alias.clone()),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = match kind {
                            InfoKind::Tun => LinkKind::Tun,
                            other => LinkKind::Other(other.to_string()),
                        };
                    }
                }
            }
            LinkAttribute::AfSpecUnspec(specs) => link.link_local = makes_link_local(specs),
            LinkAttribute::Stats64(stats) => {
                link.stats = LinkStats {
                    rx_packets: stats.rx_packets,
                    tx_packets: stats.tx_packets,
                    rx_bytes: stats.rx_bytes,
                    tx_bytes: stats.tx_bytes,
                    rx_dropped: stats.rx_dropped,
                    tx_dropped: stats.tx_dropped,
                    rx_errors: stats.rx_errors,
                    tx_errors: stats.tx_errors,
                }
            }
            _ => {}
        }
    }
    link
}

fn makes_link_local(specs: &[AfSpecUnspec]) -> Option<bool> {
    specs.iter().find_map(|spec| match spec {
        AfSpecUnspec::Inet6(attributes) => attributes.iter().find_map(|attribute| match attribute {
            AfSpecInet6::AddrGenMode(mode) => Some(*mode != In6AddrGenMode::None),
            _ => None,
        }),
        _ => None,
    })
}

pub(crate) fn link_query(index: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.unwrap_or(0);
    message
}

pub(crate) fn link_with(index: u32, attribute: LinkAttribute) -> LinkMessage {
    let mut message = link_query(Some(index));
    message.attributes.push(attribute);
    message
}

pub(crate) fn link_up_down(index: u32, up: bool) -> LinkMessage {
    let mut message = link_query(Some(index));
    if up {
        message.header.flags = LinkFlags::Up;
    }
    message.header.change_mask = LinkFlags::Up;
    message
}

pub(crate) fn link_without_link_local(index: u32) -> LinkMessage {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    link_with(index, LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]))
}

pub(crate) fn address_from(message: &AddressMessage) -> Option<Address> {
    // IFA_ADDRESS is the peer on a point-to-point link; IFA_LOCAL, where present, is the own address.
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Address { link: message.header.index, net })
}

pub(crate) fn address_of(link: u32, net: &IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(net);
    message.header.prefix_len = net.prefix_len();
    message.header.index = link;
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message.attributes.push(AddressAttribute::Address(net.addr()));
    // The routes are listed one by one in what is desired; one that comes with an address would be nobody's.
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
    message
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    use netlink_packet_route::route::RouteVia;
    match attribute {
        RouteAttribute::Gateway(address) => ip_of(address),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some(IpAddr::V4(*ip)),
        _ => None,
    }
}

/// A route of the main table; `None` for other tables, families and types (local, broadcast, multicast).
pub(crate) fn route_from(message: &RouteMessage) -> Option<Route> {
    let unspecified: IpAddr = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let kind = match message.header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => return None,
        other => RouteKind::Other(other.into()),
    };
    let mut table = u32::from(message.header.table);
    let mut destination = unspecified;
    let mut metric = 0;
    let mut single = NextHop { link: None, gateway: None };
    let mut next_hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => destination = ip_of(address)?,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => single.link = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => single.gateway = gateway_of(attribute),
            RouteAttribute::MultiPath(hops) => {
                next_hops.extend(hops.iter().map(|hop| NextHop {
                    link: Some(hop.interface_index),
                    gateway: hop.attributes.iter().find_map(gateway_of),
                }));
            }
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    if next_hops.is_empty() && (single.link.is_some() || single.gateway.is_some()) {
        next_hops.push(single);
    }
    Some(Route {
        destination: IpNet::new(destination, message.header.destination_prefix_length).ok()?.trunc(),
        metric,
        protocol: message.header.protocol.into(),
        scope: message.header.scope.into(),
        kind,
        next_hops,
    })
}

pub(crate) fn route_query(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    // Lets a kernel that checks strictly leave the other tables out; an older one sends all, and `route_from` sorts.
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message
}

/// Our route to `destination` through the interface `link`.
pub(crate) fn route_of(link: u32, destination: &IpNet) -> RouteMessage {
    let destination = destination.trunc();
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(&destination);
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.scope = match destination {
        IpNet::V4(_) => RouteScope::Link,
        IpNet::V6(_) => RouteScope::Universe,
    };
    if destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.addr().into()));
    }
    message.attributes.push(RouteAttribute::Oif(link));
    message.attributes.push(RouteAttribute::Priority(ROUTE_METRIC));
    message
}
