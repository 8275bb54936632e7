//! Waiting in `read` itself, and being woken there.
//!
//! A thread that waits by `poll(2)` needs two calls to get a packet, one that sleeps in `read` needs one. But nothing but a packet ends
//! such a read, unless it is interrupted, and a signal that comes just before the read interrupts nothing. So whoever wakes a thread
//! first makes the descriptor non-blocking and then sends the signal. The kernel looks at that flag when a read begins: one that begins
//! later does not sleep, and one that began before meets the signal, is begun again (`SA_RESTART`), and then does not sleep either.
//!
//! The flag belongs to the queue and not to the thread. It is cleared only for the one thread that [dozes](Doze), under the lock that
//! [`QueueHandle::wake`] takes, so that no ring can fall between the last look for one and the clearing of the flag: a ring before
//! that look is seen by it, and one after it finds a thread to wake.

use std::io;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::unistd::{Pid, gettid};

use crate::{QueueHandle, queue, sys};

/// The thread that dozes on a queue, if one does.
#[derive(Debug, Default)]
pub(crate) struct Bed(Mutex<Option<Pid>>);

impl Bed {
    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The calling thread's right to sleep in the reads of a queue, from [`QueueHandle::doze`]. Dropping it makes the queue non-blocking
/// again.
///
/// Meanwhile the queue's other calls may wait too: [`QueueHandle::try_read`] for a packet, and [`QueueHandle::try_write`] on a device
/// whose send buffer somebody limits (`TUNSETSNDBUF`). A limit that was set before the device was adopted is taken away.
#[derive(Debug)]
pub struct Doze<'q> {
    queue: &'q QueueHandle,
    /// It is this thread that is woken.
    stays_with_its_thread: PhantomData<*const ()>,
}

impl QueueHandle {
    /// Lets the calling thread sleep in [`Doze::read`] from now on; `None` while another thread does, or when `stay_awake` says so.
    /// That is asked last: what is said to it before a [`Self::wake`] either keeps the thread awake, or the call wakes it.
    pub fn doze(&self, stay_awake: impl FnOnce() -> bool) -> io::Result<Option<Doze<'_>>> {
        sys::expect_wake()?;
        let mut bed = self.bed().lock();
        if bed.is_some() || stay_awake() {
            return Ok(None);
        }
        sys::set_nonblocking(self, false)?;
        *bed = Some(gettid());
        Ok(Some(Doze { queue: self, stays_with_its_thread: PhantomData }))
    }

    /// Wakes the thread that dozes, and keeps it awake until it gives up its [`Doze`]; does nothing where none does. Never waits for it.
    pub fn wake(&self) {
        let bed = self.bed().lock();
        if let Some(thread) = *bed {
            // The order matters. Setting a flag of an open descriptor cannot fail.
            let _ = sys::set_nonblocking(self, true);
            sys::wake(thread);
        }
    }
}

impl Doze<'_> {
    /// Waits for one frame and answers with its length in bytes, or `None` when something else ended the wait: it was
    /// woken, or the device was deleted, which [`QueueHandle::try_read`] tells as an error once this value is dropped.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.queue.try_read(buffer) {
            // What a sleeper is told when its device goes away.
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(None),
            answer => answer,
        }
    }

    /// Reads one more frame if there is one, and waits for nothing. [`io::ErrorKind::Unsupported`]: this kernel cannot (before 5.11).
    pub fn read_more(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        queue::read_at_once(self.queue, buffer).map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => io::ErrorKind::Unsupported.into(),
            _ => error,
        })
    }
}

impl Drop for Doze<'_> {
    fn drop(&mut self) {
        let mut bed = self.queue.bed().lock();
        // Setting a flag of an open descriptor cannot fail.
        let _ = sys::set_nonblocking(self.queue, true);
        *bed = None;
    }
}
