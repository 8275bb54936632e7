//! The service manager's file descriptor store (`sd_notify(3)`, `FDSTORE=1`; `sd_listen_fds(3)`): what it keeps while there is no process.

use std::env;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::UnixAddr;
use slog::{Logger, debug};

use super::descriptors;
use super::keeper::BY_STDIN;

/// The most descriptors that a start is given: a queue each, and twice as many for those that cannot be told apart.
const MOST: usize = 2 * easy_tun::MAX_QUEUES;

/// The name of a queue. Interface names have neither `:` nor control characters.
pub fn name_of(interface: &str, number: usize) -> String {
    format!("queue-{interface}-{number}")
}

/// The number of the queue with this name; `None`: it is none of this interface.
pub fn number_of(name: &str, interface: &str) -> Option<usize> {
    name.strip_prefix("queue-")?.strip_prefix(interface)?.strip_prefix('-')?.parse().ok()
}

/// The descriptors that this process was started with, with their names. To be asked for once, before there is a second thread.
pub fn inherited() -> Vec<(String, OwnedFd)> {
    if env::var_os(BY_STDIN).is_some() {
        return by_stdin();
    }
    // It looks at LISTEN_PID too, and sets close-on-exec.
    let Ok(listed) = sd_notify::listen_fds_with_names() else { return Vec::new() };
    listed.take(MOST).map(|(raw, name)| (name, descriptors::inherit(raw))).collect()
}

/// What `protomask keep` sends: a message for each, with its name.
fn by_stdin() -> Vec<(String, OwnedFd)> {
    let stdin = io::stdin();
    let mut all = Vec::new();
    let mut buffer = [0; 256];
    // It closes its end behind the last.
    while let Ok((length, with)) = descriptors::receive(stdin.as_fd(), &mut buffer)
        && length > 0
        && all.len() < MOST
    {
        let name = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).trim().to_owned();
        all.extend(with.into_iter().map(|descriptor| (name.clone(), descriptor)));
    }
    all
}

/// Whether a service manager listens.
pub fn is_there() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// Asks the service manager to keep a descriptor under this name. One that it has already it does not keep twice. If it keeps none, it
/// closes it.
pub fn keep(name: &str, descriptor: BorrowedFd<'_>, log: &Logger) {
    if let Err(error) = tell(&format!("FDSTORE=1\nFDNAME={name}\n"), &[descriptor]) {
        debug!(log, "the service manager cannot be asked to keep a descriptor"; "name" => name, "because" => %error);
    }
}

/// Asks the service manager to close what it has under this name.
pub fn forget(name: &str, log: &Logger) {
    if let Err(error) = tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[]) {
        debug!(log, "the service manager cannot be asked to forget a descriptor"; "name" => name, "because" => %error);
    }
}

pub(super) fn tell(text: &str, with: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let bytes = path.as_encoded_bytes();
    let to = match bytes.strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name)?,
        None => UnixAddr::new(bytes)?,
    };
    let socket = UnixDatagram::unbound()?;
    descriptors::send(socket.as_fd(), Some(&to), text.as_bytes(), with)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_found_by_the_name_that_it_is_kept_with() {
        assert_eq!(number_of(&name_of("nat64", 17), "nat64"), Some(17));
        for other in ["queue-nat6-1", "queue-nat64-", "queue-nat64-x", "queue-nat64-1-1", "nat64-1", ""] {
            assert_eq!(number_of(other, "nat64"), None, "{other}");
        }
        // One router's name may begin like another's.
        assert_eq!(number_of(&name_of("nat64-1", 2), "nat64"), None);
    }
}
