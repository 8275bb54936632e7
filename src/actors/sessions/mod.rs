//! `sessions`: ends what is over (leases whose host is silent, sessions, idle port blocks), keeps the static pairs and port
//! forwards, answers questions about leases and sessions.
//!
//! Owns the timing; the leases and sessions themselves are in the shared tables. When this actor is down, flows go on and
//! nothing expires; its successor catches up.

mod draining;
mod messages;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, MessageResult};
use fast_nat::nat64::{Event, Protocol, SessionRef, SessionView};
use fast_nat::{Lease, Timestamp};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use slog::{Logger, info, o, warn};

pub use messages::{DropLease, DropSession, PutIntoForce};

use crate::actors::pool::{ReleaseBlocks, ReleaseLeases};
use crate::clock;
use crate::generation::NotChanged;
use crate::records::{self, Record, What};
use crate::shared::Shared;
use crate::supervision::faults::Point;
use crate::supervision::{Birth, Blueprint};

/// How often expiry is looked at: a lease ends at most this much late.
const TICK: Duration = Duration::from_millis(500);

/// How often sessions are recorded where that is wanted, and how many events at a time.
const RECORD_EVERY: Duration = Duration::from_millis(50);
const EVENTS: usize = 65_536;

/// Timers visited in one step, and steps per tick: 51,200 a second at most, and never long under one lock.
const BUDGET: usize = 256;
const STEPS: usize = 100;

/// Probes and late errors that may wait for a worker before expiry pauses until its next tick.
const MOST_OUTPUTS: usize = 2048;

/// Steps of the engine's expiry per tick, of at most 32 sessions each: some 640,000 a second.
const SESSION_STEPS: usize = 10_000;

/// The actor.
#[derive(Debug)]
pub struct SessionsActor {
    shared: Arc<Shared>,
    birth: Birth,
    log: Logger,
    /// Ended leases that `pool` has not been told of yet: at most as many as there are addresses. If they are lost with
    /// this actor, `pool` still learns of them when it next reads the table.
    unreleased: Vec<Lease>,
    /// When the sessions began that are recorded. Those of an earlier incarnation are not among them.
    begun: HashMap<SessionRef, Timestamp>,
}

/// Makes [`SessionsActor`]s.
#[derive(Debug)]
pub struct SessionsBlueprint(pub Arc<Shared>);

impl Blueprint for SessionsBlueprint {
    type Actor = SessionsActor;

    fn build(&self, birth: Birth) -> LocalBoxFuture<'static, Result<SessionsActor, String>> {
        let shared = Arc::clone(&self.0);
        async move {
            let log = shared.log.new(o!("concern" => "sessions", "generation" => birth.generation()));
            shared.place_mappings()?;
            // What ended while word of it was lost with the last incarnation.
            let unreleased = shared.tables.leases.ended().into_iter().map(|ended| ended.lease).collect();
            Ok(SessionsActor { shared, birth, log, unreleased, begun: HashMap::new() })
        }
        .boxed_local()
    }
}

/// The ports of a session and its other end, as records have them.
pub(crate) fn flow_of(view: &SessionView) -> records::Flow {
    records::Flow {
        protocol: match view.outbound.protocol {
            Protocol::Tcp => records::Protocol::Tcp,
            Protocol::Udp => records::Protocol::Udp,
            Protocol::Icmp => records::Protocol::Icmp,
        },
        host_port: view.outbound.port,
        port: view.inbound.port,
        remote: view.outbound.remote,
        remote_port: view.outbound.remote_port,
    }
}

impl Actor for SessionsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.birth.faults().at(Point::Started);
        ctx.run_interval(TICK, |actor, _| actor.tick());
        ctx.run_interval(draining::LOOK_EVERY, |actor, _| actor.look_at_drained_pools());
        if self.shared.tables.nat.config().events > 0 {
            ctx.run_interval(RECORD_EVERY, |actor, _| actor.record_sessions());
        }
        let settings = &self.shared.generation().settings;
        info!(self.log, "started"; "static_pairs" => settings.static_pairs.len(), "forwards" => settings.forwards.len());
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.birth.faults().at(Point::Stopped);
    }
}

impl SessionsActor {
    fn tick(&mut self) {
        let now = clock::now();
        let lifetime = self.shared.generation().settings.reservation_timeout;
        for _ in 0..STEPS {
            if !self.birth.is_current() {
                return;
            }
            self.birth.beat();
            let mut ended = Vec::new();
            let more = self.shared.tables.leases.expire_each(now, lifetime, BUDGET, |lease| {
                self.record_end(&lease, now, "expired");
                self.shared.lease_counters.expired.fetch_add(1, Ordering::Relaxed);
                info!(self.log, "lease ended"; "host" => %lease.host, "address" => %lease.address,
                    "because" => "expired", "silent_s" => now.since(lease.last_seen).as_secs());
                ended.push(lease);
            });
            self.unreleased.append(&mut ended);
            if !more {
                break;
            }
        }
        self.shared.records.catch_up();
        self.release();
        self.expire_sessions(now);
        self.release_blocks(now);
    }

