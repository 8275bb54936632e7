//! Packets come through the router, both ways, whole, and by the router.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use common::{Lab, PATIENCE, PLAIN, Router, through};
use netlab::{
    Direction, Namespace, PingOptions, PingOutcome, Server, Topology, TopologyOptions, bulk_transfer,
    http_get, ping, tcp_exchange, udp_exchange,
};

/// The address that the only host so far holds.
fn leased(server: &Server) -> Ipv4Addr {
    match server.peers().last().unwrap().ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} reached an IPv4-only server"),
    }
}

/// Lets the client take a lease, and tells the address.
fn take_lease(lab: &Lab) -> Ipv4Addr {
    let echo = Server::udp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    udp_exchange(lab.client(), None, at(7), b"hello", PATIENCE).unwrap();
    leased(&echo)
}

/// The server's port, as the clients address it.
fn at(port: u16) -> SocketAddr {
    (through(Topology::SERVER_V4), port).into()
}

fn socket(namespace: &Namespace, at: impl Into<SocketAddr>) -> UdpSocket {
    let at = at.into();
    let socket = namespace.run(|| UdpSocket::bind(at).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn the_first_ping_of_a_new_host_waits_for_its_lease_and_is_answered() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { addresses_per_client: 20, ..TopologyOptions::default() });
    let router = Router::start(&lab, &PLAIN);
    for source in &lab.clients[0].addresses {
        let options = PingOptions { source: Some((*source).into()), ..PingOptions::default() };
        let outcome = ping(lab.client(), through(Topology::SERVER_V4), &options).unwrap();
        let PingOutcome::Reply { from, payload, .. } = outcome else { panic!("{source}: {outcome:?}") };
        assert_eq!((from, payload), (IpAddr::V6(through(Topology::SERVER_V4)), options.payload));
    }
    let metrics = router.wait_for_metrics("twenty pings are counted both ways", |metrics| {
        ["6to4", "4to6"].iter().all(|way| {
            metrics.sum("protomask_forwarded_packets_total", &[&format!("direction=\"{way}\"")]) >= 20
        })
    });
    assert!(metrics.sum("protomask_held_packets_total", &[]) >= 20, "each first packet had to wait");
    assert_eq!(metrics.sum("protomask_dropped_packets_total", &[]), 0);
    router.end();
}

#[test]
fn pings_of_every_size_up_to_the_mtu_carry_their_bytes_both_ways() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let _router = Router::start(&lab, &PLAIN);
    let address = take_lease(&lab);
    // 1452 bytes fill an IPv6 packet of 1500.
    for length in (0..=1452).step_by(33) {
        let payload: Vec<u8> = (0..length).map(|n: u32| n as u8).collect();
        let options = PingOptions { payload: payload.clone(), ..PingOptions::default() };
        for (from, to) in
            [(lab.client(), IpAddr::V6(through(Topology::SERVER_V4))), (&lab.server, IpAddr::V4(address))]
        {
            let outcome = ping(from, to, &options).unwrap();
            let PingOutcome::Reply { payload: echoed, .. } = outcome else { panic!("{length}: {outcome:?}") };
            assert!(echoed == payload, "{length} bytes to {to}");
        }
    }
}

#[test]
fn a_web_page_is_fetched_and_the_server_sees_an_address_of_the_pool() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let _router = Router::start(&lab, &PLAIN);
    let page = "a line of the page\n".repeat(10_000);
    let server = Server::http(&lab.server, (Topology::SERVER_V4, 80), page.clone()).unwrap();
    let answer = http_get(lab.client(), at(80), "/", PATIENCE).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text() == page);
    assert!(Topology::POOL.contains(&leased(&server)));
}

