//! Many connections at the same time.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};

use netlab::Server;

use crate::common::{PATIENCE, eventually, through};
use crate::lab::{POOL, SERVER, addresses, connect, start};

const HOSTS: u16 = 50;
const EACH: usize = 40;
const ALL: usize = HOSTS as usize * EACH;

/// What a connection says, and no other one does.
fn text(host: Ipv6Addr, number: usize) -> String {
    format!("connection {number} of {host}; ").repeat(10)
}

/// Sends, hears the same, and closes in order.
fn converse(mut stream: TcpStream, sent: &str) {
    stream.write_all(sent.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut echoed = String::new();
    stream.read_to_string(&mut echoed).unwrap();
    assert_eq!(echoed, sent);
}

#[test]
fn two_thousand_connections_of_fifty_hosts_are_open_at_once_behind_one_address() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    // A transitory timeout that lasts while two thousand connections open, and not much longer.
    let timers = "[timers]\nbelow_rfc = true\ntcp_transitory = \"5s\"\ntcp_port_rest = \"1s\"\nport_rest = \"1s\"\nblock_idle = \"1s\"\n";
    let (lab, router) = start(&addresses(HOSTS), timers);
    let server = Server::tcp_echo(&lab.server, (SERVER, 7)).unwrap();

    let open = |host: &Ipv6Addr| -> Vec<TcpStream> {
        (0..EACH).map(|_| connect(lab.client(), (*host, 0), (through(SERVER), 7))).collect()
    };
    let hosts = &lab.clients[0].addresses;
    let crowd: Vec<(Ipv6Addr, Vec<TcpStream>)> = std::thread::scope(|scope| {
        let openers: Vec<_> = hosts.iter().map(|host| (host, scope.spawn(move || open(host)))).collect();
        openers.into_iter().map(|(host, opener)| (*host, opener.join().unwrap())).collect()
    });

    let peers = eventually("the server has accepted all", PATIENCE, || {
        Some(server.peers()).filter(|peers| peers.len() >= ALL)
    });
    assert!(peers.iter().all(|peer| peer.ip() == IpAddr::V4(POOL)), "one address: {peers:?}");
    let ports: HashSet<u16> = peers.iter().map(SocketAddr::port).collect();
    assert_eq!(ports.len(), ALL, "a port for each");
    let metrics = router.wait_for_metrics("all sessions", |metrics| metrics.sessions("tcp") == ALL as u64);
    // A block has 128 ports, and a host asks for the next one when fewer than 32 of them are free.
    assert_eq!(metrics.blocks(), u64::from(HOSTS));

    std::thread::scope(|scope| {
        for (host, streams) in crowd {
            scope.spawn(move || {
                for (number, stream) in streams.into_iter().enumerate() {
                    converse(stream, &text(host, number));
                }
            });
        }
    });
    let metrics = router.wait_for_metrics("no session is left, and no host keeps a block", |metrics| {
        metrics.sessions("tcp") == 0 && metrics.blocks() == 0
    });
    assert_eq!(metrics.all_dropped(), 0, "{metrics:?}");
    router.end();
}
