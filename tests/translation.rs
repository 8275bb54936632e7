//! RFC 7915 on the wire: path MTU discovery, fragments, traceroute and ECN between the kernels of two hosts.
//!
//! The pool is routed, not masqueraded, so that no connection tracking puts fragments together on the way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use common::kernel::{assert_untracked, counter_v4, counter_v6};
use common::wire::{Injector, Sniffer};
use common::{Lab, PATIENCE, PLAIN, Router, SHORT, eventually, through};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, TcpHeader, UdpHeader};
use netlab::{
    Direction, Namespace, Server, Topology, TopologyOptions, bulk_transfer, ecn_is_agreed, ecn_is_seen,
    path_mtu, tcp_exchange, udp_exchange,
};
use socket2::SockRef;

const CLIENT: Ipv6Addr = Topology::CLIENT_V6;
const SERVER: Ipv4Addr = Topology::SERVER_V4;
const CLIENT_PORT: u16 = 4000;
const SERVER_PORT: u16 = 7777;

/// A laboratory with a router that has no connection tracking, and the address that the client holds.
fn start(options: &TopologyOptions) -> (Lab, Router, Ipv4Addr) {
    let lab = Lab::with(options);
    let router = Router::start(&lab, &PLAIN);
    let echo = Server::udp_echo(&lab.server, (SERVER, 7)).unwrap();
    udp_exchange(lab.client(), None, (through(SERVER), 7).into(), b"hello", PATIENCE).unwrap();
    let IpAddr::V4(address) = echo.peers()[0].ip() else { panic!("the server is IPv4-only") };
    // So that what a test counts does not begin with the end of this.
    router.wait_for_metrics("the exchange is counted", |metrics| {
        ["6to4", "4to6"].iter().all(|way| {
            metrics.sum("protomask_forwarded_packets_total", &[&format!("direction=\"{way}\"")]) == 1
        })
    });
    let marks = lab.marks();
    assert!(
        !marks.iter().any(|mark| mark.starts_with("table")),
        "nothing that tracks connections: {marks:?}"
    );
    (lab, router, address)
}

fn socket(namespace: &Namespace, at: impl Into<SocketAddr>) -> UdpSocket {
    let at = at.into();
    let socket = namespace.run(|| UdpSocket::bind(at).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256 + seed) as u8).collect()
}

fn forwarded(router: &Router, direction: &str) -> u64 {
    router.metrics().sum("protomask_forwarded_packets_total", &[&format!("direction=\"{direction}\"")])
}

/// A datagram in fragments with so many bytes of payload each, as its sender writes them.
struct Train {
    fragments: Vec<Vec<u8>>,
    payload: Vec<u8>,
}

fn train_v6(identification: u32, length: usize, each: usize) -> Train {
    let payload = pattern(length, identification as usize);
    let (source, destination) = (CLIENT.octets(), through(SERVER).octets());
    let ends = (CLIENT_PORT, SERVER_PORT);
    let header = Ipv6Header {
        next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
        hop_limit: 64,
        source,
        destination,
        ..Ipv6Header::default()
    };
    let udp = UdpHeader::with_ipv6_checksum(ends.0, ends.1, &header, &payload).unwrap();
    let datagram = [&udp.to_bytes()[..], &payload].concat();
    let fragment = |(number, piece): (usize, &[u8])| {
        let at = number * each;
        let place = Ipv6FragmentHeader {
            next_header: IpNumber::UDP,
            fragment_offset: IpFragOffset::try_new((at / 8) as u16).unwrap(),
            more_fragments: at + piece.len() < datagram.len(),
            identification,
        };
        let header = Ipv6Header { payload_length: (piece.len() + 8) as u16, ..header.clone() };
        [&header.to_bytes()[..], &place.to_bytes(), piece].concat()
    };
    let fragments = datagram.chunks(each).enumerate().map(fragment).collect();
    Train { fragments, payload }
}

