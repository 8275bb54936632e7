//! Does one operation after another to the engine and to the model, and compares.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use super::api::{
    BlockPool, BlockPoolConfig, Deterministic, DeterministicConfig, Inbound, Mapped, Nat64, NatConfig,
    Outbound, Passing, PortClass, Reached, Refused, Signal, StaticBinding, Timestamp,
};

use super::operation::{Operation, decide};
use super::restart::Copy;
use super::run_blocks::block;
use super::source::Source;
use super::{Inside, Model, Outside, Remote, Wrong, tick};

/// Operations that are shown when something differs.
const SHOWN: usize = 30;

/// How the engine and its pool are set up.
#[derive(Debug, Clone)]
pub struct Setup {
    pub name: &'static str,
    pub nat: NatConfig,
    pub pool: BlockPoolConfig,
    /// Which blocks are whose, if that is computed.
    pub plan: Option<DeterministicConfig>,
}

/// How often each kind of outcome was reached.
pub type Counts = BTreeMap<&'static str, u64>;

/// An engine, its pool, and the model.
pub struct Run {
    pub engine: Nat64,
    pub pool: BlockPool,
    pub pool_config: BlockPoolConfig,
    pub plan: Option<Deterministic>,
    pub model: Model,
    pub now: u64,
    pub counts: Counts,
    pub done: u64,
    pub(super) lost: u64,
    /// A copy of the engine's state, kept by what it says has changed.
    pub(super) copy: Copy,
    last: VecDeque<(u64, Operation)>,
}

impl Run {
    pub fn new(setup: &Setup, seed: u64) -> Self {
        let engine = Nat64::new(NatConfig { seed: Some(seed), ..setup.nat.clone() }).unwrap();
        let pool = BlockPool::new(&BlockPoolConfig { seed: Some(seed), ..setup.pool.clone() }).unwrap();
        Self {
            engine,
            pool,
            pool_config: setup.pool.clone(),
            plan: setup.plan.clone().map(|plan| Deterministic::new(plan).unwrap()),
            model: Model::new(setup.nat.clone()),
            // Not zero: nothing in the rules starts with the clock.
            now: 12_345_678,
            counts: Counts::new(),
            done: 0,
            lost: 0,
            copy: Copy::default(),
            last: VecDeque::new(),
        }
    }

    pub fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    pub fn tick(&self) -> u64 {
        tick(self.at())
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_insert(0) += 1;
    }

    /// Decides on an operation, does it, and compares; every so often all of the state.
    pub fn step(&mut self, source: &mut impl Source, compare_every: u64) -> Result<(), Wrong> {
        let operation = decide(&self.model, source, self.now);
        if self.last.len() >= SHOWN {
            self.last.pop_front();
        }
        self.last.push_back((self.now, operation.clone()));
        self.done += 1;
        let compared = self.perform(&operation).and_then(|()| self.finish());
        let compared = compared
            .and_then(|()| if self.done.is_multiple_of(compare_every) { self.compare() } else { Ok(()) });
        compared.map_err(|wrong| self.explain(&wrong))
    }

    fn explain(&self, wrong: &str) -> Wrong {
        let mut text =
            format!("operation {}: {wrong}\nthe last operations, with the time in ms:\n", self.done);
        for (now, operation) in &self.last {
            let _ = writeln!(text, "{now} {operation:?}");
        }
        text
    }

    fn perform(&mut self, operation: &Operation) -> Result<(), Wrong> {
        match *operation {
            Operation::Outbound { flow, signal, segments, bytes, late } => {
                self.outbound(&flow, &Passing { signal, segments, bytes, packet: &self.text() }, late)
            }
            Operation::Inbound { flow, signal, segments, bytes, late } => {
                self.inbound(&flow, &Passing { signal, segments, bytes, packet: &self.text() }, late)
            }
            Operation::FindOutbound(flow) => self.find_outbound(&flow),
            Operation::FindInbound(flow) => self.find_inbound(&flow),
            Operation::Wait(millis) => {
                self.now += millis;
                let tick = self.tick();
                self.model.wake(tick);
                Ok(())
            }
            Operation::Expire(budget) => self.expire(budget),
            Operation::Grant { host, class } => self.grant(host, class),
            Operation::Give { host, address, first_port, size } => {
                self.give(host, &block(address, first_port, size))
            }
            Operation::TakeBack(at) => self.take_back(at),
            Operation::TakeIdle(limit) => self.take_idle(limit),
            Operation::End(at) => self.end(at),
            Operation::Rebuild => {
                self.rebuild();
                Ok(())
            }
            Operation::AddStatic { flow, outside } => self.add_static(&forward(&flow, outside)),
            Operation::RemoveStatic { flow, outside } => self.remove_static(&forward(&flow, outside)),
            Operation::Report { session, ago, packets, bytes } => self.report(session, ago, packets, bytes),
            Operation::DrainEvents => self.drain_events(),
        }
    }

