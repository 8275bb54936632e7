//! What is measured, in which order, and what is promised of it.

use std::fs;
use std::num::NonZero;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use fast_nat::Timestamp;
use fast_nat::nat64::{Nat64, Protocol};
use ipnet::Ipv4Net;

use crate::arrivals::{self, Arrivals, Pace};
use crate::clock::Cost;
use crate::held::Held;
use crate::leases::{Addresses, Blocks, OF_ORIGINAL, Original};
use crate::lookups::{self, Figures, LOOKUPS};
use crate::machine;
use crate::parallel;
use crate::report::{Limit, Report};
use crate::router::Router;
use crate::traffic::{HOSTS, Shape};

/// The most bytes that a session may take, with its share of everything.
const BYTES: f64 = 160.0;
/// How much more a look-up may cost among all sessions than among [`FEW`].
const LOOKUP_RATIO: f64 = 4.0;
const FEW: u32 = 1000;
/// The most entries that one call may touch.
const STEPS: f64 = 256.0;
/// New sessions per second of one core.
const RATE: f64 = 500_000.0;
/// How much more a lease may cost in a /12 than in a /24.
const LEASE_RATIO: f64 = 1.5;

/// Ticks of one round of the steady state: 500,000 sessions.
const ROUND: usize = 500;
/// Sessions that two threads look up.
const SHARED: u32 = 1_000_000;

/// A part of the benchmark that can be run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// What the sessions weigh, and what it costs to find one.
    Sessions,
    /// New sessions in a steady state.
    Arrivals,
    /// Leases of addresses and of port blocks.
    Leases,
    /// Several threads.
    Parallel,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [Self::Sessions, Self::Arrivals, Self::Leases, Self::Parallel];
}

/// The parts write into one report.
#[derive(Debug)]
pub(crate) struct Suite {
    rounds: u32,
    sessions: u32,
    random: fastrand::Rng,
    report: Report,
    most_touched: u64,
}

impl Suite {
    pub(crate) fn new(rounds: u32, sessions: u32, seed: u64) -> Result<Self> {
        let mut report = Report::default();
        let processors = available_parallelism().map_or(1, NonZero::get);
        let load = fs::read_to_string("/proc/loadavg").context("cannot read the load average")?;
        report.note(format!(
            "{processors} processors ({}), load average {}",
            processor(),
            load.split(' ').next().unwrap_or_default()
        ));
        report.note(format!(
            "Median (least to most) of {rounds} rounds; what is compared takes turns. Times are processor time of the \
             thread unless\nthey are called wall time. Bytes and entries are the same on every machine; times are this \
             machine's, and if other\nprograms share its processors, theirs too: ratios of one run can be compared, times \
             of two runs hardly."
        ));
        Ok(Self { rounds, sessions, random: fastrand::Rng::with_seed(seed), report, most_touched: 0 })
    }

