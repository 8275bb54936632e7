//! The data that outlives every actor.
//!
//! It is made before the actors, behind one `Arc`. An actor that is restarted reconciles from here (or from the
//! kernel); none of them holds a truth of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_queue::ArrayQueue;
use easy_tun::{Offloads, QueueHandle};
use fast_nat::Deterministic;
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use slog::Logger;

use crate::actors::control::ControlActor;
use crate::actors::control::socket::ControlSocket;
use crate::actors::metrics::MetricsActor;
use crate::actors::pool::PoolActor;
use crate::actors::routes::RoutesActor;
use crate::actors::sessions::SessionsActor;
use crate::actors::tun::TunActor;
use crate::bell::Bell;
use crate::datapath::join::Joins;
use crate::datapath::{Ask, Counters, Refusal, Rules, Tables};
use crate::generation::{Generation, Placed};
use crate::handover::give::Requests;
use crate::kernel::sysctl::Forwarding;
use crate::records::{Record, Recorder};
use crate::reload::Reloads;
use crate::state::{self, Keeping, Lasts};
use crate::supervision::{Board, Slot};

/// Answers that may lie unread in one worker's inbox. One answer is 40 bytes; when the inbox is full the answer is
/// dropped and counted, and the worker asks again (the lease is in the table by then).
const INBOX: usize = 1024;

/// An answer of `pool` to a worker that holds packets of a host.
#[derive(Debug, Clone, Copy)]
pub struct LeaseAnswer {
    /// What was asked for.
    pub ask: Ask,
    /// Granted (it is in the tables), or why not.
    pub result: Result<(), Refusal>,
}

/// What one worker shares with the rest. It outlives the worker.
#[derive(Debug)]
pub struct Desk {
    /// What the workers of this queue have counted.
    pub counters: Counters,
    /// Answers of `pool`.
    pub inbox: ArrayQueue<LeaseAnswer>,
    /// Answers that found the inbox full.
    pub inbox_overflows: AtomicU64,
    /// Wakes the worker: for its inbox, or because it is to go. To be rung by [`Shared::ring`].
    pub bell: Bell,
}

impl Desk {
    /// An empty one. It takes a descriptor.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            counters: Counters::default(),
            inbox: ArrayQueue::new(INBOX),
            inbox_overflows: AtomicU64::new(0),
            bell: Bell::new()?,
        })
    }

    /// Puts an answer into the inbox. Never waits.
    pub fn answer(&self, answer: LeaseAnswer) {
        if self.inbox.push(answer).is_err() {
            self.inbox_overflows.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The allocation records of this run, if any are kept.
#[derive(Debug, Default)]
pub struct Records {
    recorder: Option<Recorder>,
    /// Records that found no room: they are written before any other. Bounded by what is given while the sink is full, which is
    /// nothing, and by what ends meanwhile.
    unrecorded: Mutex<VecDeque<Record>>,
}

/// Room in the recorder's queue that is left to what ends while nothing more is given.
const ROOM_FOR_ENDS: u64 = 1024;

impl Records {
    /// Records go there.
    pub fn new(recorder: Option<Recorder>) -> Self {
        Self { recorder, unrecorded: Mutex::default() }
    }

    /// The recorder, if there is one.
    pub fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// Whether something may be given: what is given must be recorded.
    pub fn have_room(&self) -> bool {
        let Some(recorder) = &self.recorder else { return true };
        self.catch_up();
        let counts = recorder.counts();
        let room = counts.waiting + ROOM_FOR_ENDS < counts.capacity.max(2 * ROOM_FOR_ENDS);
        !recorder.waits_for_room() || (room && self.unrecorded.lock().is_empty())
    }

    /// Records something, now or as soon as there is room.
    pub fn tell(&self, record: Record) {
        let Some(recorder) = &self.recorder else { return };
        self.catch_up();
        let mut unrecorded = self.unrecorded.lock();
        if !unrecorded.is_empty() || recorder.record(record).is_err() {
            unrecorded.push_back(record);
        }
    }

    /// Records something when what this returns is dropped, whatever happens before.
    #[must_use]
    pub fn tell_in_any_case(&self, record: Record) -> impl Drop {
        ToTell(self, record)
    }

    /// Records what has found no room, as far as there is some now.
    pub fn catch_up(&self) {
        let Some(recorder) = &self.recorder else { return };
        let mut unrecorded = self.unrecorded.lock();
        while let Some(record) = unrecorded.front().copied()
            && recorder.record(record).is_ok()
        {
            unrecorded.pop_front();
        }
    }
}

/// A record that is due.
struct ToTell<'r>(&'r Records, Record);

impl Drop for ToTell<'_> {
    fn drop(&mut self) {
        self.0.tell(self.1);
    }
}

