//! The socket's file: made, taken over from a dead router, and removed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that may wait for their turn.
const BACKLOG: i32 = 16;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error(
        "another router answers at the control socket {}; choose another path with --control-socket, or --no-control",
        .0.display()
    )]
    Alive(PathBuf),
    /// Something else is there.
    #[error("{} is in the way of the control socket, and no socket; choose another path with --control-socket", .0.display())]
    NoSocket(PathBuf),
    /// It cannot be made.
    #[error("the control socket {} cannot be made: {source}; choose another path with --control-socket, or --no-control", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A listening socket, and its file, which ends with it.
#[derive(Debug)]
pub struct ControlSocket {
    /// The listener, which outlives the actor.
    pub listener: UnixListener,
    /// The file.
    pub path: PathBuf,
    /// Device and inode of the file.
    identity: (u64, u64),
    /// Whether the file ends with this value.
    is_owned: AtomicBool,
}

impl ControlSocket {
    /// Listens there. A socket that a dead router has left is replaced.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None).map_err(failed)?;
        let address = SockAddr::unix(path).map_err(failed)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                make_way(path)?;
                socket.bind(&address).map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        // Nobody can connect before it listens.
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        let file = fs::symlink_metadata(path).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        Ok(Self {
            listener: socket.into(),
            path: path.to_owned(),
            identity: (file.dev(), file.ino()),
            is_owned: true.into(),
        })
    }

    /// Goes on with the listener of another router, if it is one that listens there. Its file is the other one's until that is
    /// [said](Self::set_owned) to be otherwise.
    pub fn adopt(listener: UnixListener, path: &Path) -> Option<Self> {
        let listens_there = listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(path));
        let file = fs::symlink_metadata(path).ok().filter(|_| listens_there)?;
        let identity = (file.dev(), file.ino());
        Some(Self { listener, path: path.to_owned(), identity, is_owned: false.into() })
    }

    /// Whether the file ends with this value.
    pub fn is_owned(&self) -> bool {
        self.is_owned.load(Ordering::Relaxed)
    }

    /// Says whether the file ends with this value.
    pub fn set_owned(&self, is_owned: bool) {
        self.is_owned.store(is_owned, Ordering::Relaxed);
    }
}

impl ControlSocket {
    /// Removes the file: a clean end.
    pub fn remove(&self) {
        if !self.is_owned() {
            return;
        }
        // Somebody may have put another one there.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes a socket that nobody listens at.
fn make_way(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let file = fs::symlink_metadata(path).map_err(failed)?;
    if !file.file_type().is_socket() {
        return Err(SocketError::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        // Also where this user may not connect, or its backlog is full: somebody is there.
        _ => Err(SocketError::Alive(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn directory() -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("protomask-socket-{}-{number}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        directory
    }

    #[test]
    fn only_its_user_can_use_it_and_it_ends_with_the_value() {
        let directory = directory();
        let path = directory.join("sub/nat64.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn that_of_a_dead_router_is_replaced_and_that_of_a_living_one_is_not() {
        let directory = directory();
        let path = directory.join("nat64.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a listener that ends leaves its file");
        let living = ControlSocket::bind(&path).unwrap();
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::Alive(_)), "{error}");
        // It is the living one's still.
        UnixStream::connect(&path).unwrap();
        // What somebody else has put in its place is not removed.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(living);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::NoSocket(_)), "{error}");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error() {
        let error = ControlSocket::bind(Path::new(&format!("/tmp/{}", "x".repeat(200)))).unwrap_err();
        assert!(matches!(error, SocketError::Io { .. }), "{error}");
    }
}
