//! One worker: a thread that reads packets from one queue, translates them and writes them back to it.
//!
//! It sleeps while there is nothing to do. It never waits for an actor: what needs one is parked in its hold.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use easy_tun::{OpenQueue, PacketIo, Written};
use fast_nat::Timestamp;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use interproto::{HEADROOM, Ports};
use slog::{o, warn};
use tokio::sync::Notify;

use super::WorkerEnded;
use super::notices::Notices;
use crate::actors::pool::AcquireLeases;
use crate::clock;
use crate::datapath::hold::{Hold, Limits, Parked};
use crate::datapath::{
    Ask, Counters, Identifications, Limiters, Parcel, Refusal, Router, Rules, Scratch, Verdict, Warmer,
};
use crate::shared::{Desk, LeaseAnswer, Shared};
use crate::supervision::Birth;
use crate::supervision::child::panic_text;
use crate::supervision::faults::Point;
use crate::supervision::pulse::Pulse;

/// The longest packet: what an IP length field can say, and the IPv6 header before it.
const LONGEST_PACKET: usize = 65_535 + 40;

/// Packets per turn: after so many the worker looks at its inbox and its orders again.
const BATCH: usize = 64;

/// Packets that are read at a time where there are many sessions: as many are in the worker's hands.
const AHEAD: usize = 32;

/// Sessions from which on looking one up costs more than reading ahead: more than fit a processor's cache.
const MANY_SESSIONS: u32 = 65_536;

/// Packets of the engine's own that are sent per turn.
const OUTPUTS: usize = 64;

/// A worker's place: what it is given, and how it is told to go.
#[derive(Debug)]
pub struct Seat {
    /// The worker's number, which is that of its queue.
    pub index: usize,
    /// Busy with a batch, or idle.
    pub pulse: Arc<Pulse>,
    shared: Arc<Shared>,
    birth: Birth,
    dismissed: AtomicBool,
    orders: Notify,
}

impl Seat {
    pub(super) fn new(index: usize, shared: Arc<Shared>, birth: Birth) -> Self {
        Self {
            index,
            pulse: Arc::default(),
            shared,
            birth,
            dismissed: AtomicBool::new(false),
            orders: Notify::new(),
        }
    }

    /// Tells the worker to go.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
        self.orders.notify_one();
    }

    /// A worker that wakes up late finds out here that it has been replaced, and must touch nothing more.
    fn may_go_on(&self) -> bool {
        !self.dismissed.load(Ordering::Acquire) && self.birth.is_current()
    }

    fn desk(&self) -> &Desk {
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

/// What became of reading.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    /// There was no more, or no more is to be read.
    AllThereWas,
    /// As many as were wanted.
    MaybeMore,
}

/// Room for any packet. Memory that no packet has filled is not in use.
fn new_buffer() -> Box<[u8]> {
    vec![0; HEADROOM + LONGEST_PACKET].into_boxed_slice()
}

/// How a packet got into the buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// From the device.
    Read,
    /// It had been parked, as a fragment of a datagram with these ports or as a packet.
    Again(Option<Ports>),
}

struct Worker<'s, Q> {
    queue: Q,
    seat: &'s Seat,
    hold: Hold,
    limiters: Limiters,
    notices: Notices,
    identifications: Identifications,
    /// The packet that is being routed.
    buffer: Box<[u8]>,
    /// Where packets are read to, as many as are read at a time; and their lengths.
    buffers: Vec<Box<[u8]>>,
    ahead: Vec<usize>,
    warmer: Warmer,
    /// What `pool` is asked for at the end of this turn: at most twice per packet of a batch and once per waiting host.
    ask: Vec<Ask>,
    scratch: Scratch,
    log: slog::Logger,
}

/// Fragments are looked after at most this often.
const LEAST_PATIENCE: Duration = Duration::from_millis(100);

/// What is read once for a whole turn: the clock, and one generation of the rules.
#[derive(Clone, Copy)]
struct Moment<'t> {
    now: Timestamp,
    rules: &'t Rules,
}

impl<'s, Q: PacketIo> Worker<'s, Q> {
    fn new(queue: Q, seat: &'s Seat) -> Self {
        let settings = &seat.shared.settings.hold;
        let limits = Limits {
            packets_per_host: settings.packets_per_host,
            hosts: settings.hosts,
            timeout: settings.timeout,
            ..Limits::default()
        };
        Self {
            queue,
            seat,
            hold: Hold::new(limits),
            limiters: Limiters::new(seat.shared.settings.icmp_errors_per_second, clock::now()),
            notices: Notices::new(clock::now()),
            identifications: Identifications::new(random_seed()),
            buffer: new_buffer(),
            buffers: Vec::with_capacity(AHEAD),
            ahead: Vec::with_capacity(AHEAD),
            warmer: Warmer::default(),
            ask: Vec::with_capacity(BATCH),
            scratch: Scratch::default(),
            log: seat.shared.log.new(o!("concern" => "tun", "worker" => seat.index)),
        }
    }