#[test]
fn datagrams_pass_from_either_side_with_right_checksums_and_unchanged_ports() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let _router = Router::start(&lab, &PLAIN);
    let server = socket(&lab.server, (Topology::SERVER_V4, 7));
    let client = socket(lab.client(), (Topology::CLIENT_V6, 4000));
    let mut buffer = [0; 2000];
    let mut address = None;
    // Odd and even lengths: the checksum pads an odd byte.
    for length in [0, 1, 2, 7, 512, 1451, 1452] {
        let sent: Vec<u8> = (0..length).map(|n: u32| (n * 7) as u8).collect();
        client.send_to(&sent, at(7)).unwrap();
        // The kernel would not hand over a datagram with a wrong checksum.
        let (arrived, from) = server.recv_from(&mut buffer).unwrap();
        assert!(buffer[..arrived] == sent[..], "{length} bytes to the server");
        assert_eq!(from.port(), 4000);
        assert!(address.is_none_or(|before| before == from), "the host keeps its address: {from}");
        address = Some(from);
        server.send_to(&sent, from).unwrap();
        let (arrived, from) = client.recv_from(&mut buffer).unwrap();
        assert!(buffer[..arrived] == sent[..], "{length} bytes to the client");
        assert_eq!(from, at(7));
    }
    // Without a datagram of the client's before: whoever knows the address reaches any port of it.
    let other = socket(lab.client(), (Topology::CLIENT_V6, 5000));
    let stranger = socket(&lab.server, (Topology::SERVER_V4, 9999));
    stranger.send_to(b"unasked", (address.unwrap().ip(), 5000)).unwrap();
    let (length, from) = other.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"unasked"[..], at(9999)));
}

#[test]
fn datagrams_that_leave_in_fragments_arrive_whole_both_ways() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &PLAIN);
    let server = socket(&lab.server, (Topology::SERVER_V4, 7));
    let client = socket(lab.client(), (Topology::CLIENT_V6, 4000));
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = vec![0; 65_536];
    for length in [1453, 2000, 4000, 20_000, 60_000] {
        let sent: Vec<u8> = (0..length).map(|n: u32| (n * 7) as u8).collect();
        client.send_to(&sent, at(7)).unwrap();
        let (arrived, from) = server.recv_from(&mut buffer).unwrap();
        assert!(buffer[..arrived] == sent[..], "{length} bytes to the server");
        // The first datagram may be lost to path MTU discovery: it fits into one IPv4 packet and not into one IPv6 packet.
        let arrived = common::eventually("a datagram from the server", PATIENCE, || {
            server.send_to(&sent, from).unwrap();
            client.recv_from(&mut buffer).ok().map(|(arrived, _)| arrived)
        });
        assert!(buffer[..arrived] == sent[..], "{length} bytes to the client");
    }
    assert_eq!(router.metrics().sum("protomask_dropped_packets_total", &[]), 0);
}

/// The sum of RFC 1071 over an IPv6 UDP datagram with the checksum field zero (RFC 8200 section 8.1).
fn udp_sum(source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16), payload: &[u8]) -> u16 {
    let length = 8 + payload.len() as u32;
    let mut sum: u32 = 17 + 2 * length + u32::from(source.1) + u32::from(destination.1);
    sum += [source.0, destination.0].iter().flat_map(Ipv6Addr::segments).map(u32::from).sum::<u32>();
    sum += payload
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn a_checksum_that_computes_to_zero_arrives_as_ffff() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let _router = Router::start(&lab, &PLAIN);
    let address = take_lease(&lab);
    let server = socket(&lab.server, (Topology::SERVER_V4, 7777));
    let client = socket(lab.client(), (Topology::CLIENT_V6, 4000));
    let ends = ((through(Topology::SERVER_V4), 7777), (Topology::CLIENT_V6, 4000));
    // This word makes the sum 0xffff and the checksum 0, which over IPv6 would mean "broken" (RFC 8200 section 8.1).
    let word = !udp_sum(ends.0, ends.1, &[0, 0]);
    assert_eq!(udp_sum(ends.0, ends.1, &word.to_be_bytes()), 0xffff);
    server.send_to(&word.to_be_bytes(), (address, 4000)).unwrap();
    let mut buffer = [0; 16];
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&word.to_be_bytes()[..], at(7777)));
}

