//! The probes see what is there, and end when nothing is.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use netlab::{
    Direction, Error, PingOptions, PingOutcome, Server, Topology, TopologyOptions, bulk_transfer, http_get,
    kernel_tests_possible, ping, ping_series, tcp_connect, tcp_exchange, udp_exchange,
};

const LIMIT: Duration = Duration::from_secs(30);
/// For what should not come: long enough for a thing that does come by mistake.
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_ping_is_answered_with_what_it_carried_over_both_families() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::new().unwrap();
    for (from, to) in [
        (topology.client(), IpAddr::from(Topology::ROUTER_V6)),
        (&topology.server, IpAddr::from(Topology::ROUTER_V4)),
    ] {
        let options = PingOptions { payload: vec![0xa5; 3000], sequence: 7, ..PingOptions::default() };
        let PingOutcome::Reply { from, ttl, rtt, payload } = ping(from, to, &options).unwrap() else {
            panic!("no reply from {to}")
        };
        assert_eq!((from, ttl, payload), (to, 64, vec![0xa5; 3000]));
        assert!(rtt < LIMIT);
    }
}

#[test]
fn an_expired_hop_limit_is_reported_by_the_router() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::with(&TopologyOptions { clients: 2, ..TopologyOptions::default() }).unwrap();
    let options = PingOptions { ttl: Some(1), ..PingOptions::default() };
    let outcome = ping(topology.client(), topology.clients[1].addresses[0], &options).unwrap();
    assert_eq!(
        outcome,
        PingOutcome::Error { from: Topology::ROUTER_V6.into(), icmp_type: 3, code: 0, rest: 0 }
    );
}

#[test]
fn a_packet_that_is_too_big_is_reported_with_the_mtu() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::with(&TopologyOptions { clients: 2, ..TopologyOptions::default() }).unwrap();
    topology.router.set_mtu("client1", 1280).unwrap();
    let options = PingOptions { payload: vec![0; 1400], dont_fragment: Some(true), ..PingOptions::default() };
    let outcome = ping(topology.client(), topology.clients[1].addresses[0], &options).unwrap();
    assert_eq!(
        outcome,
        PingOutcome::Error { from: Topology::ROUTER_V6.into(), icmp_type: 2, code: 0, rest: 1280 }
    );
}

#[test]
fn a_ping_into_the_void_times_out_and_one_without_a_route_is_an_error() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::new().unwrap();
    // The router has no way to 64:ff9b:1::/96, and says so with "no route" (RFC 4443 section 3.1).
    let outcome =
        ping(topology.client(), "64:ff9b:1::1".parse::<IpAddr>().unwrap(), &PingOptions::default()).unwrap();
    assert!(matches!(outcome, PingOutcome::Error { icmp_type: 1, code: 0, .. }), "{outcome:?}");

    topology.server.sysctl("net.ipv4.icmp_echo_ignore_all", "1").unwrap();
    let start = Instant::now();
    let options = PingOptions { timeout: SHORT, ..PingOptions::default() };
    assert_eq!(ping(&topology.router, Topology::SERVER_V4, &options).unwrap(), PingOutcome::Timeout);
    assert!(start.elapsed() >= SHORT);

    let error = ping(&topology.server, Topology::CLIENT_V6, &options).unwrap_err();
    assert!(error.to_string().contains("from namespace server"), "{error}");
}

#[test]
fn a_series_of_pings_tells_what_came_back_for_each_in_order() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::new().unwrap();
    let (pace, count) = (Duration::from_millis(10), 12);
    // The sequence numbers wrap on the way.
    let options = PingOptions {
        sequence: 0xfffa,
        payload: b"one of a series".to_vec(),
        timeout: SHORT,
        ..PingOptions::default()
    };
    let start = Instant::now();
    for (from, to) in [
        (topology.client(), IpAddr::from(Topology::ROUTER_V6)),
        (&topology.server, IpAddr::from(Topology::ROUTER_V4)),
    ] {
        let outcomes = ping_series(from, to, &options, count, pace).unwrap();
        assert_eq!(outcomes.len(), 12);
        for outcome in &outcomes {
            let PingOutcome::Reply { from, payload, .. } = outcome else { panic!("{outcomes:?}") };
            assert_eq!((*from, &payload[..]), (to, &b"one of a series"[..]));
        }
    }
    assert!(start.elapsed() >= 2 * 11 * pace, "one each 10 ms");

    topology.router.sysctl("net.ipv4.icmp_echo_ignore_all", "1").unwrap();
    let outcomes = ping_series(&topology.server, Topology::ROUTER_V4, &options, 3, pace).unwrap();
    assert_eq!(outcomes, vec![PingOutcome::Timeout; 3]);
}