/// How a pool stands, for metrics; written by `pool`.
#[derive(Debug)]
pub struct PoolGauges {
    /// The pool.
    pub net: Ipv4Net,
    /// What its units are: addresses, or port blocks.
    pub unit: &'static str,
    /// Units under lease.
    pub used: AtomicU64,
    /// Units that could be leased now.
    pub free: AtomicU64,
    /// Addresses that rest before they are leased again (RFC 6888 REQ-8). Port blocks have rested before they come back.
    pub resting: AtomicU64,
    /// The most units that were under lease at a time since start.
    pub high_water: AtomicU64,
}

impl PoolGauges {
    /// All zero.
    pub fn new(net: Ipv4Net, unit: &'static str) -> Self {
        Self {
            net,
            unit,
            used: AtomicU64::new(0),
            free: AtomicU64::new(0),
            resting: AtomicU64::new(0),
            high_water: AtomicU64::new(0),
        }
    }
}

/// Leases granted and ended so far; written by `pool` and `sessions`.
#[derive(Debug, Default)]
pub struct LeaseCounters {
    /// Granted.
    pub granted: AtomicU64,
    /// Port blocks that came back.
    pub returned: AtomicU64,
    /// Requests that had to wait until they could be recorded.
    pub waited_for_records: AtomicU64,
    /// Requests refused.
    pub refused: AtomicU64,
    /// Ended by expiry.
    pub expired: AtomicU64,
    /// Ended by request.
    pub dropped: AtomicU64,
}

/// What `routes` last saw in the kernel.
#[derive(Debug, Clone, Default)]
pub struct KernelView {
    /// The number of the settings with which it has looked; `None`: not at all yet.
    pub seen: Option<u64>,
    /// The device is up.
    pub link_up: bool,
    /// Changes that were still needed after the last repair, and other daemons' routes in the way: one sentence each.
    pub problems: Vec<String>,
    /// Firewall rules of others that may drop what is forwarded: known, and named in the log once.
    pub firewall: Vec<String>,
    /// Whether the kernel forwards.
    pub forwarding: Forwarding,
    /// The commands that turn forwarding on, where it is off.
    pub forwarding_commands: Vec<String>,
}

/// Where each actor's current address is found.
#[derive(Debug, Default)]
pub struct Directory {
    /// `tun`.
    pub tun: Arc<Slot<TunActor>>,
    /// `sessions`.
    pub sessions: Arc<Slot<SessionsActor>>,
    /// `pool`.
    pub pool: Arc<Slot<PoolActor>>,
    /// `routes`.
    pub routes: Arc<Slot<RoutesActor>>,
    /// `metrics`.
    pub metrics: Arc<Slot<MetricsActor>>,
    /// `control`.
    pub control: Arc<Slot<ControlActor>>,
}

