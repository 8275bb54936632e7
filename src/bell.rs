//! What wakes a thread that waits by `poll(2)`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A bell that goes on ringing until somebody has heard it: a ring that comes before the wait ends the wait.
#[derive(Debug)]
pub struct Bell(EventFd);

impl Bell {
    /// A silent one. It takes a descriptor.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_value_and_flags(0, flags)?))
    }

    /// Rings. Never waits.
    pub fn ring(&self) {
        // It fails only for a bell that rings already, 2^64 times.
        let _ = self.0.write(1);
    }

    /// Silences it. To be called before what it rang for is looked at, so that the next ring is heard.
    pub fn silence(&self) {
        // It fails only for a bell that is silent.
        let _ = self.0.read();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn rings(bell: &Bell) -> bool {
        poll(&mut [PollFd::new(bell.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn it_rings_until_it_is_silenced_however_often_it_was_rung() {
        let bell = Bell::new().unwrap();
        assert!(!rings(&bell));
        bell.ring();
        bell.ring();
        assert!(rings(&bell) && rings(&bell));
        bell.silence();
        assert!(!rings(&bell));
        bell.silence();
        bell.ring();
        assert!(rings(&bell), "silencing a silent bell takes nothing from it");
    }
}