    async fn run(mut self) -> io::Result<()> {
        prepare_to_wait_for_locks();
        let seat = self.seat;
        while seat.may_go_on() {
            let patience = self.patience();
            tokio::select! {
                biased;
                () = seat.orders.notified() => continue,
                () = seat.desk().wake.notified() => {}
                () = sleep_for(patience) => {}
                ready = self.queue.readable() => ready?,
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
        [self.hold.wake_after(), fragments].into_iter().flatten().min()
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
        self.answers(moment);
        self.overdue(moment);
        self.with_router(moment, |router, _, out| {
            router.expire_fragments();
            router.send_outputs(OUTPUTS, out);
        });
        let at_a_time = self.at_a_time();
        for _ in 0..BATCH / at_a_time {
            let read = self.read(at_a_time)?;
            if at_a_time > 1 {
                self.warm(moment);
            }
            for place in 0..self.ahead.len() {
                // A thread that was held up meanwhile must touch nothing.
                if !self.seat.may_go_on() {
                    let left = self.ahead.len() - place;
                    self.seat.desk().counters.dropped_many(Refusal::Superseded.into(), left as u64);
                    return Ok(());
                }
                std::mem::swap(&mut self.buffer, &mut self.buffers[place]);
                self.packet(self.ahead[place], moment, Arrival::Read);
                std::mem::swap(&mut self.buffer, &mut self.buffers[place]);
            }
            if read == Read::AllThereWas {
                break;
            }
        }
        self.ask_pool();
        Ok(())
    }

    /// How many packets are read before the first of them is looked up. Where millions of sessions are held, waiting for memory is
    /// what a look-up costs, and many can wait together; where few are held, the fewer are in hand the better.
    fn at_a_time(&self) -> usize {
        if self.seat.shared.tables.nat.session_count() < MANY_SESSIONS { 1 } else { AHEAD }
    }

    /// Reads at most so many packets, each into a buffer of its own.
    fn read(&mut self, most: usize) -> io::Result<Read> {
        self.ahead.clear();
        while self.ahead.len() < most {
            // Before the read: a worker that was replaced leaves the packet to its successor.
            if !self.seat.may_go_on() {
                return Ok(Read::AllThereWas);
            }
            let place = self.ahead.len();
            if self.buffers.len() == place {
                self.buffers.push(new_buffer());
            }
            match self.queue.try_read(&mut self.buffers[place][HEADROOM..]) {
                Ok(Some(length)) => self.ahead.push(length),
                Ok(None) => return Ok(Read::AllThereWas),
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
        Ok(Read::MaybeMore)
    }

    /// Brings what the packets that were read will need into the cache.
    fn warm(&mut self, moment: Moment<'_>) {
        let packets = self.ahead.iter().zip(&self.buffers);
        let packets = packets.map(|(length, buffer)| &buffer[HEADROOM..HEADROOM + *length]);
        self.warmer.warm(&self.seat.shared.tables.nat, moment.rules, packets);
    }

    /// One packet, in the buffer, and the fragments that have waited for it.
    fn packet(&mut self, length: usize, moment: Moment<'_>, arrival: Arrival) {
        self.one_packet(length, moment, arrival);
        while !self.scratch.released.is_empty() {
            for fragment in std::mem::take(&mut self.scratch.released) {
                let length = fragment.packet.len();
                self.buffer[HEADROOM..HEADROOM + length].copy_from_slice(&fragment.packet);
                self.one_packet(length, moment, Arrival::Again(fragment.ports));
            }
        }
    }

    fn one_packet(&mut self, length: usize, moment: Moment<'_>, arrival: Arrival) {
        let packet = HEADROOM..HEADROOM + length;
        let verdict = self.with_router(moment, |router, buffer, out| match arrival {
            Arrival::Read => router.process(buffer, packet, out),
            Arrival::Again(ports) => router.process_again(buffer, packet, ports, out),
        });
        let held = match verdict {
            Verdict::Hold(held) => held,
            Verdict::Drop(reason) => {
                self.notices.dropped(
                    reason,
                    &mut self.buffer,
                    HEADROOM..HEADROOM + length,
                    moment.now,
                    &self.log,
                );
                return;
            }
            Verdict::Forward | Verdict::Ignore | Verdict::Parked | Verdict::Answered => return,
        };
        let whole = self.scratch.whole.take();
        let packet = whole.as_deref().unwrap_or(&self.buffer[HEADROOM..HEADROOM + length]);
        match self.hold.park(held, packet, moment.now) {
            Parked::AskFor(ask) => {
                self.ask.push(ask);
                self.seat.desk().counters.held.add(1);
            }
            Parked::Waits => self.seat.desk().counters.held.add(1),
            Parked::Refused(refusal) => self.with_router(moment, |router, buffer, out| {
                router.refuse(buffer, HEADROOM..HEADROOM + length, refusal, out);
            }),
        }
    }

    /// The answers of `pool`.
    fn answers(&mut self, moment: Moment<'_>) {
        // As many as the inbox can hold: a bound for this turn.
        for _ in 0..self.seat.desk().inbox.capacity() {
            let Some(LeaseAnswer { ask, result }) = self.seat.desk().inbox.pop() else { return };
            match result {
                Ok(()) => {
                    for packet in self.hold.granted(ask) {
                        self.again(&packet, moment);
                    }
                }
                Err(refusal) => {
                    for packet in self.hold.refused(ask, refusal, moment.now) {
                        self.refuse(&packet, refusal, moment);
                    }
                }
            }
        }
    }

    /// What has waited too long is refused; what has waited for long is asked for again.
    fn overdue(&mut self, moment: Moment<'_>) {
        let mut due = self.hold.due(moment.now);
        self.ask.append(&mut due.ask);
        for packet in due.timed_out {
            self.refuse(&packet, Refusal::HoldTimeout, moment);
        }
    }

    /// A held packet of a host that has a lease now.
    fn again(&mut self, parcel: &Parcel, moment: Moment<'_>) {
        let length = parcel.packet.len();
        self.buffer[HEADROOM..HEADROOM + length].copy_from_slice(&parcel.packet);
        self.packet(length, moment, Arrival::Again(parcel.ports));
    }

    fn refuse(&mut self, parcel: &Parcel, refusal: Refusal, moment: Moment<'_>) {
        let packet = &parcel.packet;
        self.buffer[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
        self.with_router(moment, |router, buffer, out| {
            router.refuse(buffer, HEADROOM..HEADROOM + packet.len(), refusal, out);
        });
    }

    fn with_router<T>(
        &mut self,
        moment: Moment<'_>,
        work: impl FnOnce(&mut Router<'_>, &mut [u8], &mut dyn FnMut(&[u8]) -> bool) -> T,
    ) -> T {
        let shared = &self.seat.shared;
        let counters: &Counters = &self.seat.desk().counters;
        let mut router = Router {
            tables: &shared.tables,
            rules: moment.rules,
            counters,
            limiters: &mut self.limiters,
            identifications: &mut self.identifications,
            scratch: &mut self.scratch,
            now: moment.now,
        };
        let queue = &self.queue;
        // A device that is full or down takes nothing: the packet is counted as lost, and the flow goes on.
        let mut out = |packet: &[u8]| matches!(queue.try_write(packet), Ok(Written::Done));
        work(&mut router, &mut self.buffer, &mut out)
    }

    /// One message for all new hosts of this turn.
    fn ask_pool(&mut self) {
        self.ask.append(&mut self.scratch.ahead);
        if self.ask.is_empty() {
            return;
        }
        self.seat.desk().counters.lease_requests.add(self.ask.len() as u64);
        // Hosts that are asked for again may be many at a time.
        for asks in self.ask.chunks(BATCH) {
            let message = AcquireLeases { worker: self.seat.index, asks: asks.to_vec() };
            if let Err(unavailable) = self.seat.shared.directory.pool.try_send(message) {
                // The packets wait, and the hold asks again.
                warn!(self.log, "pool cannot be asked for leases just now"; "because" => %unavailable);
                break;
            }
        }
        self.ask.clear();
    }
}

/// A lock that is taken makes its waiter's thread allocate, the first time. Better now than with a packet in hand.
fn prepare_to_wait_for_locks() {
    let nothing = parking_lot::Mutex::new(());
    // Nobody notifies, and no time is given: it prepares to wait and goes on.
    parking_lot::Condvar::new().wait_for(&mut nothing.lock(), Duration::ZERO);
}

/// Where this worker's identifications begin: any number will do, and the standard library's hash keys are random.
fn random_seed() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(()) as u16
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
