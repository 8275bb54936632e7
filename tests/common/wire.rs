//! Packets as they are on the wire: sent byte by byte, and seen.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use netlab::Namespace;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use socket2::{Domain, Protocol, Socket, Type};

use super::PATIENCE;

/// Sends IP packets with the headers that they bring.
#[derive(Debug)]
pub(crate) struct Injector {
    v4: Socket,
    v6: Socket,
}

impl Injector {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        let raw = Some(Protocol::from(libc::IPPROTO_RAW));
        namespace.run(|| Self {
            v4: Socket::new(Domain::IPV4, Type::RAW, raw).unwrap(),
            v6: Socket::new(Domain::IPV6, Type::RAW, raw).unwrap(),
        })
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        let (socket, to): (_, IpAddr) = if packet[0] >> 4 == 4 {
            (&self.v4, Ipv4Addr::from(<[u8; 4]>::try_from(&packet[16..20]).unwrap()).into())
        } else {
            (&self.v6, Ipv6Addr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap()).into())
        };
        assert_eq!(socket.send_to(packet, &SocketAddr::new(to, 0).into()).unwrap(), packet.len());
    }
}

/// Sees all IP packets of a namespace, those that leave too.
#[derive(Debug)]
pub(crate) struct Sniffer(Socket);

impl Sniffer {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        // All protocols, in network byte order.
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = namespace.run(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(all)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        // What comes at once must not be lost before it is looked at.
        setsockopt(&socket, RcvBufForce, &(64 << 20)).unwrap();
        Self(socket)
    }

    /// The first packet that satisfies.
    pub(crate) fn wait_for(&self, what: &str, fits: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            if let Some(packet) = self.next().filter(|packet| !packet.is_empty() && fits(packet)) {
                return packet;
            }
        }
    }

    /// The first of these packets from now on, or `None` when there is none in this time.
    pub(crate) fn within<T>(&self, limit: Duration, read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(found) = self.next().and_then(|packet| read(&packet)) {
                return Some(found);
            }
        }
        None
    }

    /// What it has seen so far, until nothing has come for a tenth of a second.
    pub(crate) fn so_far<T>(&self, read: impl Fn(&[u8]) -> Option<T>) -> Vec<T> {
        std::iter::from_fn(|| self.next()).filter_map(|packet| read(&packet)).collect()
    }

    fn next(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        match (&self.0).read(&mut buffer) {
            Ok(length) => Some(buffer[..length].to_vec()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }
}