    pub(crate) fn run(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Sessions => self.held_sessions(),
            Part::Arrivals => self.arrivals(),
            Part::Leases => self.leases(),
            Part::Parallel => self.parallel(),
        }
    }

    /// What the times above depend on.
    pub(crate) fn machine(&mut self) -> Result<()> {
        let reads = machine::measure(self.rounds, &mut self.random)?;
        self.report.section("This machine at the moment: a random read in 256 MiB");
        self.report.row("one after the other", "ns", cpu(&reads.in_turn))?;
        self.report.row("side by side", "ns", cpu(&reads.side_by_side))?;
        Ok(())
    }

    /// All that is promised is judged; the report is complete.
    pub(crate) fn finish(mut self) -> Result<Report> {
        if self.most_touched > 0 {
            self.report.section("Steps");
            let most = self.report.row(
                "the most entries that one call has touched",
                "",
                [self.most_touched as f64],
            )?;
            self.report.bound("entries touched by one call", most, Limit::AtMost, STEPS);
        }
        self.report.print_bounds();
        Ok(self.report)
    }

    fn note_steps(&mut self, nat: &Nat64) {
        self.most_touched = self.most_touched.max(nat.most_touched());
    }

    fn held_sessions(&mut self) -> Result<()> {
        let shapes = [
            (1, Protocol::Tcp, "TCP, a source port for each session"),
            (8, Protocol::Udp, "UDP, eight sessions of each source port"),
        ];
        for (per_port, protocol, name) in shapes {
            let large = Shape { sessions: self.sessions, hosts: HOSTS, per_port, protocol };
            let small = Shape { sessions: FEW, hosts: 10, per_port, protocol };
            let large = Held::new(large)?;
            let small = Held::new(small)?;
            self.weight(&large, name)?;
            self.report.section(format!("Look-ups of held sessions: {name}"));
            for figures in lookups::measure(&small, &large, self.rounds, &mut self.random)? {
                self.lookup(&figures, name)?;
            }
            self.note_steps(&large.router.nat);
            self.note_steps(&small.router.nat);
        }
        Ok(())
    }

    fn weight(&mut self, held: &Held, name: &str) -> Result<()> {
        let report = &mut self.report;
        report.section(format!("Memory of {} sessions of {HOSTS} hosts: {name}", held.shape.sessions));
        let each = f64::from(held.shape.sessions);
        let bytes = report.row("everything", "bytes per session", [held.bytes_per_session()])?;
        report.row("before the first session", "bytes per session", [held.empty as f64 / each])?;
        report.row(
            "at its worst while they grew, from a quarter on",
            "bytes per session",
            [held.worst_growing],
        )?;
        let usage = held.router.nat.usage();
        report.row("bindings", "", [f64::from(usage.bindings)])?;
        report.row("port blocks", "", [f64::from(usage.blocks)])?;
        report.bound(format!("bytes per session: {name}"), bytes, Limit::AtMost, BYTES);
        Ok(())
    }

    fn lookup(&mut self, figures: &Figures, name: &str) -> Result<()> {
        let Figures { way, small, large } = figures;
        let (report, many) = (&mut self.report, self.sessions);
        for (costs, of) in [(small, FEW), (large, many)] {
            report.row(format!("{}, of {of}", way.name()), "ns", cpu(costs))?;
            let wall = costs.iter().map(|cost| cost.wall);
            report.row(format!("{}, of {of}, wall time", way.name()), "ns", wall)?;
        }
        let ratios = small.iter().zip(large).map(|(small, large)| large.cpu / small.cpu);
        let ratio = report.row(format!("{}: ratio", way.name()), "", ratios)?;
        if way.batched {
            let direction = if way.outbound { "outbound" } else { "inbound" };
            let about = format!("look-ups, {direction}, {FEW} to {many}: {}", name.get(..3).unwrap_or(name));
            report.bound(about, ratio, Limit::AtMost, LOOKUP_RATIO);
        }
        Ok(())
    }

    fn arrivals(&mut self) -> Result<()> {
        let rate = self.steady(Pace::SHORT, "short timers")?;
        self.report.bound("new sessions per second of one core", rate, Limit::AtLeast, RATE);
        self.steady(Pace::LONG, "the RFCs' timers")?;
        Ok(())
    }

    /// Says how many sessions a second of processor time is enough for.
    fn steady(&mut self, pace: Pace, timers: &str) -> Result<f64> {
        let router = Router::new(pace.room, pace.timers)?;
        let mut steady = Arrivals::new(router, Timestamp::from_millis(0), pace, self.random.fork())?;
        let rounds = (0..self.rounds).map(|_| steady.run(ROUND)).collect::<Result<Vec<_>>>()?;
        let report = &mut self.report;
        report.section(format!("New sessions in a steady state, {timers}: {HOSTS} hosts, TCP and UDP"));
        let per_second =
            |cost: fn(&arrivals::Round) -> f64| rounds.iter().map(move |round| 1e9 / cost(round));
        let unit = "sessions per second";
        let rate = report.row("begun and ended by one core", unit, per_second(|round| round.each().cpu))?;
        report.row("by wall time", unit, per_second(|round| round.each().wall))?;
        let life = per_second(|round| round.whole_life().cpu);
        report.row("with answers and closing packets", unit, life)?;
        let parts: [(_, Share); 4] = [
            ("to begin, blocks included", |round| round.begin),
            ("to be answered", |round| round.answer),
            ("to be closed (half of them, two packets)", |round| round.close),
            ("to end, blocks taken back included", |round| round.end),
        ];
        for (name, part) in parts {
            report.row(
                name,
                "ns per session",
                rounds.iter().map(|round| part(round).each(round.sessions).cpu),
            )?;
        }
        report.row("held", "sessions", rounds.iter().map(|round| round.held as f64))?;
        report.row("leased", "blocks per round", rounds.iter().map(|round| round.blocks as f64))?;
        let bytes = rounds.iter().map(|round| round.bytes as f64 / round.held as f64);
        report.row("memory", "bytes per session", bytes)?;
        self.note_steps(&steady.router.nat);
        Ok(rate)
    }

    fn leases(&mut self) -> Result<()> {
        self.report.section("Leases of addresses: one taken and ended, by the size of the pool");
        let (mut small, mut large) = (Addresses::new(net(24)?, 0)?, Addresses::new(net(12)?, 0)?);
        self.lease_pair("an address", ["in a /24", "in a /12"], true, || Ok([small.run()?, large.run()?]))?;
        let nearly_full = |length: u8| Addresses::new(net(length)?, usable(length) - 128);
        let (mut small, mut large) = (nearly_full(24)?, nearly_full(12)?);
        let names = ["in a /24 that is full but for 128", "in a /12 that is full but for 128"];
        self.lease_pair("an address", names, false, || Ok([small.run()?, large.run()?]))?;
        drop((small, large));

        self.report.section(
            "The same by the original crate: one taken, the pool nearly full; it ends none by itself",
        );
        let standing = |length: u8| usable(length) - OF_ORIGINAL * self.rounds.min(9);
        let lengths = [24, 22, 20, 18];
        let originals = lengths.map(|length| Original::new(net(length)?, standing(length)));
        let mut originals = originals.into_iter().collect::<Result<Vec<_>>>()?;
        let mut costs = vec![Vec::new(); lengths.len()];
        // It has no more addresses in a /24 than nine rounds take.
        for _ in 0..self.rounds.min(9) {
            for (original, costs) in originals.iter_mut().zip(&mut costs) {
                costs.push(original.run()?);
            }
        }
        for (length, costs) in lengths.iter().zip(&costs) {
            self.report.row(format!("an address in a /{length}"), "ns", cpu(costs))?;
        }

        self.report.section("Leases of port blocks: one taken and taken back, by the size of the pool");
        for standing in [0, HOSTS] {
            let (mut small, mut large) =
                (Blocks::new("10.0.0.0/24", standing)?, Blocks::new("10.0.0.0/12", standing)?);
            let beside = |length| format!("in a /{length}, beside {standing}");
            let names = [beside(24), beside(12)];
            self.lease_pair("a block", [&names[0], &names[1]], true, || Ok([small.run()?, large.run()?]))?;
            self.note_steps(&small.nat);
            self.note_steps(&large.nat);
        }
        Ok(())
    }

    /// Two pools take turns.
    fn lease_pair(
        &mut self,
        what: &str,
        names: [&str; 2],
        is_promised: bool,
        mut run: impl FnMut() -> Result<[Cost; 2]>,
    ) -> Result<()> {
        let rounds = (0..self.rounds).map(|_| run()).collect::<Result<Vec<_>>>()?;
        for (side, name) in names.iter().enumerate() {
            self.report.row(format!("{what} {name}"), "ns", rounds.iter().map(|round| round[side].cpu))?;
        }
        let ratios = rounds.iter().map(|[small, large]| large.cpu / small.cpu);
        let ratio = self.report.row("ratio", "", ratios)?;
        if is_promised {
            let about = format!("times the cost of {what} {}, {}", names[0], names[1]);
            self.report.bound(about, ratio, Limit::AtMost, LEASE_RATIO);
        }
        Ok(())
    }

    fn parallel(&mut self) -> Result<()> {
        // Connections outlive what is measured, in virtual time too.
        let shape = Shape { sessions: SHARED, hosts: HOSTS, per_port: 1, protocol: Protocol::Tcp };
        let held = Held::with_room(shape, SHARED + Pace::LONG.room)?;
        let keys = [(); 2].map(|()| held.outbound_keys(LOOKUPS, &mut self.random));
        let mut steady = Arrivals::new(held.router, held.now, Pace::LONG, self.random.fork())?;
        let figures = parallel::measure(&mut steady, &keys, self.rounds)?;
        self.report.section(format!(
            "Look-ups among {SHARED} connections, in batches, while others are made (four ways take turns)"
        ));
        for (crew, rounds) in &figures {
            let report = &mut self.report;
            let name = crew.name();
            let millions = rounds.iter().map(|round| round.per_second / 1e6);
            report.row(format!("{name}: wall time"), "million look-ups per second", millions)?;
            report.row(format!("{name}: a look-up"), "ns", rounds.iter().map(|round| round.nanoseconds))?;
            let contended = rounds.iter().map(|round| round.contended);
            report.row(format!("{name}: locks waited for"), "per million packets", contended)?;
            if crew.writer {
                let sessions = rounds.iter().map(|round| round.sessions);
                report.row(format!("{name}: beside"), "new sessions per second", sessions)?;
            }
        }
        for pair in figures.chunks(2) {
            let [(crew, one), (_, two)] = pair else { continue };
            let ratios = one.iter().zip(two).map(|(one, two)| two.per_second / one.per_second);
            let beside = if crew.writer { ", beside one that makes sessions" } else { "" };
            self.report.row(format!("two threads by one{beside}: ratio"), "", ratios)?;
        }
        self.note_steps(&steady.router.nat);
        Ok(())
    }
}

/// What a session cost in one respect.
type Share = fn(&arrivals::Round) -> Cost;

fn cpu(costs: &[Cost]) -> impl Iterator<Item = f64> {
    costs.iter().map(|cost| cost.cpu)
}

fn net(length: u8) -> Result<Ipv4Net> {
    Ok(Ipv4Net::new([10, 0, 0, 0].into(), length)?)
}

/// Addresses that can be leased.
fn usable(length: u8) -> u32 {
    (1 << (32 - length)) - 2
}

fn processor() -> String {
    let all = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = all.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "of an unknown kind".to_owned(), |(_, name)| name.to_owned())
}
