use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::snapshot::{Address, LinkStats, NextHop, RouteKind};

const OURS: u32 = 7;
const UPLINK: u32 = 2;

fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        index,
        name: name.into(),
        kind,
        loopback: false,
        up: true,
        carrier: true,
        mtu: 1500,
        alias: None,
        link_local: Some(true),
        stats: LinkStats::default(),
    }
}

fn our_link() -> Link {
    Link { alias: Some("mark".into()), link_local: Some(false), ..link(OURS, "nat64", LinkKind::Tun) }
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

fn our_route(destination: &str) -> Route {
    route(destination, OURS, ROUTE_PROTOCOL, ROUTE_METRIC)
}

fn snapshot(ours: Link, routes: Vec<Route>) -> Snapshot {
    Snapshot {
        links: vec![link(UPLINK, "eth0", LinkKind::Unspecified), ours],
        addresses: vec![Address { link: UPLINK, net: "198.51.100.7/24".parse().unwrap() }],
        routes,
    }
}

fn desired(routes: &[&str]) -> Desired {
    Desired {
        link: DesiredLink { name: "nat64".into(), up: true, mtu: 1500, alias: "mark".into() },
        addresses: vec![],
        routes: routes.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

#[test]
fn a_fresh_device_gets_mark_mtu_and_routes_after_it_is_up() {
    let mut fresh = link(OURS, "nat64", LinkKind::Tun);
    fresh.up = false;
    fresh.mtu = 1400;
    let plan = diff(&desired(&["64:ff9b::/96"]), &snapshot(fresh, vec![]));
    assert_eq!(plan.conflicts, []);
    assert_eq!(
        plan.changes,
        [
            Change::SetAlias { link: OURS, alias: "mark".into() },
            Change::DisableLinkLocal { link: OURS },
            Change::SetMtu { link: OURS, mtu: 1500 },
            Change::SetUp { link: OURS, up: true },
            Change::AddRoute { link: OURS, destination: "64:ff9b::/96".parse().unwrap() },
        ]
    );
}

#[test]
fn nothing_is_to_be_done_where_all_is_as_desired() {
    let there = snapshot(our_link(), vec![our_route("64:ff9b::/96"), our_route("192.168.255.0/24")]);
    assert!(diff(&desired(&["192.168.255.0/24", "64:ff9b::/96"]), &there).is_settled());
}

#[test]
fn a_route_that_is_no_longer_wanted_is_removed_and_host_bits_are_ignored() {
    let there = snapshot(our_link(), vec![our_route("10.0.0.0/8"), our_route("192.0.2.0/24")]);
    let plan = diff(&desired(&["192.0.2.9/24"]), &there);
    assert_eq!(
        plan.changes,
        [Change::RemoveRoute { link: OURS, destination: "10.0.0.0/8".parse().unwrap() }]
    );
}

#[test]
fn somebody_elses_route_is_a_conflict_whatever_its_metric_and_is_never_touched() {
    for metric in [0, 100, ROUTE_METRIC, u32::MAX] {
        for (link, protocol) in [(UPLINK, 3), (UPLINK, ROUTE_PROTOCOL), (OURS, 4)] {
            let there = snapshot(our_link(), vec![route("64:ff9b::/96", link, protocol, metric)]);
            let plan = diff(&desired(&["64:ff9b::/96"]), &there);
            assert_eq!(plan.changes, [], "metric {metric}, interface {link}, protocol {protocol}");
            assert_eq!(plan.conflicts.len(), 1);
        }
    }
}

#[test]
fn a_conflict_names_device_protocol_and_metric() {
    let there = snapshot(our_link(), vec![route("64:ff9b::/96", UPLINK, 12, 32)]);
    let text = diff(&desired(&["64:ff9b::/96"]), &there).conflicts[0].to_string();
    assert!(text.contains("64:ff9b::/96") && text.contains("dev eth0 proto bird metric 32"), "{text}");
}

#[test]
fn a_route_of_ours_by_number_with_a_gateway_or_another_metric_is_not_ours() {
    let mut via = our_route("192.0.2.0/24");
    via.next_hops[0].gateway = Some("198.51.100.1".parse().unwrap());
    let other_metric = route("192.0.2.0/24", OURS, ROUTE_PROTOCOL, 1);
    for foreign in [via, other_metric] {
        let plan = diff(&desired(&[]), &snapshot(our_link(), vec![foreign]));
        assert_eq!(plan.changes, [], "it is left alone even where it is in the way of nothing");
    }
}

#[test]
fn the_kernels_own_route_for_an_address_of_ours_is_no_conflict() {
    let there = snapshot(our_link(), vec![route("192.0.2.0/24", OURS, crate::protocol::KERNEL, 0)]);
    let plan = diff(&desired(&["192.0.2.0/24"]), &there);
    assert_eq!(plan.conflicts, []);
    assert_eq!(plan.changes.len(), 1);
    // With our metric it is in the way of ours.
    let there =
        snapshot(our_link(), vec![route("192.0.2.0/24", OURS, crate::protocol::KERNEL, ROUTE_METRIC)]);
    let plan = diff(&desired(&["192.0.2.0/24"]), &there);
    assert_eq!((plan.changes.len(), plan.conflicts.len()), (0, 1));
}

#[test]
fn an_interface_that_is_not_there_or_not_ours_is_a_conflict_and_nothing_is_changed() {
    let missing = Snapshot::default();
    let mut marked_otherwise = our_link();
    marked_otherwise.alias = Some("vpn".into());
    for there in [
        missing,
        snapshot(link(OURS, "nat64", LinkKind::Other("veth".into())), vec![our_route("10.0.0.0/8")]),
        snapshot(marked_otherwise, vec![our_route("10.0.0.0/8")]),
    ] {
        let plan = diff(&desired(&[]), &there);
        assert_eq!(plan.changes, []);
        assert_eq!(plan.conflicts.len(), 1, "{there:?}");
    }
}

#[test]
fn addresses_on_our_interface_follow_the_wish_and_those_elsewhere_stay() {
    let mut there = snapshot(our_link(), vec![]);
    there.addresses.push(Address { link: OURS, net: "192.0.2.1/32".parse().unwrap() });
    let mut wish = desired(&[]);
    wish.addresses = vec!["192.0.2.2/32".parse().unwrap()];
    assert_eq!(
        diff(&wish, &there).changes,
        [
            Change::RemoveAddress { link: OURS, address: "192.0.2.1/32".parse().unwrap() },
            Change::AddAddress { link: OURS, address: "192.0.2.2/32".parse().unwrap() },
        ]
    );
}

#[test]
fn a_link_that_shall_be_down_is_taken_down_and_gets_no_routes() {
    let mut wish = desired(&["192.0.2.0/24"]);
    wish.link.up = false;
    assert_eq!(diff(&wish, &snapshot(our_link(), vec![])).changes, [Change::SetUp { link: OURS, up: false }]);
}

/// What the kernel does with a change, as far as a snapshot shows it.
fn make(there: &mut Snapshot, change: &Change) {
    let ours = |there: &mut Snapshot, index: u32| {
        there.links.iter().position(|link| link.index == index).expect("changes name links that exist")
    };
    match change {
        Change::SetAlias { link, alias } => {
            let at = ours(there, *link);
            there.links[at].alias = Some(alias.clone());
        }
        Change::DisableLinkLocal { link } => {
            let at = ours(there, *link);
            there.links[at].link_local = Some(false);
        }
        Change::SetMtu { link, mtu } => {
            let at = ours(there, *link);
            there.links[at].mtu = *mtu;
        }
        Change::SetUp { link, up } => {
            let at = ours(there, *link);
            there.links[at].up = *up;
            if !up {
                there.routes.retain(|route| route.link() != Some(*link));
            }
        }
        Change::RemoveAddress { link, address } => {
            there.addresses.retain(|found| (found.link, found.net) != (*link, *address));
        }
        Change::AddAddress { link, address } => there.addresses.push(Address { link: *link, net: *address }),
        Change::RemoveRoute { link, destination } => {
            there.routes.retain(|route| !(route.is_ours(*link) && route.destination == *destination));
        }
        Change::AddRoute { link, destination } => {
            let metric_is_free = there
                .routes
                .iter()
                .all(|route| route.destination != *destination || route.metric != ROUTE_METRIC);
            assert!(metric_is_free, "the kernel would refuse {destination} with NLM_F_EXCL");
            there.routes.push(route(&destination.to_string(), *link, ROUTE_PROTOCOL, ROUTE_METRIC));
        }
    }
}

fn some_net() -> impl Strategy<Value = IpNet> {
    // Few enough that destinations coincide.
    prop_oneof![
        (0u8..4, 22u8..=24).prop_map(|(octet, length)| format!("10.0.{octet}.0/{length}")),
        (0u8..4).prop_map(|group| format!("2001:db8:{group}::/96")),
    ]
    .prop_map(|text| text.parse::<IpNet>().unwrap().trunc())
}

fn some_route() -> impl Strategy<Value = Route> {
    let protocol = prop_oneof![Just(ROUTE_PROTOCOL), Just(crate::protocol::KERNEL), Just(3u8)];
    let metric = prop_oneof![Just(ROUTE_METRIC), Just(0u32), Just(100)];
    (some_net(), prop_oneof![Just(OURS), Just(UPLINK)], protocol, metric)
        .prop_map(|(net, link, protocol, metric)| route(&net.to_string(), link, protocol, metric))
}

fn some_snapshot() -> impl Strategy<Value = Snapshot> {
    let ours = (any::<bool>(), 1280u32..1500, any::<bool>(), proptest::option::of(any::<bool>())).prop_map(
        |(up, mtu, marked, link_local)| Link {
            up,
            mtu,
            alias: marked.then(|| "mark".into()),
            link_local,
            ..our_link()
        },
    );
    let addresses =
        proptest::collection::btree_set((prop_oneof![Just(OURS), Just(UPLINK)], some_net()), 0..6);
    (ours, proptest::collection::vec(some_route(), 0..12), addresses).prop_map(
        |(ours, mut routes, addresses)| {
            // The kernel holds one route for a destination, a metric and, for our purposes, a device.
            let mut seen = BTreeSet::new();
            routes.retain(|route| seen.insert((route.destination, route.metric)));
            let mut there = snapshot(ours, routes);
            there.addresses.extend(addresses.into_iter().map(|(link, net)| Address { link, net }));
            there
        },
    )
}

fn some_wish() -> impl Strategy<Value = Desired> {
    (
        any::<bool>(),
        1280u32..1500,
        proptest::collection::vec(some_net(), 0..6),
        proptest::collection::vec(some_net(), 0..4),
    )
        .prop_map(|(up, mtu, routes, addresses)| Desired {
            link: DesiredLink { name: "nat64".into(), up, mtu, alias: "mark".into() },
            addresses,
            routes,
        })
}

proptest! {
    #[test]
    fn after_the_changes_there_is_nothing_left_to_change(there in some_snapshot(), wish in some_wish()) {
        let plan = diff(&wish, &there);
        let mut after = there.clone();
        for change in &plan.changes {
            make(&mut after, change);
        }
        prop_assert_eq!(diff(&wish, &after).changes, vec![]);
    }

    #[test]
    fn what_is_not_ours_is_never_touched(there in some_snapshot(), wish in some_wish()) {
        let mut after = there.clone();
        for change in &diff(&wish, &there).changes {
            make(&mut after, change);
        }
        for route in there.routes.iter().filter(|route| route.link() != Some(OURS)) {
            prop_assert!(after.routes.contains(route), "{:?} is gone", route);
        }
        for address in there.addresses.iter().filter(|address| address.link != OURS) {
            prop_assert!(after.addresses.contains(address), "{:?} is gone", address);
        }
        if wish.link.up {
            for route in there.routes.iter().filter(|route| !route.is_ours(OURS)) {
                prop_assert!(after.routes.contains(route), "{:?} is gone", route);
            }
        }
    }

    #[test]
    fn each_wanted_destination_ends_as_our_route_or_as_a_conflict(there in some_snapshot(), wish in some_wish()) {
        prop_assume!(wish.link.up);
        let plan = diff(&wish, &there);
        let mut after = there;
        for change in &plan.changes {
            make(&mut after, change);
        }
        for wanted in &wish.routes {
            let ours = after.routes.iter().any(|route| route.is_ours(OURS) && route.destination == *wanted);
            let conflict = plan.conflicts.iter().any(
                |conflict| matches!(conflict, Conflict::RouteTaken { destination, .. } if destination == wanted),
            );
            prop_assert!(ours || conflict, "{} is lost", wanted);
        }
    }
}
