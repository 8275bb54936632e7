//! What others do to the router's kernel state while it runs, and what it makes of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use std::time::{Duration, Instant};

use common::{Lab, PATIENCE, PLAIN, Router, eventually, plain_and, through};
use ipnet::Ipv4Net;
use netlab::{PingOptions, Topology, TopologyOptions, ping};
use protomask::kernel::masquerade;
use rtnl::Change;

fn pings(lab: &Lab) -> bool {
    ping(lab.client(), through(Topology::SERVER_V4), &PingOptions::default()).unwrap().is_reply()
}

fn readiness(router: &Router) -> (u16, String) {
    let answer = router.get("/readyz").unwrap();
    (answer.status, answer.text())
}

#[test]
fn routes_link_and_table_that_somebody_takes_away_come_back_and_are_counted() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &plain_and(&["--masquerade"]));
    let whole = lab.marks();
    let index = lab.snapshot().link_by_name("nat64").unwrap().index;
    lab.router.block_on(async {
        let handle = rtnl::Handle::open().unwrap();
        for net in ["203.0.113.0/24", "64:ff9b:1::/96"] {
            let change = Change::RemoveRoute { link: index, destination: net.parse().unwrap() };
            handle.make(&change).await.unwrap();
        }
    });
    eventually("both routes come back", PATIENCE, || (lab.marks() == whole).then_some(()));
    assert!(lab.router.run(|| masquerade::remove("nat64").unwrap()));
    eventually("the table comes back", PATIENCE, || (lab.marks() == whole).then_some(()));
    lab.router.down("nat64").unwrap();
    eventually("the link comes back with its routes", PATIENCE, || {
        (lab.marks() == whole && pings(&lab)).then_some(())
    });
    router.wait_for_metrics("the repairs are counted", |metrics| {
        metrics.sum("protomask_kernel_repairs_total", &[]) >= 4
    });
    router.end();
}

#[test]
fn whoever_takes_a_route_away_again_and_again_is_answered_ever_more_rarely_and_named() {
    /// At ten comparisons a second there would be some 80 repairs.
    const FIGHT: Duration = Duration::from_secs(8);
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &PLAIN);
    let link = lab.snapshot().link_by_name("nat64").unwrap().index;
    lab.router.block_on(async {
        let handle = rtnl::Handle::open().unwrap();
        let change = Change::RemoveRoute { link, destination: "203.0.113.0/24".parse().unwrap() };
        let start = Instant::now();
        while start.elapsed() < FIGHT {
            handle.make(&change).await.unwrap();
            common::pause(Duration::from_millis(20));
        }
    });
    let metrics = router.metrics();
    let repairs = metrics.sum("protomask_kernel_repairs_total", &[]);
    // Three at once, then 1, 2 and 4 s later.
    assert!((4..=6).contains(&repairs), "{repairs} repairs");
    let (status, text) = readiness(&router);
    assert_eq!(status, 503);
    assert!(text.contains("somebody has undone this") && text.contains("203.0.113.0/24"), "{text}");
    router.end();
}

#[test]
fn the_masquerade_table_is_there_before_the_first_route() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &plain_and(&["--masquerade"]));
    let changes: Vec<_> =
        router.log().with_msg("changed in the kernel").iter().map(|record| record.field("change")).collect();
    let place = |part: &str| changes.iter().position(|change| change.contains(part));
    let (table, route) = (place("nftables table").unwrap(), place("add a route").unwrap());
    assert!(table < route, "conntrack would remember a packet that left un-NATed: {changes:#?}");
    router.end();
}

#[test]
fn a_route_that_takes_a_part_of_the_pool_away_is_named_until_it_is_gone() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let mut router = Router::start(&lab, &plain_and(&[]));
    let part: Ipv4Net = "203.0.113.0/25".parse().unwrap();
    lab.router.add_route(part, Some(Topology::SERVER_V4.into()), "server").unwrap();
    router.wait("it is not ready any more", |router| readiness(router).0 == 503);
    let (_, text) = readiness(&router);
    assert!(text.contains("203.0.113.0/25") && text.contains("dev server"), "{text}");
    // The link that the route leads through.
    lab.router.down("server").unwrap();
    router.wait("it is ready again", |router| readiness(router).0 == 200);
    router.end();
}

#[test]
fn a_device_that_is_deleted_ends_the_router_at_once_with_the_reason_and_the_next_start_is_whole() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let mut router = Router::start(&lab, &plain_and(&[]));
    lab.router.delete_link("nat64").unwrap();
    let record = router.wait_for_log("gave up", |_| true);
    assert!(record.field("because").contains("nat64 was deleted"), "{}", record.line);
    assert!(record.field("left").contains("protomask cleanup"), "{}", record.line);
    assert_eq!(router.end_of_itself(), Some(7));
    let last = router.last_record("last events").field("events");
    for event in [
        "pool generation 1 was started",
        "control generation 1 was started",
        "tun generation 1 failed: the device",
    ] {
        assert!(last.contains(event), "{event}: {last}");
    }

    let router = Router::start(&lab, &plain_and(&[]));
    assert!(pings(&lab));
    router.end();
}

#[test]
fn cleanup_leaves_a_running_router_alone_unless_it_is_forced() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let mut router = Router::start(&lab, &plain_and(&[]));
    let refused = lab.run_to_end(&["cleanup"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stdout.contains("nat64 is in use") && refused.stdout.contains("--force"), "{refused:?}");
    assert!(pings(&lab));
    let forced = lab.run_to_end(&["cleanup", "--force"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert_eq!(router.end_of_itself(), Some(7));
}

#[test]
fn of_two_routers_that_turned_forwarding_on_the_last_one_turns_it_off() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { forwarding: false, ..TopologyOptions::default() });
    let first = Router::start(&lab, &plain_and(&["--enable-forwarding"]));
    let other = [
        "--interface",
        "nat65",
        "--translation-prefix",
        "64:ff9b:1:1::/96",
        "--pool-prefix",
        "192.0.2.0/24",
        "--enable-forwarding",
    ];
    // Its metrics would want the same port.
    let mut second = common::process::Process::spawn({
        let mut command = lab.protomask();
        command.args(other).args(["--prometheus", "off"]);
        command
    });
    eventually("the second one is there", PATIENCE, || {
        lab.marks().contains(&"route 192.0.2.0/24".to_owned()).then_some(())
    });
    let forwarding = || lab.router.read_sysctl("net.ipv4.ip_forward").unwrap();
    first.end();
    assert_eq!(forwarding(), "1", "the second one still needs it");
    second.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(second.end(PATIENCE).unwrap().success());
    assert_eq!(forwarding(), "0");
    assert_eq!(lab.records(), [""; 0]);
}

#[test]
fn a_start_that_fails_takes_back_what_it_made_and_leaves_what_an_earlier_run_had_left() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    // Not an address of this namespace.
    let failing = plain_and(&["--masquerade", "--prometheus", "192.0.2.1:9464"]);
    let failed = lab.run_to_end(&failing);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("--prometheus"), "{failed:?}");
    assert_eq!(lab.marks(), [""; 0]);

    Router::start(&lab, &plain_and(&["--masquerade"])).kill();
    let left = lab.marks();
    assert_eq!(lab.run_to_end(&failing).code, Some(1));
    assert_eq!(lab.marks(), left, "flows behind it are for the start that succeeds");
    let router = Router::start(&lab, &plain_and(&["--masquerade"]));
    assert!(pings(&lab));
    router.end();
}