#[test]
fn a_thousand_connections_with_sources_of_their_choice_are_open_and_served_at_once() {
    const CONNECTIONS: u16 = 1000;
    if !kernel_tests_possible() {
        return;
    }
    let options = TopologyOptions { addresses_per_client: 10, ..TopologyOptions::default() };
    let topology = Topology::with(&options).unwrap();
    let server = Server::tcp_echo(&topology.router, (Topology::ROUTER_V6, 7)).unwrap();
    let mut streams: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let address = topology.clients[0].addresses[usize::from(number % 10)];
            let source = Some(SocketAddr::from((address, 20_000 + number)));
            tcp_connect(topology.client(), source, server.address(), LIMIT).unwrap()
        })
        .collect();
    // The last ones are answered while the first ones are open.
    for (number, stream) in streams.iter_mut().enumerate().rev() {
        let sent = format!("connection {number:4}");
        let mut echoed = vec![0; sent.len()];
        stream.write_all(sent.as_bytes()).unwrap();
        stream.read_exact(&mut echoed).unwrap();
        assert_eq!(String::from_utf8_lossy(&echoed), sent);
    }
    let peers: HashSet<_> = server.peers().into_iter().collect();
    let sources: HashSet<_> = streams.iter().map(|stream| stream.local_addr().unwrap()).collect();
    assert_eq!(peers, sources);
    assert_eq!(peers.len(), usize::from(CONNECTIONS));
    drop((streams, server));
    let refused = tcp_connect(topology.client(), None, (Topology::ROUTER_V6, 7).into(), LIMIT).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED), "{refused}");
}

#[test]
fn servers_echo_and_know_their_peers_and_are_gone_when_dropped() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::new().unwrap();
    let udp = Server::udp_echo(&topology.router, (Topology::ROUTER_V6, 7)).unwrap();
    let tcp = Server::tcp_echo(&topology.router, (Topology::ROUTER_V6, 7)).unwrap();
    let source = SocketAddr::from((Topology::CLIENT_V6, 4000));
    let target = udp.address();
    assert_eq!(target, SocketAddr::from((Topology::ROUTER_V6, 7)));
    let client = topology.client();
    assert_eq!(udp_exchange(client, Some(source), target, b"datagram", LIMIT).unwrap(), b"datagram");
    let long = vec![0x5a; 300_000];
    assert!(tcp_exchange(client, Some(source), target, &long, LIMIT).unwrap() == long);
    assert_eq!((udp.peers(), tcp.peers()), (vec![source], vec![source]));

    drop((udp, tcp));
    for error in [
        udp_exchange(client, None, target, b"anybody", LIMIT).unwrap_err(),
        tcp_exchange(client, None, target, b"anybody", LIMIT).unwrap_err(),
    ] {
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{error}");
    }
}

#[test]
fn a_taken_port_is_an_error_that_says_where() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::new().unwrap();
    let at = (Topology::SERVER_V4, 80);
    let _first = Server::http(&topology.server, at, "x").unwrap();
    let error = Server::http(&topology.server, at, "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    assert!(error.to_string().contains("http server in namespace server"), "{error}");
}

#[test]
fn a_page_is_fetched_whole() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::new().unwrap();
    let page = "a line of the page\n".repeat(20_000);
    let server = Server::http(&topology.server, (Topology::SERVER_V4, 80), page.clone()).unwrap();
    let response = http_get(&topology.router, server.address(), "/", LIMIT).unwrap();
    assert_eq!(response.status, 200);
    assert!(response.text() == page);
}

#[test]
fn bulk_transfers_arrive_intact_both_ways_with_progress() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::new().unwrap();
    let server = Server::bulk(&topology.server, (Topology::SERVER_V4, 9000)).unwrap();
    for direction in [Direction::Upload, Direction::Download] {
        let mut steps = Vec::new();
        let transfer =
            bulk_transfer(&topology.router, server.address(), direction, 1_000_001, LIMIT, |done| {
                steps.push(done);
            })
            .unwrap();
        assert!(transfer.is_intact());
        assert_eq!(transfer.bytes, 1_000_001);
        assert_eq!(steps.last(), Some(&1_000_001));
        assert!(steps.is_sorted());
    }
}

#[test]
fn a_server_that_says_nothing_does_not_hold_a_client_for_ever() {
    if !kernel_tests_possible() {
        return;
    }
    let topology = Topology::new().unwrap();
    let silent = topology.server.run(|| std::net::TcpListener::bind((Topology::SERVER_V4, 80)).unwrap());
    let error = http_get(&topology.router, silent.local_addr().unwrap(), "/", SHORT).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}