#[test]
fn a_hundred_megabytes_arrive_intact_each_way_and_all_of_it_by_the_router() {
    const BYTES: u64 = 100_000_000;
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &PLAIN);
    let _server = Server::bulk(&lab.server, (Topology::SERVER_V4, 9000)).unwrap();
    for (direction, way) in [(Direction::Upload, "6to4"), (Direction::Download, "4to6")] {
        let label = format!("direction=\"{way}\"");
        let bytes = |router: &Router| router.metrics().sum("protomask_forwarded_bytes_total", &[&label]);
        let before = bytes(&router);
        let limit = Duration::from_mins(2);
        let transfer = bulk_transfer(lab.client(), at(9000), direction, BYTES, limit, |_| ()).unwrap();
        println!("{way}: {BYTES} bytes in {:?}", transfer.elapsed);
        assert!(transfer.is_intact(), "{transfer:?}");
        assert_eq!(transfer.bytes, BYTES);
        let counted = bytes(&router) - before;
        assert!(counted >= BYTES, "{way}: {counted} bytes were counted: the rest went another way");
    }
    // The kernel's own count of what went into the device and what came out of it.
    let snapshot = lab.snapshot();
    let stats = snapshot.link_by_name("nat64").unwrap().stats;
    assert!(stats.tx_bytes >= 2 * BYTES && stats.rx_bytes >= 2 * BYTES, "{stats:?}");
    router.end();
}

#[test]
fn ten_hosts_at_once_have_an_address_each_and_get_their_own_answers() {
    const DATAGRAMS: usize = 20;
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { clients: 10, ..TopologyOptions::default() });
    let router = Router::start(&lab, &PLAIN);
    let udp = Server::udp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let tcp = Server::tcp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    std::thread::scope(|scope| {
        for (number, client) in lab.clients.iter().enumerate() {
            scope.spawn(move || {
                let target = SocketAddr::from((through(Topology::SERVER_V4), 7));
                // All from the same port: only the address tells them apart.
                let source = Some(SocketAddr::from((client.addresses[0], 4000)));
                for round in 0..DATAGRAMS {
                    let sent = format!("datagram {round} of host {number}");
                    let echoed =
                        udp_exchange(&client.namespace, source, target, sent.as_bytes(), PATIENCE).unwrap();
                    assert_eq!(String::from_utf8_lossy(&echoed), sent);
                }
                let sent = format!("host {number}\n").repeat(20_000).into_bytes();
                let echoed = tcp_exchange(&client.namespace, source, target, &sent, PATIENCE).unwrap();
                assert!(echoed == sent, "host {number} over TCP");
            });
        }
    });
    let mut datagrams = HashMap::new();
    for peer in udp.peers() {
        *datagrams.entry(peer.ip()).or_insert(0) += 1;
    }
    assert_eq!(datagrams.len(), 10, "an address each: {datagrams:?}");
    assert!(
        datagrams.values().all(|count| *count == DATAGRAMS),
        "and the same one throughout: {datagrams:?}"
    );
    for peer in tcp.peers() {
        assert!(datagrams.contains_key(&peer.ip()), "{peer} is none of those seen over UDP");
    }
    router.wait_for_leased(10);
}

fn hop(namespace: &Namespace, target: IpAddr, ttl: u8) -> PingOutcome {
    ping(namespace, target, &PingOptions { ttl: Some(ttl), ..PingOptions::default() }).unwrap()
}

fn expired(outcome: &PingOutcome) -> IpAddr {
    match outcome {
        PingOutcome::Error { from, icmp_type: 3 | 11, code: 0, .. } => *from,
        other => panic!("Time Exceeded was expected, and there came {other:?}"),
    }
}

#[test]
fn a_traceroute_from_the_ipv6_side_sees_kernel_router_kernel_and_then_the_server() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let icmp_source: Ipv6Addr = "2001:db8:1::64".parse().unwrap();
    let _router = Router::start(&lab, &common::plain_and(&["--icmp-source-v6", "2001:db8:1::64"]));
    let target = IpAddr::V6(through(Topology::SERVER_V4));
    assert!(hop(lab.client(), target, 64).is_reply());
    // The kernel on its way to the device, the router itself, the kernel behind the device, the server.
    assert_eq!(expired(&hop(lab.client(), target, 1)), IpAddr::V6(Topology::ROUTER_V6));
    assert_eq!(expired(&hop(lab.client(), target, 2)), IpAddr::V6(icmp_source));
    assert_eq!(expired(&hop(lab.client(), target, 3)), IpAddr::V6(through(Topology::ROUTER_V4)));
    let PingOutcome::Reply { from, ttl, .. } = hop(lab.client(), target, 4) else { panic!("no reply") };
    assert_eq!((from, ttl), (target, 64 - 3));
}

