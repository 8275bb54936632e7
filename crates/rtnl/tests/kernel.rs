//! The crate against the real kernel, in network namespaces of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of tests fail the test that calls them"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use netlab::Namespace;
use rtnl::{
    Address, Change, Conflict, Desired, DesiredLink, Error, Event, Handle, LinkKind, ROUTE_METRIC,
    ROUTE_PROTOCOL, Snapshot, Watcher, connected_prefixes, diff,
};
use tokio::time::timeout;

/// Far beyond what any of this takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A TUN device in the namespace of the calling thread; it goes when the value is dropped.
fn tun_device(name: &str) -> tun::Device {
    let mut configuration = tun::Configuration::default();
    configuration.tun_name(name);
    configuration.platform_config(|platform| {
        platform.ensure_root_privileges(false);
    });
    tun::create(&configuration).expect("a TUN device")
}

fn wish(name: &str, routes: &[&str]) -> Desired {
    Desired {
        link: DesiredLink { name: name.into(), up: true, mtu: 1480, alias: "rtnl-test".into() },
        addresses: vec![net("192.0.2.1/32"), net("2001:db8:64::1/128")],
        routes: routes.iter().map(|text| net(text)).collect(),
    }
}

async fn reach(handle: &Handle, desired: &Desired) -> Snapshot {
    let plan = diff(desired, &handle.snapshot().await.unwrap());
    handle.apply(&plan).await.unwrap();
    let snapshot = handle.snapshot().await.unwrap();
    let rest = diff(desired, &snapshot);
    assert!(rest.is_settled(), "still to do: {rest:?}");
    snapshot
}

/// Takes events until one fits; everything is bounded by [`PATIENCE`].
async fn wait_for(watcher: &mut Watcher, what: &str, mut fits: impl FnMut(Event) -> bool) {
    let found = timeout(PATIENCE, async {
        while let Some(event) = watcher.next().await {
            if fits(event) {
                return true;
            }
        }
        false
    });
    assert_eq!(found.await, Ok(true), "no event for {what}");
}

#[test]
fn the_desired_state_is_reached_and_then_nothing_is_left_to_do() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    Namespace::new("reach").unwrap().block_on(async {
        let _device = tun_device("nat64");
        let handle = Handle::open().unwrap();
        let desired = wish("nat64", &["192.168.255.0/24", "64:ff9b::/96", "203.0.113.7/32"]);
        let plan = diff(&desired, &handle.snapshot().await.unwrap());
        assert_eq!(plan.conflicts, []);
        let made = handle.apply(&plan).await.unwrap();
        assert_eq!(made, plan.changes.len());

        let snapshot = handle.snapshot().await.unwrap();
        assert!(diff(&desired, &snapshot).is_settled());
        let link = snapshot.link_by_name("nat64").unwrap();
        assert_eq!(
            (&link.kind, link.up, link.carrier, link.mtu, link.alias.as_deref()),
            (&LinkKind::Tun, true, true, 1480, Some("rtnl-test"))
        );
        // Neither a link-local address nor a route that we did not ask for.
        let addresses: BTreeSet<Address> =
            snapshot.addresses.iter().filter(|address| address.link == link.index).copied().collect();
        let expected: BTreeSet<Address> =
            desired.addresses.iter().map(|address| Address { link: link.index, net: *address }).collect();
        assert_eq!(addresses, expected);
        let routes: Vec<_> =
            snapshot.routes.iter().filter(|route| route.link() == Some(link.index)).collect();
        assert_eq!(routes.len(), 3, "{routes:?}");
        assert!(routes.iter().all(|route| route.is_ours(link.index)
            && route.protocol == ROUTE_PROTOCOL
            && route.metric == ROUTE_METRIC));

        // The whole plan once more: every end state is there already.
        assert_eq!(handle.apply(&plan).await.unwrap(), plan.changes.len());
        assert!(diff(&desired, &handle.snapshot().await.unwrap()).is_settled());

        // Less is wanted now.
        let mut less = wish("nat64", &["64:ff9b::/96"]);
        less.addresses.clear();
        reach(&handle, &less).await;
    });
}

