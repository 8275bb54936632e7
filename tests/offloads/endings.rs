//! How TCP connections end when their last bytes and their FIN are in a super-packet.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use netlab::{Topology, tcp_connect};

use crate::common::{Lab, PATIENCE, Router, SHORT, pause, through};
use crate::lab::{Handled, SHARED, Way};

/// How long a session lives that is not, or no more, established.
const TRANSITORY: Duration = Duration::from_millis(1500);

/// Bytes that take several segments; with the FIN behind them they fit what a sender may send at once.
const LENGTH: usize = 12_000;

/// A connection of the client to the server, both ends of it.
fn connection(lab: &Lab, port: u16) -> (TcpStream, TcpStream) {
    let listener = lab.server.run(|| TcpListener::bind((Topology::SERVER_V4, port)).unwrap());
    let target = (through(Topology::SERVER_V4), port).into();
    let near = tcp_connect(lab.client(), None, target, PATIENCE).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    (near, far)
}

/// Sends bytes and a FIN that come in one super-packet, and sees them arrive.
fn finish(lab: &Lab, router: &Router, way: Way, from: &mut TcpStream, to: &mut TcpStream) {
    let sent: Vec<u8> = (0..LENGTH).map(|at| (at * 7 + at / 256) as u8).collect();
    // With the cork in, the bytes wait for the FIN.
    socket2::SockRef::from(&*from).set_tcp_cork(true).unwrap();
    let (forwarded, before) = (way.forwarded(router), Handled::so_far(lab, router));
    from.write_all(&sent).unwrap();
    from.shutdown(Shutdown::Write).unwrap();
    let mut arrived = Vec::new();
    to.read_to_end(&mut arrived).unwrap();
    assert!(arrived == sent, "{way:?}: {} bytes", arrived.len());
    let handled = Handled::so_far(lab, router).since(&before);
    let segments = way.forwarded(router) - forwarded;
    assert!(
        segments > handled.read,
        "{way:?}: {segments} segments, and none of them in a super-packet: {handled:?}"
    );
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
        let (mut near, mut far) = connection(&lab, 80);
        let (second, one, other) = match first {
            Way::Up => (Way::Down, &mut near, &mut far),
            Way::Down => (Way::Up, &mut far, &mut near),
        };
        finish(&lab, &router, first, one, other);
        // One side has ended, and the other may go on for as long as it likes.
        pause(TRANSITORY + SHORT + SHORT);
        sessions(1);
        finish(&lab, &router, second, other, one);
        // In time: an established session would live for two hours.
        sessions(0);
        assert_eq!(router.metrics().all_dropped(), 0);
        router.end();
    }
}
