//! Echo requests and what comes back for them (RFC 792, RFC 4443).

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
    let outcomes = ping_series(namespace, target, options, 1, Duration::ZERO)?;
    Ok(outcomes.into_iter().next().unwrap_or(PingOutcome::Timeout))
}

/// Sends `count` echo requests with one identifier and consecutive sequence numbers, one each `pace`, and tells what came
/// back for each, in the order of the requests. The time-out of the options begins with the last request.
pub fn ping_series(
    namespace: &Namespace,
    target: impl Into<IpAddr>,
    options: &PingOptions,
    count: u16,
    pace: Duration,
) -> Result<Vec<PingOutcome>> {
    let target = target.into();
    namespace.try_run(|| exchange(target, options, count, pace))?.map_err(|error| {
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

fn exchange(
    target: IpAddr,
    options: &PingOptions,
    count: u16,
    pace: Duration,
) -> io::Result<Vec<PingOutcome>> {
    let socket = open(target, options)?;
    let mut series = Series {
        target,
        family: if target.is_ipv4() { &V4 } else { &V6 },
        identifier: options.identifier.unwrap_or_else(|| NEXT_IDENTIFIER.fetch_add(1, Ordering::Relaxed)),
        first: options.sequence,
        sent: Vec::with_capacity(count.into()),
    };
    let mut outcomes = vec![PingOutcome::Timeout; count.into()];
    let mut answered = 0;
    let mut buffer = vec![0; 65_536];
    let start = Instant::now();
    while answered < outcomes.len() {
        let next = series.sent.len();
        let due = if next < outcomes.len() {
            start + pace * next as u32
        } else {
            series.sent[next - 1] + options.timeout
        };
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            if next == outcomes.len() {
                break;
            }
            series.sent.push(Instant::now());
            let request = series.request(next as u16, &options.payload);
            socket.send_to(&request, &SocketAddr::new(target, 0).into())?;
            continue;
        }
        socket.set_read_timeout(Some(left))?;
        let Some((length, from, hop_limit)) = receive(&socket, &mut buffer)? else { continue };
        let answer = match target {
            IpAddr::V4(_) => series.judge_v4(&buffer[..length], from),
            IpAddr::V6(_) => series.judge(&buffer[..length], from, hop_limit),
        };
        if let Some((number, outcome)) = answer {
            // The first answer counts.
            if outcomes[number] == PingOutcome::Timeout {
                outcomes[number] = outcome;
                answered += 1;
            }
        }
    }
    Ok(outcomes)
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
        forget(&socket)?;
    }
    Ok(socket)
}

/// Throws away what has come so far: until it was bound, the socket has heard what is for other addresses.
fn forget(socket: &Socket) -> io::Result<()> {
    let mut nothing = [];
    loop {
        match recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut [IoSliceMut::new(&mut nothing)],
            None,
            MsgFlags::MSG_DONTWAIT,
        ) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
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
struct Series {
    target: IpAddr,
    family: &'static Family,
    identifier: u16,
    /// The first request's sequence number.
    first: u16,
    /// When each request left.
    sent: Vec<Instant>,
}

impl Series {
    fn request(&self, number: u16, payload: &[u8]) -> Vec<u8> {
        let mut request = vec![self.family.request, 0, 0, 0];
        request.extend(self.identifier.to_be_bytes());
        request.extend(self.first.wrapping_add(number).to_be_bytes());
        request.extend(payload);
        if self.target.is_ipv4() {
            // Over IPv6 the kernel computes the checksum, which covers addresses that it alone has chosen.
            let checksum = internet_checksum(&request);
            request[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        request
    }

    /// A raw IPv4 socket gives the IP header too.
    fn judge_v4(&self, packet: &[u8], from: IpAddr) -> Option<(usize, PingOutcome)> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        self.judge(packet.get(header..)?, from, *packet.get(8)?)
    }

    /// Which request is answered, and by what.
    fn judge(&self, message: &[u8], from: IpAddr, ttl: u8) -> Option<(usize, PingOutcome)> {
        let (head, body) = message.split_at_checked(8)?;
        let (icmp_type, code) = (head[0], head[1]);
        if icmp_type == self.family.reply {
            let number = self.number(head)?;
            let rtt = self.sent[number].elapsed();
            return Some((number, PingOutcome::Reply { from, ttl, rtt, payload: body.to_vec() }));
        }
        if self.family.errors.contains(&icmp_type) {
            let number = self.quoted(body)?;
            let rest = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
            return Some((number, PingOutcome::Error { from, icmp_type, code, rest }));
        }
        None
    }

    /// Which of our requests has the identifier and sequence number of this echo message.
    fn number(&self, echo: &[u8]) -> Option<usize> {
        let sequence = u16::from_be_bytes(echo.get(6..8)?.try_into().ok()?);
        let number = usize::from(sequence.wrapping_sub(self.first));
        let is_ours = echo.get(4..6)? == self.identifier.to_be_bytes() && number < self.sent.len();
        is_ours.then_some(number)
    }

    /// Which of our requests is the packet inside an error.
    fn quoted(&self, inner: &[u8]) -> Option<usize> {
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
        let is_request = to == self.target && echo.first() == Some(&self.family.request);
        if is_request { self.number(echo) } else { None }
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
