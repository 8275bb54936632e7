use ipnet::IpNet;

use super::*;
use crate::snapshot::{Address, Link, LinkKind, LinkStats, NextHop, Route, RouteKind};

fn link(index: u32, name: &str, loopback: bool) -> Link {
    Link {
        index,
        name: name.into(),
        kind: LinkKind::Unspecified,
        loopback,
        up: true,
        carrier: true,
        mtu: 1500,
        alias: None,
        link_local: None,
        stats: LinkStats::default(),
    }
}

fn route(destination: &str, link: u32, protocol: u8, gateway: Option<&str>) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        metric: 256,
        protocol,
        scope: 0,
        kind: RouteKind::Unicast,
        next_hops: vec![NextHop { link: Some(link), gateway: gateway.map(|text| text.parse().unwrap()) }],
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn connected_prefixes_are_on_link_and_global() {
    let unreachable = Route { kind: RouteKind::Unreachable, ..route("2001:db8:f::/64", 2, 2, None) };
    let snapshot = Snapshot {
        links: vec![link(1, "lo", true), link(2, "eth0", false), link(9, "nat64", false)],
        addresses: vec![],
        routes: vec![
            route("2001:db8:2::/64", 2, protocol::KERNEL, None),
            route("2001:db8:1::/64", 2, protocol::RA, None),
            route("2001:db8:1::/64", 2, protocol::KERNEL, None),
            route("fd00:1::/64", 2, protocol::KERNEL, None),
            route("fe80::/64", 2, protocol::KERNEL, None),
            route("ff00::/8", 2, protocol::KERNEL, None),
            route("::1/128", 1, protocol::KERNEL, None),
            route("2001:db8:aaaa::/48", 1, protocol::KERNEL, None),
            route("::/0", 2, protocol::RA, Some("fe80::1")),
            route("2001:db8:3::/64", 2, protocol::RA, Some("fe80::1")),
            route("2001:db8:4::/64", 2, 4, None),
            route("64:ff9b::/96", 9, protocol::KERNEL, None),
            route("198.51.100.0/24", 2, protocol::KERNEL, None),
            unreachable,
        ],
    };
    let texts = |prefixes: Vec<Ipv6Net>| prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        texts(connected_prefixes(&snapshot, Some(9))),
        ["2001:db8:1::/64", "2001:db8:2::/64", "fd00:1::/64"]
    );
    assert!(texts(connected_prefixes(&snapshot, None)).contains(&"64:ff9b::/96".to_owned()));
}

#[test]
fn local_addresses_are_listed_once() {
    let address = |link, text| Address { link, net: net(text) };
    let snapshot = Snapshot {
        addresses: vec![
            address(2, "fe80::1/64"),
            address(1, "127.0.0.1/8"),
            address(3, "fe80::1/64"),
            address(2, "192.0.2.1/24"),
        ],
        ..Snapshot::default()
    };
    let texts: Vec<String> = local_addresses(&snapshot).iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["127.0.0.1", "192.0.2.1", "fe80::1"]);
}

#[test]
fn networks_overlap_where_one_holds_the_other() {
    for (a, b, expected) in [
        ("10.0.0.0/8", "10.1.0.0/16", true),
        ("10.1.0.0/16", "10.0.0.0/8", true),
        ("10.1.2.3/8", "10.9.0.0/16", true),
        ("10.0.0.0/16", "10.1.0.0/16", false),
        ("0.0.0.0/0", "::/0", false),
        ("::/0", "2001:db8::/32", true),
        ("192.0.2.1/32", "192.0.2.1/32", true),
    ] {
        assert_eq!(overlaps(&net(a), &net(b)), expected, "{a} and {b}");
    }
}