fn train_v4(to: Ipv4Addr, identification: u16, length: usize, each: usize) -> Train {
    let payload = pattern(length, identification.into());
    let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, SERVER.octets(), to.octets()).unwrap();
    let udp = UdpHeader::with_ipv4_checksum(SERVER_PORT, CLIENT_PORT, &header, &payload).unwrap();
    let datagram = [&udp.to_bytes()[..], &payload].concat();
    let mut fragment = |(number, piece): (usize, &[u8])| {
        let at = number * each;
        header.identification = identification;
        header.dont_fragment = false;
        header.fragment_offset = IpFragOffset::try_new((at / 8) as u16).unwrap();
        header.more_fragments = at + piece.len() < datagram.len();
        header.set_payload_len(piece.len()).unwrap();
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], piece].concat()
    };
    let fragments = datagram.chunks(each).enumerate().map(&mut fragment).collect();
    Train { fragments, payload }
}

/// Sends trains of fragments in four disorders and says how many fragments that were. The trains need identifications
/// of their own: one datagram stays with a hole in it, and would take the fragments of a later namesake.
///
/// The receiver's kernel gets the datagrams whole but for the one of which a fragment is lost.
fn disorders(injector: &Injector, receiver: &UdpSocket, make: impl Fn(u16) -> Train) -> u64 {
    let (mut sent, mut buffer) = (0, vec![0; 65_536]);
    let mut send = |fragment: &[u8]| {
        injector.send(fragment);
        sent += 1;
    };
    let mut arrives = |train: &Train, how: &str| {
        let (length, _) = receiver.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{how}: {error}"));
        assert!(buffer[..length] == train.payload[..], "{how}: other bytes have arrived");
    };

    let reversed = make(1);
    reversed.fragments.iter().rev().for_each(|fragment| send(fragment));
    arrives(&reversed, "the last one first");

    // Two at a time: the first to be whole is the first to arrive.
    let (one, other) = (make(2), make(3));
    for (one, other) in one.fragments.iter().zip(&other.fragments) {
        send(one);
        send(other);
    }
    arrives(&one, "interleaved, the first one");
    arrives(&other, "interleaved, the second one");

    let lost = make(4);
    let without = lost.fragments.iter().enumerate().filter(|(number, _)| *number != 2);
    without.for_each(|(_, fragment)| send(fragment));

    // An exact double is tolerated (RFC 5722 §4 is about overlaps that are none), in IPv4 as in IPv6.
    let doubled = make(5);
    for (number, fragment) in doubled.fragments.iter().enumerate() {
        send(fragment);
        if number == 1 {
            send(fragment);
        }
    }
    arrives(&doubled, "with a double");

    receiver.set_read_timeout(Some(SHORT)).unwrap();
    assert!(receiver.recv_from(&mut buffer).is_err(), "the datagram with a hole has arrived");
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    sent
}

#[test]
fn fragments_out_of_order_interleaved_lost_and_doubled_are_translated_one_by_one_from_ipv6() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router, address) = start(&TopologyOptions::default());
    let receiver = socket(&lab.server, (SERVER, SERVER_PORT));
    let injector = Injector::new(lab.client());
    // As long as IPv6's least MTU lets them be, and as long as this link's.
    for (each, count) in [(1232, 35), (1448, 30)] {
        let before = forwarded(&router, "6to4");
        let sent =
            disorders(&injector, &receiver, |number| train_v6(each as u32 + u32::from(number), 8192, each));
        assert_eq!(sent, count, "as many as five datagrams have: one is lost, and one is sent twice");
        // The router has seen every fragment, and none of them was put together before it.
        let label = ["direction=\"6to4\""];
        let metrics = router.wait_for_metrics("all fragments are counted", |metrics| {
            metrics.sum("protomask_forwarded_packets_total", &label) >= before + sent
        });
        assert_eq!(metrics.sum("protomask_forwarded_packets_total", &label), before + sent);
        assert_eq!(metrics.sum("protomask_dropped_packets_total", &[]), 0);
    }
    assert_untracked(&lab.router);
    // And they come from where the host's packets come from.
    let (client, mut buffer) = (socket(lab.client(), (CLIENT, CLIENT_PORT)), [0; 16]);
    client.send_to(b"whole", (through(SERVER), SERVER_PORT)).unwrap();
    assert_eq!(receiver.recv_from(&mut buffer).unwrap().1, (address, CLIENT_PORT).into());
}

