use rtnl::{Address, LinkStats, NextHop, ROUTE_METRIC, ROUTE_PROTOCOL, RouteKind};

use super::*;

fn link(index: u32, name: &str, kind: LinkKind, alias: Option<&str>) -> Link {
    Link {
        index,
        name: name.into(),
        kind,
        loopback: false,
        up: true,
        carrier: true,
        mtu: 1500,
        alias: alias.map(Into::into),
        link_local: None,
        stats: LinkStats::default(),
    }
}

fn route(destination: &str, link: u32, protocol: u8, metric: u32) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        metric,
        protocol,
        scope: 0,
        kind: RouteKind::Unicast,
        next_hops: vec![NextHop { link: Some(link), gateway: None }],
    }
}

fn host(routes: &[&str], addresses: &[&str]) -> Snapshot {
    Snapshot {
        links: vec![link(2, "eth0", LinkKind::Unspecified, None)],
        addresses: addresses.iter().map(|text| Address { link: 2, net: text.parse().unwrap() }).collect(),
        routes: routes.iter().map(|text| route(text, 2, 4, 100)).collect(),
    }
}

fn with_our_device(mut snapshot: Snapshot, routes: &[&str]) -> Snapshot {
    snapshot.links.push(link(9, "nat64", LinkKind::Tun, Some(LINK_ALIAS)));
    snapshot.routes.extend(routes.iter().map(|text| route(text, 9, ROUTE_PROTOCOL, ROUTE_METRIC)));
    snapshot
}

fn problems(pools: &[&str], prefixes: &[&str], snapshot: &Snapshot) -> Vec<Problem> {
    let pools: Vec<Ipv4Net> = pools.iter().map(|text| text.parse().unwrap()).collect();
    let prefixes: Vec<Ipv6Net> = prefixes.iter().map(|text| text.parse().unwrap()).collect();
    check(&Intent { interface: "nat64", pools: &pools, prefixes: &prefixes }, snapshot)
}

#[test]
fn a_host_with_nothing_in_the_way_passes() {
    let host = host(&["0.0.0.0/0", "::/0", "198.51.100.0/24"], &["198.51.100.7/24", "2001:db8::7/64"]);
    assert_eq!(problems(&["192.168.255.0/24"], &["64:ff9b::/96"], &host), []);
}

#[test]
fn a_taken_interface_name_is_a_problem_and_our_own_device_is_none() {
    for (kind, alias) in [
        (LinkKind::Unspecified, None),
        (LinkKind::Tun, None),
        (LinkKind::Tun, Some("vpn")),
        (LinkKind::Other("veth".into()), Some(LINK_ALIAS)),
    ] {
        let mut host = host(&[], &[]);
        host.links.push(link(9, "nat64", kind.clone(), alias));
        let found = problems(&[], &[], &host);
        assert!(
            matches!(found.as_slice(), [Problem::InterfaceTaken { name, .. }] if name == "nat64"),
            "{kind}: {found:?}"
        );
        assert!(found[0].to_string().contains("--interface"), "{}", found[0]);
    }
    assert_eq!(problems(&[], &[], &with_our_device(host(&[], &[]), &[])), []);
}

#[test]
fn pools_that_overlap_are_named_both() {
    let found = problems(&["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24"], &[], &host(&[], &[]));
    assert_eq!(
        found,
        [Problem::PoolsOverlap {
            first: "10.0.0.0/8".parse().unwrap(),
            second: "10.1.0.0/16".parse().unwrap()
        }]
    );
}

#[test]
fn a_pool_that_holds_an_address_of_this_host_is_a_problem() {
    let found = problems(&["198.51.100.0/24"], &[], &host(&[], &["198.51.100.7/32"]));
    let [Problem::PoolHoldsLocalAddress { address, device, .. }] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!((address.to_string().as_str(), device.as_str()), ("198.51.100.7", "eth0"));
}

