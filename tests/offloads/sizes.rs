//! Super-packets whose segments do not fit the link behind the router: what one such packet would get, and nothing else.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use netlab::{
    Direction, Server, Topology, TopologyOptions, bulk_transfer, dont_fragment, obey_path_mtu, path_mtu,
};

use crate::common::kernel::{counter_v4, counter_v6};
use crate::common::{Lab, PATIENCE, PLAIN, Router, eventually, through};
use crate::lab::{Ends, POOLS, Way, assert_arrive, assert_silent, datagrams, send_as_one};

/// Datagrams of a train.
const COUNT: usize = 20;

fn narrow(client_mtu: u32, server_mtu: u32) -> Lab {
    Lab::with(&TopologyOptions { client_mtu, server_mtu, ..TopologyOptions::default() })
}

/// What the kernel has to say about what was sent before.
fn error_of(socket: &UdpSocket) -> std::io::Error {
    eventually("an error of the sender's socket", PATIENCE, || socket.take_error().unwrap())
}

/// A train whose datagrams are too long for the way is refused once, with the size that fits; one of that size arrives.
fn assert_sizes_are_learnt(ends: &Ends, way: Way, too_long: usize, mtu: u32, fits: usize) {
    let what = format!("{way:?}, {too_long} bytes");
    let sender = ends.sender(way);
    obey_path_mtu(sender, way == Way::Up).unwrap();
    send_as_one(sender, &datagrams([too_long; COUNT])).unwrap();
    assert_eq!(error_of(sender).raw_os_error(), Some(libc::EMSGSIZE), "{what}");
    assert_eq!(path_mtu(sender, way == Way::Up).unwrap(), mtu, "{what}");
    assert_silent(ends.receiver(way), &what);
    // Now the sender's kernel knows.
    let refused = send_as_one(sender, &datagrams([too_long; COUNT])).unwrap_err();
    assert!(matches!(refused.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL)), "{what}: {refused}");
    let train = datagrams([fits; COUNT]);
    send_as_one(sender, &train).unwrap();
    assert_arrive(ends.receiver(way), &train, &what);
    assert_silent(ends.receiver(way), &what);
    assert!(sender.take_error().unwrap().is_none(), "{what}: only one was refused");
}

#[test]
fn datagrams_sent_as_one_that_are_too_long_for_the_link_behind_are_refused_with_the_size_that_fits() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for pool in POOLS {
        // The server's link is the narrow one. 1400 bytes are 1448 over IPv6, and 1428 over IPv4, where 1400 is the most.
        let lab = narrow(1500, 1400);
        let router = Router::start(&lab, &pool);
        let ends = Ends::open(&lab, 4000, 7777);
        assert_sizes_are_learnt(&ends, Way::Up, 1400, 1420, 1372);
        router.end();

        // The client's link is the narrow one.
        let lab = narrow(1400, 1500);
        let router = Router::start(&lab, &pool);
        let ends = Ends::open(&lab, 4000, 7777);
        assert_sizes_are_learnt(&ends, Way::Down, 1400, 1380, 1352);
        router.end();

        // Both are equal: what fills an IPv4 packet is 20 bytes more than an IPv6 packet can be.
        let lab = narrow(1500, 1500);
        let router = Router::start(&lab, &pool);
        let ends = Ends::open(&lab, 4000, 7777);
        assert_sizes_are_learnt(&ends, Way::Down, 1472, 1480, 1452);
        router.end();
    }
}

#[test]
fn datagrams_sent_as_one_that_may_be_fragmented_arrive_whole_over_a_link_that_is_too_narrow() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for pool in POOLS {
        for client_mtu in [1280, 1400, 1500] {
            let lab = narrow(client_mtu, 1500);
            let router = Router::start(&lab, &pool);
            let ends = Ends::open(&lab, 4000, 7777);
            let server = ends.sender(Way::Down);
            dont_fragment(server, false, false).unwrap();
            let train = datagrams(std::iter::repeat_n(1472, COUNT).chain([300]));
            send_as_one(server, &train).unwrap();
            assert_arrive(ends.receiver(Way::Down), &train, &format!("over {client_mtu} bytes"));
            assert_silent(ends.receiver(Way::Down), "more");
            assert_eq!(
                counter_v6(lab.client(), "Ip6ReasmOKs"),
                COUNT as u64,
                "each long one was in fragments, and the short one was not"
            );
            assert_eq!(counter_v4(&lab.server, "Icmp", "InDestUnreachs"), 0, "nobody complained");
            router.end();
        }
    }
}

#[test]
fn a_transfer_over_tcp_finds_the_size_that_fits_the_narrower_link() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for (client_mtu, server_mtu) in [(1500, 1300), (1300, 1500)] {
        let lab = narrow(1500, 1500);
        // Only the router's ends are narrow, so that neither host knows it when it says how large a segment may be.
        lab.router.set_mtu("client0", client_mtu).unwrap();
        lab.router.set_mtu("server", server_mtu).unwrap();
        let router = Router::start(&lab, &PLAIN);
        let _server = Server::bulk(&lab.server, (Topology::SERVER_V4, 9000)).unwrap();
        let target = SocketAddr::from((through(Topology::SERVER_V4), 9000));
        for direction in [Direction::Upload, Direction::Download] {
            let limit = Duration::from_mins(1);
            let transfer = bulk_transfer(lab.client(), target, direction, 5_000_000, limit, |_| ()).unwrap();
            assert!(transfer.is_intact(), "{client_mtu}, {server_mtu}, {direction:?}: {transfer:?}");
        }
        // It had to be found.
        let told = if client_mtu < server_mtu {
            counter_v4(&lab.server, "Icmp", "InDestUnreachs")
        } else {
            counter_v6(lab.client(), "Icmp6InPktTooBigs")
        };
        assert!(told > 0, "{client_mtu}, {server_mtu}: nobody was told");
        router.end();
    }
}