#[test]
fn a_traceroute_from_the_ipv4_side_sees_kernel_router_kernel_and_then_the_host() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let _router = Router::start(&lab, &PLAIN);
    let address = take_lease(&lab);
    let target = IpAddr::V4(address);
    assert!(hop(&lab.server, target, 64).is_reply());
    assert_eq!(expired(&hop(&lab.server, target, 1)), IpAddr::V4(Topology::ROUTER_V4));
    // Documented: the first address of the first pool.
    assert_eq!(expired(&hop(&lab.server, target, 2)), IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)));
    // The kernel answers from an IPv6 address, which has no IPv4 address of its own: the mapping's stands for it.
    assert_eq!(expired(&hop(&lab.server, target, 3)), target);
    let PingOutcome::Reply { from, ttl, .. } = hop(&lab.server, target, 4) else { panic!("no reply") };
    assert_eq!((from, ttl), (target, 64 - 3));
}

#[test]
fn a_smaller_mtu_behind_the_router_is_reported_to_the_ipv6_side_in_its_own_terms() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { server_mtu: 1400, ..TopologyOptions::default() });
    let _router = Router::start(&lab, &PLAIN);
    let options = PingOptions { payload: vec![0; 1452], dont_fragment: Some(true), ..PingOptions::default() };
    let outcome = ping(lab.client(), through(Topology::SERVER_V4), &options).unwrap();
    // Fragmentation Needed with 1400 is Packet Too Big with 20 bytes more (RFC 7915 section 4.2).
    let from = IpAddr::V6(through(Topology::ROUTER_V4));
    assert_eq!(outcome, PingOutcome::Error { from, icmp_type: 2, code: 0, rest: 1420 });
    // TCP finds its way by itself.
    let _echo = Server::tcp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let sent = vec![0x5a; 300_000];
    assert!(tcp_exchange(lab.client(), None, at(7), &sent, PATIENCE).unwrap() == sent);
}

#[test]
fn a_smaller_mtu_on_the_ipv6_side_is_reported_to_the_ipv4_side_in_its_own_terms() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { client_mtu: 1300, ..TopologyOptions::default() });
    let _router = Router::start(&lab, &PLAIN);
    let address = take_lease(&lab);
    let options = PingOptions { payload: vec![0; 1400], dont_fragment: Some(true), ..PingOptions::default() };
    let outcome = ping(&lab.server, address, &options).unwrap();
    // Packet Too Big with 1300 is Fragmentation Needed with 20 bytes less (RFC 7915 section 5.2).
    let PingOutcome::Error { icmp_type: 3, code: 4, rest, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(rest, 1280);
}

#[test]
fn two_hosts_behind_the_router_reach_each_other_by_their_ipv4_addresses() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { clients: 2, ..TopologyOptions::default() });
    let _router = Router::start(&lab, &PLAIN);
    let echo = Server::udp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let addresses: Vec<Ipv4Addr> = lab
        .clients
        .iter()
        .map(|client| {
            udp_exchange(&client.namespace, None, at(7), b"hello", PATIENCE).unwrap();
            leased(&echo)
        })
        .collect();
    let outcome = ping(lab.client(), through(addresses[1]), &PingOptions::default()).unwrap();
    let PingOutcome::Reply { from, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(from, IpAddr::V6(through(addresses[1])));
    // And each sees the other's IPv4 address, not its IPv6 one (RFC 6146 section 3.8).
    let page =
        Server::http(&lab.clients[1].namespace, (lab.clients[1].addresses[0], 80), "neighbour").unwrap();
    let answer = http_get(lab.client(), (through(addresses[1]), 80).into(), "/", PATIENCE).unwrap();
    assert_eq!(answer.text(), "neighbour");
    assert_eq!(page.peers()[0].ip(), IpAddr::V6(through(addresses[0])));
}
