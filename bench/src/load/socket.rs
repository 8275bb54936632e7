//! UDP sockets inside the namespaces, and how many datagrams are sent and received by one system call.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use netlab::{Namespace, segment_datagrams};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt};

/// So many datagrams go by one system call at most.
const BATCH: usize = 32;
/// The longest datagram, in bytes of payload.
const LONGEST: usize = 2048;
/// The buffers of a socket, in bytes: it is not the receiver's pauses that are to be measured.
const BUFFER: usize = 8 << 20;
/// A receiver that got nothing for so long asks whether it is still wanted.
pub(crate) const SILENCE: Duration = Duration::from_millis(20);
/// How often a first datagram is sent until it arrives.
const ATTEMPTS: u32 = 50;

/// One flow of datagrams: a socket of the client and one of the server.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Connected to the server as the client sees it.
    pub(crate) client: UdpSocket,
    /// Bound, not connected.
    pub(crate) server: UdpSocket,
}

impl Flow {
    /// Makes both and sees that a datagram gets through, so that leases and sessions are there before anything is measured.
    pub(crate) fn open(client: &Namespace, server: &Namespace, from: SocketAddr, to: Ends) -> Result<Self> {
        let own = server.try_run(|| bind(to.bound))?.context("the server's socket")?;
        let other = client.try_run(|| bind(from))?.context("the client's socket")?;
        other.connect(to.seen).context("connecting the client's socket")?;
        let flow = Self { client: other, server: own };
        flow.warm_up()?;
        Ok(flow)
    }

    fn warm_up(&self) -> Result<()> {
        let mut buffer = [0; LONGEST];
        for _ in 0..ATTEMPTS {
            // A refusal (ICMP) about the last attempt is reported by the next call, and is no news.
            let _ = self.client.send(&[0; 16]);
            if self.server.recv(&mut buffer).is_ok() {
                return Ok(());
            }
        }
        bail!("no datagram got through within {} s", (SILENCE * ATTEMPTS).as_secs_f64())
    }
}

/// Where the server is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// What it binds.
    pub(crate) bound: SocketAddr,
    /// What the client sends to.
    pub(crate) seen: SocketAddr,
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
    socket.set_read_timeout(Some(SILENCE))?;
    Ok(socket)
}

/// Sends one payload again and again, each datagram on its own (no `UDP_SEGMENT`).
pub(crate) struct Sender<'s> {
    socket: &'s UdpSocket,
    payload: &'s [u8],
    // Without addresses: the socket is connected.
    headers: MultiHeaders<()>,
}

impl<'s> Sender<'s> {
    /// The socket is connected.
    pub(crate) fn new(socket: &'s UdpSocket, payload: &'s [u8]) -> Self {
        Self { socket, payload, headers: MultiHeaders::preallocate(BATCH, None) }
    }

    /// Sends so many, back to back, and answers with how many the kernel took.
    pub(crate) fn send(&mut self, count: u64) -> Result<u64> {
        let slices = [[IoSlice::new(self.payload)]; BATCH];
        let mut left = count;
        let mut taken = 0;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(BATCH).min(BATCH);
            let sent = sendmmsg(
                self.socket.as_raw_fd(),
                &mut self.headers,
                &slices[..now],
                [None::<()>; BATCH],
                [],
                MsgFlags::empty(),
            );
            match sent.map(Iterator::count) {
                Ok(sent) => {
                    taken += sent as u64;
                    left -= (sent as u64).clamp(1, left);
                }
                Err(error) if is_refusal(error) => left -= 1,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("sending datagrams"),
            }
        }
        Ok(taken)
    }
}

/// What was sent is lost, and it goes on: a full queue, or an ICMP error about an earlier datagram.
fn is_refusal(error: Errno) -> bool {
    matches!(
        error,
        Errno::ENOBUFS | Errno::EAGAIN | Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::EACCES
    )
}

/// Sends one payload again and again, a whole burst by one call: the kernel cuts it into datagrams (`UDP_SEGMENT`). Where the
/// link's card may not do that, they leave it right behind each other, and are all there before the next kernel looks at the first.
pub(crate) struct Cutter<'s> {
    socket: &'s UdpSocket,
    burst: Vec<u8>,
    payload: usize,
}

