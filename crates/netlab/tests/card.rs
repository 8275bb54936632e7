//! What a link's card does by itself can be turned off, one thing at a time.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use netlab::{
    Direction, Error, Namespace, Server, Topology, bulk_transfer, kernel_tests_possible, segment_datagrams,
};

const UDP_SEGMENTATION: &str = "tx-udp-segmentation";
/// Datagrams that are sent at a time, how often, and how long each is.
const BURST: u64 = 8;
const BURSTS: u64 = 100;
const PAYLOAD: u16 = 64;
/// Packets that the kernel sends by itself meanwhile: a few of neighbour discovery.
const OTHERS: u64 = 20;
const PATIENCE: Duration = Duration::from_mins(1);

/// Packets that the router's end of the client's link got.
fn arrived(router: &Namespace) -> u64 {
    let table = router.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    let line = table.lines().find_map(|line| line.trim().strip_prefix("client0:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How many packets the bursts are on the link.
fn packets_of_bursts(lab: &Topology) -> u64 {
    let server = lab.router.run(|| UdpSocket::bind(SocketAddr::from((Topology::ROUTER_V6, 7001))).unwrap());
    let client = lab.client().run(|| UdpSocket::bind(SocketAddr::from((Topology::CLIENT_V6, 7000))).unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(server.local_addr().unwrap()).unwrap();
    segment_datagrams(&client, PAYLOAD).unwrap();
    let before = arrived(&lab.router);
    let text: Vec<u8> = (0..BURST as u8).flat_map(|number| [number; PAYLOAD as usize]).collect();
    let mut buffer = [0; 2 * PAYLOAD as usize];
    for _ in 0..BURSTS {
        assert_eq!(client.send(&text).unwrap(), text.len());
        for number in 0..BURST as u8 {
            let length = server.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], [number; PAYLOAD as usize]);
        }
    }
    arrived(&lab.router) - before
}

#[test]
fn datagrams_sent_at_a_time_are_one_packet_until_the_card_may_not_cut_them() {
    if !kernel_tests_possible() {
        return;
    }
    let lab = Topology::new().unwrap();
    let together = packets_of_bursts(&lab);
    assert!((BURSTS..BURSTS + OTHERS).contains(&together), "{together} packets");
    lab.client().set_offload("eth0", UDP_SEGMENTATION, false).unwrap();
    let apart = packets_of_bursts(&lab);
    assert!((BURST * BURSTS..BURST * BURSTS + OTHERS).contains(&apart), "{apart} packets");
    lab.client().set_offload("eth0", UDP_SEGMENTATION, true).unwrap();
    let again = packets_of_bursts(&lab);
    assert!((BURSTS..BURSTS + OTHERS).contains(&again), "{again} packets");
}

#[test]
fn tcp_stays_in_super_packets_without_the_segmentation_of_udp() {
    if !kernel_tests_possible() {
        return;
    }
    let lab = Topology::new().unwrap();
    lab.client().set_offload("eth0", UDP_SEGMENTATION, false).unwrap();
    let sink = Server::bulk(&lab.router, (Topology::ROUTER_V6, 9000)).unwrap();
    let before = arrived(&lab.router);
    let length = 16 << 20;
    let upload =
        bulk_transfer(lab.client(), sink.address(), Direction::Upload, length, PATIENCE, |_| ()).unwrap();
    assert!(upload.is_intact());
    let (packets, segments) = (arrived(&lab.router) - before, length / 1428);
    assert!(packets < segments / 4, "{packets} packets for {segments} segments");
}

#[test]
fn what_cannot_be_set_is_named() {
    if !kernel_tests_possible() {
        return;
    }
    let namespace = Namespace::new("card").unwrap();
    let error = namespace.set_offload("lo", "tx-soup", false).unwrap_err();
    assert!(matches!(&error, Error::Invalid(text) if text.contains("tx-soup")), "{error}");
    let error = namespace.set_offload("eth7", UDP_SEGMENTATION, false).unwrap_err();
    assert!(error.to_string().contains("eth7"), "{error}");
    let error = namespace.set_offload("a-name-that-is-too-long", UDP_SEGMENTATION, false).unwrap_err();
    assert!(error.to_string().contains("a-name-that-is-too-long"), "{error}");
    // That it is one.
    let error = namespace.set_offload("lo", "loopback", false).unwrap_err();
    assert!(matches!(&error, Error::Invalid(text) if text.contains("does not change it")), "{error}");
}
