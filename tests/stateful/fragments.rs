//! Datagrams in fragments through an address that is shared: only the first fragment has the ports.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use netlab::{Namespace, TopologyOptions};

use crate::common::packets::{datagram, in_fragments};
use crate::common::wire::Injector;
use crate::common::{PATIENCE, SHORT, through};
use crate::lab::{CLIENT, POOL, SERVER, addresses, hear, start, udp};

const LENGTH: usize = 8192;

fn pattern(seed: usize) -> Vec<u8> {
    (0..LENGTH).map(|at| (at * 7 + at / 256 + seed) as u8).collect()
}

/// The next datagram has these bytes, and the sender's address is the answer.
fn assert_arrives(receiver: &UdpSocket, payload: &[u8], how: &str) -> SocketAddr {
    let mut buffer = vec![0; 65_536];
    let (length, from) = receiver.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{how}: {error}"));
    assert!(buffer[..length] == *payload, "{how}: other bytes have arrived");
    from
}

/// Datagrams whose fragments come in every disorder arrive whole, and one that lacks a fragment does not.
fn assert_disorders_pass(
    from: &Namespace,
    source: SocketAddr,
    destination: SocketAddr,
    each: usize,
    receiver: &UdpSocket,
) {
    let injector = Injector::new(from);
    let make = |number: u16| {
        let payload = pattern(number.into());
        (in_fragments(&datagram(source, destination, &payload), number, each), payload)
    };
    let (reversed, payload) = make(1);
    reversed.iter().rev().for_each(|fragment| injector.send(fragment));
    assert_arrives(receiver, &payload, "the last one first");

    let ((one, first), (other, second)) = (make(2), make(3));
    for (one, other) in one.iter().zip(&other) {
        injector.send(one);
        injector.send(other);
    }
    assert_arrives(receiver, &first, "interleaved, the first one");
    assert_arrives(receiver, &second, "interleaved, the second one");

    let (rotated, payload) = make(4);
    rotated[1..].iter().chain(&rotated[..1]).for_each(|fragment| injector.send(fragment));
    assert_arrives(receiver, &payload, "the first one last");

    // Without the first one nobody knows whose the others are.
    let (headless, _) = make(5);
    headless[1..].iter().for_each(|fragment| injector.send(fragment));
    receiver.set_read_timeout(Some(SHORT)).unwrap();
    assert!(receiver.recv_from(&mut [0; 16]).is_err(), "a datagram without its first fragment has arrived");
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[test]
fn fragments_in_any_order_find_their_host_both_ways() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router) = start(&TopologyOptions::default(), "");
    let at_server = udp(&lab.server, (SERVER, 7777));
    let at_client = udp(lab.client(), (CLIENT, 4000));
    at_client.send_to(b"hello", (through(SERVER), 7777)).unwrap();
    let (_, public) = hear(&at_server);
    assert_eq!(public.ip(), IpAddr::V4(POOL));

    let host = SocketAddr::from((CLIENT, 4000));
    assert_disorders_pass(lab.client(), host, (through(SERVER), 7777).into(), 1232, &at_server);
    assert_disorders_pass(&lab.server, (SERVER, 7777).into(), public, 1480, &at_client);
    router.end();
}

/// Two hosts that share an address share its identifications too: what is one datagram at each of them must not become one
/// heap of fragments at the server (RFC 791 §3.2, RFC 6864 §4).
#[test]
fn fragments_of_two_hosts_with_one_identification_are_not_mixed() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router) = start(&addresses(2), "");
    let at_server = udp(&lab.server, (SERVER, 7777));
    let injector = Injector::new(lab.client());
    let [one, other] = lab.clients[0].addresses[..] else { panic!("two addresses") };
    // Blocks for both of them: few packets may wait for one.
    for host in [one, other] {
        injector.send(&datagram((host, 4000).into(), (through(SERVER), 7777).into(), b"hello"));
        assert_eq!(hear(&at_server).0, "hello");
    }
    for round in 0..20_u16 {
        let trains = [one, other].map(|host| {
            let text = format!("{host} in round {round}; ").repeat(200);
            let packet = datagram((host, 4000).into(), (through(SERVER), 7777).into(), text.as_bytes());
            (in_fragments(&packet, round, 1232), text)
        });
        for (first, second) in trains[0].0.iter().zip(&trains[1].0) {
            injector.send(first);
            injector.send(second);
        }
        let mut heard = [hear(&at_server).0, hear(&at_server).0];
        heard.sort();
        let [(_, first), (_, second)] = trains;
        assert!(heard == [first, second], "round {round}: {} bytes", heard[0].len());
    }
    router.end();
}
