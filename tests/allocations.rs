//! The packet path allocates nothing in its steady state: the allocator of this build counts, thread by thread.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use common::metrics::Metrics;
use common::{Lab, PATIENCE, Router, through};
use netlab::{Direction, Namespace, Server, Topology, TopologyOptions, bulk_transfer, udp_exchange};

/// The server's port, as the clients address it.
fn at(port: u16) -> SocketAddr {
    (through(Topology::SERVER_V4), port).into()
}

fn allocations(metrics: &Metrics) -> u64 {
    metrics.sum("protomask_worker_allocations_total", &[])
}

fn packets(metrics: &Metrics) -> u64 {
    metrics.sum("protomask_forwarded_packets_total", &[])
}

fn sockets(client: &Namespace, flows: usize) -> Vec<UdpSocket> {
    (0..flows)
        .map(|_| client.run(|| UdpSocket::bind((Topology::CLIENT_V6, 0)).unwrap()))
        .inspect(|socket| socket.set_read_timeout(Some(PATIENCE)).unwrap())
        .collect()
}

/// Sends so many datagrams to the echo server and takes the answers, a few at a time so that no buffer overflows.
fn exchange(client: &Namespace, flows: usize, datagrams: usize) {
    exchange_over(&sockets(client, flows), datagrams);
}

fn exchange_over(sockets: &[UdpSocket], datagrams: usize) {
    const WINDOW: usize = 10;
    let mut buffer = [0; 128];
    for round in 0..datagrams / (WINDOW * sockets.len()) {
        for socket in sockets {
            for number in 0..WINDOW {
                socket.send_to(format!("{round} {number}").as_bytes(), at(7)).unwrap();
            }
        }
        for socket in sockets {
            for number in 0..WINDOW {
                let (length, _) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], format!("{round} {number}").as_bytes(), "in order");
            }
        }
    }
}

#[test]
fn a_hundred_megabytes_and_a_hundred_thousand_datagrams_allocate_nothing_on_the_workers() {
    const BYTES: u64 = 100_000_000;
    /// Each goes there and comes back: two packets.
    const DATAGRAMS: usize = 50_000;
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { clients: 2, ..TopologyOptions::default() });
    // Few enough workers that the warm-up below reaches each of them, on a machine of any size.
    let router = Router::start(&lab, &common::plain_and(&["--num-queues", "2"]));
    let _echo = Server::udp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let _bulk = Server::bulk(&lab.server, (Topology::SERVER_V4, 9000)).unwrap();
    let transfer = |direction, bytes| {
        let limit = Duration::from_mins(2);
        let transfer = bulk_transfer(lab.client(), at(9000), direction, bytes, limit, |_| ()).unwrap();
        assert!(transfer.is_intact(), "{transfer:?}");
    };
    // Warm up: the lease, and whatever a thread makes once.
    transfer(Direction::Upload, BYTES / 20);
    transfer(Direction::Download, BYTES / 20);
    exchange(lab.client(), 10, 2000);

    let before = router.metrics();
    transfer(Direction::Upload, BYTES);
    transfer(Direction::Download, BYTES);
    exchange(lab.client(), 10, DATAGRAMS);
    let carried = 2 * DATAGRAMS as u64 + 2 * BYTES / 65_536;
    let after = router.wait_for_metrics("the packets are counted", |metrics| {
        packets(metrics) >= packets(&before) + carried
    });
    println!(
        "{} packets, {} allocations",
        packets(&after) - packets(&before),
        allocations(&after) - allocations(&before)
    );
    assert_eq!(allocations(&after), allocations(&before), "allocations on the workers");

    // And the count does count: a new host's first packet is parked and its lease is asked for, which takes memory.
    udp_exchange(&lab.clients[1].namespace, None, at(7), b"hello", PATIENCE).unwrap();
    router.wait_for_metrics("a new host has cost something", |metrics| {
        allocations(metrics) > allocations(&after)
    });
    router.end();
}

/// Two workers and flows of one host: all that they touch belongs to one subscriber, and still nobody waits for anybody.
#[test]
fn flows_of_a_shared_address_go_on_without_a_lock_and_without_an_allocation() {
    const DATAGRAMS: usize = 50_000;
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions::default());
    let flags =
        ["--translation-prefix", "64:ff9b:1::/96", "--pool-prefix", "203.0.113.1/32", "--num-queues", "2"];
    let router = Router::start(&lab, &flags);
    let _echo = Server::udp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    // Warm up: the block, whose host's first packets have to wait, the sessions, and whatever a thread makes once.
    udp_exchange(lab.client(), None, at(7), b"hello", PATIENCE).unwrap();
    let flows = sockets(lab.client(), 16);
    exchange_over(&flows, 2000);
    let both_ways = |metrics: &Metrics| packets(metrics) >= 2 * 1920;
    let before = router.wait_for_metrics("the sessions are there", both_ways);
    let begun = |metrics: &Metrics| metrics.sum("protomask_sessions_begun_total", &[]);
    let contended = |metrics: &Metrics| metrics.sum("protomask_session_table_contentions_total", &[]);
    assert_eq!(begun(&before), 17);
    exchange_over(&flows, DATAGRAMS);
    let carried = 2 * (DATAGRAMS / 160 * 160) as u64;
    let after = router.wait_for_metrics("the packets are counted", |metrics| {
        packets(metrics) >= packets(&before) + carried
    });
    let (allocated, waited) =
        (allocations(&after) - allocations(&before), contended(&after) - contended(&before));
    println!("{carried} packets, {allocated} allocations, {waited} locks that were not free");
    assert_eq!((begun(&after), allocated, waited), (17, 0, 0));
    router.end();
}