#[test]
fn a_pool_that_is_routed_elsewhere_whole_or_in_part_is_a_problem_with_the_owner() {
    for destination in ["192.0.2.0/24", "192.0.2.128/25", "192.0.2.9/32"] {
        let found = problems(&["192.0.2.0/24"], &[], &host(&[destination], &[]));
        assert_eq!(found.len(), 1, "{destination}");
        let text = found[0].to_string();
        assert!(text.contains("dev eth0 proto static metric 100"), "{text}");
        assert!(text.contains(&format!("ip route delete {destination} dev eth0 metric 100")), "{text}");
    }
}

#[test]
fn a_pool_within_a_wider_route_is_fine() {
    let host = host(&["192.0.2.0/24", "0.0.0.0/0"], &["192.0.2.1/24"]);
    assert_eq!(problems(&["192.0.2.128/25"], &[], &host), []);
}

#[test]
fn a_translation_prefix_that_is_routed_elsewhere_is_a_problem_and_parts_of_it_are_none() {
    let found = problems(&[], &["64:ff9b::/96"], &host(&["64:ff9b::/96"], &[]));
    assert!(matches!(found.as_slice(), [Problem::PrefixRouted { .. }]), "{found:?}");
    assert!(found[0].to_string().contains("--translation-prefix"), "{}", found[0]);
    assert_eq!(problems(&[], &["64:ff9b::/96"], &host(&["64:ff9b::c000:200/120", "64::/16"], &[])), []);
}

#[test]
fn translation_prefixes_are_checked_against_each_other_and_the_hosts_addresses() {
    let found = problems(&[], &["2001:db8::/32", "2001:db8:1::/96"], &host(&[], &["2001:db8::7/64"]));
    assert!(matches!(
        found.as_slice(),
        [Problem::PrefixHoldsLocalAddress { .. }, Problem::PrefixesOverlap { .. }]
    ));
}

#[test]
fn what_an_earlier_run_left_is_no_problem() {
    let left = with_our_device(host(&[], &[]), &["192.168.255.0/24", "64:ff9b::/96"]);
    assert_eq!(problems(&["192.168.255.0/24"], &["64:ff9b::/96"], &left), []);
    assert_eq!(choose_default_pool(&left, "nat64").unwrap().to_string(), "192.168.255.0/24");
    // To another instance it is somebody else's.
    assert_eq!(choose_default_pool(&left, "nat65").unwrap().to_string(), "10.255.255.0/24");
}

#[test]
fn the_default_pool_is_the_first_that_overlaps_nothing_here() {
    let pool = |routes: &[&str], addresses: &[&str]| {
        choose_default_pool(&host(routes, addresses), "nat64").map(|pool| pool.to_string())
    };
    assert_eq!(pool(&["0.0.0.0/0"], &[]).unwrap(), "192.168.255.0/24");
    assert_eq!(pool(&["0.0.0.0/1", "128.0.0.0/1"], &[]).unwrap(), "192.168.255.0/24", "a tunnel's halves");
    assert_eq!(pool(&["192.168.0.0/16"], &[]).unwrap(), "10.255.255.0/24");
    assert_eq!(pool(&["192.168.255.64/26"], &[]).unwrap(), "10.255.255.0/24");
    assert_eq!(pool(&[], &["192.168.255.9/32"]).unwrap(), "10.255.255.0/24");
    let error = pool(&["192.168.0.0/16", "10.0.0.0/8"], &[]).unwrap_err();
    assert_eq!(error.tried.len(), 2);
    let text = error.to_string();
    assert!(text.contains("--pool-prefix") && text.contains("10.0.0.0/8"), "{text}");
}

#[test]
fn by_default_connected_prefixes_and_unique_local_addresses_may_use_the_router() {
    let mut host = with_our_device(host(&[], &[]), &[]);
    for (destination, link) in
        [("2001:db8:1::/64", 2), ("2001:db8::/32", 2), ("fd00:1::/64", 2), ("2001:db9::/64", 9)]
    {
        host.routes.push(route(destination, link, rtnl::protocol::KERNEL, 256));
    }
    let texts: Vec<String> = default_allow_from(&host, "nat64").iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["2001:db8::/32", "fc00::/7"]);
}
