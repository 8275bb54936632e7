//! One echo request and what comes back for it (RFC 792, RFC 4443).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, Namespace, Result, sockopt};

/// How an echo request is sent; the default is an ordinary `ping` that waits 20 seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingOptions {
    /// TTL or hop limit; `None` is the system's.
    pub ttl: Option<u8>,
    /// The identifier; `None` takes one that no other ping of this process has.
    pub identifier: Option<u16>,
    /// The sequence number.
    pub sequence: u16,
    /// What the request carries, and an honest reply repeats.
    pub payload: Vec<u8>,
    /// The source address; `None` is the system's choice.
    pub source: Option<IpAddr>,
    /// `Some(true)` forbids fragments (DF over IPv4) whatever path MTU is known, `Some(false)` allows them, `None` is
    /// the system's choice.
    pub dont_fragment: Option<bool>,
    /// How long to wait for an answer.
    pub timeout: Duration,
}

impl Default for PingOptions {
    fn default() -> Self {
        Self {
            ttl: None,
            identifier: None,
            sequence: 1,
            payload: b"netlab echo request".to_vec(),
            source: None,
            dont_fragment: None,
            timeout: Duration::from_secs(20),
        }
    }
}

/// What came back for an echo request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PingOutcome {
    /// An echo reply with our identifier and sequence number.
    Reply {
        /// Who sent it.
        from: IpAddr,
        /// TTL or hop limit on arrival.
        ttl: u8,
        /// Time between request and reply.
        rtt: Duration,
        /// What it carried.
        payload: Vec<u8>,
    },
    /// An ICMP error about our request.
    Error {
        /// Who sent it.
        from: IpAddr,
        /// The ICMP type (over IPv6 the `ICMPv6` type).
        icmp_type: u8,
        /// The code.
        code: u8,
        /// Bytes 4 to 8 of the message: an MTU, a pointer, or unused.
        rest: u32,
    },
    /// Nothing, in the time that was given.
    Timeout,
}

impl PingOutcome {
    /// Whether the answer is a reply.
    pub fn is_reply(&self) -> bool {
        matches!(self, Self::Reply { .. })
    }
}

static NEXT_IDENTIFIER: AtomicU16 = AtomicU16::new(0x4000);

/// Sends one echo request from the namespace and waits for what comes back. An error is one of the own host, as
/// "network is unreachable"; errors that others report are an outcome.
pub fn ping(namespace: &Namespace, target: impl Into<IpAddr>, options: &PingOptions) -> Result<PingOutcome> {
    let target = target.into();
    namespace.try_run(|| exchange(target, options))?.map_err(|error| {
        Error::system(format!("pinging {target} from namespace {}", namespace.label()), error)
    })
}

/// The family's numbers: echo request, echo reply, and which types are errors.
struct Family {
    request: u8,
    reply: u8,
    errors: &'static [u8],
}

const V4: Family = Family { request: 8, reply: 0, errors: &[3, 4, 11, 12] };
const V6: Family = Family { request: 128, reply: 129, errors: &[1, 2, 3, 4] };

fn exchange(target: IpAddr, options: &PingOptions) -> io::Result<PingOutcome> {
    let socket = open(target, options)?;
    let family = if target.is_ipv4() { &V4 } else { &V6 };
    let identifier = options.identifier.unwrap_or_else(|| NEXT_IDENTIFIER.fetch_add(1, Ordering::Relaxed));
    let mut request = vec![family.request, 0, 0, 0];
    request.extend(identifier.to_be_bytes());
    request.extend(options.sequence.to_be_bytes());
    request.extend(&options.payload);
    if target.is_ipv4() {
        // Over IPv6 the kernel computes the checksum, which covers addresses that it alone has chosen.
        let checksum = internet_checksum(&request);
        request[2..4].copy_from_slice(&checksum.to_be_bytes());
    }

    let sent = Instant::now();
    socket.send_to(&request, &SocketAddr::new(target, 0).into())?;
    let expected = Expected { target, family, identifier, sequence: options.sequence };
    let mut buffer = vec![0; 65_536];
    loop {
        let left = options.timeout.saturating_sub(sent.elapsed());
        if left.is_zero() {
            return Ok(PingOutcome::Timeout);
        }
        socket.set_read_timeout(Some(left))?;
        let Some((length, from, hop_limit)) = receive(&socket, &mut buffer)? else { continue };
        let outcome = match target {
            IpAddr::V4(_) => expected.judge_v4(&buffer[..length], from, sent),
            IpAddr::V6(_) => expected.judge(&buffer[..length], from, hop_limit, sent),
        };
        if let Some(outcome) = outcome {
            return Ok(outcome);
        }
    }
}

