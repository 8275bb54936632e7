//! The next router's part.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

use super::link::{Link, Taken};
use super::{Inheritance, store};

/// Why nothing can be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Nobody is there.
    #[error("no router answers at {path}")]
    Nobody {
        /// The control socket.
        path: String,
    },
    /// The router that runs does not hand over. It goes on.
    #[error("the router that runs does not hand over: {source}; it goes on")]
    Refused {
        /// What came of it.
        source: io::Error,
    },
    /// It cannot be talked to.
    #[error("the router at {path} cannot be asked to hand over: {source}")]
    Unreachable {
        /// The control socket.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// The router that runs, which waits until this one is set up.
#[derive(Debug)]
pub struct Predecessor {
    link: Link,
    /// Its process.
    pub pid: u32,
    /// Its listener for metrics.
    pub(crate) metrics: Option<TcpListener>,
    /// Its control socket.
    pub(crate) control: Option<UnixListener>,
    /// The lock of its state folder.
    pub(crate) lock: Option<OwnedFd>,
}

/// Asks the router of this interface, which answers at that path, to hand over, and waits until it has stopped.
pub fn take(path: &Path, interface: &str) -> Result<Inheritance, TakeError> {
    let name = || path.display().to_string();
    let unreachable = |source| TakeError::Unreachable { path: name(), source };
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(TakeError::Nobody { path: name() });
        }
        Err(error) => return Err(unreachable(error)),
    };
    let peer = getsockopt(&stream, PeerCredentials).map_err(|errno| unreachable(errno.into()))?;
    // What it sends is believed.
    if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
        let message = format!("it belongs to user {}; start this one as that user, or as root", peer.uid());
        return Err(unreachable(io::Error::other(message)));
    }
    let refused = |source| TakeError::Refused { source };
    let mut link = Link::new(stream).map_err(refused)?;
    let manifest = link.ask().map_err(refused)?;
    let mut descriptors = link.receive(&manifest).map_err(refused)?.into_iter();
    let queues = descriptors.by_ref().take(manifest.queues).enumerate();
    let queues = queues.map(|(number, fd)| (store::name_of(interface, number), fd)).collect();
    let mut next = |is_there: bool| is_there.then(|| descriptors.next()).flatten();
    let metrics = next(manifest.metrics).map(TcpListener::from);
    let control = next(manifest.control).map(UnixListener::from);
    let lock = next(manifest.lock);
    // The kernel names whoever made the listener, which may have been handed over before.
    let predecessor = Predecessor { link, pid: manifest.pid, metrics, control, lock };
    Ok(Inheritance { descriptors: queues, predecessor: Some(predecessor) })
}

impl Predecessor {
    /// This router is set up: from here on it is the one. `has_control`: it goes on with the control socket of the other one.
    pub(crate) fn settle(mut self, has_control: bool) -> Result<(), TakeError> {
        let settled = self.link.settle(Taken { control: has_control });
        settled.map_err(|source| TakeError::Refused { source })
    }
}
