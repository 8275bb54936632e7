//! Servers that run on a thread of their own inside a namespace and end when they are dropped.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, oneshot};

use crate::namespace::runtime;
use crate::{Error, Namespace, Result};

/// At most so many connections are served at a time; more wait in the listener's backlog.
const CONNECTIONS: usize = 4096;
/// A connection that is silent for so long is closed.
pub(crate) const SILENCE: Duration = Duration::from_mins(1);
/// How long a server rests after an error of its own socket, so that a lasting one costs nothing.
const BACK_OFF: Duration = Duration::from_millis(10);
/// At most so many peers are remembered.
const PEERS: usize = 65_536;

/// A running server. Dropping it closes its sockets and waits for its thread.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    peers: Peers,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Where it listens; the port is a real one when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who sent a datagram or opened a connection so far, one entry each, in order (the first 65,536).
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Echoes each UDP datagram to its sender.
    pub fn udp_echo(namespace: &Namespace, at: impl ToSocketAddrs) -> Result<Self> {
        let at = resolve(at)?;
        Self::start(namespace, "udp echo", move |peers, started| async move {
            let socket = UdpSocket::bind(at).await?;
            started.send(socket.local_addr()?);
            let mut buffer = vec![0; 65_536];
            loop {
                // An ICMP error about an earlier answer comes as an error of this call, and ends nothing.
                let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                };
                peers.push(peer);
                // A client that is gone is no concern of an echo server.
                let _ = socket.send_to(&buffer[..length], peer).await;
            }
        })
    }

    /// Echoes what each TCP connection sends until it closes its sending side.
    pub fn tcp_echo(namespace: &Namespace, at: impl ToSocketAddrs) -> Result<Self> {
        Self::tcp(namespace, "tcp echo", at, |mut stream| async move {
            let (mut reader, mut writer) = stream.split();
            let mut buffer = vec![0; 16_384];
            loop {
                let length = tokio::time::timeout(SILENCE, reader.read(&mut buffer)).await??;
                if length == 0 {
                    return writer.shutdown().await;
                }
                tokio::time::timeout(SILENCE, writer.write_all(&buffer[..length])).await??;
            }
        })
    }

    /// Serves each TCP connection by a task of its own.
    pub(crate) fn tcp<F>(
        namespace: &Namespace,
        kind: &'static str,
        at: impl ToSocketAddrs,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let at = resolve(at)?;
        Self::start(namespace, kind, move |peers, started| async move {
            let listener = TcpListener::bind(at).await?;
            started.send(listener.local_addr()?);
            let room = Arc::new(Semaphore::new(CONNECTIONS));
            loop {
                let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
                let Ok((stream, peer)) = listener.accept().await else {
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                };
                peers.push(peer);
                let connection = serve(stream);
                tokio::spawn(async move {
                    // What goes wrong with a connection is seen, and judged, at the other end of it.
                    let _ = connection.await;
                    drop(permit);
                });
            }
        })
    }

    /// Starts the thread and waits until it has bound its socket or failed to.
    fn start<F>(
        namespace: &Namespace,
        kind: &'static str,
        body: impl FnOnce(Peers, Started) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = io::Result<()>>,
    {
        let action = format!("starting a {kind} server in namespace {}", namespace.label());
        let peers = Peers::default();
        let (started, waiting) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name(format!("netlab-{kind}"))
            .spawn({
                let (namespace, peers, action) = (namespace.clone(), peers.clone(), action.clone());
                move || {
                    let result = namespace.enter_current_thread().and_then(|()| runtime()).and_then(|runtime| {
                        let started = Started(started.clone());
                        runtime.block_on(async move {
                            tokio::select! {
                                result = body(peers, started) => result.map_err(|error| Error::system(action, error)),
                                _ = stopped => Ok(()),
                            }
                        })
                    });
                    if let Err(error) = result {
                        // Full or closed means that the caller has had its answer.
                        let _ = started.try_send(Err(error));
                    }
                }
            })
            .map_err(|error| Error::system(action.clone(), error))?;
        let limit = Duration::from_secs(20);
        let address = waiting.recv_timeout(limit).unwrap_or(Err(Error::Timeout { action, limit }))?;
        Ok(Self { address, peers, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server has been printed; a destructor must not add another.
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Peers(Arc<Mutex<Vec<SocketAddr>>>);

impl Peers {
    fn push(&self, peer: SocketAddr) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() < PEERS {
            peers.push(peer);
        }
    }
}

struct Started(mpsc::SyncSender<Result<SocketAddr>>);

impl Started {
    fn send(&self, address: SocketAddr) {
        // Nobody waits any more only when the caller's time is up.
        let _ = self.0.try_send(Ok(address));
    }
}

fn resolve(at: impl ToSocketAddrs) -> Result<SocketAddr> {
    at.to_socket_addrs()
        .map_err(|error| Error::system("resolving a server's address", error))?
        .next()
        .ok_or_else(|| Error::Invalid("a server needs an address".to_owned()))
}