#[test]
fn fragments_out_of_order_interleaved_lost_and_doubled_are_translated_one_by_one_from_ipv4() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router, address) = start(&TopologyOptions::default());
    let receiver = socket(lab.client(), (CLIENT, CLIENT_PORT));
    let injector = Injector::new(&lab.server);
    // 1200 bytes of payload fit into one IPv6 packet of 1280 bytes; 1480 do not, and become two fragments each.
    for (each, pieces) in [(1200, 1), (1480, 2)] {
        let before = forwarded(&router, "4to6");
        let last = train_v4(address, 0, 8192, each).fragments.pop().unwrap().len();
        let sent =
            disorders(&injector, &receiver, |number| train_v4(address, each as u16 + number, 8192, each));
        // The last fragment of each of the five trains is short.
        let expected = if pieces == 1 || last > 1232 + 20 { sent * pieces } else { (sent - 5) * pieces + 5 };
        let label = ["direction=\"4to6\""];
        let metrics = router.wait_for_metrics("all fragments are counted", |metrics| {
            metrics.sum("protomask_forwarded_packets_total", &label) >= before + expected
        });
        assert_eq!(metrics.sum("protomask_forwarded_packets_total", &label), before + expected, "{each}");
        assert_eq!(metrics.sum("protomask_dropped_packets_total", &[]), 0);
    }
    assert_untracked(&lab.router);
}

/// Sends datagrams of so many bytes until the connected socket has learnt this path MTU.
fn learns(socket: &UdpSocket, v6: bool, length: usize, mtu: u32) {
    eventually(&format!("a path MTU of {mtu}"), PATIENCE, || {
        // The first one is refused on the way, and the next one by the kernel that has learnt it: both are errors here.
        let _ = socket.send(&pattern(length, 1));
        common::pause(Duration::from_millis(20));
        (path_mtu(socket, v6).unwrap() == mtu).then_some(())
    });
}

fn bulk_both_ways(lab: &Lab) {
    const BYTES: u64 = 3_000_000;
    let _server = Server::bulk(&lab.server, (SERVER, 9000)).unwrap();
    for direction in [Direction::Upload, Direction::Download] {
        let target = (through(SERVER), 9000).into();
        let limit = Duration::from_mins(1);
        let transfer = bulk_transfer(lab.client(), target, direction, BYTES, limit, |_| ()).unwrap();
        assert!(transfer.is_intact() && transfer.bytes == BYTES, "{direction:?}: {transfer:?}");
    }
}

/// RFC 7915 §4.2: 1400 bytes there are 1420 here, and 1000 are 1280, the least that IPv6 has; what is longer than 1000
/// then leaves without DF (§5.1), and the kernel behind the router cuts it.
#[test]
fn the_ipv6_side_learns_the_path_mtu_of_a_narrower_ipv4_link() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for (link, mtu) in [(1400, 1420), (1000, 1280)] {
        let (lab, router, _) = start(&TopologyOptions { server_mtu: link, ..TopologyOptions::default() });
        let receiver = socket(&lab.server, (SERVER, SERVER_PORT));
        let client = socket(lab.client(), (CLIENT, CLIENT_PORT));
        client.connect((through(SERVER), SERVER_PORT)).unwrap();
        assert_eq!(path_mtu(&client, true).unwrap(), 1500);
        SockRef::from(&client).set_send_buffer_size(1 << 20).unwrap();
        learns(&client, true, 1452, mtu);
        let whole = pattern(mtu as usize - 48, 9);
        // The error that the kernel has noted for the last datagram is for the next call to tell.
        eventually("it is sent", PATIENCE, || client.send(&whole).ok());
        let mut buffer = vec![0; 2000];
        eventually("the datagram that fits", PATIENCE, || {
            let (length, _) = receiver.recv_from(&mut buffer).unwrap();
            (buffer[..length] == whole[..]).then_some(())
        });
        bulk_both_ways(&lab);
        assert_eq!(router.metrics().sum("protomask_dropped_packets_total", &[]), 0, "{link}");
    }
}

