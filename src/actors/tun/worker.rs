//! One worker: a thread that reads packets from one queue, translates them and writes them back to it.
//!
//! It sleeps while there is nothing to do. It never waits for an actor: what needs one is parked in its hold.

use std::io;
use std::os::fd::AsFd as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use easy_tun::{Batch, BatchLayout, Doze, QueueHandle};
use interproto::HEADROOM;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::WorkerEnded;
use super::hands::{Hands, Moment};
use super::pace::Pace;
use crate::clock;
use crate::datapath::{Refusal, Warmer};
use crate::privileges;
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
        self.shared.ring(self.index);
    }

    /// A worker that wakes up late finds out here that it has been replaced, and must touch nothing more.
    pub(super) fn may_go_on(&self) -> bool {
        !self.dismissed.load(Ordering::Acquire) && self.birth.is_current()
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.shared.desks[self.index]
    }
}

/// Starts the worker's thread.
pub(super) fn spawn(seat: Arc<Seat>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("worker-{}", seat.index)).spawn(move || {
        let work = AssertUnwindSafe(|| Worker::new(&seat).run());
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

struct Worker<'s> {
    queue: &'s QueueHandle,
    seat: &'s Seat,
    batch: Batch,
    pace: Pace,
    /// While it waits in `read` and not in `poll(2)`.
    doze: Option<Doze<'s>>,
    warmer: Warmer,
    hands: Hands<'s>,
}

/// Fragments are looked after at most this often.
const LEAST_PATIENCE: Duration = Duration::from_millis(100);

impl<'s> Worker<'s> {
    fn new(seat: &'s Seat) -> Self {
        let queue = &*seat.shared.queues[seat.index];
        let batch = Batch::new(BatchLayout { headroom: HEADROOM, ..BatchLayout::default() }, queue.header());
        let (pace, warmer) = (Pace::default(), Warmer::default());
        Self { queue, seat, batch, pace, doze: None, warmer, hands: Hands::new(seat) }
    }

    fn run(mut self) -> io::Result<()> {
        privileges::give_up_all(&self.seat.shared.log);
        prepare_to_wait_for_locks();
        let seat = self.seat;
        while seat.may_go_on() {
            let was_full = self.batch.is_full();
            self.batch.clear();
            // A batch that was full has left packets behind.
            if !was_full {
                self.wait()?;
            }
            seat.pulse.enter();
            let turn = self.turn();
            seat.pulse.leave();
            seat.desk().counters.count_allocations();
            turn?;
        }
        Ok(())
    }

    /// Sleeps until there is a packet, the bell rings or something is due. The packet may have been read then.
    fn wait(&mut self) -> io::Result<()> {
        let patience = self.patience();
        if patience.is_none() && self.pace.is_one_by_one() && self.doze_off()? && self.sleep_in_read()? {
            return Ok(());
        }
        self.doze = None;
        self.poll(patience)
    }

    /// Begins to wait in `read`: where packets come one by one, that saves a system call of three. `false` where it cannot, since the
    /// bell rings or a predecessor has not come back yet.
    fn doze_off(&mut self) -> io::Result<bool> {
        if self.doze.is_none() {
            let seat = self.seat;
            // Whoever rings wakes the queue's reader afterwards: this sees the ring, or the ringer sees who sleeps.
            self.doze = self.queue.doze(|| seat.desk().bell.rings() || !seat.may_go_on())?;
        }
        Ok(self.doze.is_some())
    }

    /// Sleeps in `read`. `false` if something else than a packet ended it.
    fn sleep_in_read(&mut self) -> io::Result<bool> {
        let (Some(doze), Some(room)) = (&self.doze, self.batch.room()) else { return Ok(false) };
        let read = doze.read(room);
        self.accept(read)
    }

    fn poll(&self, patience: Option<Duration>) -> io::Result<()> {
        let bell = &self.seat.desk().bell;
        let mut waited = [self.queue.as_fd(), bell.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let patience = patience.map_or(PollTimeout::NONE, |patience| {
            // Rounded up: woken too early, it would find nothing due and look again at once.
            i32::try_from(patience.as_millis() + 1)
                .map_or(PollTimeout::MAX, |millis| PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX))
        });
        match poll(&mut waited, patience) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // What rings for a worker that has been replaced is for its successor.
        if waited[1].any() == Some(true) && self.seat.may_go_on() {
            bell.silence();
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
        self.strike();
        if !self.seat.may_go_on() {
            self.drop_from(0);
            // What it was woken for is its successor's, and so are the answers.
            self.seat.shared.ring(self.seat.index);
            return Ok(());
        }
        let shared: &Shared = &self.seat.shared;
        let rules = shared.rules.load();
        let moment = Moment { now: clock::now(), rules: &rules };
        self.hands.begin(moment, self.queue);
        let read = self.read();
        if shared.tables.nat.session_count() >= MANY_SESSIONS {
            self.warmer.warm(&shared.tables.nat, moment.rules, self.batch.iter(), moment.now);
        }
        let alone = self.batch.len() == 1;
        self.pace.count(self.batch.len());
        for place in 0..self.batch.len() {
            // A thread that was held up meanwhile must touch nothing.
            if !self.seat.may_go_on() {
                self.drop_from(place);
                break;
            }
            if let Some(mut slot) = self.batch.slot(place) {
                self.hands.read(&mut slot, alone, moment, self.queue);
            }
        }
        self.hands.end(self.queue);
        read
    }

    /// The packets from this place on are lost with a worker that has been replaced.
    fn drop_from(&self, place: usize) {
        let left = self.batch.len().saturating_sub(place);
        self.seat.desk().counters.dropped_many(Refusal::Superseded.into(), left as u64);
    }

    /// Reads what there is, behind the packet that ended the wait. What was read before an error is in the batch.
    fn read(&mut self) -> io::Result<()> {
        let looks = self.pace.looks();
        if self.doze.is_some() {
            if !looks || !self.more_waits()? {
                return Ok(());
            }
            self.doze = None;
        }
        // Not "while there is room": packets that are too long take none, and could come for ever.
        let most = if looks { self.batch.layout().packets } else { 1 };
        for _ in 0..most {
            // Before the read: a worker that was replaced leaves the packet to its successor.
            if !self.seat.may_go_on() {
                break;
            }
            let Some(room) = self.batch.room() else { break };
            let read = self.queue.try_read(room);
            if !self.accept(read)? {
                break;
            }
            self.strike();
        }
        Ok(())
    }

    /// Whether a read would not have to wait.
    fn more_waits(&self) -> io::Result<bool> {
        match poll(&mut [PollFd::new(self.queue.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Puts a frame that was read into the batch; `false` if there was none.
    fn accept(&mut self, read: io::Result<Option<usize>>) -> io::Result<bool> {
        let counters = &self.seat.desk().counters;
        match read {
            Ok(Some(length)) => {
                if !self.batch.push(length) {
                    // No kernel has a packet that does not fit; if one has, it is not lost without a word.
                    counters.dropped(Refusal::NotIp.into());
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => {
                counters.read_errors.add(1);
                Err(error)
            }
        }
    }

    /// The faults of a worker with a packet in hand.
    fn strike(&self) {
        if self.batch.is_empty() {
            return;
        }
        let faults = self.seat.birth.faults();
        faults.at(Point::Worker);
        if faults.strikes(Point::WorkerHang) {
            hang();
        }
    }
}

/// A lock that is taken makes its waiter's thread allocate, the first time. Better now than with a packet in hand.
fn prepare_to_wait_for_locks() {
    let nothing = parking_lot::Mutex::new(());
    // Nobody notifies, and no time is given: it prepares to wait and goes on.
    parking_lot::Condvar::new().wait_for(&mut nothing.lock(), Duration::ZERO);
}

/// What an injected hang does: long enough for any test, and not for ever.
#[allow(clippy::disallowed_methods)] // only reached under fault injection
fn hang() {
    std::thread::sleep(Duration::from_mins(10));
}
