//! What a worker does with the packets that it has read, and with those that come back to it.

use std::sync::atomic::Ordering;

use easy_tun::{QueueHandle, Slot, Written};
use fast_nat::Timestamp;
use interproto::{HEADROOM, Ports, VirtioNetHdr};
use slog::{o, warn};

use super::asks::Asks;
use super::notices::Notices;
use super::worker::Seat;
use crate::actors::pool::AcquireLeases;
use crate::clock;
use crate::config::Settings;
use crate::datapath::hold::{Hold, Limits, Parked};
use crate::datapath::join::{self, Joiner, Sink};
use crate::datapath::{
    self, Counters, Held, Identifications, Limiters, Output, Parcel, Refusal, Router, Rules, Scratch, Verdict,
};
use crate::shared::LeaseAnswer;

/// The longest packet: what an IP length field can say, and the IPv6 header before it.
const LONGEST_PACKET: usize = 65_535 + 40;

/// Packets of the engine's own that are sent per turn.
const OUTPUTS: usize = 64;

/// What is read once for a whole turn: the clock, and one generation of the rules.
#[derive(Clone, Copy)]
pub(super) struct Moment<'t> {
    pub(super) now: Timestamp,
    pub(super) rules: &'t Rules,
}

/// How a packet got into the worker's hands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// From the device.
    Read,
    /// It had been parked, as a fragment of a datagram with these ports or as a packet.
    Again(Option<Ports>),
}

/// The state of one worker.
pub(super) struct Hands<'s> {
    seat: &'s Seat,
    /// The number of the settings that were followed last.
    generation: u64,
    hold: Hold,
    /// The packet that is being routed again.
    buffer: Box<[u8]>,
    /// What `pool` is asked for at the end of this turn: from each turn at most twice per packet of a batch and once per waiting host.
    asks: Asks,
    tools: Tools,
    notices: Notices,
    log: slog::Logger,
}

/// What routing takes beside the shared state.
struct Tools {
    limiters: Limiters,
    identifications: Identifications,
    scratch: Scratch,
    joiner: Joiner,
    /// The packet at hand is the only one of its batch: there is nothing to join it with.
    alone: bool,
}

impl<'s> Hands<'s> {
    pub(super) fn new(seat: &'s Seat) -> Self {
        let generation = seat.shared.generation();
        let settings = &generation.settings;
        let now = clock::now();
        Self {
            seat,
            generation: generation.number,
            hold: Hold::new(hold_limits(settings)),
            // Memory that no packet has filled is not in use.
            buffer: vec![0; HEADROOM + LONGEST_PACKET].into_boxed_slice(),
            asks: Asks::new(),
            tools: Tools {
                limiters: Limiters::new(settings.icmp_errors_per_second, now),
                identifications: Identifications::new(random_seed()),
                scratch: Scratch::default(),
                joiner: Joiner::new(seat.shared.joins),
                alone: false,
            },
            notices: Notices::new(now),
            log: seat.shared.log.new(o!("concern" => "tun", "worker" => seat.index)),
        }
    }

    /// When to look again without being woken; `None` while nothing waits here.
    pub(super) fn wake_after(&self) -> Option<std::time::Duration> {
        [self.hold.wake_after(), self.asks.wake_after()].into_iter().flatten().min()
    }

    /// The beginning of a turn: what is due and, if the bell has rung, what it rings for.
    pub(super) fn begin(&mut self, moment: Moment<'_>, is_called: bool, queue: &QueueHandle) {
        if self.seat.shared.number.load(Ordering::Acquire) != self.generation {
            self.follow(moment);
        }
        let has_fragments = self.seat.shared.tables.fragments.due().is_some();
        if is_called || has_fragments || self.wake_after().is_some() {
            self.attend(moment, queue);
        }
    }

    /// The inbox, what is due, and what the engine wants sent.
    fn attend(&mut self, moment: Moment<'_>, queue: &QueueHandle) {
        self.tools.alone = false;
        self.answers(moment, queue);
        self.overdue(moment, queue);
        self.tools.with_router(self.seat, moment, queue, |router, out| {
            router.expire_fragments();
            router.send_outputs(OUTPUTS, out);
        });
        self.flush(queue);
        if self.seat.shared.tables.nat.outputs_waiting() > 0 {
            // They were more than fit one turn.
            self.seat.shared.ring(self.seat.index);
        }
    }

    /// Takes over the limits of new settings.
    #[cold]
    fn follow(&mut self, moment: Moment<'_>) {
        let generation = self.seat.shared.generation();
        self.generation = generation.number;
        self.hold.set_limits(hold_limits(&generation.settings));
        self.tools.limiters.set_rate(generation.settings.icmp_errors_per_second, moment.now);
    }

