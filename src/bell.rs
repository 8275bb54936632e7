//! What wakes a thread that waits by `poll(2)`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A bell that goes on ringing until somebody has heard it: a ring that comes before the wait ends the wait.
#[derive(Debug)]
pub struct Bell {
    event: EventFd,
    rings: AtomicBool,
}

impl Bell {
    /// A silent one. It takes a descriptor.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self { event: EventFd::from_value_and_flags(0, flags)?, rings: AtomicBool::new(false) })
    }

    /// Rings. Never waits.
    pub fn ring(&self) {
        self.rings.store(true, Ordering::Release);
        // It fails only for a bell that rings already, 2^64 times.
        let _ = self.event.write(1);
    }

    /// Silences it. To be called before what it rang for is looked at, so that the next ring is heard.
    pub fn silence(&self) {
        // It fails only for a bell that is silent.
        let _ = self.event.read();
        // Last: a bell that `poll(2)` finds silent must not go on ringing here, since nobody would silence it. A ring in between is
        // heard by what the caller looks at next, and perhaps by another `poll(2)`.
        self.rings.swap(false, Ordering::AcqRel);
    }

    /// Whether it rings, asked without a system call. A ring that is under way may show here before `poll(2)` sees it, or be forgotten
    /// here while `poll(2)` still sees it.
    pub fn rings(&self) -> bool {
        self.rings.load(Ordering::Acquire)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
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
        assert!(!rings(&bell) && !bell.rings());
        bell.ring();
        bell.ring();
        assert!(rings(&bell) && rings(&bell) && bell.rings());
        bell.silence();
        assert!(!rings(&bell) && !bell.rings());
        bell.silence();
        bell.ring();
        assert!(rings(&bell) && bell.rings(), "silencing a silent bell takes nothing from it");
    }
}