/// Everything that outlives the actors.
#[derive(Debug)]
pub struct Shared {
    /// The router's log.
    pub log: Logger,
    /// The generation of settings that holds. See [`Shared::change`].
    pub(crate) generation: ArcSwap<Generation>,
    /// Its number: one read, for who asks often.
    pub(crate) number: AtomicU64,
    /// The mappings that are in the tables. Whoever holds this keeps the generation from changing.
    pub(crate) placed: Mutex<Placed>,
    /// The name of the TUN device, which never changes.
    pub interface: String,
    /// The current generation of the packet path's rules.
    pub rules: ArcSwap<Rules>,
    /// Who holds which address and port, and what goes on.
    pub tables: Tables,
    /// The device's interface index.
    pub device_index: u32,
    /// One queue of the device per worker.
    pub queues: Vec<Arc<QueueHandle>>,
    /// What the kernel granted of the offloads that were asked for.
    pub offloads: Offloads,
    /// Which packets are joined.
    pub joins: Joins,
    /// One desk per worker.
    pub desks: Vec<Desk>,
    /// Leases so far.
    pub lease_counters: LeaseCounters,
    /// Allocation records.
    pub records: Records,
    /// How the state is kept that outlives the process.
    pub state: Arc<state::Status>,
    /// Who has which ports, where that is computed (RFC 7422).
    pub deterministic: Option<Deterministic>,
    /// What `routes` last saw.
    pub kernel: Mutex<KernelView>,
    /// Whether a masquerade table may be there.
    pub(crate) masqueraded: AtomicBool,
    /// Repairs so far: something of ours was gone from the kernel and was put back.
    pub kernel_repairs: AtomicU64,
    /// The listener of `metrics`: it outlives the actor, so that a hung one does not keep the port.
    pub metrics_listener: ArcSwapOption<std::net::TcpListener>,
    /// The listener of `control`, for the same reason.
    pub control_socket: Option<ControlSocket>,
    /// Who wants to take over from this process.
    pub handover: Requests,
    /// How reloads of the settings have gone.
    pub reloads: Reloads,
    /// Log records that were dropped because the log could not keep up.
    pub log_dropped: Arc<AtomicU64>,
    /// Current addresses of the actors.
    pub directory: Directory,
    /// How the concerns stand.
    pub board: Arc<Board>,
}

impl Shared {
    /// Whether all concerns run, and the kernel's state has been looked at: the router does what it can, ready or not.
    pub fn has_started(&self) -> bool {
        let runs = |concern| self.board.of(concern).state == crate::supervision::State::Running;
        crate::supervision::Concern::ALL.into_iter().all(runs) && self.kernel.lock().seen.is_some()
    }

    /// Writes the mappings of run time, unless the file has them already, and says how long they last. Waits for the disk.
    pub fn keep_mappings(&self) -> Lasts {
        match self.state.mappings.keep(|| self.generation(), &self.log) {
            Some(Ok(())) => Lasts::ForGood,
            Some(Err(because)) => Lasts::UntilTheEnd(because),
            None => Lasts::UntilTheEnd(match &self.state.keeping {
                Keeping::Impossible(because) => format!("it runs without state: {because}"),
                Keeping::Off | Keeping::In(_) => "no state is kept".to_owned(),
            }),
        }
    }