/// RFC 7915 §5.2: 1400 bytes there are 1380 here, and 1280 are 1260.
#[test]
fn the_ipv4_side_learns_the_path_mtu_of_a_narrower_ipv6_link() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for (link, mtu) in [(1400, 1380), (1280, 1260)] {
        let (lab, router, address) =
            start(&TopologyOptions { client_mtu: link, ..TopologyOptions::default() });
        let receiver = socket(lab.client(), (CLIENT, CLIENT_PORT));
        let server = socket(&lab.server, (SERVER, SERVER_PORT));
        server.connect((address, CLIENT_PORT)).unwrap();
        assert_eq!(path_mtu(&server, false).unwrap(), 1500);
        learns(&server, false, 1472, mtu);
        let whole = pattern(mtu as usize - 28, 9);
        // The error that the kernel has noted for the last datagram is for the next call to tell.
        eventually("it is sent", PATIENCE, || server.send(&whole).ok());
        let mut buffer = vec![0; 2000];
        eventually("the datagram that fits", PATIENCE, || {
            let (length, _) = receiver.recv_from(&mut buffer).unwrap();
            (buffer[..length] == whole[..]).then_some(())
        });
        bulk_both_ways(&lab);
        assert_eq!(router.metrics().sum("protomask_dropped_packets_total", &[]), 0, "{link}");
    }
}

/// What a link that becomes narrow in the middle of a TCP connection does to the sender: both ends had announced
/// segments for 1500 bytes, so that the sender can only learn it from an ICMP error.
fn tcp_learns(
    from: &Namespace,
    target: SocketAddr,
    at: &Namespace,
    listen: SocketAddr,
    narrow: impl Fn(),
    mtu: u32,
) {
    let listener = at.run(|| TcpListener::bind(listen).unwrap());
    let mut sender = from.run(|| TcpStream::connect(target).unwrap());
    let (mut receiver, _) = listener.accept().unwrap();
    sender.set_write_timeout(Some(PATIENCE)).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(path_mtu(&sender, target.is_ipv6()).unwrap(), 1500);
    narrow();
    let sent = pattern(2_000_000, 11);
    let mut arrived = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sender.write_all(&sent).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        });
        receiver.read_to_end(&mut arrived).unwrap();
    });
    assert!(arrived == sent, "{} of {} bytes have arrived, or others", arrived.len(), sent.len());
    assert_eq!(path_mtu(&sender, target.is_ipv6()).unwrap(), mtu);
}

/// With 1400 bytes the sender's own segments fit. With 1000 it sends the least that IPv6 asks for, 1280 bytes; their
/// translation has no DF (RFC 7915 §5.1), and the kernel behind the router makes fragments of it.
#[test]
fn a_tcp_sender_on_the_ipv6_side_learns_of_an_ipv4_link_that_becomes_narrow() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for (link, mtu) in [(1400, 1420), (1000, 1280)] {
        let (lab, _router, _) = start(&TopologyOptions::default());
        let narrow = || {
            lab.router.set_mtu("server", link).unwrap();
            lab.server.set_mtu("eth0", link).unwrap();
        };
        let listen = SocketAddr::from((SERVER, 9000));
        tcp_learns(lab.client(), (through(SERVER), 9000).into(), &lab.server, listen, narrow, mtu);
        let cut = counter_v4(&lab.router, "Ip", "FragOKs");
        let joined = counter_v4(&lab.server, "Ip", "ReasmOKs");
        if link == 1400 {
            assert_eq!((cut, joined), (0, 0), "nothing had to be cut");
        } else {
            assert!(
                cut >= 2_000_000 / 1220 && joined >= 2_000_000 / 1220,
                "{cut} were cut and {joined} joined"
            );
        }
        assert_untracked(&lab.router);
    }
}

#[test]
fn a_tcp_sender_on_the_ipv4_side_learns_of_an_ipv6_link_that_becomes_narrow() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for (link, mtu) in [(1400, 1380), (1280, 1260)] {
        let (lab, _router, address) = start(&TopologyOptions::default());
        let narrow = || {
            lab.router.set_mtu("client0", link).unwrap();
            lab.client().set_mtu("eth0", link).unwrap();
        };
        let listen = SocketAddr::from((CLIENT, 9000));
        tcp_learns(&lab.server, (address, 9000).into(), lab.client(), listen, narrow, mtu);
        // What had DF comes without a fragment header (RFC 7915 §4.1).
        assert_eq!(counter_v6(lab.client(), "Ip6ReasmReqds"), 0, "{link}");
        assert_untracked(&lab.router);
    }
}

