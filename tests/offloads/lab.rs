//! Two sockets with the router between them, datagrams that can be told apart, and a router that is held up.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use netlab::{Namespace, Topology, segment_datagrams};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::common::kernel::{counter_v4, counter_v6};
use crate::common::{Lab, PATIENCE, PLAIN, Router, eventually, pause, through};

/// Addresses that are shared by ports, where those of `PLAIN` are one host's each.
pub(crate) const SHARED: [&str; 6] =
    ["--translation-prefix", "64:ff9b:1::/96", "--pool-prefix", "203.0.113.0/24", "--sharing", "ports"];

/// Both ways of using a pool.
pub(crate) const POOLS: [[&str; 6]; 2] = [PLAIN, SHARED];

/// What goes to the server, and what comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Up, Self::Down];

    /// Packets of this way that the router has forwarded.
    pub(crate) fn forwarded(self, router: &Router) -> u64 {
        router.metrics().sum("protomask_forwarded_packets_total", &[self.label()])
    }

    /// Waits until so many packets of this way are counted, and no more.
    pub(crate) fn wait_for_forwarded(self, router: &Router, packets: u64) {
        let forwarded = "protomask_forwarded_packets_total";
        let metrics = router.wait_for_metrics(&format!("{packets} packets {self:?}"), |metrics| {
            metrics.sum(forwarded, &[self.label()]) >= packets
        });
        assert_eq!(metrics.sum(forwarded, &[self.label()]), packets, "{self:?}: a packet counts once");
    }

    fn label(self) -> &'static str {
        match self {
            Self::Up => "direction=\"6to4\"",
            Self::Down => "direction=\"4to6\"",
        }
    }
}

/// Starts a router with one queue. With several the kernel may move a flow to another one in the middle of a burst: it forgets
/// after three seconds who wrote the flow's other way last.
pub(crate) fn start(lab: &Lab, flags: &[&str]) -> Router {
    Router::start(lab, &[flags, &["--num-queues", "1"]].concat())
}

/// The cards that packets leave the router by have no offloads: the kernel finishes what was left to do, and the hosts verify
/// the checksums.
pub(crate) fn without_offloads(lab: &Lab) {
    for link in ["client0", "server"] {
        lab.router.without_offloads(link).unwrap();
    }
}

/// Two connected sockets, of a client and of the server.
#[derive(Debug)]
pub(crate) struct Ends {
    client: UdpSocket,
    server: UdpSocket,
}

impl Ends {
    /// Opens them and lets one datagram pass each way: from then on nothing waits for a lease or a port.
    pub(crate) fn open(lab: &Lab, client_port: u16, server_port: u16) -> Self {
        let client = bound(lab.client(), (Topology::CLIENT_V6, client_port));
        let server = bound(&lab.server, (Topology::SERVER_V4, server_port));
        client.connect((through(Topology::SERVER_V4), server_port)).unwrap();
        client.send(b"hello").unwrap();
        let (_, public) = server.recv_from(&mut [0; 16]).unwrap();
        server.connect(public).unwrap();
        server.send(b"there").unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 5);
        Self { client, server }
    }

    /// Who sends.
    pub(crate) fn sender(&self, way: Way) -> &UdpSocket {
        if way == Way::Up { &self.client } else { &self.server }
    }

    /// Who receives.
    pub(crate) fn receiver(&self, way: Way) -> &UdpSocket {
        if way == Way::Up { &self.server } else { &self.client }
    }

    /// Where a packet of this way comes from and goes to, as its sender sees it.
    pub(crate) fn addresses(&self, way: Way) -> (SocketAddr, SocketAddr) {
        let sender = self.sender(way);
        (sender.local_addr().unwrap(), sender.peer_addr().unwrap())
    }
}

