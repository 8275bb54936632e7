//! A bulk transfer over TCP whose two ends are compared by SHA-256.
//!
//! The client sends one byte, `U` for upload or `D` for download, and the length as 8 bytes, most significant first.
//! Then one side sends so many bytes, and the server sends its digest.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::exchange::{bounded, connect};
use crate::server::SILENCE;
use crate::{Namespace, Result, Server};

const CHUNK: usize = 64 << 10;

/// Which way the bytes go, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Upload,
    /// From the server to the client.
    Download,
}

/// A transfer that came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// How many bytes were transferred.
    pub bytes: u64,
    /// SHA-256 of what the client sent or received.
    pub client_sha256: [u8; 32],
    /// SHA-256 of what the server received or sent.
    pub server_sha256: [u8; 32],
    /// From the first byte to the last.
    pub elapsed: Duration,
}

impl Transfer {
    /// Whether both ends saw the same bytes.
    pub fn is_intact(&self) -> bool {
        self.client_sha256 == self.server_sha256
    }
}

impl Server {
    /// The server for [`bulk_transfer`].
    pub fn bulk(namespace: &Namespace, at: impl ToSocketAddrs) -> Result<Self> {
        Self::tcp(namespace, "bulk", at, |mut stream| async move {
            let direction = stream.read_u8().await?;
            let bytes = stream.read_u64().await?;
            let digest = match direction {
                b'U' => receive(&mut stream, bytes, |_| ()).await?,
                b'D' => send(&mut stream, bytes, |_| ()).await?,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            };
            stream.write_all(&digest).await?;
            stream.shutdown().await
        })
    }
}

/// Transfers so many bytes over one TCP connection to or from a [`Server::bulk`]. `progress` is told after each
/// chunk how many bytes are done.
pub fn bulk_transfer(
    namespace: &Namespace,
    target: SocketAddr,
    direction: Direction,
    bytes: u64,
    limit: Duration,
    mut progress: impl FnMut(u64) + Send,
) -> Result<Transfer> {
    bounded(namespace, &format!("transferring {bytes} bytes over TCP, with {target},"), limit, async {
        let mut stream = connect(None, target).await?;
        let letter = if direction == Direction::Upload { b'U' } else { b'D' };
        stream.write_u8(letter).await?;
        stream.write_u64(bytes).await?;
        let start = Instant::now();
        let client_sha256 = match direction {
            Direction::Upload => send(&mut stream, bytes, &mut progress).await?,
            Direction::Download => receive(&mut stream, bytes, &mut progress).await?,
        };
        let mut server_sha256 = [0; 32];
        stream.read_exact(&mut server_sha256).await?;
        Ok(Transfer { bytes, client_sha256, server_sha256, elapsed: start.elapsed() })
    })
}

/// Sends pseudo-random bytes; each chunk starts with its own number, so that no two are alike.
async fn send(stream: &mut TcpStream, bytes: u64, mut progress: impl FnMut(u64)) -> io::Result<[u8; 32]> {
    let mut chunk = noise();
    let mut digest = Sha256::new();
    let mut done = 0;
    while done < bytes {
        chunk[..8].copy_from_slice(&done.to_be_bytes());
        let length = CHUNK.min(usize::try_from(bytes - done).unwrap_or(CHUNK));
        digest.update(&chunk[..length]);
        tokio::time::timeout(SILENCE, stream.write_all(&chunk[..length])).await??;
        done += length as u64;
        progress(done);
    }
    Ok(digest.finalize().into())
}

async fn receive(stream: &mut TcpStream, bytes: u64, mut progress: impl FnMut(u64)) -> io::Result<[u8; 32]> {
    let mut chunk = vec![0; CHUNK];
    let mut digest = Sha256::new();
    let mut done = 0;
    while done < bytes {
        let most = CHUNK.min(usize::try_from(bytes - done).unwrap_or(CHUNK));
        let length = tokio::time::timeout(SILENCE, stream.read(&mut chunk[..most])).await??;
        if length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the other side ended after {done} of {bytes} bytes"),
            ));
        }
        digest.update(&chunk[..length]);
        done += length as u64;
        progress(done);
    }
    Ok(digest.finalize().into())
}

/// Bytes without a pattern that a broken segment could repeat: Marsaglia's xorshift64.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(CHUNK);
    while noise.len() < CHUNK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_be_bytes());
    }
    noise
}