#[test]
fn dscp_and_ecn_bits_survive_both_ways() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, _router, address) = start(&TopologyOptions::default());
    let (at_server, at_client) = (Sniffer::new(&lab.server), Sniffer::new(lab.client()));
    let client = socket(lab.client(), (CLIENT, CLIENT_PORT));
    let server = socket(&lab.server, (SERVER, SERVER_PORT));
    // Not ECT, ECT(1), ECT(0) and CE (RFC 3168 §5), under two DSCPs.
    for tos in [0x00, 0x01, 0x02, 0x03, 0xb8, 0xbb] {
        SockRef::from(&client).set_tclass_v6(tos).unwrap();
        client.send_to(b"to the server", (through(SERVER), SERVER_PORT)).unwrap();
        let from = address.octets();
        let seen = at_server
            .wait_for("the datagram from IPv6", |packet| packet[0] == 0x45 && packet[12..16] == from);
        assert_eq!(u32::from(seen[1]), tos, "the type of service at the server");

        SockRef::from(&server).set_tos_v4(tos).unwrap();
        server.send_to(b"to the client", (address, CLIENT_PORT)).unwrap();
        let from = through(SERVER).octets();
        let seen = at_client.wait_for("the datagram from IPv4", |packet| {
            packet[0] >> 4 == 6 && packet[6] == 17 && packet[8..24] == from
        });
        let traffic_class = u32::from(seen[0] & 0xf) << 4 | u32::from(seen[1] >> 4);
        assert_eq!(traffic_class, tos, "the traffic class at the client");
    }
}

#[test]
fn a_tcp_connection_through_the_router_agrees_on_ecn() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, _router, address) = start(&TopologyOptions::default());
    for namespace in [lab.client(), &lab.server] {
        namespace.sysctl("net.ipv4.tcp_ecn", "1").unwrap();
    }
    let _echo = Server::tcp_echo(&lab.server, (SERVER, 80)).unwrap();
    let _back = Server::tcp_echo(lab.client(), (CLIENT, 80)).unwrap();
    let out = lab.client().run(|| TcpStream::connect((through(SERVER), 80)).unwrap());
    let back = lab.server.run(|| TcpStream::connect((address, 80)).unwrap());
    for (mut stream, how) in [(out, "from IPv6"), (back, "from IPv4")] {
        assert!(ecn_is_agreed(&stream).unwrap(), "{how}");
        // What comes back are data packets, and those alone say that they may be marked.
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        assert!(ecn_is_seen(&stream).unwrap(), "{how}: the answer was not ECN-capable any more");
    }
    // The test can see the difference.
    lab.client().sysctl("net.ipv4.tcp_ecn", "0").unwrap();
    let out = lab.client().run(|| TcpStream::connect((through(SERVER), 80)).unwrap());
    assert!(!ecn_is_agreed(&out).unwrap(), "without ECN at the client");
    let sent = pattern(100_000, 3);
    assert!(tcp_exchange(lab.client(), None, (through(SERVER), 80).into(), &sent, PATIENCE).unwrap() == sent);
}

/// Who answers a probe, and with which ICMP type and code.
type Hop = (IpAddr, u8, u8);

/// A port of its own for each probe, as traceroute has it, by which the answer is known.
fn probe_port(hops: u8) -> u16 {
    33_434 + u16::from(hops)
}

/// The ICMP error about the probe with so many hops that went to `to`.
fn hop(sniffer: &Sniffer, to: IpAddr, hops: u8) -> Hop {
    let (v6, port) = (to.is_ipv6(), probe_port(hops).to_be_bytes());
    let answer = sniffer.wait_for(&format!("an answer to {hops} hops"), |packet| {
        // The destination port of the packet inside, which TCP has where UDP has it.
        let (is_icmp, inside) = if v6 {
            (packet[0] >> 4 == 6 && packet[6] == 58, 40 + 8 + 40 + 2)
        } else {
            (packet[0] == 0x45 && packet[9] == 1, 20 + 8 + 20 + 2)
        };
        is_icmp && packet.get(inside..inside + 2) == Some(&port[..])
    });
    if v6 {
        (IpAddr::from(<[u8; 16]>::try_from(&answer[8..24]).unwrap()), answer[40], answer[41])
    } else {
        (IpAddr::from(<[u8; 4]>::try_from(&answer[12..16]).unwrap()), answer[20], answer[21])
    }
}

