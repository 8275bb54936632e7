//! What a packet worker needs from a queue, real or fake.

use std::future::Future;
use std::io;

use crate::Batch;

/// What became of a packet that was offered to a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// The kernel took the whole packet.
    Done,
    /// The kernel takes nothing just now. The packet was not kept: drop and count it, or offer it again after
    /// [`PacketIo::writable`].
    WouldBlock,
}

/// One queue of packets, each read and written whole. With offloads each is a frame: a header of [`Self::header`] bytes, and behind it
/// the packet, which starts at its IP header.
///
/// Several tasks may use one queue at the same time, and each packet goes to one of them. Nothing is queued in here.
///
/// What errors mean on a real queue: `EIO` on writing, the link is down; `EINVAL` on writing, the packet is neither
/// IPv4 nor IPv6; `EBADFD`, the device was deleted and this queue will never work again.
pub trait PacketIo: Send + Sync {
    /// The length of the header in front of each packet, in bytes: [`HEADER`](crate::HEADER), or 0 where packets are bare.
    fn header(&self) -> usize {
        0
    }

    /// Waits until [`Self::try_read`] is worth a try.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits until [`Self::try_write`] is worth a try after it said [`Written::WouldBlock`].
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Reads one frame and answers with its length in bytes, or `None` when there is none just now. A frame longer than the buffer is cut
    /// to it: one byte of room more than the longest good one shows it.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Writes one frame.
    fn try_write(&self, frame: &[u8]) -> io::Result<Written>;

    /// Reads packets into the free room of the batch, as many as there are without waiting, and answers with their
    /// number. An error after the first packet is kept for the next call, which will meet it again.
    fn try_read_batch(&self, batch: &mut Batch) -> io::Result<usize> {
        let before = batch.len();
        // Not "while there is room": packets that are too long for the batch take no room, and could come for ever.
        for _ in 0..batch.layout().packets {
            let Some(room) = batch.room() else { break };
            match self.try_read(room) {
                Ok(Some(length)) => {
                    batch.push(length);
                }
                Err(error) if batch.len() == before => return Err(error),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(batch.len() - before)
    }

    /// Writes frames in order until one would block or fails, and answers with the number written; the error is
    /// answered when it is the first packet that fails.
    fn try_write_batch<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) -> io::Result<usize> {
        let mut written = 0;
        for frame in frames {
            match self.try_write(frame) {
                Ok(Written::Done) => written += 1,
                Err(error) if written == 0 => return Err(error),
                Ok(Written::WouldBlock) | Err(_) => break,
            }
        }
        Ok(written)
    }

    /// Waits for one frame and answers with its length.
    fn read(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send {
        async move {
            loop {
                self.readable().await?;
                if let Some(length) = self.try_read(buffer)? {
                    return Ok(length);
                }
            }
        }
    }

    /// Writes one frame, waiting as long as the kernel takes nothing.
    fn write(&self, frame: &[u8]) -> impl Future<Output = io::Result<()>> + Send {
        async move {
            while self.try_write(frame)? == Written::WouldBlock {
                self.writable().await?;
            }
            Ok(())
        }
    }
}

/// Something that outlives workers and from which each worker opens its own end of a queue.
pub trait OpenQueue: Send + Sync + 'static {
    /// The worker's end.
    type Io: PacketIo + 'static;

    /// Opens the queue inside the calling tokio runtime. What arrived while nobody had it open is read first.
    fn open(&self) -> io::Result<Self::Io>;
}
