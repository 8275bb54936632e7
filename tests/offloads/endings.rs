//! How TCP connections end when their last bytes and their FIN are in a super-packet.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};
use netlab::{Topology, tcp_connect};
use socket2::SockRef;

use crate::common::wire::Sniffer;
use crate::common::{Lab, PATIENCE, Router, SHORT, pause, through};
use crate::lab::{SHARED, Way, while_held};

/// How long a session lives that is not, or no more, established.
const TRANSITORY: Duration = Duration::from_millis(1500);

/// Twenty full segments, of which a sender may send ten at once (RFC 6928).
const LENGTH: usize = 20 * 1428;

/// The longest packet that is not a super-packet.
const MTU: usize = 1500;

/// Connections that are tried until the FINs are where they should be.
const TRIES: u16 = 20;

/// A connection of the client to the server, both ends of it.
fn connection(lab: &Lab, port: u16) -> (TcpStream, TcpStream) {
    let listener = lab.server.run(|| TcpListener::bind((Topology::SERVER_V4, port)).unwrap());
    let target = (through(Topology::SERVER_V4), port).into();
    let near = tcp_connect(lab.client(), None, target, PATIENCE).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    (near, far)
}

/// Sends bytes and a FIN, and sees them arrive. Whether the FIN came in a super-packet: that is the sender's choice.
fn finish(lab: &Lab, router: &Router, way: Way, from: &mut TcpStream, to: &mut TcpStream) -> bool {
    let sent: Vec<u8> = (0..LENGTH).map(|at| (at * 7 + at / 256) as u8).collect();
    SockRef::from(&*from).set_send_buffer_size(10 * LENGTH).unwrap();
    let sniffer = Sniffer::new(&lab.router);
    // What the sender may send at once waits at the router. The rest, with the FIN at its end, goes when that is acknowledged.
    while_held(lab, router, way, 1, || {
        from.write_all(&sent).unwrap();
        from.shutdown(Shutdown::Write).unwrap();
    });
    let mut arrived = Vec::new();
    to.read_to_end(&mut arrived).unwrap();
    assert!(arrived == sent, "{way:?}: {} bytes", arrived.len());
    sniffer.so_far(length_of_fin).iter().any(|length| *length > MTU)
}

/// The length of a packet with a FIN.
fn length_of_fin(packet: &[u8]) -> Option<usize> {
    let TransportSlice::Tcp(tcp) = SlicedPacket::from_ip(packet).ok()?.transport? else { return None };
    tcp.fin().then_some(packet.len())
}

#[test]
fn a_connection_whose_fins_come_in_super_packets_ends_with_the_second_one() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for first in Way::BOTH {
        let lab = Lab::new();
        let timers = "[timers]\nbelow_rfc = true\ntcp_transitory = \"1500ms\"\n";
        let file = lab.file("short.toml", timers);
        let router = Router::start(&lab, &[&SHARED[..], &["--config", &file]].concat());
        let sessions = |tcp: u64| {
            router.wait_for_metrics(&format!("{tcp} TCP sessions"), |metrics| metrics.sessions("tcp") == tcp);
        };
        let both_whole = (0..TRIES).any(|number| {
            let (mut near, mut far) = connection(&lab, 8000 + number);
            let (second, one, other) = match first {
                Way::Up => (Way::Down, &mut near, &mut far),
                Way::Down => (Way::Up, &mut far, &mut near),
            };
            let first_whole = finish(&lab, &router, first, one, other);
            // One side has ended, and the other may go on for as long as it likes.
            pause(TRANSITORY + SHORT + SHORT);
            sessions(1);
            let second_whole = finish(&lab, &router, second, other, one);
            // In time: an established session would live for two hours.
            sessions(0);
            first_whole && second_whole
        });
        assert!(both_whole, "no connection had both its FINs in super-packets");
        assert_eq!(router.metrics().all_dropped(), 0);
        router.end();
    }
}