fn udp_probe(socket: &UdpSocket, sniffer: &Sniffer, to: IpAddr, hops: u8) -> Hop {
    match to {
        IpAddr::V6(_) => SockRef::from(socket).set_unicast_hops_v6(hops.into()).unwrap(),
        IpAddr::V4(_) => SockRef::from(socket).set_ttl_v4(hops.into()).unwrap(),
    }
    socket.send_to(b"probe", (to, probe_port(hops))).unwrap();
    hop(sniffer, to, hops)
}

/// Sends a connection request with so many hops.
fn send_syn(injector: &Injector, from: IpAddr, to: IpAddr, hops: u8) {
    let mut tcp = TcpHeader::new(40_000, probe_port(hops), 1, 1024);
    tcp.syn = true;
    let packet = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = Ipv6Header {
                payload_length: 20,
                next_header: IpNumber::TCP,
                hop_limit: hops,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            tcp.checksum = tcp.calc_checksum_ipv6(&ip, &[]).unwrap();
            [&ip.to_bytes()[..], &tcp.to_bytes()].concat()
        }
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = Ipv4Header::new(20, hops, IpNumber::TCP, from.octets(), to.octets()).unwrap();
            ip.header_checksum = ip.calc_header_checksum();
            tcp.checksum = tcp.calc_checksum_ipv4(&ip, &[]).unwrap();
            [&ip.to_bytes()[..], &tcp.to_bytes()].concat()
        }
        _ => panic!("{from} and {to} are of two families"),
    };
    injector.send(&packet);
}

/// Waits for the RST of a port that nobody has, in answer to the last probe.
fn reset_from(sniffer: &Sniffer, to: IpAddr, hops: u8) {
    let port = probe_port(hops).to_be_bytes();
    sniffer.wait_for(&format!("a reset from {to}"), |packet| {
        let (is_tcp, tcp, from) = match to {
            IpAddr::V6(to) => {
                (packet[0] >> 4 == 6 && packet[6] == 6, 40, packet.get(8..24) == Some(&to.octets()[..]))
            }
            IpAddr::V4(to) => {
                (packet[0] == 0x45 && packet[9] == 6, 20, packet.get(12..16) == Some(&to.octets()[..]))
            }
        };
        is_tcp && from && packet[tcp..tcp + 2] == port && packet[tcp + 13] & 0x04 != 0
    });
}

#[test]
fn a_traceroute_with_udp_shows_three_hops_and_the_host_both_ways() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let flags = common::plain_and(&["--icmp-source-v6", "2001:db8:1::64", "--icmp-source-v4", "192.0.0.8"]);
    let _router = Router::start(&lab, &flags);
    let echo = Server::udp_echo(&lab.server, (SERVER, 7)).unwrap();
    udp_exchange(lab.client(), None, (through(SERVER), 7).into(), b"hello", PATIENCE).unwrap();
    let IpAddr::V4(address) = echo.peers()[0].ip() else { panic!("the server is IPv4-only") };

    let (client, sniffer) = (socket(lab.client(), (CLIENT, CLIENT_PORT)), Sniffer::new(lab.client()));
    let target = IpAddr::V6(through(SERVER));
    let hops: Vec<_> = (1..=4).map(|hops| udp_probe(&client, &sniffer, target, hops)).collect();
    let own: Ipv6Addr = "2001:db8:1::64".parse().unwrap();
    let expected = [
        (IpAddr::V6(Topology::ROUTER_V6), 3, 0),
        (IpAddr::V6(own), 3, 0),
        (IpAddr::V6(through(Topology::ROUTER_V4)), 3, 0),
        (target, 1, 4),
    ];
    assert_eq!(hops, expected, "the kernel, the router, the kernel behind it, and the port that nobody has");

    let (server, sniffer) = (socket(&lab.server, (SERVER, SERVER_PORT)), Sniffer::new(&lab.server));
    let target = IpAddr::V4(address);
    let hops: Vec<_> = (1..=4).map(|hops| udp_probe(&server, &sniffer, target, hops)).collect();
    let expected = [
        (IpAddr::V4(Topology::ROUTER_V4), 11, 0),
        (IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)), 11, 0),
        // The kernel behind the device has an IPv6 address alone: the mapping's stands for it.
        (target, 11, 0),
        (target, 3, 3),
    ];
    assert_eq!(hops, expected, "the kernel, the router, the kernel behind it, and the port that nobody has");
}