    fn record_end(&self, lease: &Lease, now: Timestamp, reason: &'static str) {
        let Lease { host, address, granted, .. } = *lease;
        let what = What::LeaseEnded { given: granted };
        self.shared.records.tell(Record { at: now, host, address, what, reason });
    }

    /// Records the sessions that have begun and ended, where that is wanted.
    fn record_sessions(&mut self) {
        let now = clock::now();
        for _ in 0..EVENTS {
            // What finds no room waits in the engine's queue.
            if !self.shared.records.have_room() {
                return;
            }
            let Some(event) = self.shared.tables.nat.poll_event() else { return };
            let (view, what) = match event {
                Event::Started(view) => {
                    self.begun.insert(view.reference, now);
                    (view, What::SessionStarted(flow_of(&view)))
                }
                Event::Ended(view) => {
                    let started = self.begun.remove(&view.reference).unwrap_or(view.last_seen);
                    (view, What::SessionEnded { flow: flow_of(&view), started })
                }
                Event::Established(_) | Event::Changed(_) => continue,
            };
            let (host, address) = (view.outbound.host, view.inbound.address);
            self.shared.records.tell(Record { at: now, host, address, what, reason: "" });
        }
    }

    /// Ends the sessions that are over, step by step.
    fn expire_sessions(&self, now: Timestamp) {
        let nat = &self.shared.tables.nat;
        for step in 0..SESSION_STEPS {
            if step % STEPS == 0 {
                if !self.birth.is_current() {
                    return;
                }
                self.birth.beat();
            }
            // A worker sends them; until it has, nothing more is added.
            if !nat.expire(now, BUDGET) || nat.outputs_waiting() >= MOST_OUTPUTS {
                break;
            }
        }
        // Probes and late errors are sent by a worker.
        if nat.outputs_waiting() > 0 {
            self.shared.ring(0);
        }
    }

    /// Tells `pool` of blocks that nobody uses. It is told again of those that it does not take back.
    fn release_blocks(&self, now: Timestamp) {
        for _ in 0..STEPS {
            let blocks = self.shared.tables.nat.idle_blocks(now, BUDGET);
            let is_full = blocks.len() >= 64;
            if blocks.is_empty() {
                return;
            }
            if let Err(unavailable) = self.shared.directory.pool.try_send(ReleaseBlocks { blocks }) {
                warn!(self.log, "pool cannot be told of idle port blocks just now"; "because" => %unavailable);
                return;
            }
            // Those of this message would be found again.
            if is_full {
                return;
            }
        }
    }

    /// Tells `pool` what has ended. If it is not there just now, the next tick tells it.
    fn release(&mut self) {
        if self.unreleased.is_empty() {
            return;
        }
        let message = ReleaseLeases { leases: self.unreleased.clone() };
        match self.shared.directory.pool.try_send(message) {
            Ok(()) => self.unreleased.clear(),
            Err(unavailable) => warn!(self.log, "pool cannot be told of ended leases just now";
                "leases" => self.unreleased.len(), "because" => %unavailable),
        }
    }
}

impl Handler<DropLease> for SessionsActor {
    type Result = MessageResult<DropLease>;

    fn handle(&mut self, message: DropLease, _: &mut Self::Context) -> Self::Result {
        if !self.birth.is_current() {
            return MessageResult(None);
        }
        let ended = self.shared.tables.leases.remove(message.address, clock::now());
        if let Some(lease) = ended {
            info!(self.log, "lease ended"; "host" => %lease.host, "address" => %lease.address, "because" => "dropped");
            self.shared.lease_counters.dropped.fetch_add(1, Ordering::Relaxed);
            self.record_end(&lease, clock::now(), "dropped");
            self.unreleased.push(lease);
            self.release();
        }
        MessageResult(ended)
    }
}

impl Handler<PutIntoForce> for SessionsActor {
    type Result = Result<(), NotChanged>;

    fn handle(&mut self, message: PutIntoForce, _: &mut Self::Context) -> Self::Result {
        if !self.birth.is_current() {
            return Err(NotChanged::Outdated);
        }
        let PutIntoForce { next, rules } = message;
        self.shared.change(*next, *rules)
    }
}

impl Handler<DropSession> for SessionsActor {
    type Result = bool;

    fn handle(&mut self, message: DropSession, _: &mut Self::Context) -> bool {
        self.birth.is_current() && self.shared.tables.nat.end_session(message.session, clock::now())
    }
}

crate::accepts_faults!(SessionsActor);
