//! A steady state in which as many sessions begin as end.
//!
//! Time is virtual: a tick of 100 ms has [`PER_TICK`] new sessions, of hosts chosen at random, each from a source port that its
//! host has not used for a long time, to a remote chosen at random. In each tick:
//!
//! 1. the sessions begin, half of them TCP and half UDP, with as many blocks leased as are needed for that;
//! 2. those that began one tick before are answered;
//! 3. the TCP connections that began [`LIFE`] ticks before are closed from both sides;
//! 4. what is over ends, and once a second the blocks that have become idle are taken back.
//!
//! All packets come in batches of 64 that are asked for ahead, as in the router.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use fast_nat::Timestamp;
use fast_nat::nat64::{Inbound, Outbound, Protocol, Signal, Timers};
use serde::Serialize;

use crate::clock::{Cost, Stopwatch};
use crate::router::Router;
use crate::traffic::{BATCH, HOSTS, answer, opening, outbound, passing};

/// Milliseconds of a tick.
const TICK: u64 = 100;
const TICKS_PER_SECOND: u64 = 10;

/// New sessions in a tick: 10,000 in a second, one of each host.
const PER_TICK: usize = 1000;

/// Ticks between the first packet of a TCP connection and the last.
const LIFE: usize = 60;

/// Where the hosts' source ports begin: sessions that were there before have lower ones.
const FIRST_PORT: u32 = 1000;

/// How long sessions are kept, and so how many there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) timers: Timers,
    /// Ticks until as many sessions end as begin, and as many ports are done with resting as begin to rest.
    warm_up: usize,
    /// More sessions than there will be.
    pub(crate) room: u32,
}

impl Pace {
    /// Timers that are shorter than the RFCs allow: about 380,000 sessions.
    pub(crate) const SHORT: Self = Self {
        timers: Timers {
            tcp_transitory: Duration::from_secs(30),
            udp: Duration::from_secs(40),
            port_rest: Duration::from_secs(15),
            tcp_port_rest: Duration::from_secs(15),
            block_idle: Duration::from_secs(15),
            ..Timers::DEFAULT
        },
        warm_up: 700,
        room: 1_000_000,
    };

    /// The RFCs' timers: about 2.7 million sessions.
    pub(crate) const LONG: Self = Self { timers: Timers::DEFAULT, warm_up: 4700, room: 4_000_000 };
}

/// The most steps of `expire` in one tick: far more than are needed.
const STEPS: usize = 100_000;

/// A tick's sessions, and what they got.
#[derive(Debug, Clone, Default)]
struct Tick {
    flows: Vec<Outbound>,
    mapped: Vec<(Ipv4Addr, u16)>,
}

/// The cost of a new session, by what was done for it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Round {
    pub(crate) begin: Cost,
    pub(crate) answer: Cost,
    pub(crate) close: Cost,
    pub(crate) end: Cost,
    pub(crate) sessions: usize,
    /// Sessions held after the round.
    pub(crate) held: u64,
    /// Bytes of the engine and its pool after the round.
    pub(crate) bytes: usize,
    /// Blocks leased in the round.
    pub(crate) blocks: u64,
}

impl Round {
    /// What a new session costs: to begin, and to end.
    pub(crate) fn each(&self) -> Cost {
        (self.begin + self.end).each(self.sessions)
    }

    /// The same with the other packets of its life.
    pub(crate) fn whole_life(&self) -> Cost {
        self.each() + (self.answer + self.close).each(self.sessions)
    }
}

/// The steady state.
#[derive(Debug)]
pub(crate) struct Arrivals {
    pub(crate) router: Router,
    /// The current one, since the beginning of time.
    tick: u64,
    random: fastrand::Rng,
    /// The next source port of each host.
    ports: Vec<u32>,
    /// The latest ticks: a ring.
    ticks: Vec<Tick>,
    closing: Vec<Outbound>,
    coming: Vec<Inbound>,
    /// Bytes of all these lists.
    own: usize,
}

impl Arrivals {
    /// Begins at `start`, and lets pass as much time as it takes until the number of sessions is steady.
    pub(crate) fn new(router: Router, start: Timestamp, pace: Pace, random: fastrand::Rng) -> Result<Self> {
        let before = router.bytes();
        let ports = vec![FIRST_PORT; HOSTS as usize];
        let empty = || Tick { flows: Vec::with_capacity(PER_TICK), mapped: Vec::with_capacity(PER_TICK) };
        let ticks = (0..=LIFE).map(|_| empty()).collect();
        let (closing, coming) = (Vec::with_capacity(PER_TICK), Vec::with_capacity(PER_TICK));
        let own = router.bytes() - before;
        let tick = start.as_millis().div_ceil(TICK);
        let mut arrivals = Self { router, tick, random, ports, ticks, closing, coming, own };
        arrivals.run(pace.warm_up)?;
        Ok(arrivals)
    }