/// A socket that waits long, but not for ever.
pub(crate) fn bound(namespace: &Namespace, at: impl Into<SocketAddr>) -> UdpSocket {
    let at = at.into();
    let socket = namespace.run(|| UdpSocket::bind(at).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Bytes that tell which datagram they are of, however short it is, and which place in it they have.
pub(crate) fn datagram(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (number * 31 + at * 7 + at / 256) as u8).collect()
}

/// So many datagrams of these lengths, each with its own bytes.
pub(crate) fn datagrams(lengths: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    lengths.into_iter().enumerate().map(|(number, length)| datagram(number, length)).collect()
}

/// Sends them by one call, as one super-packet: all of one length, but for the last one, which may be shorter.
pub(crate) fn send_as_one(socket: &UdpSocket, datagrams: &[Vec<u8>]) -> std::io::Result<()> {
    segment_datagrams(socket, datagrams[0].len() as u16)?;
    let sent = socket.send(&datagrams.concat());
    segment_datagrams(socket, 0)?;
    sent.map(drop)
}

/// Sends them one by one.
pub(crate) fn send_each(socket: &UdpSocket, datagrams: &[Vec<u8>]) {
    for datagram in datagrams {
        socket.send(datagram).unwrap();
    }
}

/// The next datagrams are these, in this order.
pub(crate) fn assert_arrive(socket: &UdpSocket, datagrams: &[Vec<u8>], what: &str) {
    let mut buffer = vec![0; 65_536];
    for (number, datagram) in datagrams.iter().enumerate() {
        let length = socket
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("{what}: {number} of {} came: {error}", datagrams.len()));
        assert_eq!(length, datagram.len(), "{what}: the length of datagram {number}");
        assert!(buffer[..length] == datagram[..], "{what}: the bytes of datagram {number}");
    }
}

/// Nothing more waits in the socket.
pub(crate) fn assert_silent(socket: &UdpSocket, what: &str) {
    socket.set_nonblocking(true).unwrap();
    let more = socket.recv(&mut [0; 2000]);
    socket.set_nonblocking(false).unwrap();
    assert!(more.is_err(), "{what}: {more:?} bytes more than were sent");
}

/// What the kernel has counted on the device. A super-packet counts once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handled {
    /// Packets that the router has read, without those of the kernel's own.
    pub(crate) read: u64,
    /// Packets that it has written.
    pub(crate) written: u64,
}

impl Handled {
    pub(crate) fn so_far(lab: &Lab, router: &Router) -> Self {
        let chatter = || router.metrics().sum("protomask_kernel_chatter_packets_total", &[]);
        eventually("a moment without packets of the kernel's own", PATIENCE, || {
            let before = chatter();
            // What the device transmits is what the router reads.
            let stats = lab.snapshot().link_by_name("nat64").unwrap().stats;
            (chatter() == before).then(|| Self { read: stats.tx_packets - before, written: stats.rx_packets })
        })
    }

    pub(crate) fn since(self, before: &Self) -> Self {
        Self { read: self.read - before.read, written: self.written - before.written }
    }
}

/// Holds the router up while packets are sent, so many of this way: they wait in the device, and the router finds them together.
pub(crate) fn while_held<T>(
    lab: &Lab,
    router: &Router,
    way: Way,
    packets: u64,
    send: impl FnOnce() -> T,
) -> T {
    let held = Held::new(router);
    let before = routed(lab, way);
    let sent = send();
    eventually("the packets are on their way into the device", PATIENCE, || {
        (routed(lab, way) - before >= packets).then_some(())
    });
    // They are counted just before they are handed to the device.
    pause(Duration::from_millis(30));
    drop(held);
    sent
}

/// Packets that the router's kernel has forwarded, those of other links too.
fn routed(lab: &Lab, way: Way) -> u64 {
    match way {
        Way::Up => counter_v6(&lab.router, "Ip6OutForwDatagrams"),
        Way::Down => counter_v4(&lab.router, "Ip", "ForwDatagrams"),
    }
}

/// A router that is stopped as long as this value lives.
#[derive(Debug)]
struct Held<'r>(&'r Router);

impl<'r> Held<'r> {
    fn new(router: &'r Router) -> Self {
        let process = router.process();
        process.signal(Signal::SIGSTOP);
        // The signal is on its way when `kill` returns; this comes when all threads have stopped.
        eventually("the router is stopped", PATIENCE, || {
            let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
            let status = waitid(Id::Pid(process.pid()), flags).unwrap();
            matches!(status, WaitStatus::Stopped(..)).then_some(())
        });
        Self(router)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.process().signal(Signal::SIGCONT);
    }
}