impl<'s> Cutter<'s> {
    /// The socket is connected; from now on, what it sends at a time is cut into payloads of this length.
    pub(crate) fn new(socket: &'s UdpSocket, payload: &[u8], burst: u64) -> Result<Self> {
        segment_datagrams(socket, u16::try_from(payload.len())?).context("having datagrams cut")?;
        Ok(Self { socket, burst: payload.repeat(usize::try_from(burst)?), payload: payload.len() })
    }

    /// Sends so many, burst by burst, and answers with how many the kernel took.
    pub(crate) fn send(&self, count: u64) -> Result<u64> {
        let mut left = usize::try_from(count)?.saturating_mul(self.payload);
        let mut taken = 0;
        while left > 0 {
            let part = left.min(self.burst.len());
            match nix::unistd::write(self.socket, &self.burst[..part]) {
                Ok(length) => {
                    taken += length;
                    left -= part;
                }
                Err(error) if is_refusal(error) => left -= part,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("sending datagrams"),
            }
        }
        Ok((taken / self.payload) as u64)
    }
}

/// Receives datagrams, as many at once as there are.
pub(crate) struct Receiver<'s> {
    socket: &'s UdpSocket,
    buffers: Vec<u8>,
    headers: MultiHeaders<SockaddrStorage>,
}

impl<'s> Receiver<'s> {
    /// It waits at most [`SILENCE`] at a time.
    pub(crate) fn new(socket: &'s UdpSocket) -> Self {
        Self { socket, buffers: vec![0; BATCH * LONGEST], headers: MultiHeaders::preallocate(BATCH, None) }
    }

    /// Hands each datagram that is there to `take`; waits for the first one. Answers with their number, 0 after a silence.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(&[u8])) -> Result<usize> {
        let mut lengths = [0; BATCH];
        let mut count = 0;
        {
            let mut chunks = self.buffers.chunks_mut(LONGEST);
            let mut slices: [_; BATCH] =
                std::array::from_fn(|_| [IoSliceMut::new(chunks.next().unwrap_or_default())]);
            let got = recvmmsg(
                self.socket.as_raw_fd(),
                &mut self.headers,
                slices.iter_mut(),
                MsgFlags::MSG_WAITFORONE,
                None,
            );
            match got {
                Ok(messages) => {
                    for (length, message) in lengths.iter_mut().zip(messages) {
                        *length = message.bytes;
                        count += 1;
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return Ok(0),
                Err(error) => return Err(error).context("receiving datagrams"),
            }
        }
        for (buffer, length) in self.buffers.chunks(LONGEST).zip(&lengths[..count]) {
            take(&buffer[..(*length).min(LONGEST)]);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_in_batches_is_received_one_by_one() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(SILENCE)).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        assert_eq!(Sender::new(&client, b"datagram").send(70).unwrap(), 70, "more than one batch");
        let mut receiver = Receiver::new(&server);
        let mut got = 0;
        while receiver.receive(|datagram| got += u32::from(datagram == b"datagram")).unwrap() > 0 {}
        assert_eq!(got, 70);
    }

    #[test]
    fn bursts_are_cut_into_datagrams_and_a_part_of_one_is_sent_too() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(SILENCE)).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        let cutter = Cutter::new(&client, b"datagram", 8).unwrap();
        assert_eq!(cutter.send(19).unwrap(), 19, "two bursts and three more");
        let mut receiver = Receiver::new(&server);
        let mut got = 0;
        while receiver.receive(|datagram| got += u32::from(datagram == b"datagram")).unwrap() > 0 {}
        assert_eq!(got, 19);
    }

    #[test]
    fn a_refused_datagram_is_no_error_and_is_not_counted_as_sent() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(gone).unwrap();
        let mut sender = Sender::new(&client, b"datagram");
        let taken: u64 = (0..4).map(|_| sender.send(1).unwrap()).sum();
        assert!(taken < 4, "the ICMP error about the first is reported: {taken}");
    }
}