    /// So many ticks more. Choosing who talks to whom is not timed.
    pub(crate) fn run(&mut self, ticks: usize) -> Result<Round> {
        let granted = self.router.granted;
        let mut round = Round::default();
        for _ in 0..ticks {
            self.tick(&mut round)?;
        }
        round.sessions = ticks * PER_TICK;
        round.held = self.router.sessions();
        round.bytes = self.router.bytes() - self.own;
        round.blocks = self.router.granted - granted;
        Ok(round)
    }

    /// The moment of the current tick.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.tick * TICK)
    }

    fn tick(&mut self, round: &mut Round) -> Result<()> {
        self.tick += 1;
        let now = self.now();
        let newest = self.place(0);
        let mut tick = std::mem::take(&mut self.ticks[newest]);
        self.choose(&mut tick.flows);
        tick.mapped.clear();

        let mut clock = Stopwatch::start()?;
        self.begin(&mut tick, now)?;
        round.begin += clock.lap()?;
        self.ticks[newest] = tick;

        self.answer_to(1, |_| true);
        clock.lap()?;
        self.receive(now, opening)?;
        round.answer += clock.lap()?;

        self.answer_to(LIFE, |flow| flow.protocol == Protocol::Tcp);
        let closing = &self.ticks[self.place(LIFE)].flows;
        self.closing.clear();
        self.closing.extend(closing.iter().filter(|flow| flow.protocol == Protocol::Tcp));
        clock.lap()?;
        self.close(now)?;
        self.receive(now, |_| Signal::Fin)?;
        round.close += clock.lap()?;

        self.router.expire(now, STEPS)?;
        if self.tick.is_multiple_of(TICKS_PER_SECOND) {
            self.router.reclaim(now)?;
        }
        round.end += clock.lap()?;
        Ok(())
    }

    /// Where the tick is that was so many ticks ago.
    fn place(&self, ago: usize) -> usize {
        (self.tick as usize + self.ticks.len() - ago) % self.ticks.len()
    }

    fn choose(&mut self, flows: &mut Vec<Outbound>) {
        flows.clear();
        for _ in 0..PER_TICK {
            let host = self.random.u32(..HOSTS);
            let port = &mut self.ports[host as usize];
            *port += 1;
            let protocol = if self.random.bool() { Protocol::Tcp } else { Protocol::Udp };
            flows.push(outbound(protocol, host, *port, self.random.u64(..)));
        }
    }

    fn begin(&mut self, tick: &mut Tick, now: Timestamp) -> Result<()> {
        for batch in tick.flows.chunks(BATCH) {
            self.router.nat.warm_outbound(batch, now);
            for flow in batch {
                let mapped = self.router.begin(flow, &passing(opening(flow.protocol)), now)?;
                ensure!(mapped.created, "a new session was not new");
                tick.mapped.push((mapped.address, mapped.port));
            }
        }
        Ok(())
    }

    /// Prepares the packets that come back to the sessions of a tick.
    fn answer_to(&mut self, ago: usize, which: impl Fn(&Outbound) -> bool) {
        let tick = &self.ticks[self.place(ago)];
        self.coming.clear();
        for (flow, (address, port)) in tick.flows.iter().zip(&tick.mapped).filter(|(flow, _)| which(flow)) {
            self.coming.push(answer(flow, *address, *port));
        }
    }

    fn receive(&self, now: Timestamp, signal: impl Fn(Protocol) -> Signal) -> Result<()> {
        let nat = &self.router.nat;
        for batch in self.coming.chunks(BATCH) {
            nat.warm_inbound(batch);
            for flow in batch {
                let reached = nat.inbound(flow, &passing(signal(flow.protocol)), now);
                ensure!(reached.is_ok_and(|reached| !reached.created), "a packet that came back was refused");
            }
        }
        Ok(())
    }

    fn close(&self, now: Timestamp) -> Result<()> {
        let nat = &self.router.nat;
        for batch in self.closing.chunks(BATCH) {
            nat.warm_outbound(batch, now);
            for flow in batch {
                let mapped = nat.outbound(flow, &passing(Signal::Fin), now);
                ensure!(mapped.is_ok_and(|mapped| !mapped.created), "the end of a connection was refused");
            }
        }
        Ok(())
    }
}
