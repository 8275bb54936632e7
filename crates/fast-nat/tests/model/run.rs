//! Does one operation after another to the engine and to the model, and compares.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::api::{
    Block, BlockPool, BlockPoolConfig, BlockRef, BlockRefusal, Granted, Inbound, Mapped, Nat64, NatConfig,
    Outbound, Output, Passing, PortClass, PortNet, Reached, Refused, Seen, SessionState, Signal,
    StaticBinding, Timestamp,
};

use super::events::{Happened, Kind};
use super::operation::{Operation, STATICS, decide};
use super::source::Source;
use super::{Inside, Model, Outside, Remote, Wrong, outbound_of, tick, ticks};

/// Operations that are shown when something differs.
const SHOWN: usize = 30;

/// How the engine and its pool are set up.
#[derive(Debug, Clone)]
pub struct Setup {
    pub name: &'static str,
    pub nat: NatConfig,
    pub pool: BlockPoolConfig,
}

/// How often each kind of outcome was reached.
pub type Counts = BTreeMap<&'static str, u64>;

/// An engine, its pool, and the model.
pub struct Run {
    pub engine: Nat64,
    pub pool: BlockPool,
    pub pool_config: BlockPoolConfig,
    pub model: Model,
    pub now: u64,
    pub counts: Counts,
    pub done: u64,
    lost: u64,
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
            model: Model::new(setup.nat.clone()),
            // Not zero: nothing in the rules starts with the clock.
            now: 12_345_678,
            counts: Counts::new(),
            done: 0,
            lost: 0,
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
            text += &format!("{now} {operation:?}\n");
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
    fn finish(&mut self) -> Result<(), Wrong> {
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
        self.engine.warm_outbound(&[*flow]);
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
            let is_kept = PortClass::of(flow.port) == PortClass::of(port);
            self.count(if is_kept { "port: same class" } else { "port: other class" });
        }
        if let Ok(Mapped { created, port, wants_block: Some(class), .. }) = answer
            && (known || !created || PortClass::of(port) != class)
        {
            return Err(format!("{answer:?} wants a block for nothing"));
        }
        self.model.asked = match answer {
            Err(Refused::NeedsBlock(class)) => Some((flow.host, class)),
            Ok(Mapped { wants_block: Some(class), .. }) => Some((flow.host, class)),
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

    fn expire(&mut self, budget: Option<usize>) -> Result<(), Wrong> {
        let (now, tick) = (self.at(), self.tick());
        let mut more = self.engine.expire(now, budget.unwrap_or(8));
        if budget.is_none() {
            let mut calls = 1;
            while more {
                more = self.engine.expire(now, 8);
                calls += 1;
                if calls > 100_000 {
                    return Err("expire comes to no end".into());
                }
            }
        }
        let mut visited = 0;
        let mut probed = Vec::new();
        // Backwards, since what ends leaves the list.
        for index in (0..self.model.sessions.len()).rev() {
            let reference = self.model.sessions[index].reference;
            match self.engine.session(reference) {
                None => {
                    let session = &self.model.sessions[index];
                    if tick - session.seen == self.model.lifetime(session) + 1 {
                        self.count("expire: session, as soon as it is over");
                    }
                    self.model.expired(index, tick)?;
                    self.count("expire: session");
                    visited += 1;
                }
                Some(view) => {
                    let session = &self.model.sessions[index];
                    if tick.saturating_sub(session.seen) == self.model.lifetime(session) {
                        self.count("expire: session in its last tick stays");
                    }
                    if view.state == SessionState::Trans
                        && self.model.sessions[index].state == SessionState::Established
                    {
                        self.model.probed(index, tick)?;
                        let session = &self.model.sessions[index];
                        probed.push(outbound_of(session.inside, session.remote));
                        self.count("expire: probe");
                        visited += 1;
                    }
                }
            }
        }
        while let Some(output) = self.engine.poll_output(now) {
            match output {
                Output::Probe(flow) => {
                    let Some(at) = probed.iter().position(|probed| *probed == flow) else {
                        return Err(format!("a probe of {flow:?} without a cause"));
                    };
                    probed.swap_remove(at);
                }
                Output::Unreachable(packet) => {
                    self.model.given_up(&packet, tick)?;
                    self.count("expire: stored SYN");
                    visited += 1;
                }
            }
        }
        if !probed.is_empty() {
            return Err(format!("{probed:?} were not probed"));
        }
        if budget.is_some_and(|budget| visited > budget.max(1)) {
            return Err(format!("{visited} entries visited with a budget of {budget:?}"));
        }
        let lasts = ticks(self.model.config.timers.tcp_incoming_syn);
        if self.model.stored.iter().any(|syn| tick.saturating_sub(syn.since) == lasts) {
            self.count("expire: stored SYN in its last tick stays");
        }
        if !more && let Some(overdue) = self.model.overdue(tick) {
            return Err(format!("expire leaves, in tick {tick}, {overdue}"));
        }
        self.count(if more { "expire: more is due" } else { "expire: nothing is due" });
        Ok(())
    }

    fn give(&mut self, host: Ipv6Addr, block: &Block) -> Result<(), Wrong> {
        let end = u32::from(block.first_port) + u32::from(block.size);
        let overlaps = self.model.blocks.iter().any(|other| {
            other.address == block.address
                && u32::from(other.first_port) < end
                && block.first_port <= other.last_port()
        });
        // The pool takes a block for one of its own by its first port.
        let is_ragged = self.pool_config.nets.iter().any(|net| {
            u32::from(net.first_port & !15) < end
                && block.first_port <= net.last_port | 15
                && (block.size != 16 || !block.first_port.is_multiple_of(16))
        });
        // Nor does it use a network's first and last address.
        let is_edge = self.pool_config.nets.iter().any(|PortNet { net, .. }| {
            net.prefix_len() < 31 && [net.network(), net.broadcast()].contains(&block.address)
        });
        if overlaps || is_ragged || is_edge {
            // The engine takes the caller's word that nobody has the block.
            return Ok(());
        }
        let answer = self.engine.give_block(host, block, self.at());
        let now = self.at();
        self.model.give(host, block, now, &answer)?;
        self.count(match answer {
            Ok(_) => "give: given",
            Err(super::api::GiveError::Full) => "give: full",
            Err(super::api::GiveError::TooMany) => "give: too many",
            Err(super::api::GiveError::OtherAddress(_)) => "give: other address",
            Err(super::api::GiveError::NotABlock) => "give: not a block",
        });
        if answer.is_ok() {
            self.rebuild();
        }
        Ok(())
    }

    fn rebuild(&mut self) {
        self.pool.rebuild(&self.engine);
        self.count("rebuild");
    }

    fn add_static(&mut self, forward: &StaticBinding) -> Result<(), Wrong> {
        let goes_on =
            self.model.binding(super::leases::inside_of(forward)).is_some_and(|known| !known.is_static);
        let answer = self.engine.add_static(forward, self.at());
        let tick = self.tick();
        self.model.add_static(forward, tick, &answer)?;
        self.count(match answer {
            Ok(()) if goes_on => "static: added again while its sessions go on",
            Ok(()) => "static: added",
            Err(super::api::StaticError::Taken { .. }) => "static: taken",
            Err(super::api::StaticError::Bound { .. }) => "static: bound",
            Err(super::api::StaticError::Full) => "static: full",
        });
        Ok(())
    }

    fn remove_static(&mut self, forward: &StaticBinding) -> Result<(), Wrong> {
        let answer = self.engine.remove_static(forward, self.at());
        let tick = self.tick();
        self.model.remove_static(forward, tick, answer)?;
        self.count(if answer { "static: removed" } else { "static: not there" });
        Ok(())
    }

    fn report(&mut self, session: usize, ago: u64, packets: u32, bytes: u32) -> Result<(), Wrong> {
        let now = self.at();
        let last_seen = Timestamp::from_millis(self.now - ago * 100);
        let seen = Seen {
            last_seen,
            packets: [u64::from(packets), u64::from(packets / 2)],
            bytes: [u64::from(bytes), u64::from(bytes / 2)],
        };
        let Some(live) = self.model.sessions.get(session) else {
            // One that is over: nothing happens.
            if let Some(dead) = self.model.dead.get(session % self.model.dead.len().max(1)) {
                self.engine.report(*dead, &seen);
                if self.engine.session(*dead).is_some() {
                    return Err(format!("{dead:?} is alive again"));
                }
                self.count("report: of a session that is over");
            }
            return Ok(());
        };
        let reference = live.reference;
        self.engine.report(reference, &seen);
        self.model.report(session, &seen);
        self.count("report: of a session");
        let (view, expected) = (self.engine.session(reference), self.model.view(session));
        let _ = now;
        if view == Some(expected) { Ok(()) } else { Err(format!("{view:?} instead of {expected:?}")) }
    }

    fn drain_events(&mut self) -> Result<(), Wrong> {
        self.count("events: drained");
        let mut seen = Vec::new();
        while let Some(event) = self.engine.poll_event() {
            let happened = Happened::from(event);
            self.count(match happened.kind {
                Kind::Started => "event: started",
                Kind::Established => "event: established",
                Kind::Changed => "event: changed",
                Kind::Ended => "event: ended",
            });
            seen.push(happened);
        }
        self.model.queue.drain(seen)
    }
}

/// A block given past the pool. Where a static binding may be, its port is reserved, as the engine asks for.
fn block(address: Ipv4Addr, first_port: u16, size: u16) -> Block {
    let ports = u32::from(first_port)..u32::from(first_port) + u32::from(size);
    let mut reserved = if size > 8 { vec![first_port + 3] } else { Vec::new() };
    let statics = STATICS.iter().filter(|outside| outside.address == address).map(|outside| outside.port);
    reserved.extend(statics.filter(|port| ports.contains(&u32::from(*port))));
    Block { address, first_port, size, reserved }
}

fn blocks_at(model: &Model, reference: BlockRef) -> Option<usize> {
    model.blocks.iter().position(|block| block.reference == reference)
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

impl Run {
    fn grant(&mut self, host: Ipv6Addr, class: PortClass) -> Result<(), Wrong> {
        self.model.asked = None;
        let answer = self.pool.grant(&self.engine, host, class, self.at());
        let now = self.at();
        self.model.grant(&self.pool_config, host, class, now, &answer)?;
        self.count(match answer {
            Ok(Granted::New { first_port, .. }) if PortClass::of(first_port) == class => "grant: a block",
            Ok(Granted::New { .. }) => "grant: a high block for a low one",
            Ok(Granted::Already) => "grant: already",
            Err(BlockRefusal::PoolExhausted) => "grant: pool exhausted",
            Err(BlockRefusal::AddressExhausted(_)) => "grant: address exhausted",
            Err(BlockRefusal::PortQuota { .. }) => "grant: port quota",
            Err(BlockRefusal::NotEligible(_)) => "grant: not eligible",
            Err(BlockRefusal::TableFull) => "grant: table full",
            Err(BlockRefusal::TooManyBlocks) => "grant: too many blocks",
        });
        Ok(())
    }

    fn take_back(&mut self, at: usize) -> Result<(), Wrong> {
        let Some(block) = self.model.blocks.get(at) else { return Ok(()) };
        let (may, must) =
            (self.model.may_leave(block, self.tick()), self.model.must_leave(block, self.tick()));
        let reference = block.reference;
        let lease = self.pool.take_back(&self.engine, reference, self.at());
        match lease {
            None if !must => {
                self.count("take back: in use");
                return Ok(());
            }
            Some(lease) if may && lease.reference == reference => {}
            _ => return Err(format!("{lease:?} of {block:?}, which may leave: {may}, must: {must}")),
        }
        self.count("take back: taken");
        self.model.leave(at);
        // It may be repeated.
        match self.pool.take_back(&self.engine, reference, self.at()) {
            None => Ok(()),
            again => Err(format!("{again:?} was taken back before")),
        }
    }

    fn take_idle(&mut self, limit: usize) -> Result<(), Wrong> {
        let (now, tick) = (self.at(), self.tick());
        let idle = self.engine.idle_blocks(now, limit);
        let blocks = &self.model.blocks;
        let least = blocks.iter().filter(|block| self.model.must_leave(block, tick)).count().min(limit);
        if idle.len() < least || idle.len() > limit {
            return Err(format!("{} idle blocks instead of {least} to {limit}", idle.len()));
        }
        for reference in idle {
            let at = blocks_at(&self.model, reference);
            let Some(at) = at.filter(|at| self.model.may_leave(&self.model.blocks[*at], tick)) else {
                return Err(format!("{reference:?} is not idle"));
            };
            let lease = self.pool.take_back(&self.engine, reference, now);
            if lease.map(|lease| lease.reference) != Some(reference) {
                return Err(format!("{lease:?} instead of {:?}", self.model.blocks[at]));
            }
            self.model.leave(at);
            self.count("take idle: taken");
        }
        Ok(())
    }

    fn end(&mut self, at: usize) -> Result<(), Wrong> {
        let reference = match self.model.sessions.get(at) {
            Some(session) => session.reference,
            None => match self.model.dead.first() {
                Some(dead) => *dead,
                None => return Ok(()),
            },
        };
        let expected = at < self.model.sessions.len();
        let ended = self.engine.end_session(reference, self.at());
        if ended != expected {
            return Err(format!("{ended} instead of {expected}"));
        }
        if expected {
            let tick = self.tick();
            self.model.end_session(at, tick);
        }
        self.count(if expected { "end: ended" } else { "end: over already" });
        Ok(())
    }

    /// The end: what is left is compared, and ends when its time has come.
    pub fn close(&mut self) -> Result<(), Wrong> {
        self.compare()?;
        self.drain_events()?;
        // Long enough for everything, once more for what is probed.
        for _ in 0..2 {
            self.now += 3 * 60 * 60 * 1000;
            self.expire(None)?;
            self.finish()?;
            self.drain_events()?;
        }
        self.compare()?;
        if !self.model.sessions.is_empty() || !self.model.stored.is_empty() {
            return Err("something never ends".into());
        }
        Ok(())
    }
}