#[test]
fn removing_what_is_not_there_is_a_success() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    Namespace::new("gone").unwrap().block_on(async {
        let device = tun_device("nat64");
        let handle = Handle::open().unwrap();
        let link =
            reach(&handle, &wish("nat64", &["192.168.255.0/24"])).await.link_by_name("nat64").unwrap().index;
        for change in [
            Change::RemoveRoute { link, destination: net("10.0.0.0/8") },
            Change::RemoveRoute { link, destination: net("2001:db8::/32") },
            Change::RemoveAddress { link, address: net("192.0.2.9/32") },
            Change::RemoveAddress { link, address: net("2001:db8::9/128") },
        ] {
            handle.make(&change).await.unwrap_or_else(|error| panic!("{change}: {error}"));
        }
        handle.remove_link(link).await.unwrap();
        handle.remove_link(link).await.unwrap();
        assert!(handle.snapshot().await.unwrap().link_by_name("nat64").is_none());
        drop(device);
    });
}

#[test]
fn somebody_elses_route_is_named_and_survives() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let here = Namespace::new("foreign").unwrap();
    let there = Namespace::new("peer").unwrap();
    netlab::veth(&here, "uplink", &there, "eth0", 1500).unwrap();
    here.add_address("uplink", Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 1), 24)).unwrap();
    here.add_route(net("64:ff9b::/96"), None, "uplink").unwrap();
    here.add_route(net("192.168.255.0/24"), Some(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9))), "uplink")
        .unwrap();
    here.block_on(async {
        let _device = tun_device("nat64");
        let handle = Handle::open().unwrap();
        let desired = wish("nat64", &["64:ff9b::/96", "192.168.255.0/24", "10.9.0.0/24"]);
        let before = handle.snapshot().await.unwrap();
        let plan = diff(&desired, &before);
        let owners: Vec<String> = plan
            .conflicts
            .iter()
            .map(|conflict| match conflict {
                Conflict::RouteTaken { owner, .. } => owner.device.clone().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(owners, ["uplink", "uplink"]);
        handle.apply(&plan).await.unwrap();

        let after = handle.snapshot().await.unwrap();
        for route in &before.routes {
            assert!(after.routes.contains(route), "{route:?} is gone");
        }
        let ours = after.link_by_name("nat64").unwrap().index;
        let mine: Vec<_> = after.routes.iter().filter(|route| route.is_ours(ours)).collect();
        assert_eq!(mine.len(), 1, "only what was free: {mine:?}");
    });
}

#[test]
fn a_route_that_appears_between_comparing_and_changing_is_not_overwritten() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let here = Namespace::new("race").unwrap();
    let there = Namespace::new("peer").unwrap();
    netlab::veth(&here, "uplink", &there, "eth0", 1500).unwrap();
    here.block_on(async {
        let _device = tun_device("nat64");
        let handle = Handle::open().unwrap();
        let desired = wish("nat64", &["64:ff9b::/96", "192.168.255.0/24", "10.9.0.0/24"]);
        let before = handle.snapshot().await.unwrap();
        let plan = diff(&desired, &before);
        assert_eq!(plan.conflicts, []);
        // Another program is faster, and even uses our metric.
        let uplink = before.link_by_name("uplink").unwrap().index;
        for destination in ["64:ff9b::/96", "192.168.255.0/24"] {
            handle.make(&Change::AddRoute { link: uplink, destination: net(destination) }).await.unwrap();
        }
        let error = handle.apply(&plan).await.unwrap_err();
        assert_eq!(error.failed.len(), 2, "{error}");
        for failed in &error.failed {
            let Error::RouteTaken { owner } = &failed.source else { panic!("{:?}", failed.source) };
            assert_eq!(owner.device.as_deref(), Some("uplink"));
        }
        assert!(error.to_string().contains("64:ff9b::/96"), "{error}");
        assert_eq!(error.done, plan.changes.len() - 2, "the other changes were made");
        let after = handle.snapshot().await.unwrap();
        assert_eq!(after.routes.iter().filter(|route| route.is_ours(uplink)).count(), 2);
        // The next comparison sees them.
        assert_eq!(diff(&desired, &after).conflicts.len(), 2);
    });
}

