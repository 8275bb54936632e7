//! Flows that run through the end of a router.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use netlab::{Direction, Namespace, Server, Topology, Transfer, bulk_transfer};

use crate::common::{Lab, PATIENCE, eventually, pause, through};

/// What is older than this is never lost: a second, and room for a machine that is busy.
pub(crate) const OLD_ENOUGH: Duration = Duration::from_secs(3);

/// Waits until what there is by now must be in the files.
pub(crate) fn grow_old() {
    pause(OLD_ENOUGH);
}

/// The ways in which hosts have IPv4 addresses.
pub(crate) const WAYS: [&[&str]; 3] = [
    &["--translation-prefix", "64:ff9b:1::/96", "--pool-prefix", "203.0.113.0/24"],
    &["--translation-prefix", "64:ff9b:1::/96", "--pool-prefix", "192.0.2.0/28", "--masquerade"],
    &["--translation-prefix", "64:ff9b:1::/96", "--pool-prefix", "203.0.113.0/24", "--sharing", "exclusive"],
];

/// A download that waits in the midst of it until it is told to go on.
pub(crate) struct Download {
    done: Arc<AtomicU64>,
    released: Arc<AtomicBool>,
    thread: JoinHandle<Transfer>,
    _server: Server,
}

/// So long that the windows of both ends hold a small part of it.
const BYTES: u64 = 60_000_000;

impl Download {
    /// Starts it, and waits until it waits.
    pub(crate) fn start(lab: &Lab) -> Self {
        let server = Server::bulk(&lab.server, (Topology::SERVER_V4, 9000)).unwrap();
        let (done, released) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (done, released, client) = (Arc::clone(&done), Arc::clone(&released), lab.client().clone());
            move || {
                let target = SocketAddr::from((through(Topology::SERVER_V4), 9000));
                let progress = |bytes| {
                    done.store(bytes, Ordering::SeqCst);
                    while bytes > BYTES / 10 && !released.load(Ordering::SeqCst) {
                        pause(Duration::from_millis(20));
                    }
                };
                bulk_transfer(&client, target, Direction::Download, BYTES, 4 * PATIENCE, progress).unwrap()
            }
        });
        let is_waiting = || (done.load(Ordering::SeqCst) > BYTES / 10).then_some(());
        eventually("the download is under way", PATIENCE, is_waiting);
        Self { done, released, thread, _server: server }
    }

    /// Lets it go on to its end; it is intact.
    pub(crate) fn end(self) {
        assert!(self.done.load(Ordering::SeqCst) < BYTES / 2, "most of it is still to come");
        self.released.store(true, Ordering::SeqCst);
        let transfer = self.thread.join().unwrap();
        assert!(transfer.is_intact() && transfer.bytes == BYTES, "{transfer:?}");
    }
}

/// A host's UDP socket, and how the IPv4 side sees it.
pub(crate) struct Mapping {
    socket: UdpSocket,
    listener: UdpSocket,
    /// Another socket of the server, which the host has never sent to.
    stranger: UdpSocket,
    /// The host's address and port, as the server sees them.
    pub(crate) seen: SocketAddr,
}

fn udp(namespace: &Namespace, at: SocketAddr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind(at).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

impl Mapping {
    /// The host with this address opens one.
    pub(crate) fn open(lab: &Lab, host: Ipv6Addr, port: u16) -> Self {
        let listener = udp(&lab.server, (Topology::SERVER_V4, port).into());
        let stranger = udp(&lab.server, (Topology::SERVER_V4, 0).into());
        let socket = udp(lab.client(), (host, port).into());
        let mut mapping = Self { socket, listener, stranger, seen: (Ipv4Addr::UNSPECIFIED, 0).into() };
        mapping.seen = mapping.send();
        mapping.listener.send_to(b"answer", mapping.seen).unwrap();
        assert!(mapping.hears("answer"));
        mapping
    }

    /// The host sends; the answer is how the server sees it.
    pub(crate) fn send(&self) -> SocketAddr {
        let port = self.listener.local_addr().unwrap().port();
        self.socket.send_to(b"hello", (through(Topology::SERVER_V4), port)).unwrap();
        let mut buffer = [0; 64];
        let (length, from) = self.listener.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
        from
    }

    /// Somebody outside sends to the mapping as it was; says whether the host hears that.
    pub(crate) fn is_reached(&self) -> bool {
        self.stranger.send_to(b"stranger", self.seen).unwrap();
        self.hears("stranger")
    }

    fn hears(&self, words: &str) -> bool {
        let mut buffer = [0; 64];
        let heard = self.socket.recv(&mut buffer);
        heard.is_ok_and(|length| &buffer[..length] == words.as_bytes())
    }

    /// It is not long waited for: what should not come.
    pub(crate) fn is_impatient(&self) {
        self.socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    }
}