    /// What each operation has done: its events, and that it wants nothing sent.
    pub(super) fn finish(&mut self) -> Result<(), Wrong> {
        if let Some(output) = self.engine.poll_output(self.at()) {
            return Err(format!("{output:?} has no cause"));
        }
        let happened = std::mem::take(&mut self.model.happened);
        self.model.queue.push(happened, self.model.config.events);
        if self.engine.contended() > 0 || self.engine.outputs_lost() > 0 || self.engine.most_touched() > 256 {
            return Err("one thread waits for itself, loses outputs, or does too much at once".into());
        }
        let lost = self.engine.events_lost();
        if lost > self.lost {
            self.lost = lost;
            self.count("events: lost");
        }
        if lost != self.model.queue.lost {
            return Err(format!("{lost} events are lost instead of {}", self.model.queue.lost));
        }
        Ok(())
    }

    /// The packet's text is what a stored SYN is known by, so no two are the same.
    fn text(&self) -> [u8; 8] {
        self.done.to_be_bytes()
    }

    fn outbound(&mut self, flow: &Outbound, packet: &Passing<'_>, late: u64) -> Result<(), Wrong> {
        let now = Timestamp::from_millis(self.now - late);
        self.engine.warm_outbound(&[*flow], now);
        let answer = self.engine.outbound(flow, packet, now);
        let waited = self.model.stored.len();
        let tick = tick(now);
        let known = self.model.binding(Inside::from(flow)).is_some();
        let rests = self.rests(flow, tick);
        self.model.outbound(flow, packet, tick, &answer)?;
        if let Ok(Mapped { created: true, address, port, .. }) = answer
            && !known
        {
            let outside = Outside { address, port };
            let rest = self.model.rest(flow.protocol);
            match rests.iter().find(|(rested, _)| *rested == outside) {
                Some((_, since)) if *since == rest + 1 => self.count("port: as soon as it has rested"),
                Some((_, since)) if *since <= rest => self.count("port: of too many that rest"),
                _ => {}
            }
            if rests.iter().any(|(_, since)| *since == rest) {
                self.count("port: one in the last tick of its rest is passed over");
            }
            let is_even = flow.port.is_multiple_of(2) == port.is_multiple_of(2);
            self.count(if is_even { "port: same parity" } else { "port: other parity" });
            let lanes = self.model.config.lanes;
            if lanes.count() > 1 {
                let out = lanes.of_outbound(flow.host, flow.port, 0);
                let is_one = out == lanes.of_inbound(address, port, 0);
                self.count(if is_one { "port: same lane" } else { "port: other lane" });
            }
            let is_kept = PortClass::of(flow.port) == PortClass::of(port);
            self.count(if is_kept { "port: same class" } else { "port: other class" });
        }
        if let Ok(Mapped { created, port, wants_block: Some(class), .. }) = answer
            && (known || !created || PortClass::of(port) != class)
        {
            return Err(format!("{answer:?} wants a block for nothing"));
        }
        self.model.asked = match answer {
            Err(Refused::NeedsBlock(class)) | Ok(Mapped { wants_block: Some(class), .. }) => {
                Some((flow.host, class))
            }
            _ => None,
        };
        self.count(match answer {
            Ok(Mapped { wants_block: Some(PortClass::High), .. }) => "outbound: wants a block",
            Ok(Mapped { wants_block: Some(PortClass::Low), .. }) => "outbound: wants a low block",
            Ok(_) if self.model.stored.len() < waited => "outbound: takes up a stored SYN",
            Ok(Mapped { created: true, .. }) if known => "outbound: session of a binding",
            Ok(Mapped { created: true, .. }) => "outbound: session and binding",
            Ok(Mapped { session: None, .. }) => "outbound: no session",
            Ok(_) => "outbound: forwarded",
            Err(Refused::NeedsBlock(PortClass::High)) => "outbound: needs a block",
            Err(Refused::NeedsBlock(PortClass::Low)) => "outbound: needs a low block",
            Err(Refused::NoSession) => "outbound: no session, refused",
            Err(Refused::SessionQuota) => "outbound: session quota",
            Err(Refused::RateQuota) => "outbound: rate quota",
            Err(Refused::TableFull) => "outbound: table full",
            Err(refused) => return Err(format!("{refused:?} to a host")),
        });
        Ok(())
    }

