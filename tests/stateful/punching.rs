//! How hosts behind the router find each other and open the way: UDP hole punching, and TCP simultaneous open.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netlab::{Server, TopologyOptions};

use crate::common::packets::{TCP, flow, icmp_error};
use crate::common::wire::Sniffer;
use crate::common::{Lab, PATIENCE, SHORT, eventually, through};
use crate::lab::{
    CLIENT, OTHER, POOL, SERVER, assert_talks, clients, connect, hear, seen_through, start, udp,
};

const BOTH: [&str; 2] = ["endpoint-independent", "address-dependent"];

fn filtering(kind: &str) -> String {
    format!("[sessions]\nfiltering = \"{kind}\"\n")
}

/// Lets both hosts report to the rendezvous server, which tells each where the other one is seen.
fn introduce(rendezvous: &UdpSocket, hosts: [&UdpSocket; 2]) -> [SocketAddr; 2] {
    let public = hosts.map(|host| {
        host.send_to(b"here I am", (through(SERVER), 3478)).unwrap();
        let (text, from) = hear(rendezvous);
        assert_eq!(text, "here I am");
        assert_eq!(from.ip(), IpAddr::V4(POOL));
        from
    });
    for (to, other) in [(public[0], public[1]), (public[1], public[0])] {
        rendezvous.send_to(other.to_string().as_bytes(), to).unwrap();
    }
    for (host, other) in [(hosts[0], public[1]), (hosts[1], public[0])] {
        assert_eq!(hear(host), (other.to_string(), (through(SERVER), 3478).into()));
    }
    public
}

#[test]
fn hosts_that_were_introduced_talk_directly_through_the_public_address() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for kind in BOTH {
        let (lab, router) = start(&clients(2), &filtering(kind));
        let rendezvous = udp(&lab.server, (SERVER, 3478));
        let elsewhere = udp(&lab.server, (OTHER, 9));
        // Both from the same port, so that only the router tells them apart.
        let hosts = [0, 1].map(|host: usize| {
            let client = &lab.clients[host];
            udp(&client.namespace, (client.addresses[0], 4000))
        });
        let public = introduce(&rendezvous, [&hosts[0], &hosts[1]]);
        assert_ne!(public[0], public[1]);

        // RFC 4787 REQ-1: whoever is sent to, the mapping is the same.
        for (host, public) in hosts.iter().zip(public) {
            host.send_to(b"to another server", (through(OTHER), 9)).unwrap();
            assert_eq!(hear(&elsewhere), ("to another server".to_owned(), public), "{kind}");
        }

        // Each one knocks until it is heard. With address-dependent filtering the first knock of all is not.
        let others = [public[1], public[0]];
        for host in &hosts {
            host.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        }
        let mut heard = [false; 2];
        eventually("both hosts have heard each other", PATIENCE, || {
            for (number, host) in hosts.iter().enumerate() {
                let text = format!("host {number} knocks");
                host.send_to(text.as_bytes(), seen_through(others[number])).unwrap();
            }
            for (number, host) in hosts.iter().enumerate() {
                let mut buffer = [0; 100];
                if let Ok((length, from)) = host.recv_from(&mut buffer) {
                    let text = format!("host {} knocks", 1 - number);
                    assert_eq!(String::from_utf8_lossy(&buffer[..length]), text);
                    // RFC 4787 REQ-9: the other one is seen by its public address and port.
                    assert_eq!(from, seen_through(others[number]), "{kind}");
                    heard[number] = true;
                }
            }
            heard.iter().all(|heard| *heard).then_some(())
        });
        router.end();
    }
}

/// Lets the host open a connection to the other address, so that its port has a mapping, and tells the public port.
fn map(lab: &Lab, port: u16) -> (SocketAddr, TcpStream, Server) {
    let server = Server::tcp_echo(&lab.server, (OTHER, 7)).unwrap();
    let stream = connect(lab.client(), (CLIENT, port), (through(OTHER), 7));
    let public = eventually("the server has accepted", PATIENCE, || server.peers().pop());
    (public, stream, server)
}

#[test]
fn a_connection_that_both_ends_open_at_once_is_established_though_the_outsider_was_first() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let timers = "[timers]\nbelow_rfc = true\ntcp_incoming_syn = \"1s\"\n";
    let (lab, router) = start(&TopologyOptions::default(), &(filtering("address-dependent") + timers));
    let (public, _stream, _server) = map(&lab, 4000);
    // Nobody listens at either end: a connection can only come of two SYNs.
    let at_server = Sniffer::new(&lab.server);
    let errors = Sniffer::new(&lab.server);
    let at_client = Sniffer::new(lab.client());
    let (mut one, mut other) = std::thread::scope(|scope| {
        let outsider = scope.spawn(|| {
            netlab::tcp_connect(&lab.server, Some((SERVER, 5000).into()), public, PATIENCE).unwrap()
        });
        let syn = |packet: &[u8]| {
            flow(packet).filter(|flow| flow.protocol == TCP && flow.source == (SERVER, 5000).into())
        };
        at_server.within(PATIENCE, syn).expect("the outsider's SYN leaves");
        // RFC 6146 §3.5.2.2: it is stored, and not shown to the host before the host itself has asked for it.
        let through_it =
            |packet: &[u8]| flow(packet).filter(|flow| flow.source.ip() == IpAddr::V6(through(SERVER)));
        assert_eq!(at_client.within(SHORT, through_it), None);
        let insider = connect(lab.client(), (CLIENT, 4000), (through(SERVER), 5000));
        (insider, outsider.join().unwrap())
    });
    assert_eq!(other.peer_addr().unwrap(), public);
    assert_talks(&mut one, &mut other);
    let metrics = router.metrics();
    assert!(metrics.dropped("syn_stored") > 0, "{metrics:?}");
    assert_eq!(metrics.all_dropped(), metrics.dropped("syn_stored"), "{metrics:?}");
    // RFC 5382 REQ-4: what was taken up needs no error, also when its time would be over.
    assert_eq!(errors.within(Duration::from_millis(1500), icmp_error), None);
    router.end();
}
