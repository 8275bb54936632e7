//! Bulk transfers over TCP: by super-packets where the kernel may send them, and packet by packet where it may not.

use std::net::SocketAddr;
use std::time::Duration;

use netlab::{Direction, Server, Topology, bulk_transfer};

use crate::common::{Lab, PLAIN, Router, plain_and, through};
use crate::lab::{Handled, POOLS, Way};

/// Far more than what goes in small packets while a connection begins.
const BYTES: u64 = 5_000_000;

/// What a segment holds at most here: 1500 bytes less the headers of IPv4 and TCP.
const MOST_PER_SEGMENT: u64 = 1460;

/// What a transfer has made the counters grow by.
#[derive(Debug)]
struct Cost {
    /// Packets that the router has counted, of the way of the data.
    segments: u64,
    /// Packets that the kernel handed to the router, of both ways.
    read: u64,
    /// Packets that the router wrote, of both ways.
    written: u64,
}

/// Transfers [`BYTES`], which arrive intact.
fn transfer(lab: &Lab, router: &Router, way: Way, port: u16) -> Cost {
    let direction = if way == Way::Up { Direction::Upload } else { Direction::Download };
    let target = SocketAddr::from((through(Topology::SERVER_V4), port));
    let (forwarded, before) = (way.forwarded(router), Handled::so_far(lab, router));
    let transfer =
        bulk_transfer(lab.client(), target, direction, BYTES, Duration::from_mins(2), |_| ()).unwrap();
    assert!(transfer.is_intact(), "{way:?}: {transfer:?}");
    let Handled { read, written } = Handled::so_far(lab, router).since(&before);
    Cost { segments: way.forwarded(router) - forwarded, read, written }
}

#[test]
fn super_packets_of_tcp_pass_whole_both_ways_and_count_as_their_segments() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for pool in POOLS {
        let lab = Lab::new();
        let router = Router::start(&lab, &pool);
        let _server = Server::bulk(&lab.server, (Topology::SERVER_V4, 9000)).unwrap();
        for way in Way::BOTH {
            let cost = transfer(&lab, &router, way, 9000);
            println!("{way:?}: {cost:?}");
            assert!(cost.segments >= BYTES / MOST_PER_SEGMENT, "{way:?}: {cost:?}");
            // Acknowledgements among them.
            assert!(cost.read < cost.segments / 3, "{way:?}: what came was not whole: {cost:?}");
            assert!(cost.written < cost.segments / 3, "{way:?}: what left was not whole: {cost:?}");
        }
        router.end();
    }
}

#[test]
fn a_transfer_passes_with_each_set_of_offloads_and_comes_in_super_packets_only_of_those_that_are_on() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let _server = Server::bulk(&lab.server, (Topology::SERVER_V4, 9000)).unwrap();
    // What is asked for, what is on, and whether what goes up and what comes down comes in super-packets.
    for (asked, on, up, down) in [
        ("off", "none", false, false),
        ("checksum", "checksum", false, false),
        ("checksum,tso4", "checksum, tso4", false, true),
        ("checksum,tso6", "checksum, tso6", true, false),
        ("uso", "checksum, uso", false, false),
        ("tso4,tso6", "checksum, tso4, tso6", true, true),
    ] {
        let mut router = Router::start(&lab, &plain_and(&["--offloads", asked]));
        let record = router.wait_for_log("offloads", |_| true);
        assert_eq!(record.field("on"), on);
        for (way, super_packets) in [(Way::Up, up), (Way::Down, down)] {
            let cost = transfer(&lab, &router, way, 9000);
            assert!(cost.segments >= BYTES / MOST_PER_SEGMENT, "{asked}, {way:?}: {cost:?}");
            if super_packets {
                assert!(cost.read < cost.segments / 3, "{asked}, {way:?}: {cost:?}");
            } else {
                assert!(cost.read >= cost.segments, "{asked}, {way:?}: {cost:?}");
            }
        }
        let metrics = router.metrics();
        assert_eq!(metrics.sum("protomask_device_read_errors_total", &[]), 0, "{asked}");
        router.end();
    }
}

#[test]
fn a_transfer_passes_without_joining() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let _server = Server::bulk(&lab.server, (Topology::SERVER_V4, 9000)).unwrap();
    let file = lab.file("apart.toml", "join = false\n");
    let mut router = Router::start(&lab, &[&PLAIN[..], &["--config", &file]].concat());
    let record = router.wait_for_log("offloads", |_| true);
    assert_eq!((record.field("joined_tcp"), record.field("joined_udp")), ("false".into(), "false".into()));
    for way in Way::BOTH {
        let cost = transfer(&lab, &router, way, 9000);
        // What the kernel has sent as one is one, with or without joining.
        assert!(cost.segments >= BYTES / MOST_PER_SEGMENT, "{way:?}: {cost:?}");
        assert!(cost.written < cost.segments / 3, "{way:?}: {cost:?}");
    }
    router.end();
}
