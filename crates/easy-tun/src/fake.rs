//! A device in memory: what a test injects, a worker reads; what the worker writes, the test collects.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::{OpenQueue, PacketIo, Written};

/// A queue has as many packets as it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct Full;

/// A TUN device in memory, seen from the kernel's side. Each queue holds up to `capacity` packets in each direction.
#[derive(Debug)]
pub struct FakeDevice {
    queues: Vec<Arc<Pair>>,
}

impl FakeDevice {
    /// A device with this many queues of this capacity, and of bare packets.
    pub fn new(queues: usize, capacity: usize) -> Self {
        Self::with_header(queues, capacity, 0)
    }

    /// The same with a header of this length in front of each packet, which the test writes and reads.
    pub fn with_header(queues: usize, capacity: usize, header: usize) -> Self {
        Self { queues: (0..queues).map(|_| Arc::new(Pair::new(capacity, header))).collect() }
    }

    /// The router's side of a queue, to be kept where a real [`crate::QueueHandle`] would be.
    pub fn queue(&self, number: usize) -> Option<FakeHandle> {
        self.queues.get(number).map(|pair| FakeHandle { pair: Arc::clone(pair) })
    }

    /// Puts a packet into a queue for the worker to read, as the kernel does when it routes one to the device.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn inject(&self, queue: usize, packet: impl Into<Vec<u8>>) -> Result<(), Full> {
        self.queues[queue].inbound.push(packet.into()).map_err(|_| Full)
    }

    /// Takes the oldest packet that the worker wrote to a queue, if there is one.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn collect(&self, queue: usize) -> Option<Vec<u8>> {
        self.queues[queue].outbound.pop()
    }

    /// Waits up to `limit` for a packet that the worker writes to a queue.
    ///
    /// # Panics
    /// When there is no such queue.
    pub async fn collect_within(&self, queue: usize, limit: Duration) -> Option<Vec<u8>> {
        let outbound = &self.queues[queue].outbound;
        tokio::time::timeout(limit, async {
            loop {
                outbound.wait(|state| !state.packets.is_empty()).await;
                if let Some(packet) = outbound.pop() {
                    return packet;
                }
            }
        })
        .await
        .ok()
    }

    /// How many injected packets no worker has read yet.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn unread(&self, queue: usize) -> usize {
        self.queues[queue].inbound.lock().packets.len()
    }

    /// From now on reads and writes of a queue fail with this error number, as they do with `EBADFD` when the device
    /// is deleted, or with `EIO` for writes while it is down; 0 heals it.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn fail(&self, queue: usize, reads: i32, writes: i32) {
        let pair = &self.queues[queue];
        pair.inbound.fail(reads);
        pair.outbound.fail(writes);
    }
}

/// The router's side of a fake queue: outlives workers, like a [`crate::QueueHandle`].
#[derive(Debug, Clone)]
pub struct FakeHandle {
    pair: Arc<Pair>,
}

impl OpenQueue for FakeHandle {
    type Io = FakeQueue;

    fn open(&self) -> io::Result<FakeQueue> {
        Ok(FakeQueue { pair: Arc::clone(&self.pair) })
    }
}

/// A worker's end of a fake queue.
#[derive(Debug)]
pub struct FakeQueue {
    pair: Arc<Pair>,
}

impl PacketIo for FakeQueue {
    fn header(&self) -> usize {
        self.pair.header
    }

    async fn readable(&self) -> io::Result<()> {
        let inbound = &self.pair.inbound;
        inbound.wait(|state| state.errno != 0 || !state.packets.is_empty()).await;
        Ok(())
    }

    async fn writable(&self) -> io::Result<()> {
        let outbound = &self.pair.outbound;
        outbound.wait(|state| state.errno != 0 || state.packets.len() < outbound.capacity).await;
        Ok(())
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.pair.inbound.check()?;
        Ok(self.pair.inbound.pop().map(|packet| {
            let length = packet.len().min(buffer.len());
            buffer[..length].copy_from_slice(&packet[..length]);
            length
        }))
    }

    fn try_write(&self, frame: &[u8]) -> io::Result<Written> {
        self.pair.outbound.check()?;
        // The kernel looks at the version only, and so does this.
        if !matches!(frame.get(self.pair.header).map(|byte| byte >> 4), Some(4 | 6)) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(if self.pair.outbound.push(frame.to_vec()).is_ok() { Written::Done } else { Written::WouldBlock })
    }
}

#[derive(Debug)]
struct Pair {
    inbound: Direction,
    outbound: Direction,
    header: usize,
}

impl Pair {
    fn new(capacity: usize, header: usize) -> Self {
        Self { inbound: Direction::new(capacity), outbound: Direction::new(capacity), header }
    }
}

#[derive(Debug)]
struct Direction {
    state: Mutex<State>,
    changed: Notify,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<Vec<u8>>,
    errno: i32,
}

impl Direction {
    fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below is one call on the deque: a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, packet: Vec<u8>) -> Result<(), Vec<u8>> {
        let mut state = self.lock();
        if state.packets.len() == self.capacity {
            return Err(packet);
        }
        state.packets.push_back(packet);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    fn pop(&self) -> Option<Vec<u8>> {
        let packet = self.lock().packets.pop_front()?;
        self.changed.notify_waiters();
        Some(packet)
    }

    fn fail(&self, errno: i32) {
        self.lock().errno = errno;
        self.changed.notify_waiters();
    }

    fn check(&self) -> io::Result<()> {
        match self.lock().errno {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for the state to be as the caller wants it.
    async fn wait(&self, until: impl Fn(&State) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the state is looked at, so that no change in between is missed.
            changed.as_mut().enable();
            if until(&self.lock()) {
                return;
            }
            changed.await;
        }
    }
}