    /// One packet from the device; `alone`: it is the only one of its batch.
    pub(super) fn read(&mut self, slot: &mut Slot<'_>, alone: bool, moment: Moment<'_>, queue: &QueueHandle) {
        self.tools.alone = alone;
        let said = said(slot);
        self.packet(slot.buffer, slot.length, said, Arrival::Read, moment, queue);
        self.released(moment, queue);
    }

    /// One packet from the device that is lost with a worker that has been replaced.
    pub(super) fn lose(&self, slot: &mut Slot<'_>) {
        let (packet, said) = (HEADROOM..HEADROOM + slot.length, said(slot));
        datapath::lost(&self.seat.desk().counters, slot.buffer, &packet, &said);
    }

    /// The end of the worker: what waits here is lost with it.
    pub(super) fn leave(&mut self) {
        for parcel in self.hold.give_up() {
            let mut buffer = self.unpack(&parcel);
            let packet = HEADROOM..HEADROOM + parcel.packet.len();
            datapath::parcel_lost(&self.seat.desk().counters, &mut buffer, &packet, &parcel.offload);
            self.buffer = buffer;
        }
    }

    /// The end of a turn: writes what is still to be written, and asks `pool` for what is needed.
    pub(super) fn end(&mut self, moment: Moment<'_>, queue: &QueueHandle) {
        self.flush(queue);
        self.ask_pool(moment.now);
    }

    fn flush(&mut self, queue: &QueueHandle) {
        if self.tools.joiner.is_empty() {
            return;
        }
        let counters = &self.seat.desk().counters;
        let Tools { joiner, identifications, .. } = &mut self.tools;
        let ranges = &mut |count| identifications.range(count);
        if self.seat.may_go_on() {
            joiner.flush(ranges, &mut ToDevice { queue, counters });
        } else {
            // A thread that was held up meanwhile must touch nothing.
            let mut lost = |_: &[u8], segments: usize, _: usize| {
                counters.dropped_many(Refusal::Superseded.into(), segments as u64);
            };
            joiner.flush(ranges, &mut lost);
        }
    }

    /// One packet behind [`HEADROOM`] bytes of `storage`.
    fn packet(
        &mut self,
        storage: &mut [u8],
        length: usize,
        offload: VirtioNetHdr,
        arrival: Arrival,
        moment: Moment<'_>,
        queue: &QueueHandle,
    ) {
        let packet = HEADROOM..HEADROOM + length;
        let verdict = self.tools.with_router(self.seat, moment, queue, |router, out| match arrival {
            Arrival::Read => router.process(storage, packet.clone(), &offload, out),
            Arrival::Again(ports) => router.process_again(storage, packet.clone(), &offload, ports, out),
        });
        match verdict {
            Verdict::Hold(held) => self.park(held, storage, length, offload, moment, queue),
            Verdict::Drop(reason) => self.notices.dropped(reason, storage, packet, moment.now, &self.log),
            Verdict::Forward | Verdict::Ignore | Verdict::Parked | Verdict::Answered => {}
        }
    }

    /// Parks a packet whose host has no address or port yet.
    fn park(
        &mut self,
        held: Held,
        storage: &mut [u8],
        length: usize,
        offload: VirtioNetHdr,
        moment: Moment<'_>,
        queue: &QueueHandle,
    ) {
        let whole = self.tools.scratch.whole.take();
        let (packet, said) = match &whole {
            Some(whole) => (&**whole, VirtioNetHdr::default()),
            None => (&storage[HEADROOM..HEADROOM + length], offload),
        };
        match self.hold.park(held, packet, said, moment.now) {
            Parked::AskFor(ask) => {
                self.asks.push(ask);
                self.seat.desk().counters.held.add(self.tools.scratch.segments);
            }
            Parked::Waits => self.seat.desk().counters.held.add(self.tools.scratch.segments),
            Parked::Refused(refusal) => self.tools.with_router(self.seat, moment, queue, |router, out| {
                router.refuse(storage, HEADROOM..HEADROOM + length, &offload, refusal, out);
            }),
        }
    }

    /// The answers of `pool`.
    fn answers(&mut self, moment: Moment<'_>, queue: &QueueHandle) {
        // As many as the inbox can hold: a bound for this turn.
        for _ in 0..self.seat.desk().inbox.capacity() {
            let Some(LeaseAnswer { ask, result }) = self.seat.desk().inbox.pop() else { return };
            match result {
                Ok(()) => {
                    for parcel in self.hold.granted(ask) {
                        self.again(&parcel, moment, queue);
                        self.released(moment, queue);
                    }
                }
                Err(refusal) => {
                    for parcel in self.hold.refused(ask, refusal, moment.now) {
                        self.refuse(&parcel, refusal, moment, queue);
                    }
                }
            }
        }
    }

    /// What has waited too long is refused; what has waited for long is asked for again.
    fn overdue(&mut self, moment: Moment<'_>, queue: &QueueHandle) {
        let mut due = self.hold.due(moment.now);
        self.asks.append(&mut due.ask);
        for parcel in due.timed_out {
            self.refuse(&parcel, Refusal::HoldTimeout, moment, queue);
        }
    }

