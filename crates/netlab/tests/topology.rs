//! Namespaces and links behave as the documentation says.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use ipnet::Ipv6Net;
use netlab::{Namespace, PingOptions, Topology, TopologyOptions, kernel_tests_possible, ping};

fn bounded(socket: UdpSocket) -> UdpSocket {
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

#[test]
fn a_datagram_from_the_client_reaches_the_router_at_once() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::new().unwrap();
    let at_router =
        topology.router.run(|| bounded(UdpSocket::bind(SocketAddr::from((Topology::ROUTER_V6, 7))).unwrap()));
    let at_client =
        topology.client().run(|| UdpSocket::bind(SocketAddr::from((Topology::CLIENT_V6, 0))).unwrap());
    at_client.send_to(b"hello", (Topology::ROUTER_V6, 7)).unwrap();
    let mut buffer = [0; 16];
    let (length, from) = at_router.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"hello"[..], IpAddr::V6(Topology::CLIENT_V6)));
}

#[test]
fn an_address_that_is_added_later_takes_packets_at_once() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::new().unwrap();
    for number in 0..50 {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, number);
        let only = Ipv6Net::new_assert(address, 128);
        topology.router.add_route(only, Some(Topology::CLIENT_V6.into()), "client0").unwrap();
        topology.client().add_address("eth0", only).unwrap();
        let options = PingOptions { timeout: Duration::from_secs(2), ..PingOptions::default() };
        let outcome = ping(&topology.router, address, &options).unwrap();
        assert!(outcome.is_reply(), "{address}: {outcome:?}");
    }
}

#[test]
fn the_router_forwards_between_clients_on_links_of_their_own() {
    if !kernel_tests_possible() {
        return;
    }
    let options = TopologyOptions { clients: 2, addresses_per_client: 3, ..TopologyOptions::default() };
    let topology = Topology::with(&options).unwrap();
    let [first, second] = &topology.clients[..] else { panic!("two clients were asked for") };
    let from = first.addresses[2];
    assert_eq!(from, Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 4));
    let receiver = second
        .namespace
        .run(|| bounded(UdpSocket::bind(SocketAddr::from((second.addresses[0], 7))).unwrap()));
    let sender = first.namespace.run(|| UdpSocket::bind(SocketAddr::from((from, 0))).unwrap());
    sender.send_to(b"over", (second.addresses[0], 7)).unwrap();
    let mut buffer = [0; 16];
    let (length, source) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], source.ip()), (&b"over"[..], IpAddr::V6(from)));
}

#[test]
fn forwarding_is_what_the_options_say() {
    if !kernel_tests_possible() {
        return;
    }
    for (forwarding, expected) in [(true, "1"), (false, "0")] {
        let topology = Topology::with(&TopologyOptions { forwarding, ..TopologyOptions::default() }).unwrap();
        assert_eq!(topology.router.read_sysctl("net.ipv4.ip_forward").unwrap(), expected);
        assert_eq!(topology.router.read_sysctl("net.ipv6.conf.all.forwarding").unwrap(), expected);
    }
}

#[test]
fn a_child_process_sees_the_namespace_and_not_the_host() {
    if !kernel_tests_possible() {
        return;
    }
    let namespace = Namespace::new("child").unwrap();
    let inside = namespace.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let child = namespace.command("readlink").arg("/proc/self/ns/net").output().unwrap();
    let child = String::from_utf8(child.stdout).unwrap();
    assert_eq!(child.trim_end(), inside.to_str().unwrap());
    assert_ne!(child.trim_end(), host.to_str().unwrap());
}

#[test]
fn a_published_namespace_has_its_name_until_it_is_dropped() {
    if !kernel_tests_possible() {
        return;
    }
    let namespace = Namespace::new("published").unwrap();
    let name = format!("netlab-test-{}", std::process::id());
    let published = namespace.publish(&name).unwrap();
    let path = published.path().to_owned();
    let entered = std::thread::spawn({
        let path = path.clone();
        move || {
            let file = std::fs::File::open(path).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            std::fs::read_link("/proc/thread-self/ns/net").unwrap()
        }
    });
    assert_eq!(
        entered.join().unwrap(),
        namespace.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap())
    );
    assert!(namespace.publish(&name).is_err(), "a taken name is refused");
    drop(published);
    assert!(!path.exists());
}

#[test]
fn a_link_that_does_not_exist_is_named_in_the_error() {
    if !kernel_tests_possible() {
        return;
    }
    let error = Namespace::new("empty").unwrap().up("nowhere0").unwrap_err();
    assert!(error.to_string().contains("nowhere0"), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
}
