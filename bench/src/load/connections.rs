//! New TCP connections, a fixed number of them at a time: handshake, one byte there and back, and a reset.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use netlab::Namespace;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// So many connections are under way at a time.
pub(crate) const AT_A_TIME: u32 = 32;
/// One that takes longer has failed. The first retransmission of a SYN comes after one second.
const PATIENCE: Duration = Duration::from_secs(4);
/// The first port of the clients, and how many are used before the first one comes again.
const FIRST_PORT: u16 = 10_000;
const PORTS: u32 = 50_000;

/// The hosts that open connections, and the ports that they have used. No port of a host is used twice in a run unless
/// millions of connections are opened, so that each one is new to who keeps state.
#[derive(Debug)]
pub(crate) struct Hosts {
    addresses: Vec<Ipv6Addr>,
    opened: AtomicU32,
}

impl Hosts {
    pub(crate) fn new(addresses: Vec<Ipv6Addr>) -> Self {
        Self { addresses, opened: AtomicU32::new(0) }
    }

    /// The source of the next connection: the hosts take turns.
    fn next(&self) -> Option<SocketAddr> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let hosts = u32::try_from(self.addresses.len()).ok()?;
        let host = self.addresses.get(usize::try_from(number.checked_rem(hosts)?).ok()?)?;
        let port = FIRST_PORT + u16::try_from(number / hosts % PORTS).ok()?;
        Some(SocketAddr::from((*host, port)))
    }
}

/// What goes there and back.
const BYTE: u8 = 0x5a;

/// What came of it.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Opened {
    /// Connections that carried their byte there and back.
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) seconds: f64,
}

/// Opens connections for so long. The client resets each of them (`SO_LINGER` of 0), so that neither end keeps it.
pub(crate) fn run(
    (client, server): (&Namespace, &Namespace),
    hosts: &Arc<Hosts>,
    (bound, seen): (SocketAddr, SocketAddr),
    duration: Duration,
) -> Result<Opened> {
    let listener = server
        .try_run(|| {
            let listener = std::net::TcpListener::bind(bound)?;
            listener.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(listener)
        })?
        .context("the server's socket")?;
    let end = Arc::new(Notify::new());
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.try_block_on(serve(listener, Arc::clone(&end))));
        let opened = client.try_block_on(open(Arc::clone(hosts), seen, duration));
        end.notify_one();
        serving.join().map_err(|_| anyhow!("the server panicked"))???;
        Ok(opened?)
    })
}

async fn serve(listener: std::net::TcpListener, end: Arc<Notify>) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                served.spawn(echo(stream));
            },
            Some(_) = served.join_next() => {}
            () = end.notified() => return Ok(()),
        }
    }
}

/// Sends one byte back and waits for the client's reset; what goes wrong is seen, and counted, by the client.
async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let byte = stream.read_u8().await?;
    stream.write_u8(byte).await?;
    stream.read_u8().await.map(drop)
}

async fn open(hosts: Arc<Hosts>, seen: SocketAddr, duration: Duration) -> Opened {
    let start = Instant::now();
    let mut slots = JoinSet::new();
    for _ in 0..AT_A_TIME {
        slots.spawn(one_after_the_other(Arc::clone(&hosts), seen, start, duration));
    }
    let mut total = Opened { seconds: duration.as_secs_f64(), ..Opened::default() };
    while let Some(slot) = slots.join_next().await {
        let Ok((completed, failed)) = slot else { continue };
        total.completed += completed;
        total.failed += failed;
    }
    total
}

/// Answers with how many connections were completed in time, and how many were not completed at all.
async fn one_after_the_other(
    hosts: Arc<Hosts>,
    seen: SocketAddr,
    start: Instant,
    duration: Duration,
) -> (u64, u64) {
    let (mut completed, mut failed) = (0, 0);
    while start.elapsed() < duration {
        match tokio::time::timeout(PATIENCE, exchange(&hosts, seen)).await {
            Ok(Ok(())) => completed += u64::from(start.elapsed() < duration),
            Ok(Err(_)) | Err(_) => failed += 1,
        }
    }
    (completed, failed)
}

async fn exchange(hosts: &Hosts, seen: SocketAddr) -> std::io::Result<()> {
    let socket = TcpSocket::new_v6()?;
    socket.set_reuseaddr(true)?;
    socket.set_zero_linger()?;
    socket.bind(hosts.next().ok_or_else(|| std::io::Error::other("there are no hosts"))?)?;
    let mut stream = socket.connect(seen).await?;
    stream.write_u8(BYTE).await?;
    if stream.read_u8().await? == BYTE { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_take_turns_and_no_port_comes_twice() {
        let hosts = Hosts::new(vec![Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED]);
        let sources: Vec<_> = (0..6).filter_map(|_| hosts.next()).collect();
        let of =
            |host: Ipv6Addr| sources.iter().filter(move |source| source.ip() == host).map(SocketAddr::port);
        assert_eq!(of(Ipv6Addr::LOCALHOST).collect::<Vec<_>>(), [10_000, 10_001, 10_002]);
        assert_eq!(of(Ipv6Addr::UNSPECIFIED).collect::<Vec<_>>(), [10_000, 10_001, 10_002]);
        assert_eq!(Hosts::new(Vec::new()).next(), None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_counts_when_its_byte_came_back_and_a_refused_one_has_failed() {
        let listener = std::net::TcpListener::bind("[::1]:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let seen = listener.local_addr().unwrap();
        let end = Arc::new(Notify::new());
        let server = tokio::spawn(serve(listener, Arc::clone(&end)));
        let hosts = Arc::new(Hosts::new(vec![Ipv6Addr::LOCALHOST]));
        let opened = open(Arc::clone(&hosts), seen, Duration::from_millis(50)).await;
        assert!(opened.completed > 0 && opened.failed == 0, "{opened:?}");
        end.notify_one();
        server.await.unwrap().unwrap();
        let refused = open(hosts, seen, Duration::from_millis(5)).await;
        assert!(refused.completed == 0 && refused.failed > 0, "{refused:?}");
    }
}
