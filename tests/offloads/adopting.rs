//! A device that an earlier run left, with other offloads than this one asks for.

use std::net::SocketAddr;
use std::time::Duration;

use netlab::{Direction, Server, Topology, bulk_transfer};

use crate::common::{Lab, Router, plain_and, through};
use crate::lab::{Ends, Way, assert_arrive, assert_silent, datagrams, send_as_one, send_each, while_held};

/// All kinds of traffic pass, and come as the device is said to hand them out.
fn assert_passes(lab: &Lab, router: &Router, what: &str) {
    let ends = Ends::open(lab, 4000, 7777);
    for way in Way::BOTH {
        let train = datagrams([1000; 10]);
        send_as_one(ends.sender(way), &train).unwrap();
        assert_arrive(ends.receiver(way), &train, &format!("{what}, {way:?}, as one"));
        while_held(lab, router, way, 10, || {
            send_each(ends.sender(way), &train);
        });
        assert_arrive(ends.receiver(way), &train, &format!("{what}, {way:?}, together"));
        assert_silent(ends.receiver(way), what);
    }
    let target = SocketAddr::from((through(Topology::SERVER_V4), 9000));
    for direction in [Direction::Upload, Direction::Download] {
        let limit = Duration::from_mins(1);
        let transfer = bulk_transfer(lab.client(), target, direction, 1_000_000, limit, |_| ()).unwrap();
        assert!(transfer.is_intact(), "{what}: {transfer:?}");
    }
    let metrics = router.metrics();
    assert_eq!(metrics.all_dropped(), 0, "{what}: {metrics:?}");
}

#[test]
fn a_device_that_was_left_with_other_offloads_is_adopted_with_those_of_this_run() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let _server = Server::bulk(&lab.server, (Topology::SERVER_V4, 9000)).unwrap();
    let mut index = None;
    for (asked, on) in [
        ("off", "none"),
        ("auto", "checksum, tso4, tso6, tso_ecn, uso"),
        ("off", "none"),
        ("checksum,tso6", "checksum, tso6"),
        ("auto", "checksum, tso4, tso6, tso_ecn, uso"),
        ("checksum", "checksum"),
        ("off", "none"),
    ] {
        let mut router = Router::start(&lab, &plain_and(&["--offloads", asked]));
        assert_eq!(router.wait_for_log("offloads", |_| true).field("on"), on);
        let own = lab.snapshot().link_by_name("nat64").unwrap().index;
        assert_eq!(*index.get_or_insert(own), own, "it is another device");
        assert_passes(&lab, &router, asked);
        router.kill();
    }
}
