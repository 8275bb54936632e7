//! The near end: what happens on the thread that records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::record::{Record, What};
use super::stamp::Stamp;
use super::{Identity, RecordsConfig};
use crate::clock;
use crate::config::WhenFull;

/// There is no room for a record: the sink fails, or is slower than what it has to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for another allocation record: those before it are not written yet")]
pub struct SinkFull;

/// Hands records to the writer. Clones hand them to the same one.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Shared>);

/// What has become of the records so far, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records that the sink has taken.
    pub written: u64,
    /// Records that are in the queue, or being written.
    pub waiting: u64,
    /// The most that may wait.
    pub capacity: u64,
    /// Records that are lost for good: there was no room, and the allocation went on.
    pub lost: u64,
    /// How often [`SinkFull`] was the answer, and an allocation had to wait.
    pub refused: u64,
    /// How often the sink has failed.
    pub sink_errors: u64,
    /// Whether the sink fails now.
    pub failing: bool,
}

/// A record that has its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) time: Stamp,
    /// At the end of something: when it began.
    pub(super) given: Option<Stamp>,
    pub(super) body: Body,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    Started,
    Ended,
    Record(Record),
}

/// What recorders and writer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) identity: Identity,
    capacity: u64,
    when_full: WhenFull,
    sessions: bool,
    /// Held for as long as it takes to push one record or to swap two buffers; never during input or output.
    pub(super) state: Mutex<State>,
    /// The writer waits for it.
    pub(super) wake: Condvar,
    /// Who ends the recording waits for it.
    pub(super) ended: Condvar,
    pub(super) written: AtomicU64,
    /// In the queue or with the writer. Grows only under the lock, so that it never exceeds the capacity.
    pub(super) waiting: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    pub(super) sink_errors: AtomicU64,
    pub(super) failing: AtomicBool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) queue: Vec<Entry>,
    /// The number of the next record.
    next: u64,
    /// The file is to be opened anew.
    pub(super) reopen: bool,
    /// The recording ends: the writer may take until then.
    pub(super) closing: Option<Instant>,
    /// The writer has ended.
    pub(super) gone: bool,
}

impl Recorder {
    pub(super) fn new(config: &RecordsConfig, identity: Identity) -> Self {
        let now = Stamp::now();
        let state = State { queue: Vec::new(), next: 1, reopen: false, closing: None, gone: false };
        let shared = Shared {
            identity,
            capacity: config.queue.max(1) as u64,
            when_full: config.when_full,
            sessions: config.sessions,
            state: Mutex::new(state),
            wake: Condvar::new(),
            ended: Condvar::new(),
            written: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            sink_errors: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        };
        shared.state.lock().queue.reserve(shared.reserve());
        shared.push(&mut shared.state.lock(), now, None, Body::Started);
        Self(Arc::new(shared))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Takes a record to be written, in the order of the calls. Never waits for the sink.
    ///
    /// An error is possible only with [`WhenFull::Wait`]: the record was not taken, and what it would tell of must not
    /// happen before the same record is. With [`WhenFull::GoOn`] the record is lost and counted instead.
    /// Session records are passed over unless they are asked for.
    pub fn record(&self, record: Record) -> Result<(), SinkFull> {
        let shared = &self.0;
        if record.names_a_destination() && !shared.sessions {
            return Ok(());
        }
        let (utc, boot) = (Stamp::now(), clock::now());
        let given = match record.what {
            What::BlockReturned { given, .. } | What::LeaseEnded { given } => Some(given),
            What::SessionEnded { started, .. } => Some(started),
            What::BlockGiven { .. } | What::LeaseGiven | What::SessionStarted(_) => None,
        };
        let time = Stamp::of(record.at, utc, boot);
        let given = given.map(|given| Stamp::of(given, utc, boot));
        let mut state = shared.state.lock();
        let open = state.closing.is_none() && !state.gone;
        if open && shared.waiting.load(Ordering::Acquire) < shared.capacity {
            shared.push(&mut state, time, given, Body::Record(record));
            return Ok(());
        }
        match shared.when_full {
            WhenFull::Wait => {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                Err(SinkFull)
            }
            WhenFull::GoOn => {
                // The number is used up: whoever reads the records sees that one is missing.
                state.next += 1;
                shared.lost.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Has the file opened anew, after it was renamed. The writer notices a rename by itself too, before it writes.
    pub fn reopen(&self) {
        self.0.state.lock().reopen = true;
        self.0.wake.notify_one();
    }

    /// Whether what cannot be recorded must wait ([`WhenFull::Wait`]).
    pub fn waits_for_room(&self) -> bool {
        self.0.when_full == WhenFull::Wait
    }

    /// What has become of the records so far.
    pub fn counts(&self) -> Counts {
        let shared = &self.0;
        Counts {
            written: shared.written.load(Ordering::Relaxed),
            waiting: shared.waiting.load(Ordering::Relaxed),
            capacity: shared.capacity,
            lost: shared.lost.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            sink_errors: shared.sink_errors.load(Ordering::Relaxed),
            failing: shared.failing.load(Ordering::Relaxed),
        }
    }

    /// The name of this run of the router in its records.
    pub fn instance(&self) -> &str {
        &self.0.identity.instance
    }

    /// Has everything written that waits, and tells how many records are not.
    pub(super) fn finish(&self, patience: Duration) -> u64 {
        let shared = &self.0;
        let deadline = Instant::now() + patience;
        let mut state = shared.state.lock();
        if state.closing.is_none() && !state.gone {
            // Wakes the writer.
            shared.push(&mut state, Stamp::now(), None, Body::Ended);
            state.closing = Some(deadline);
        }
        while !state.gone && !shared.ended.wait_until(&mut state, deadline).timed_out() {}
        shared.waiting.load(Ordering::Acquire)
    }
}

impl Shared {
    /// How many records a buffer is made for, so that it does not have to move while the lock is held. The kernel gives
    /// the memory only when it is used.
    pub(super) fn reserve(&self) -> usize {
        // The first and the last record of an instance are beside the capacity.
        (self.capacity as usize).min(super::DEFAULT_QUEUE) + 2
    }

    fn push(&self, state: &mut State, time: Stamp, given: Option<Stamp>, body: Body) {
        let sequence = state.next;
        state.next += 1;
        state.queue.push(Entry { sequence, time, given, body });
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.wake.notify_one();
    }
}
