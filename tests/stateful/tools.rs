//! What these tests are made of does what it says, between plain kernels and without the router.

use std::net::SocketAddr;

use ipnet::Ipv6Net;
use netlab::{Namespace, Topology, tcp_connect};

use crate::common::packets::{Flow, TCP, UDP, ack, datagram, flow, icmp_error, in_fragments, syn};
use crate::common::wire::{Injector, Sniffer};
use crate::common::{PATIENCE, SHORT};
use crate::lab::{OTHER, SERVER, VOID, clients, prepare, udp};

/// A packet made by hand is taken by the kernel at its end, whole and in fragments.
fn assert_taken(from: &Namespace, source: SocketAddr, at: &Namespace, destination: SocketAddr) {
    let receiver = udp(at, destination);
    let injector = Injector::new(from);
    let mut buffer = vec![0; 65_536];
    for (length, each) in [(1000, 1024), (8192, 1024), (8192, 1400)] {
        let payload: Vec<u8> = (0..length).map(|at: usize| (at * 7) as u8).collect();
        let fragments = in_fragments(&datagram(source, destination, &payload), length as u16, each);
        assert_eq!(fragments.len(), (length + 8).div_ceil(each));
        fragments.iter().rev().for_each(|fragment| injector.send(fragment));
        let (arrived, peer) = receiver.recv_from(&mut buffer).unwrap();
        assert!(buffer[..arrived] == payload[..], "{length} bytes in fragments of {each}");
        assert_eq!(peer, source);
    }
}

#[test]
fn packets_made_by_hand_are_what_kernels_take_and_what_kernels_send_is_read() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = prepare(&clients(2));
    let (near, far) = (&lab.clients[0], &lab.clients[1]);
    let ends = (SocketAddr::from((near.addresses[0], 4000)), SocketAddr::from((far.addresses[0], 7777)));
    assert_taken(&near.namespace, ends.0, &far.namespace, ends.1);
    let (server, router) = (SocketAddr::from((OTHER, 4000)), SocketAddr::from((Topology::ROUTER_V4, 7777)));
    assert_taken(&lab.server, server, &lab.router, router);

    // Nobody listens any more: datagrams are refused by an ICMP error, segments by a reset.
    for (from, at, source, destination, kind) in [
        (&near.namespace, &far.namespace, ends.0, ends.1, (1, 4)),
        (&lab.server, &lab.router, server, router, (3, 3)),
    ] {
        let sniffer = Sniffer::new(from);
        let injector = Injector::new(from);
        injector.send(&datagram(source, destination, b"anybody?"));
        let error = sniffer.within(PATIENCE, icmp_error).unwrap();
        assert_eq!((error.kind, error.from, error.to), (kind, destination.ip(), source.ip()));
        assert_eq!(error.about, Flow { protocol: UDP, source, destination });
        for segment in [syn(source, destination), ack(source, destination)] {
            let at_receiver = Sniffer::new(at);
            injector.send(&segment);
            let back = Flow { protocol: TCP, source: destination, destination: source };
            let answer = |packet: &[u8]| flow(packet).filter(|flow| *flow == back);
            assert!(sniffer.within(PATIENCE, answer).is_some());
            assert!(at_receiver.so_far(answer).len() == 1);
        }
    }
}

#[test]
fn the_void_is_silent_and_hosts_behind_a_host_are_routed() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = prepare(&clients(2));
    let nobody = VOID.hosts().next().unwrap();
    let error = tcp_connect(&lab.router, None, (nobody, 80).into(), SHORT).unwrap_err();
    assert!(error.to_string().ends_with("timed out"), "{error}");
    let error = tcp_connect(&lab.router, None, (SERVER, 80).into(), PATIENCE).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{error}");

    let behind = Ipv6Net::new_assert("2001:db8:ffff::".parse().unwrap(), 64);
    let host = "2001:db8:ffff::2".parse().unwrap();
    let client = &lab.clients[0];
    client.namespace.add_address("eth0", Ipv6Net::new_assert(host, 128)).unwrap();
    lab.router.add_route(behind, Some(client.addresses[0].into()), &client.router_link).unwrap();
    let listener = lab.clients[1]
        .namespace
        .run(|| std::net::TcpListener::bind((lab.clients[1].addresses[0], 80)).unwrap());
    let target = listener.local_addr().unwrap();
    let stream = tcp_connect(&client.namespace, Some((host, 0).into()), target, PATIENCE).unwrap();
    assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
}