    /// Which lock is not given back within `patience`, if there is one: a thread hangs with it.
    pub fn stuck(&self, patience: Duration) -> Option<&'static str> {
        let settings = || self.placed.try_lock_for(patience).is_none().then_some("the lock of the settings");
        self.tables.stuck(patience).or_else(settings)
    }

    /// Rings for the worker of this desk, however it waits. Never waits itself.
    pub fn ring(&self, worker: usize) {
        // In this order: a worker looks for a ring before it goes to sleep where only the second wakes it.
        if let (Some(desk), Some(queue)) = (self.desks.get(worker), self.queues.get(worker)) {
            desk.bell.ring();
            queue.wake();
        }
    }

    /// What does not keep the router from being ready, and should be known: one sentence each.
    pub fn notes(&self) -> Vec<String> {
        let pending = &self.generation().pending;
        let waits = format!("settings that wait for a restart: {}", pending.join(", "));
        let refused = self.reloads.tally().why_refused;
        let refused = refused.map(|why| format!("the last reload was refused: {}", why.replace('\n', "; ")));
        let notes = (!pending.is_empty()).then_some(waits).into_iter().chain(refused);
        notes.chain(self.state.notes()).collect()
    }

    /// What keeps the router from being ready, one sentence each; empty when it is ready.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for concern in crate::supervision::Concern::ALL {
            let status = self.board.of(concern);
            if status.state != crate::supervision::State::Running {
                let last = status.last_failure.map_or_else(String::new, |last| format!(" ({last})"));
                problems.push(format!("{concern} is {}{last}", status.state.as_str()));
            }
        }
        let kernel = self.kernel.lock();
        if kernel.seen.is_none() {
            problems.push("the kernel's state has not been looked at yet".to_owned());
            return problems;
        }
        if !kernel.link_up {
            problems.push(format!("the link {} is down", self.interface));
        }
        problems.extend(kernel.problems.iter().cloned());
        if !kernel.forwarding.is_on() {
            let commands = kernel.forwarding_commands.join(" && ");
            problems.push(format!("the kernel does not forward; run: {commands}"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::{Duration, Instant};

    use fast_nat::Timestamp;

    use super::*;
    use crate::records::{self, Line, RecordSink, RecordsConfig, Sink, What, WhenFull};

    /// Takes nothing until it is told to.
    struct Stuck {
        works: Arc<AtomicBool>,
        written: Arc<AtomicU64>,
    }

    impl Sink for Stuck {
        fn write(&mut self, lines: &[Line<'_>], done: &mut usize) -> io::Result<()> {
            if !self.works.load(Ordering::SeqCst) {
                return Err(io::Error::other("stuck"));
            }
            *done += lines.len();
            self.written.fetch_add(lines.len() as u64, Ordering::SeqCst);
            Ok(())
        }
    }

    fn given(n: u16) -> Record {
        let what = What::BlockGiven { first_port: n, last_port: n };
        let (host, address) = (Ipv6Addr::LOCALHOST, Ipv4Addr::LOCALHOST);
        Record { at: Timestamp::from_millis(1), host, address, what, reason: "" }
    }

    fn config(when_full: WhenFull) -> RecordsConfig {
        RecordsConfig {
            sink: RecordSink::File("/nowhere".into()),
            when_full,
            sessions: false,
            queue: 3000,
            subscriber_prefix_len: 64,
            router: "test/nat64".to_owned(),
            configuration: None,
        }
    }

    /// Tells of more than there is room for, while the sink takes nothing, and then lets it work. The answer is whether more might
    /// have been given, and how many records were written in the end.
    fn overfilled(when_full: WhenFull) -> (bool, u64) {
        const RECORDS: u16 = 4000;
        let config = config(when_full);
        let (works, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sink = Stuck { works: Arc::clone(&works), written: Arc::clone(&written) };
        let log = Logger::root(slog::Discard, slog::o!());
        let (recorder, guard) = records::start_with(&config, Box::new(sink), &log).unwrap();
        let records = Records::new(Some(recorder));
        assert!(records.have_room());
        for n in 0..RECORDS {
            records.tell(given(n));
        }
        let may_give = records.have_room();
        works.store(true, Ordering::SeqCst);
        let start = Instant::now();
        while records.recorder().is_some_and(|recorder| recorder.counts().waiting > 0)
            && start.elapsed() < Duration::from_secs(30)
        {
            records.catch_up();
            std::thread::yield_now();
        }
        assert!(records.have_room(), "there is room again");
        drop(guard);
        (may_give, written.load(Ordering::SeqCst))
    }

    /// How many records are written if this is told, those of the beginning and the end of the run among them.
    fn written_by(tell: impl FnOnce(&Records)) -> u64 {
        let (works, written) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let sink = Stuck { works, written: Arc::clone(&written) };
        let log = Logger::root(slog::Discard, slog::o!());
        let config = config(WhenFull::Wait);
        let (recorder, guard) = records::start_with(&config, Box::new(sink), &log).unwrap();
        let records = Records::new(Some(recorder));
        tell(&records);
        drop(records);
        drop(guard);
        written.load(Ordering::SeqCst)
    }

    #[test]
    fn what_has_been_given_is_recorded_whatever_happens_before_it_is_told() {
        let told = written_by(|records| {
            let panics = std::panic::AssertUnwindSafe(|| {
                let _told = records.tell_in_any_case(given(1));
                std::panic::resume_unwind(Box::new("in the midst of it"));
            });
            assert!(std::panic::catch_unwind(panics).is_err());
        });
        assert_eq!(told, written_by(|_| {}) + 1);
    }

    #[test]
    fn nothing_more_is_given_while_records_find_no_room_and_nothing_that_was_told_is_lost() {
        let (may_give, written) = overfilled(WhenFull::Wait);
        assert!(!may_give);
        // And the records of the beginning and the end of this run.
        assert!((4000..=4002).contains(&written), "{written}");
    }

    #[test]
    fn an_operator_who_wants_no_waiting_loses_records_instead() {
        let (may_give, written) = overfilled(WhenFull::GoOn);
        assert!(may_give && (3000..4000).contains(&written), "{written}");
    }
}