    /// The fragments that have waited for the packet that was routed last.
    fn released(&mut self, moment: Moment<'_>, queue: &QueueHandle) {
        while !self.tools.scratch.released.is_empty() {
            for fragment in std::mem::take(&mut self.tools.scratch.released) {
                self.again(&fragment, moment, queue);
            }
        }
    }

    /// A packet that was parked, and need not wait any more.
    fn again(&mut self, parcel: &Parcel, moment: Moment<'_>, queue: &QueueHandle) {
        let mut buffer = self.unpack(parcel);
        let arrival = Arrival::Again(parcel.ports);
        self.packet(&mut buffer, parcel.packet.len(), parcel.offload, arrival, moment, queue);
        self.buffer = buffer;
    }

    fn refuse(&mut self, parcel: &Parcel, refusal: Refusal, moment: Moment<'_>, queue: &QueueHandle) {
        let mut buffer = self.unpack(parcel);
        self.tools.with_router(self.seat, moment, queue, |router, out| {
            let packet = HEADROOM..HEADROOM + parcel.packet.len();
            router.refuse(&mut buffer, packet, &parcel.offload, refusal, out);
        });
        self.buffer = buffer;
    }

    /// Takes the buffer, with the packet in it.
    fn unpack(&mut self, parcel: &Parcel) -> Box<[u8]> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer[HEADROOM..HEADROOM + parcel.packet.len()].copy_from_slice(&parcel.packet);
        buffer
    }

    /// Asks for all new hosts of this turn, and for those that there was no room for before.
    fn ask_pool(&mut self, now: Timestamp) {
        self.asks.append(&mut self.tools.scratch.ahead);
        if self.asks.is_empty() {
            return;
        }
        let worker = self.seat.index;
        let pool = &self.seat.shared.directory.pool;
        let (asked, outcome) = self.asks.send(now, |asks| pool.try_send(AcquireLeases { worker, asks }));
        self.seat.desk().counters.lease_requests.add(asked as u64);
        if let Err(unavailable) = outcome {
            // The packets wait, and the hold asks again.
            warn!(self.log, "pool cannot be asked for leases just now"; "because" => %unavailable);
        }
    }
}

impl Tools {
    fn with_router<T>(
        &mut self,
        seat: &Seat,
        moment: Moment<'_>,
        queue: &QueueHandle,
        work: impl FnOnce(&mut Router<'_>, &mut Out<'_>) -> T,
    ) -> T {
        let counters = &seat.desk().counters;
        let mut router = Router {
            tables: &seat.shared.tables,
            rules: moment.rules,
            counters,
            limiters: &mut self.limiters,
            identifications: &mut self.identifications,
            scratch: &mut self.scratch,
            now: moment.now,
        };
        let device = ToDevice { queue, counters };
        work(&mut router, &mut Out { device, joiner: &mut self.joiner, alone: self.alone })
    }
}

/// Where the router's packets go.
struct Out<'w> {
    device: ToDevice<'w>,
    joiner: &'w mut Joiner,
    alone: bool,
}

impl Output for Out<'_> {
    fn forward(&mut self, frame: &[u8], identifications: &mut Identifications) {
        if self.alone {
            join::pass(frame, &mut self.device);
        } else {
            self.joiner.push(frame, &mut |count| identifications.range(count), &mut self.device);
        }
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        self.device.takes(frame)
    }
}

/// The device, and who counts what it takes.
struct ToDevice<'w> {
    queue: &'w QueueHandle,
    counters: &'w Counters,
}

impl ToDevice<'_> {
    /// A device that is full or down takes nothing: the packet is lost, and the flow goes on.
    fn takes(&self, frame: &[u8]) -> bool {
        let bare = VirtioNetHdr::LENGTH - self.queue.header();
        matches!(self.queue.try_write(&frame[bare..]), Ok(Written::Done))
    }
}

impl Sink for ToDevice<'_> {
    fn write(&mut self, frame: &[u8], segments: usize, wire_length: usize) {
        self.counters.written(frame, (segments, wire_length), self.takes(frame));
    }
}

/// What the kernel said about a packet.
#[inline]
fn said(slot: &Slot<'_>) -> VirtioNetHdr {
    slot.header().first_chunk().map(|header| VirtioNetHdr::from_bytes(*header)).unwrap_or_default()
}

fn hold_limits(settings: &Settings) -> Limits {
    Limits {
        packets_per_host: settings.hold.packets_per_host,
        hosts: settings.hold.hosts,
        timeout: settings.hold.timeout,
        ..Limits::default()
    }
}

/// Where this worker's identifications begin: any number will do, and the standard library's hash keys are random.
fn random_seed() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(()) as u16
}