    /// The ports of this host that have been freed, and how many ticks ago.
    fn rests(&self, flow: &Outbound, tick: u64) -> Vec<(Outside, u64)> {
        let rests = self.model.rests.iter().filter(|rest| {
            rest.protocol == flow.protocol
                && self.model.blocks_of(flow.host).any(|block| block.holds(rest.outside))
        });
        rests.map(|rest| (rest.outside, tick.saturating_sub(rest.freed))).collect()
    }

    fn inbound(&mut self, flow: &Inbound, packet: &Passing<'_>, late: u64) -> Result<(), Wrong> {
        let now = Timestamp::from_millis(self.now - late);
        self.engine.warm_inbound(&[*flow]);
        let answer = self.engine.inbound(flow, packet, now);
        let waited = self.model.stored.len();
        let tick = tick(now);
        let signal = packet.signal;
        self.model.inbound(flow, packet, tick, &answer)?;
        self.count(match answer {
            Ok(Reached { created: true, .. }) => "inbound: session",
            Ok(Reached { session: None, .. }) => "inbound: no session",
            Ok(_) => "inbound: forwarded",
            Err(Refused::NoSession) => "inbound: no session, refused",
            Err(Refused::SessionQuota) => "inbound: session quota",
            Err(Refused::RateQuota) => "inbound: rate quota",
            Err(Refused::TableFull) => "inbound: table full",
            Err(Refused::NoBinding) if signal == Signal::Syn => "inbound: no binding, SYN",
            Err(Refused::NoBinding) => "inbound: no binding",
            Err(Refused::Filtered) if signal == Signal::Syn => "inbound: filtered, SYN",
            Err(Refused::Filtered) => "inbound: filtered",
            Err(Refused::Stored) if self.model.stored.len() > waited => "inbound: stored",
            Err(Refused::Stored) => "inbound: stored again",
            Err(Refused::NeedsBlock(_)) => return Err("a remote needs no block".into()),
        });
        Ok(())
    }

    fn find_outbound(&mut self, flow: &Outbound) -> Result<(), Wrong> {
        let found = self.engine.find_outbound(flow);
        let inside = Inside::from(flow);
        let expected = self.model.session(inside, Remote::from(flow)).map(|index| {
            let outside = self.model.outside_of(inside);
            Mapped {
                address: outside.address,
                port: outside.port,
                session: Some(self.model.sessions[index].reference),
                created: false,
                wants_block: None,
            }
        });
        self.count(if found.is_some() { "find outbound: found" } else { "find outbound: nothing" });
        if found == expected { Ok(()) } else { Err(format!("{found:?} instead of {expected:?}")) }
    }

    fn find_inbound(&mut self, flow: &Inbound) -> Result<(), Wrong> {
        let found = self.engine.find_inbound(flow);
        let expected = self.model.binding_of(flow.protocol, Outside::from(flow)).and_then(|binding| {
            let index = self.model.session(binding.inside, Remote::from(flow))?;
            Some(Reached {
                prefix: binding.inside.prefix,
                host: binding.inside.host,
                port: binding.inside.port,
                session: Some(self.model.sessions[index].reference),
                created: false,
            })
        });
        self.count(if found.is_some() { "find inbound: found" } else { "find inbound: nothing" });
        if found == expected { Ok(()) } else { Err(format!("{found:?} instead of {expected:?}")) }
    }
}

fn forward(flow: &Outbound, outside: Outside) -> StaticBinding {
    StaticBinding {
        prefix: flow.prefix,
        protocol: flow.protocol,
        address: outside.address,
        port: outside.port,
        host: flow.host,
        host_port: flow.port,
    }
}