#[test]
fn a_traceroute_with_tcp_shows_three_hops_and_the_host_both_ways() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, _router, address) = start(&TopologyOptions::default());
    let walk = |namespace: &Namespace, from: IpAddr, to: IpAddr| {
        let (injector, sniffer) = (Injector::new(namespace), Sniffer::new(namespace));
        let hops: Vec<Hop> = (1..=3)
            .map(|hops| {
                send_syn(&injector, from, to, hops);
                hop(&sniffer, to, hops)
            })
            .collect();
        send_syn(&injector, from, to, 4);
        reset_from(&sniffer, to, 4);
        hops
    };
    let hops = walk(lab.client(), CLIENT.into(), through(SERVER).into());
    // The kernel before the device, the router (from a global address of this host), the kernel behind the device.
    let expected = [Topology::ROUTER_V6, Topology::ROUTER_V6, through(Topology::ROUTER_V4)];
    assert_eq!(hops, expected.map(|from| (IpAddr::V6(from), 3, 0)));

    let hops = walk(&lab.server, SERVER.into(), address.into());
    // The router speaks from the first address of the first pool.
    let expected = [Topology::ROUTER_V4, Ipv4Addr::new(203, 0, 113, 1), address];
    assert_eq!(hops, expected.map(|from| (IpAddr::V4(from), 11, 0)));
}

/// What an operator may choose: the DSCP, UDP without a checksum, and what stands for IPv6 routers (RFC 6791).
#[test]
fn the_operators_choices_are_seen_on_the_wire_and_in_the_log() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let file = lab.file(
        "protomask.toml",
        "translation_prefix = \"64:ff9b:1::/96\"\n\
         icmp_router_pool = \"192.0.2.0/28\"\n\
         [translation]\n\
         traffic_class = \"dscp:46\"\n\
         udp_zero_checksum = \"drop\"\n\
         [[pool]]\n\
         prefix = \"203.0.113.0/24\"\nsharing = \"exclusive\"\n",
    );
    let mut router = Router::start(&lab, &["--config", &file]);
    let echo = Server::udp_echo(&lab.server, (SERVER, 7)).unwrap();
    let at_server = Sniffer::new(&lab.server);
    udp_exchange(lab.client(), None, (through(SERVER), 7).into(), b"hello", PATIENCE).unwrap();
    let IpAddr::V4(address) = echo.peers()[0].ip() else { panic!("the server is IPv4-only") };
    let seen = at_server.wait_for("the datagram from IPv6", |packet| {
        packet[0] == 0x45 && packet[9] == 17 && packet[12..16] == address.octets()
    });
    assert_eq!(seen[1], 46 << 2, "the operator's DSCP");

    // A datagram without a checksum is answered, and told with its addresses and ports (RFC 7915 §4.5).
    let mut datagram = train_v4(address, 7, 100, 1200).fragments.remove(0);
    datagram[26..28].fill(0);
    let injector = Injector::new(&lab.server);
    injector.send(&datagram);
    let msg = "dropped a UDP datagram without a checksum, which IPv6 does not carry";
    let record = router.wait_for_log(msg, |record| record.field("reason") == "udp_zero_checksum");
    assert_eq!(record.field("source"), SERVER.to_string());
    assert_eq!(record.field("source_port"), SERVER_PORT.to_string());
    assert_eq!(record.field("destination"), address.to_string());
    assert_eq!(record.field("destination_port"), CLIENT_PORT.to_string());
    router.wait_for_dropped("udp_zero_checksum", 1);
    at_server.wait_for("administratively prohibited", |packet| {
        packet[0] == 0x45 && packet[9] == 1 && packet[20..22] == [3, 13]
    });

    // The kernel behind the device is an IPv6 router without an IPv4 address.
    let (server, sniffer) = (socket(&lab.server, (SERVER, SERVER_PORT)), Sniffer::new(&lab.server));
    let (from, kind, code) = udp_probe(&server, &sniffer, address.into(), 3);
    let pool = protomask::datapath::RouterPool::new("192.0.2.0/28".parse().unwrap());
    assert_eq!((from, kind, code), (pool.stand_in(Topology::ROUTER_V6).into(), 11, 0));
    router.end();
}
