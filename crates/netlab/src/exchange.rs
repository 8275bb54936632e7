//! Clients: one datagram, one connection, one HTTP request; each bounded by a time limit.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::{Error, Namespace, Result};

/// Sends one UDP datagram, from a given source if one is given, and answers with the first datagram that comes back.
/// An ICMP error that comes back instead is a system error (`ECONNREFUSED`, `EHOSTUNREACH`).
pub fn udp_exchange(
    namespace: &Namespace,
    source: Option<SocketAddr>,
    target: SocketAddr,
    payload: &[u8],
    limit: Duration,
) -> Result<Vec<u8>> {
    bounded(namespace, &format!("sending a datagram to {target}"), limit, async {
        let socket = UdpSocket::bind(source.unwrap_or_else(|| unspecified(target))).await?;
        socket.connect(target).await?;
        socket.send(payload).await?;
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer).await?;
        buffer.truncate(length);
        Ok(buffer)
    })
}

/// Opens a TCP connection, from a given source if one is given, sends the payload, closes the sending side and
/// answers with all that comes back, up to one byte more than was sent.
pub fn tcp_exchange(
    namespace: &Namespace,
    source: Option<SocketAddr>,
    target: SocketAddr,
    payload: &[u8],
    limit: Duration,
) -> Result<Vec<u8>> {
    bounded(namespace, &format!("exchanging data with {target} over TCP"), limit, async {
        let (reader, mut writer) = connect(source, target).await?.into_split();
        let send = async {
            writer.write_all(payload).await?;
            writer.shutdown().await
        };
        let mut answer = Vec::new();
        let receive = async { reader.take(payload.len() as u64 + 1).read_to_end(&mut answer).await };
        tokio::try_join!(send, receive)?;
        Ok(answer)
    })
}

/// Opens a TCP connection, from a given source if one is given, and leaves it to the caller. Reading and writing have the
/// same limit as opening. The source's address may be shared with sockets that are bound with `SO_REUSEADDR` too.
pub fn tcp_connect(
    namespace: &Namespace,
    source: Option<SocketAddr>,
    target: SocketAddr,
    limit: Duration,
) -> Result<std::net::TcpStream> {
    let open = || -> io::Result<_> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        if let Some(source) = source {
            socket.set_reuse_address(true)?;
            socket.bind(&source.into())?;
        }
        socket.connect_timeout(&target.into(), limit)?;
        socket.set_read_timeout(Some(limit))?;
        socket.set_write_timeout(Some(limit))?;
        Ok(std::net::TcpStream::from(socket))
    };
    namespace.try_run(open)?.map_err(|error| {
        Error::system(format!("opening a connection to {target} from namespace {}", namespace.label()), error)
    })
}

pub(crate) async fn connect(source: Option<SocketAddr>, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.set_reuseaddr(true)?;
        socket.bind(source)?;
    }
    socket.connect(target).await
}

/// Runs a client inside the namespace, with the sentence and the time limit that an error names.
pub(crate) fn bounded<T: Send>(
    namespace: &Namespace,
    action: &str,
    limit: Duration,
    work: impl Future<Output = io::Result<T>> + Send,
) -> Result<T> {
    let action = format!("{action} from namespace {}", namespace.label());
    match namespace.try_block_on(async { tokio::time::timeout(limit, work).await })? {
        Ok(answer) => answer.map_err(|error| Error::system(action, error)),
        Err(_) => Err(Error::Timeout { action, limit }),
    }
}

fn unspecified(target: SocketAddr) -> SocketAddr {
    if target.is_ipv4() { SocketAddr::from(([0, 0, 0, 0], 0)) } else { SocketAddr::from(([0; 16], 0)) }
}