fn open(target: IpAddr, options: &PingOptions) -> io::Result<Socket> {
    let socket = match target {
        IpAddr::V4(_) => {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            if let Some(ttl) = options.ttl {
                socket.set_ttl_v4(ttl.into())?;
            }
            socket
        }
        IpAddr::V6(_) => {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            socket.set_recv_hoplimit_v6(true)?;
            if let Some(ttl) = options.ttl {
                socket.set_unicast_hops_v6(ttl.into())?;
            }
            socket
        }
    };
    if let Some(forbidden) = options.dont_fragment {
        sockopt::dont_fragment(&socket, target.is_ipv6(), forbidden)?;
    }
    if let Some(source) = options.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

/// One message, its sender and its hop limit (IPv6 only); `None` when the time is up.
fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<(usize, IpAddr, u8)>> {
    let mut control = nix::cmsg_space!(libc::c_int);
    let mut parts = [IoSliceMut::new(buffer)];
    let received =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
    let message = match received {
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
        received => received?,
    };
    let hop_limit = message
        .cmsgs()?
        .find_map(|item| match item {
            ControlMessageOwned::Ipv6HopLimit(limit) => u8::try_from(limit).ok(),
            _ => None,
        })
        .unwrap_or(0);
    let from = message.address.as_ref().and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    Ok(from.map(|from| (message.bytes, from, hop_limit)))
}

/// What an answer must repeat to be ours: a raw socket hears everybody's.
struct Expected {
    target: IpAddr,
    family: &'static Family,
    identifier: u16,
    sequence: u16,
}

impl Expected {
    /// A raw IPv4 socket gives the IP header too.
    fn judge_v4(&self, packet: &[u8], from: IpAddr, sent: Instant) -> Option<PingOutcome> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        self.judge(packet.get(header..)?, from, *packet.get(8)?, sent)
    }

    fn judge(&self, message: &[u8], from: IpAddr, ttl: u8, sent: Instant) -> Option<PingOutcome> {
        let (head, body) = message.split_at_checked(8)?;
        let (icmp_type, code) = (head[0], head[1]);
        if icmp_type == self.family.reply && self.is_ours(head) {
            return Some(PingOutcome::Reply { from, ttl, rtt: sent.elapsed(), payload: body.to_vec() });
        }
        if self.family.errors.contains(&icmp_type) && self.quotes_us(body)? {
            let rest = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
            return Some(PingOutcome::Error { from, icmp_type, code, rest });
        }
        None
    }

    /// Identifier and sequence number of an echo message.
    fn is_ours(&self, echo: &[u8]) -> bool {
        echo.get(4..6) == Some(&self.identifier.to_be_bytes())
            && echo.get(6..8) == Some(&self.sequence.to_be_bytes())
    }

    /// Whether the packet inside an error is our request.
    fn quotes_us(&self, inner: &[u8]) -> Option<bool> {
        let (to, header) = match self.target {
            IpAddr::V4(_) => {
                let to = <[u8; 4]>::try_from(inner.get(16..20)?).ok()?;
                (IpAddr::from(Ipv4Addr::from(to)), usize::from(inner.first()? & 0x0f) * 4)
            }
            IpAddr::V6(_) => {
                let to = <[u8; 16]>::try_from(inner.get(24..40)?).ok()?;
                // A request that left in fragments is quoted with its fragment header (RFC 8200 section 4.5).
                (IpAddr::from(Ipv6Addr::from(to)), if *inner.get(6)? == 44 { 48 } else { 40 })
            }
        };
        let echo = inner.get(header..)?;
        Some(to == self.target && echo.first() == Some(&self.family.request) && self.is_ours(echo))
    }
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_rfc_1071_section_3() {
        assert_eq!(internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(internet_checksum(&[0xff]), 0x00ff);
    }
}
