//! Datagrams that a host sends as one super-packet (`UDP_SEGMENT`).

use netlab::{Topology, obey_path_mtu};

use crate::common::{Lab, Router, plain_and, through};
use crate::lab::{Ends, Handled, POOLS, Way, assert_arrive, assert_silent, bound, datagrams, send_as_one};

/// Trains: how many datagrams of one length, and the length of the last one. Odd and even ones, the most datagrams, and the most
/// bytes that a network card takes as one over IPv6, with headers 65,535.
const TRAINS: [(usize, usize, usize); 7] = [
    (7, 1000, 1000),
    (7, 1000, 1),
    (10, 1201, 500),
    (2, 1452, 3),
    (63, 100, 99),
    (63, 1, 1),
    (45, 1452, 133),
];

fn train((equal, length, last): (usize, usize, usize)) -> Vec<Vec<u8>> {
    datagrams(std::iter::repeat_n(length, equal).chain([last]))
}

#[test]
fn datagrams_that_are_sent_as_one_arrive_one_by_one_both_ways() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for pool in POOLS {
        let lab = Lab::new();
        let router = Router::start(&lab, &pool);
        let ends = Ends::open(&lab, 4000, 7777);
        // Without DF what is longer than 1280 bytes over IPv6 would be in fragments (RFC 7915 §4.1).
        obey_path_mtu(ends.sender(Way::Down), false).unwrap();
        for way in Way::BOTH {
            for shape in TRAINS {
                let what = format!("{way:?}, {shape:?}");
                let train = train(shape);
                let (forwarded, before) = (way.forwarded(&router), Handled::so_far(&lab, &router));
                send_as_one(ends.sender(way), &train).unwrap();
                assert_arrive(ends.receiver(way), &train, &what);
                assert_silent(ends.receiver(way), &what);
                way.wait_for_forwarded(&router, forwarded + train.len() as u64);
                let handled = Handled::so_far(&lab, &router).since(&before);
                assert_eq!(handled.read, 1, "{what}: it came whole");
                assert_eq!(handled.written, 1, "{what}: it left whole");
            }
        }
        let metrics = router.metrics();
        assert_eq!(metrics.all_dropped(), 0, "{metrics:?}");
        router.end();
    }
}

#[test]
fn datagrams_that_are_sent_as_one_arrive_where_the_device_takes_no_super_packets_of_udp() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for offloads in ["off", "checksum", "checksum,tso4,tso6,tso_ecn"] {
        let lab = Lab::new();
        let router = Router::start(&lab, &plain_and(&["--offloads", offloads]));
        let ends = Ends::open(&lab, 4000, 7777);
        // Without DF what is longer than 1280 bytes over IPv6 would be in fragments (RFC 7915 §4.1).
        obey_path_mtu(ends.sender(Way::Down), false).unwrap();
        for way in Way::BOTH {
            for shape in TRAINS {
                let what = format!("{offloads}, {way:?}, {shape:?}");
                let train = train(shape);
                let (forwarded, before) = (way.forwarded(&router), Handled::so_far(&lab, &router));
                send_as_one(ends.sender(way), &train).unwrap();
                assert_arrive(ends.receiver(way), &train, &what);
                assert_silent(ends.receiver(way), &what);
                way.wait_for_forwarded(&router, forwarded + train.len() as u64);
                let handled = Handled::so_far(&lab, &router).since(&before);
                assert_eq!(handled.read, train.len() as u64, "{what}");
                assert_eq!(handled.written, train.len() as u64, "{what}");
            }
        }
        router.end();
    }
}

/// A new host's first datagrams wait for its address or port, also those that came as one.
#[test]
fn a_new_host_may_begin_with_datagrams_that_are_sent_as_one() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for pool in POOLS {
        let lab = Lab::new();
        let router = Router::start(&lab, &pool);
        let server = bound(&lab.server, (Topology::SERVER_V4, 7777));
        let client = bound(lab.client(), (Topology::CLIENT_V6, 4000));
        client.connect((through(Topology::SERVER_V4), 7777)).unwrap();
        let train = train((20, 1200, 700));
        send_as_one(&client, &train).unwrap();
        assert_arrive(&server, &train, "the first ones");
        Way::Up.wait_for_forwarded(&router, 21);
        router.end();
    }
}
