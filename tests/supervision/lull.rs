//! Packets that come one by one, until a worker sleeps in `read`.

use std::net::UdpSocket;

use netlab::{Server, Topology};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::lab::{Lab, PATIENCE, eventually, through};

/// More than enough for both ways' workers to find that packets come one by one.
pub(crate) const LONG: u64 = 300;

/// Numbered datagrams to an echo server, each sent when the one before has come back.
pub(crate) struct Flow {
    socket: UdpSocket,
    next: u64,
    _server: Server,
}

impl Flow {
    pub(crate) fn new(lab: &Lab) -> Self {
        let server = Server::udp_echo(&lab.topology.server, (Topology::SERVER_V4, 7)).unwrap();
        let socket = lab.client().run(|| UdpSocket::bind((lab.host(0), 0)).unwrap());
        socket.connect((through(Topology::SERVER_V4), 7)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, next: 0, _server: server }
    }

    pub(crate) fn send(&mut self) -> u64 {
        self.socket.send(&self.next.to_be_bytes()).unwrap();
        self.next += 1;
        self.next - 1
    }

    /// The next datagram that comes back is this one.
    pub(crate) fn comes(&self, number: u64) {
        let mut buffer = [0; 9];
        let length =
            self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("datagram {number}: {error}"));
        assert_eq!(
            (length, &buffer[..8]),
            (8, &number.to_be_bytes()[..]),
            "datagram {number} comes back next"
        );
    }

    pub(crate) fn exchange(&mut self, datagrams: u64) {
        for _ in 0..datagrams {
            let number = self.send();
            self.comes(number);
        }
    }
}

/// Whether the worker, or a predecessor that has not come back, sleeps in `read`: the queue is a blocking one then.
pub(crate) fn dozes(lab: &Lab) -> bool {
    let flags = fcntl(&*lab.shared.queues[0], FcntlArg::F_GETFL).unwrap();
    !OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK)
}

/// Lets packets come one by one until the worker sleeps in `read`.
pub(crate) fn lull(lab: &Lab, flow: &mut Flow) {
    flow.exchange(LONG);
    eventually("the worker sleeps in `read`", || dozes(lab).then_some(()));
}
