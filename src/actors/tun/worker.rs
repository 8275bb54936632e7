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

use arc_swap::Cache;
use easy_tun::{Batch, BatchLayout, Doze, QueueHandle};
use interproto::HEADROOM;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::WorkerEnded;
use super::contention::{self, Scheduling};
use super::hands::{Hands, Moment};
use super::pace::Pace;
use crate::clock;
use crate::datapath::{Refusal, Rules, Warmer};
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
    /// Not on a kernel that cannot look for more packets meanwhile.
    may_doze: bool,
    /// While it waits in `read` and not in `poll(2)`.
    doze: Option<Doze<'s>>,
    /// The bell has rung since somebody looked at what it rings for; a worker that begins does not know what its predecessor has left.
    is_called: bool,
    warmer: Warmer,
    /// Reads that have failed since one brought a packet.
    failed_reads: u32,
    hands: Hands<'s>,
    scheduling: Scheduling,
}

/// So many reads in a row that fail end a worker, and all with it. Fewer are only counted: a read also fails where the kernel has a packet
/// that it cannot describe, and throws it away (`EINVAL`).
pub const MOST_FAILED_READS: u32 = 64;

/// Fragments are looked after at most this often.
const LEAST_PATIENCE: Duration = Duration::from_millis(100);

impl<'s> Worker<'s> {
    fn new(seat: &'s Seat) -> Self {
        let queue = &*seat.shared.queues[seat.index];
        let batch = Batch::new(BatchLayout { headroom: HEADROOM, ..BatchLayout::default() }, queue.header());
        let (pace, warmer) = (Pace::default(), Warmer::default());
        let settings = &seat.shared.generation().settings;
        // One of them speaks for all.
        if let Err(error) = contention::weigh(settings)
            && seat.index == 0
        {
            contention::complain(settings, &error, &seat.shared.log);
        }
        Self {
            queue,
            seat,
            batch,
            pace,
            may_doze: true,
            doze: None,
            is_called: true,
            warmer,
            failed_reads: 0,
            hands: Hands::new(seat),
            scheduling: Scheduling::begin(clock::now(), &seat.shared.log),
        }
    }

    fn run(mut self) -> io::Result<()> {
        let outcome = self.work();
        self.hands.leave();
        outcome
    }

    fn work(&mut self) -> io::Result<()> {
        privileges::give_up_all(&self.seat.shared.log);
        prepare_to_wait_for_locks();
        let seat = self.seat;
        let mut rules = Cache::new(&seat.shared.rules);
        while seat.may_go_on() {
            let was_full = self.batch.is_full();
            self.batch.clear();
            // A batch that was full has left packets behind.
            if !was_full {
                self.wait()?;
            }
            seat.pulse.enter();
            let turn = self.turn(rules.load());
            seat.pulse.leave();
            seat.desk().counters.count_allocations();
            turn?;
        }
        Ok(())
    }

    /// Sleeps until there is a packet, the bell rings or something is due. The packet may have been read then.
    fn wait(&mut self) -> io::Result<()> {
        let patience = self.patience();
        if patience.is_none() && self.may_doze && self.doze_off()? && self.sleep_in_read()? {
            return Ok(());
        }
        self.doze = None;
        self.poll(patience)
    }

    /// Begins to wait in `read`, which saves a system call of three. `false` where it cannot, since the bell rings or a predecessor has not
    /// come back yet.
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

    fn poll(&mut self, patience: Option<Duration>) -> io::Result<()> {
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
            self.is_called = true;
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
    fn turn(&mut self, rules: &Rules) -> io::Result<()> {
        self.strike();
        if !self.seat.may_go_on() {
            self.drop_from(0);
            // What it was woken for is its successor's, and so are the answers.
            self.seat.shared.ring(self.seat.index);
            return Ok(());
        }
        let shared: &Shared = &self.seat.shared;
        let moment = Moment { now: clock::now(), rules };
        if self.scheduling.turn(moment.now) {
            self.seat.desk().counters.processor_contentions.add(1);
        }
        // A ring that was not silenced yet is one that no `poll(2)` has met, since packets come without a break.
        let is_called = std::mem::take(&mut self.is_called) || self.seat.desk().bell.rings();
        self.hands.begin(moment, is_called, self.queue);
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
        self.hands.end(moment, self.queue);
        read
    }

    /// The packets from this place on are lost with a worker that has been replaced.
    fn drop_from(&mut self, place: usize) {
        for place in place..self.batch.len() {
            if let Some(mut slot) = self.batch.slot(place) {
                self.hands.lose(&mut slot);
            }
        }
    }

    /// Reads what there is, or one packet where the pace says so. What was read before an error is in the batch.
    fn read(&mut self) -> io::Result<()> {
        // Not "while there is room": packets that are too long take none, and could come for ever.
        let most = if self.pace.looks() { self.batch.layout().packets } else { 1 };
        for _ in self.batch.len()..most {
            // Before the read: a worker that was replaced leaves the packet to its successor.
            if !self.seat.may_go_on() {
                break;
            }
            let Some(room) = self.batch.room() else { break };
            let read = match &self.doze {
                None => self.queue.try_read(room),
                Some(doze) => doze.read_more(room),
            };
            if matches!(&read, Err(error) if error.kind() == io::ErrorKind::Unsupported) {
                self.may_doze = false;
                break;
            }
            if !self.accept(read)? {
                break;
            }
            self.strike();
        }
        Ok(())
    }

    /// Puts a frame that was read into the batch; `false` if there was none, or if the read failed and may do better next time.
    fn accept(&mut self, read: io::Result<Option<usize>>) -> io::Result<bool> {
        let counters = &self.seat.desk().counters;
        match read {
            Ok(Some(length)) => {
                self.failed_reads = 0;
                if !self.batch.push(length) {
                    // No kernel has a packet that does not fit; if one has, it is not lost without a word.
                    counters.dropped(Refusal::NotIp.into());
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => {
                counters.read_errors.add(1);
                self.failed_reads += 1;
                let is_gone = error.raw_os_error() == Some(libc::EBADFD);
                if is_gone || self.failed_reads >= MOST_FAILED_READS { Err(error) } else { Ok(false) }
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
