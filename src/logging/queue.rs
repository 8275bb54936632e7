//! The near end of the log: what happens on the thread that logs.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use slog::{Drain, Level, Never, OwnedKVList, Record};
use slog_async::AsyncRecord;

use super::format::Stamp;

/// How long a `Critical` record may keep its writer waiting: for room, and for being written.
const CRITICAL: Duration = Duration::from_secs(1);

/// How often a full queue is tried again while something must get through.
const RETRY: Duration = Duration::from_millis(2);

/// What the writer is sent.
pub(super) enum Message {
    /// Write this.
    Record(Stamp, AsyncRecord),
    /// Answer when all before this is written.
    Flush(SyncSender<()>),
    /// The same, and end.
    Finish(SyncSender<()>),
}

/// The queue between those who log and the writer.
pub(super) struct Queue {
    sender: SyncSender<Message>,
    /// [`Level::as_usize`] of the least severe level that is written.
    level: AtomicUsize,
    dropped: Arc<AtomicU64>,
    gone: Arc<AtomicBool>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({}, {} dropped)", self.level(), self.dropped.load(Ordering::Relaxed))
    }
}

impl Queue {
    pub(super) fn new(capacity: usize, level: Level, dropped: Arc<AtomicU64>) -> (Self, Receiver<Message>) {
        let (sender, records) = sync_channel(capacity);
        let level = AtomicUsize::new(level.as_usize());
        (Self { sender, level, dropped, gone: Arc::default() }, records)
    }

    /// Set by the writer when it ends.
    pub(super) fn gone(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.gone)
    }

    /// Whether nobody writes any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(super) fn level(&self) -> Level {
        Level::from_usize(self.level.load(Ordering::Relaxed)).unwrap_or(Level::Info)
    }

    pub(super) fn set_level(&self, level: Level) {
        self.level.store(level.as_usize(), Ordering::Relaxed);
    }

    pub(super) fn takes(&self, level: Level) -> bool {
        level.as_usize() <= self.level.load(Ordering::Relaxed)
    }

    /// Puts a record into the queue. Waits for room for `patience` at most.
    fn push(&self, record: &Record<'_>, values: &OwnedKVList, patience: Duration) {
        let message = Message::Record(Stamp::now(), AsyncRecord::from(record, values));
        if !self.send(message, patience) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn flush(&self, patience: Duration) -> bool {
        self.ask(Message::Flush, patience)
    }

    pub(super) fn finish(&self, patience: Duration) -> bool {
        self.ask(Message::Finish, patience)
    }

    /// Whether there was room in time.
    fn send(&self, mut message: Message, patience: Duration) -> bool {
        let mut deadline = None;
        loop {
            match self.sender.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(_)) if patience.is_zero() => return false,
                Err(TrySendError::Full(back)) => message = back,
            }
            if Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + patience) {
                return false;
            }
            std::thread::park_timeout(RETRY);
        }
    }

    /// Sends a request in the order of the records and waits for the answer.
    fn ask(&self, request: impl FnOnce(SyncSender<()>) -> Message, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let (answer, answered) = sync_channel(1);
        if !self.send(request(answer), patience) {
            return false;
        }
        answered.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }
}

/// The drain of the root logger.
pub(super) struct Front(AssertUnwindSafe<Arc<Queue>>);

impl Front {
    /// Nothing in the queue can be left half changed by a panic: it is a channel and atomics.
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self(AssertUnwindSafe(queue))
    }
}

impl Drain for Front {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if self.0.takes(record.level()) {
            if record.level() == Level::Critical {
                self.0.push(record, values, CRITICAL);
                self.0.flush(CRITICAL);
            } else {
                self.0.push(record, values, Duration::ZERO);
            }
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        self.0.takes(level)
    }
}