#[test]
fn an_address_with_another_length_is_named() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    Namespace::new("length").unwrap().block_on(async {
        let _device = tun_device("nat64");
        let handle = Handle::open().unwrap();
        let link = handle.snapshot().await.unwrap().link_by_name("nat64").unwrap().index;
        handle.make(&Change::AddAddress { link, address: net("2001:db8::1/64") }).await.unwrap();
        let error =
            handle.make(&Change::AddAddress { link, address: net("2001:db8::1/128") }).await.unwrap_err();
        assert!(
            matches!(error, Error::AddressTaken { found } if found == net("2001:db8::1/64")),
            "{error:?}"
        );
    });
}

#[test]
fn a_change_on_an_interface_that_is_gone_fails_with_its_name() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    Namespace::new("absent").unwrap().block_on(async {
        let handle = Handle::open().unwrap();
        let change = Change::AddRoute { link: 4321, destination: net("10.0.0.0/8") };
        let plan = rtnl::Plan { changes: vec![change.clone()], conflicts: vec![] };
        let error = handle.apply(&plan).await.unwrap_err();
        assert_eq!((error.done, &error.failed[0].change), (0, &change));
        assert!(error.to_string().contains("10.0.0.0/8"), "{error}");
        assert!(matches!(handle.link_stats(4321).await, Err(Error::NoSuchLink(4321))));
    });
}

#[test]
fn a_link_that_went_down_lost_its_routes_and_the_comparison_finds_both_families() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    Namespace::new("down").unwrap().block_on(async {
        let _device = tun_device("nat64");
        let handle = Handle::open().unwrap();
        let desired = wish("nat64", &["192.168.255.0/24", "64:ff9b::/96"]);
        let link = reach(&handle, &desired).await.link_by_name("nat64").unwrap().index;
        let mut watcher = Watcher::open().unwrap();

        handle.make(&Change::SetUp { link, up: false }).await.unwrap();
        wait_for(&mut watcher, "the link", |event| event == Event::Link { index: link }).await;
        handle.make(&Change::SetUp { link, up: true }).await.unwrap();

        // Whatever the kernel announced or not: the comparison knows.
        let plan = diff(&desired, &handle.snapshot().await.unwrap());
        for destination in &desired.routes {
            let change = Change::AddRoute { link, destination: *destination };
            assert!(plan.changes.contains(&change), "{change} is missing in {:?}", plan.changes);
        }
        reach(&handle, &desired).await;
    });
}

#[test]
fn the_watcher_sees_links_addresses_and_routes_of_both_families() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    Namespace::new("watch").unwrap().block_on(async {
        let _device = tun_device("nat64");
        let handle = Handle::open().unwrap();
        let link = reach(&handle, &wish("nat64", &[])).await.link_by_name("nat64").unwrap().index;
        let mut watcher = Watcher::open().unwrap();
        let steps = [
            (Change::SetMtu { link, mtu: 1400 }, Event::Link { index: link }),
            (Change::AddAddress { link, address: net("192.0.2.8/32") }, Event::Address { link }),
            (Change::AddAddress { link, address: net("2001:db8::8/128") }, Event::Address { link }),
            (Change::AddRoute { link, destination: net("10.0.0.0/8") }, Event::Route { link: Some(link) }),
            (Change::AddRoute { link, destination: net("2001:db8::/32") }, Event::Route { link: Some(link) }),
            (Change::RemoveRoute { link, destination: net("10.0.0.0/8") }, Event::Route { link: Some(link) }),
            (
                Change::RemoveRoute { link, destination: net("2001:db8::/32") },
                Event::Route { link: Some(link) },
            ),
        ];
        for (change, expected) in steps {
            // What came before is of an earlier step.
            while timeout(Duration::from_millis(50), watcher.next()).await.is_ok() {}
            handle.make(&change).await.unwrap();
            wait_for(&mut watcher, &change.to_string(), |event| event == expected).await;
        }
    });
}

