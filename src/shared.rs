//! The data that outlives every actor.
//!
//! It is made before the actors, behind one `Arc`. An actor that is restarted reconciles from here (or from the
//! kernel); none of them holds a truth of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use fast_nat::Deterministic;
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use slog::Logger;
use tokio::sync::Notify;

use crate::actors::metrics::MetricsActor;
use crate::actors::pool::PoolActor;
use crate::actors::routes::RoutesActor;
use crate::actors::sessions::SessionsActor;
use crate::actors::tun::{TunActor, WorkQueue};
use crate::config::Settings;
use crate::datapath::{Ask, Counters, Refusal, Rules, Tables};
use crate::kernel::sysctl::Forwarding;
use crate::plan::Plan;
use crate::records::{Record, Recorder};
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
    /// Wakes the worker for its inbox.
    pub wake: Notify,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            counters: Counters::default(),
            inbox: ArrayQueue::new(INBOX),
            inbox_overflows: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }
}

impl Desk {
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
    /// Whether it has looked at all.
    pub seen: bool,
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
}

/// Everything that outlives the actors.
#[derive(Debug)]
pub struct Shared {
    /// The router's log.
    pub log: Logger,
    /// The settings of this run.
    pub settings: Settings,
    /// The pools of this run.
    pub plan: Plan,
    /// The current generation of the packet path's rules.
    pub rules: ArcSwap<Rules>,
    /// Who holds which address and port, and what goes on.
    pub tables: Tables,
    /// The device's interface index.
    pub device_index: u32,
    /// One queue of the device per worker.
    pub queues: Vec<Arc<dyn WorkQueue>>,
    /// One desk per worker.
    pub desks: Vec<Desk>,
    /// One entry per pool, in their order in the plan.
    pub pool_gauges: Vec<PoolGauges>,
    /// Leases so far.
    pub lease_counters: LeaseCounters,
    /// Allocation records.
    pub records: Records,
    /// Who has which ports, where that is computed (RFC 7422).
    pub deterministic: Option<Deterministic>,
    /// What `routes` last saw.
    pub kernel: Mutex<KernelView>,
    /// Repairs so far: something of ours was gone from the kernel and was put back.
    pub kernel_repairs: AtomicU64,
    /// The listener of `metrics`: it outlives the actor, so that a hung one does not keep the port.
    pub metrics_listener: Option<std::net::TcpListener>,
    /// Log records that were dropped because the log could not keep up.
    pub log_dropped: Arc<AtomicU64>,
    /// Current addresses of the actors.
    pub directory: Directory,
    /// How the concerns stand.
    pub board: Arc<Board>,
}

impl Shared {
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
        if !kernel.seen {
            problems.push("the kernel's state has not been looked at yet".to_owned());
            return problems;
        }
        if !kernel.link_up {
            problems.push(format!("the link {} is down", self.settings.interface));
        }
        problems.extend(kernel.problems.iter().cloned());
        if !kernel.forwarding.is_on() {
            let commands = kernel.forwarding_commands.join(" && ");
            problems.push(format!("the kernel does not forward; run: {commands}"));
        }
        problems
    }
}
