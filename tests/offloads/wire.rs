//! What the router leaves to the card, finished by the kernel: cards without offloads on both sides, and hosts that verify.

use std::net::SocketAddr;
use std::time::Duration;

use netlab::{Direction, Namespace, Server, Topology, bulk_transfer, obey_path_mtu};

use crate::common::kernel::{counter_v4, counter_v6};
use crate::common::lab::snapshot;
use crate::common::{Lab, PLAIN, through};
use crate::lab::{
    Ends, POOLS, Way, assert_arrive, assert_silent, datagrams, send_as_one, send_each, start, while_held,
    without_offloads,
};

/// Packets that have come over the link of a host.
fn arrived(host: &Namespace) -> u64 {
    snapshot(host).link_by_name("eth0").unwrap().stats.rx_packets
}

/// No host has got a packet with a wrong checksum.
fn assert_checksums_were_right(lab: &Lab) {
    for name in ["Udp", "Tcp"] {
        assert_eq!(counter_v4(&lab.server, name, "InCsumErrors"), 0, "{name} at the server");
    }
    assert_eq!(counter_v4(&lab.server, "Ip", "InHdrErrors"), 0, "at the server");
    assert_eq!(counter_v6(lab.client(), "Udp6InCsumErrors"), 0, "at the client");
    // TCP counts both families together, and the client has only one.
    assert_eq!(counter_v4(lab.client(), "Tcp", "InCsumErrors"), 0, "at the client");
}

#[test]
fn datagrams_that_came_whole_or_were_joined_have_right_checksums_on_the_wire() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for pool in POOLS {
        let lab = Lab::new();
        without_offloads(&lab);
        let router = start(&lab, &pool);
        let ends = Ends::open(&lab, 4000, 7777);
        obey_path_mtu(ends.sender(Way::Down), false).unwrap();
        for way in Way::BOTH {
            let host = if way == Way::Up { &lab.server } else { lab.client() };
            for (length, last) in [(1000, 1000), (1001, 7), (1452, 1451), (1, 1), (300, 299)] {
                let what = format!("{way:?}, {length} and {last} bytes");
                let train = datagrams(std::iter::repeat_n(length, 20).chain([last]));
                let before = arrived(host);
                send_as_one(ends.sender(way), &train).unwrap();
                assert_arrive(ends.receiver(way), &train, &format!("{what}, as one"));
                while_held(&lab, &router, way, 21, || send_each(ends.sender(way), &train));
                assert_arrive(ends.receiver(way), &train, &format!("{what}, together"));
                assert_silent(ends.receiver(way), &what);
                assert!(arrived(host) - before >= 42, "{what}: they were cut before they came");
            }
        }
        assert_checksums_were_right(&lab);
        router.end();
    }
}

#[test]
fn segments_of_tcp_have_right_checksums_on_the_wire() {
    const BYTES: u64 = 3_000_000;
    if !netlab::kernel_tests_possible() {
        return;
    }
    // Each way that super-packets go, the card at the other end has to cut them.
    for offloads in ["auto", "checksum", "off"] {
        let lab = Lab::new();
        without_offloads(&lab);
        let router = start(&lab, &[&PLAIN[..], &["--offloads", offloads]].concat());
        let _server = Server::bulk(&lab.server, (Topology::SERVER_V4, 9000)).unwrap();
        let target = SocketAddr::from((through(Topology::SERVER_V4), 9000));
        for (direction, host) in [(Direction::Upload, &lab.server), (Direction::Download, lab.client())] {
            let before = arrived(host);
            let limit = Duration::from_mins(1);
            let transfer = bulk_transfer(lab.client(), target, direction, BYTES, limit, |_| ()).unwrap();
            assert!(transfer.is_intact(), "{offloads}: {transfer:?}");
            assert!(arrived(host) - before >= BYTES / 1460, "{offloads}: they were cut before they came");
        }
        assert_checksums_were_right(&lab);
        router.end();
    }
}
