//! One worker: a thread that reads packets from one queue, translates them and writes them back to it.
//!
//! It sleeps while there is nothing to do. It never waits for an actor: what needs one is parked in its hold.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use easy_tun::{Batch, BatchLayout, OpenQueue, PacketIo};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use interproto::HEADROOM;

use super::WorkerEnded;
use super::hands::{Hands, Moment};
use crate::clock;
use crate::datapath::{Refusal, Warmer};
use crate::shared::{Desk, Shared};
use crate::supervision::Birth;
use crate::supervision::child::panic_text;
use crate::supervision::faults::Point;
use crate::supervision::pulse::Pulse;

/// Sessions from which on all look-ups of a batch are fetched into the cache together: more than fit a processor's cache. Waiting for
/// memory is what a look-up costs then, and many can wait together.
const MANY_SESSIONS: u32 = 65_536;

/// A worker's place: what it is given, and how it is told to go.
#[derive(Debug)]
pub struct Seat {
    /// The worker's number, which is that of its queue.
    pub index: usize,
    /// Busy with a batch, or idle.
    pub pulse: Arc<Pulse>,
    pub(super) shared: Arc<Shared>,
    birth: Birth,
    dismissed: AtomicBool,
}

impl Seat {
    pub(super) fn new(index: usize, shared: Arc<Shared>, birth: Birth) -> Self {
        Self { index, pulse: Arc::default(), shared, birth, dismissed: AtomicBool::new(false) }
    }

    /// Tells the worker to go.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
        // If its successor is the one that is woken, that finds nothing to do.
        self.desk().wake.notify_one();
    }

    /// A worker that wakes up late finds out here that it has been replaced, and must touch nothing more.
    pub(super) fn may_go_on(&self) -> bool {
        !self.dismissed.load(Ordering::Acquire) && self.birth.is_current()
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.shared.desks[self.index]
    }
}

/// A queue that a worker can be put to. It outlives its workers.
pub trait WorkQueue: std::fmt::Debug + Send + Sync {
    /// Works until dismissed (`Ok`) or until the queue fails.
    fn work<'a>(&'a self, seat: &'a Seat) -> LocalBoxFuture<'a, io::Result<()>>;
}

impl<H: OpenQueue + std::fmt::Debug> WorkQueue for H {
    fn work<'a>(&'a self, seat: &'a Seat) -> LocalBoxFuture<'a, io::Result<()>> {
        async move { Worker::new(self.open()?, seat).run().await }.boxed_local()
    }
}

/// Starts the worker's thread.
pub(super) fn spawn(seat: Arc<Seat>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("worker-{}", seat.index)).spawn(move || {
        let work = AssertUnwindSafe(|| -> io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
            runtime.block_on(seat.shared.queues[seat.index].work(&seat))
        });
        let mut device_is_gone = false;
        let why = match std::panic::catch_unwind(work) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                device_is_gone = error.raw_os_error() == Some(libc::EBADFD);
                error.to_string()
            }
            Err(panic) => format!("panicked: {}", panic_text(panic.as_ref())),
        };
        seat.pulse.leave();
        let generation = seat.birth.generation();
        let ended = WorkerEnded { generation, worker: seat.index, why, device_is_gone };
        // If `tun` cannot be told just now, its roll call finds out.
        let _ = seat.shared.directory.tun.try_send(ended);
    })
}

struct Worker<'s, Q> {
    queue: Q,
    seat: &'s Seat,
    batch: Batch,
    warmer: Warmer,
    hands: Hands<'s>,
}

/// Fragments are looked after at most this often.
const LEAST_PATIENCE: Duration = Duration::from_millis(100);

impl<'s, Q: PacketIo> Worker<'s, Q> {
    fn new(queue: Q, seat: &'s Seat) -> Self {
        let batch = Batch::new(BatchLayout { headroom: HEADROOM, ..BatchLayout::default() }, queue.header());
        Self { queue, seat, batch, warmer: Warmer::default(), hands: Hands::new(seat) }
    }

    async fn run(mut self) -> io::Result<()> {
        prepare_to_wait_for_locks();
        let seat = self.seat;
        while seat.may_go_on() {
            let patience = self.patience();
            tokio::select! {
                biased;
                ready = self.queue.readable() => ready?,
                () = seat.desk().wake.notified() => {}
                () = sleep_for(patience) => {}
            }
            seat.pulse.enter();
            let turn = self.turn();
            seat.pulse.leave();
            seat.desk().counters.count_allocations();
            turn?;
        }
        Ok(())
    }

    /// When to look again without being woken: for packets that wait for a lease, and fragments that wait for others.
    fn patience(&self) -> Option<Duration> {
        let fragments = self.seat.shared.tables.fragments.due();
        let fragments = fragments.map(|due| due.since(clock::now()).max(LEAST_PATIENCE));
        [self.hands.wake_after(), fragments].into_iter().flatten().min()
    }

    /// One turn: the inbox, what is due, and one batch of packets.
    fn turn(&mut self) -> io::Result<()> {
        if !self.seat.may_go_on() {
            // What it was woken for is its successor's, and so are the answers.
            self.seat.desk().wake.notify_one();
            return Ok(());
        }
        let shared: &Shared = &self.seat.shared;
        let rules = shared.rules.load();
        let moment = Moment { now: clock::now(), rules: &rules };
        self.hands.begin(moment, &self.queue);
        let read = self.read();
        if shared.tables.nat.session_count() >= MANY_SESSIONS {
            self.warmer.warm(&shared.tables.nat, moment.rules, self.batch.iter());
        }
        let alone = self.batch.len() == 1;
        for place in 0..self.batch.len() {
            // A thread that was held up meanwhile must touch nothing.
            if !self.seat.may_go_on() {
                let left = self.batch.len() - place;
                self.seat.desk().counters.dropped_many(Refusal::Superseded.into(), left as u64);
                break;
            }
            if let Some(slot) = self.batch.slot(place) {
                self.hands.read(slot, alone, moment, &self.queue);
            }
        }
        self.hands.end(&self.queue);
        read
    }

    /// Reads a batch. An error after its first packet is met again by the next turn.
    fn read(&mut self) -> io::Result<()> {
        self.batch.clear();
        // Not "while there is room": packets that are too long take none, and could come for ever.
        for _ in 0..self.batch.layout().packets {
            // Before the read: a worker that was replaced leaves the packet to its successor.
            if !self.seat.may_go_on() {
                break;
            }
            let Some(room) = self.batch.room() else { break };
            match self.queue.try_read(room) {
                Ok(Some(length)) => self.batch.push(length),
                Ok(None) => break,
                Err(error) => {
                    self.seat.desk().counters.read_errors.add(1);
                    return Err(error);
                }
            }
            self.seat.birth.faults().at(Point::Worker);
            if self.seat.birth.faults().strikes(Point::WorkerHang) {
                hang();
            }
        }
        Ok(())
    }
}

/// A lock that is taken makes its waiter's thread allocate, the first time. Better now than with a packet in hand.
fn prepare_to_wait_for_locks() {
    let nothing = parking_lot::Mutex::new(());
    // Nobody notifies, and no time is given: it prepares to wait and goes on.
    parking_lot::Condvar::new().wait_for(&mut nothing.lock(), Duration::ZERO);
}

async fn sleep_for(patience: Option<Duration>) {
    match patience {
        Some(patience) => tokio::time::sleep(patience).await,
        None => std::future::pending().await,
    }
}

/// What an injected hang does: long enough for any test, and not for ever.
#[allow(clippy::disallowed_methods)] // only reached under fault injection
fn hang() {
    std::thread::sleep(Duration::from_mins(10));
}
