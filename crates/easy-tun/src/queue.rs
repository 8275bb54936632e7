//! A queue's descriptor, and a worker's end of it.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::ReadWriteFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::doze::Bed;
use crate::faults::{self, Point};
use crate::{HEADER, OpenQueue, PacketIo, Written, sys};

// A deleted device announces itself by an error and not by something to read, so both are waited for. They are tried
// one after the other: tokio's `try_io` takes a combined interest for one that is never ready.
const READING: [Interest; 2] = [Interest::READABLE, Interest::ERROR];
const WRITING: [Interest; 2] = [Interest::WRITABLE, Interest::ERROR];

/// One queue of a device. It owns the descriptor and outlives workers: while nobody has it open, the kernel keeps
/// arriving packets (as many as the link's `txqueuelen`) for the next one who opens it.
#[derive(Debug)]
pub struct QueueHandle {
    fd: OwnedFd,
    number: usize,
    header: usize,
    bed: Bed,
}

impl QueueHandle {
    pub(crate) fn new(fd: OwnedFd, number: usize, header: bool) -> Self {
        Self { fd, number, header: if header { HEADER } else { 0 }, bed: Bed::default() }
    }

    /// Its place in the device: 0 for the first queue.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The length of the header in front of each packet, in bytes: [`HEADER`], or 0 for bare packets.
    pub fn header(&self) -> usize {
        self.header
    }

    pub(crate) fn bed(&self) -> &Bed {
        &self.bed
    }

    /// Reads one frame and answers with its length in bytes, or `None` when there is none just now. For a thread that waits by `poll(2)`
    /// and not by tokio; [`AsyncQueue`] is for the others, and [`Self::doze`] for a thread that waits in the read. Errors and cut frames
    /// are those of [`PacketIo`].
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        blocked(read(&self.fd, buffer))
    }

    /// Writes one frame.
    pub fn try_write(&self, frame: &[u8]) -> io::Result<Written> {
        whole(blocked(write(&self.fd, frame))?, frame)
    }

    /// Opens a worker's end of the queue inside the calling tokio runtime. Ends are independent of each other: when
    /// one is dropped the queue and what waits in it stay.
    pub fn open(&self) -> io::Result<AsyncQueue> {
        Ok(AsyncQueue { fd: sys::register(self.fd.try_clone()?)?, number: self.number, header: self.header })
    }
}

impl OpenQueue for QueueHandle {
    type Io = AsyncQueue;

    fn open(&self) -> io::Result<AsyncQueue> {
        QueueHandle::open(self)
    }
}

impl AsFd for QueueHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A worker's end of a queue, bound to the tokio runtime that it was opened in.
#[derive(Debug)]
pub struct AsyncQueue {
    fd: AsyncFd<OwnedFd>,
    number: usize,
    header: usize,
}

impl AsyncQueue {
    /// Its queue's place in the device.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Makes the call if the descriptor may be ready in one of these ways, and clears that readiness if it is not.
    fn when_ready(
        &self,
        interests: [Interest; 2],
        mut call: impl FnMut(&OwnedFd) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        for interest in interests {
            if let Some(length) = blocked(self.fd.try_io(interest, &mut call))? {
                return Ok(Some(length));
            }
        }
        Ok(None)
    }
}

// `tun`'s own `recv` clears a buffer of 1,504 bytes at each call and its `Read` wants the device for itself alone, so
// packets are read and written by the bare system calls.
impl PacketIo for AsyncQueue {
    fn header(&self) -> usize {
        self.header
    }

    async fn readable(&self) -> io::Result<()> {
        // The guard is dropped as it is: only a read that would block clears the readiness.
        self.fd.ready(READING[0] | READING[1]).await.map(drop)
    }

    async fn writable(&self) -> io::Result<()> {
        self.fd.ready(WRITING[0] | WRITING[1]).await.map(drop)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.when_ready(READING, |fd| read(fd, buffer))
    }

    fn try_write(&self, frame: &[u8]) -> io::Result<Written> {
        // A TUN device is nearly always writable, and tokio learns of it only after its first poll, so the first
        // attempt does not ask; the second clears the readiness that `writable` waits for.
        let written = match blocked(write(self.fd.get_ref(), frame))? {
            None => self.when_ready(WRITING, |fd| write(fd, frame))?,
            written => written,
        };
        whole(written, frame)
    }
}

/// Reads one frame if there is one, also where reads of this queue wait. `EOPNOTSUPP`: this kernel cannot (before 5.11).
pub(crate) fn read_at_once(queue: &QueueHandle, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    /// -1: there is no position.
    const NOWHERE: u64 = u64::MAX;
    sys::unless_refused(Point::Read)?;
    if faults::is_unknown(faults::NOWAIT) {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    blocked(unless_interrupted(|| {
        let mut parts = [IoSliceMut::new(buffer)];
        rustix::io::preadv2(&queue.fd, &mut parts, NOWHERE, ReadWriteFlags::NOWAIT)
    }))
}

// By `rustix`, which makes the call itself: the C library's functions first make each call a point at which a thread may be cancelled.
fn read(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    sys::unless_refused(Point::Read)?;
    unless_interrupted(|| rustix::io::read(fd, &mut *buffer))
}

fn write(fd: &OwnedFd, frame: &[u8]) -> io::Result<usize> {
    sys::unless_refused(Point::Write)?;
    if faults::strikes(Point::Full) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    unless_interrupted(|| rustix::io::write(fd, frame))
}

/// A call that a signal has interrupted is made again.
fn unless_interrupted(call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    rustix::io::retry_on_intr(call).map_err(io::Error::from)
}

/// A frame is taken whole or not at all.
fn whole(written: Option<usize>, frame: &[u8]) -> io::Result<Written> {
    match written {
        None => Ok(Written::WouldBlock),
        Some(length) if length == frame.len() => Ok(Written::Done),
        Some(length) => Err(io::Error::new(
            io::ErrorKind::WriteZero,
            format!("the device took {length} of {} bytes", frame.len()),
        )),
    }
}

fn blocked(answer: io::Result<usize>) -> io::Result<Option<usize>> {
    match answer {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