#[test]
fn a_watcher_that_could_not_keep_up_says_so() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let here = Namespace::new("overrun").unwrap();
    let same = here.clone();
    here.block_on(async move {
        let _device = tun_device("nat64");
        let mut watcher = Watcher::open().unwrap();
        // This runtime's only thread waits here, so nobody reads the watcher's socket: some thousand announcements of
        // over a kilobyte each do not fit its buffer.
        same.block_on(async {
            let handle = Handle::open().unwrap();
            let link = handle.snapshot().await.unwrap().link_by_name("nat64").unwrap().index;
            // A change of the alias is announced only while the link is up.
            handle.make(&Change::SetUp { link, up: true }).await.unwrap();
            for round in 0..4000 {
                let alias = format!("round {round}");
                handle.make(&Change::SetAlias { link, alias }).await.unwrap();
            }
        });
        wait_for(&mut watcher, "the overrun", |event| event == Event::Overrun).await;
        // And it goes on afterwards.
        let handle = Handle::open().unwrap();
        let link = handle.snapshot().await.unwrap().link_by_name("nat64").unwrap().index;
        while timeout(Duration::from_millis(50), watcher.next()).await.is_ok() {}
        handle.make(&Change::SetMtu { link, mtu: 1300 }).await.unwrap();
        wait_for(&mut watcher, "the link", |event| event == Event::Link { index: link }).await;
    });
}

#[test]
fn packets_that_user_space_does_not_read_are_counted_as_dropped() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    Namespace::new("dropped").unwrap().block_on(async {
        let _device = tun_device("nat64");
        let handle = Handle::open().unwrap();
        let link = reach(&handle, &wish("nat64", &["10.0.0.0/8"])).await.link_by_name("nat64").unwrap().index;
        let before = handle.link_stats(link).await.unwrap();
        // The device queues 500 packets and nobody reads them.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        for _ in 0..1500 {
            // A full queue may be reported to the sender; the drop is counted all the same.
            let _ = socket.send_to(&[0; 32], (Ipv4Addr::new(10, 0, 0, 1), 9));
        }
        let after = handle.link_stats(link).await.unwrap();
        assert!(after.tx_dropped > before.tx_dropped, "{before:?} -> {after:?}");
        assert_eq!(
            handle.snapshot().await.unwrap().link_by_name("nat64").unwrap().stats.tx_dropped,
            after.tx_dropped
        );
    });
}

#[test]
fn connected_prefixes_come_from_the_addresses_of_the_links() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let topology = netlab::Topology::new().unwrap();
    topology.router.block_on(async {
        let handle = Handle::open().unwrap();
        let snapshot = handle.snapshot().await.unwrap();
        assert_eq!(connected_prefixes(&snapshot, None), [netlab::Topology::CLIENT_NET]);
        let client = snapshot.link_by_name("client0").unwrap().index;
        assert_eq!(connected_prefixes(&snapshot, Some(client)), []);
        let addresses = rtnl::local_addresses(&snapshot);
        for expected in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            netlab::Topology::ROUTER_V4.into(),
            netlab::Topology::ROUTER_V6.into(),
        ] {
            assert!(addresses.contains(&expected), "{expected} is missing in {addresses:?}");
        }
    });
}

#[test]
fn dropping_the_last_handle_ends_its_task() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    Namespace::new("drop").unwrap().block_on(async {
        let metrics = tokio::runtime::Handle::current().metrics();
        let before = metrics.num_alive_tasks();
        let handle = Handle::open().unwrap();
        let clone = handle.clone();
        let watcher = Watcher::open().unwrap();
        assert_eq!(metrics.num_alive_tasks(), before + 2);
        drop(handle);
        clone.snapshot().await.unwrap();
        drop(clone);
        drop(watcher);
        let ended = timeout(PATIENCE, async {
            while metrics.num_alive_tasks() > before {
                tokio::task::yield_now().await;
            }
        });
        assert!(ended.await.is_ok(), "tasks are still alive");
    });
}
