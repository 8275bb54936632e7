//! A laboratory with a router that shares one IPv4 address.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};

use ipnet::Ipv4Net;
use netlab::{Namespace, Topology, TopologyOptions};

use crate::common::{Lab, PATIENCE, Router, through};

/// The first client's first address.
pub(crate) const CLIENT: Ipv6Addr = Topology::CLIENT_V6;
/// The address that is shared.
pub(crate) const POOL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The server's two addresses.
pub(crate) const SERVER: Ipv4Addr = Topology::SERVER_V4;
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// Whatever is sent there reaches the server's kernel, which is no router: nobody answers.
pub(crate) const VOID: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 128), 25);

/// A configuration whose last lines belong to the pool, so that more of it, and more tables, can follow.
pub(crate) fn shared(more: &str) -> String {
    format!(
        "translation_prefix = \"64:ff9b:1::/96\"\n\
         [[pool]]\nprefix = \"{POOL}/32\"\nsharing = \"ports\"\n{more}"
    )
}

/// A laboratory and a router with [`shared`] and more.
pub(crate) fn start(options: &TopologyOptions, more: &str) -> (Lab, Router) {
    let lab = prepare(options);
    let router = Router::start(&lab, &["--config", &lab.file("shared.toml", &shared(more))]);
    (lab, router)
}

/// The laboratory without the router.
pub(crate) fn prepare(options: &TopologyOptions) -> Lab {
    let lab = Lab::with(options);
    lab.server.add_address("eth0", Ipv4Net::new_assert(OTHER, 24)).unwrap();
    lab.router.add_route(VOID, Some(SERVER.into()), "server").unwrap();
    lab
}

/// So many clients with an address each.
pub(crate) fn clients(clients: u16) -> TopologyOptions {
    TopologyOptions { clients, ..TopologyOptions::default() }
}

/// One client with so many addresses.
pub(crate) fn addresses(addresses_per_client: u16) -> TopologyOptions {
    TopologyOptions { addresses_per_client, ..TopologyOptions::default() }
}

/// A UDP socket that waits long, but not for ever.
pub(crate) fn udp(namespace: &Namespace, at: impl Into<SocketAddr>) -> UdpSocket {
    let at = at.into();
    let socket = namespace.run(|| UdpSocket::bind(at).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next datagram, as text, and its sender.
pub(crate) fn hear(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

/// How an IPv6-only host addresses this.
pub(crate) fn seen_through(public: SocketAddr) -> SocketAddr {
    match public {
        SocketAddr::V4(public) => (through(*public.ip()), public.port()).into(),
        SocketAddr::V6(public) => panic!("{public} is no IPv4 address"),
    }
}

/// Opens a connection to a server that is known to be there.
pub(crate) fn connect(
    namespace: &Namespace,
    source: impl Into<Option<(Ipv6Addr, u16)>>,
    target: impl Into<SocketAddr>,
) -> TcpStream {
    netlab::tcp_connect(namespace, source.into().map(Into::into), target.into(), PATIENCE).unwrap()
}

/// A connection carries bytes both ways; the first end speaks first.
pub(crate) fn assert_talks(first: &mut TcpStream, second: &mut TcpStream) {
    let say = |from: &mut TcpStream, to: &mut TcpStream, text: &[u8; 5]| {
        let mut heard = [0; 5];
        from.write_all(text).unwrap();
        to.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, text);
    };
    say(first, second, b"hello");
    say(second, first, b"there");
}
