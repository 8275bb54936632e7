//! The order of the measurements: all contenders run, each in a laboratory of its own, and take turns at each load, so
//! that what else the machine does meets them alike.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::contenders::{Contender, Entry, Locks, Role};
use crate::lab::Lab;
use crate::loads::{IDLE_SAMPLES, IDLE_SECONDS, Load};
use crate::measure::{Figure, Sample, Subject, When, rest};
use crate::process::{Output, Process};
use crate::stats::Summary;

/// Of the lowest rate without loss, so many percent are sent while round-trip times under load are measured.
pub(crate) const BACKGROUND_PERCENT: u64 = 80;

/// What is to be measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) loads: Vec<Load>,
    pub(crate) rounds: u32,
    /// How long one measurement takes.
    pub(crate) seconds: u32,
}

impl Plan {
    /// How long that takes with contenders in these roles: each measurement has something to do before and after it.
    pub(crate) fn estimate(&self, roles: impl Iterator<Item = Role>) -> Duration {
        const AROUND: f64 = 0.25;
        let of_one = |load: Load| match load {
            Load::Idle => 0.0,
            // Each rate of the search has an end of its own.
            Load::Throughput { .. } => load.seconds(self.seconds) + AROUND + 0.5,
            _ => load.seconds(self.seconds) + AROUND,
        };
        let round: f64 = roles
            .map(|role| self.loads.iter().filter(|load| role.takes(**load)).copied().map(of_one).sum::<f64>())
            .sum();
        let idle = if self.loads.contains(&Load::Idle) { 2.0 * IDLE_SECONDS } else { 0.0 };
        Duration::from_secs_f64(round * f64::from(self.rounds) + idle)
    }
}

/// All that was found about one contender.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) version: String,
    pub(crate) configuration: String,
    /// Why it could not be measured at all.
    pub(crate) failure: Option<String>,
    pub(crate) measurements: Vec<Measurement>,
    /// What it counted as dropped, by reason.
    pub(crate) drops: BTreeMap<String, u64>,
    /// Locks of its tables that were not free while new connections arrived, all rounds together.
    pub(crate) locks_at_connections: Option<Locks>,
    /// The same of the whole run.
    pub(crate) locks: Option<Locks>,
    /// Lines of its log that say that something is wrong, the first of them, and how often each came.
    pub(crate) complaints: BTreeMap<String, u64>,
}

/// One sample, or why there is none.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    /// From 1. Waiting is no part of the rounds: its samples have numbers of their own.
    pub(crate) round: u32,
    pub(crate) load: Load,
    pub(crate) sample: Option<Sample>,
    pub(crate) failure: Option<String>,
}

impl Measurement {
    fn new(round: u32, load: Load, outcome: Result<Sample>) -> Self {
        match outcome {
            Ok(sample) => Self { round, load, sample: Some(sample), failure: None },
            Err(error) => Self { round, load, sample: None, failure: Some(format!("{error:#}")) },
        }
    }
}

/// So many different lines of its log are kept of each contender.
const COMPLAINTS: usize = 10;

impl Record {
    fn new(entry: &Entry) -> Self {
        let (version, configuration, failure) = match &entry.contender {
            Ok(contender) => (contender.version().to_owned(), contender.configuration(), None),
            Err(error) => (String::new(), String::new(), Some(format!("{error:#}"))),
        };
        Self {
            name: entry.name,
            role: entry.role,
            version,
            configuration,
            failure,
            measurements: Vec::new(),
            drops: BTreeMap::new(),
            locks_at_connections: None,
            locks: None,
            complaints: BTreeMap::new(),
        }
    }

    /// Why there is no sample of this load.
    pub(crate) fn failure_of(&self, load: Load) -> Option<&str> {
        let own = self
            .measurements
            .iter()
            .filter(|found| found.load == load)
            .find_map(|found| found.failure.as_deref());
        own.or(self.failure.as_deref())
    }

    /// One figure of one load, by round.
    pub(crate) fn by_round(&self, load: Load, figure: Figure) -> BTreeMap<u32, f64> {
        let own = self.measurements.iter().filter(|found| found.load == load);
        own.filter_map(|found| Some((found.round, *found.sample.as_ref()?.figures.get(&figure)?))).collect()
    }

    /// One figure of one load.
    pub(crate) fn summary(&self, load: Load, figure: Figure) -> Option<Summary> {
        Summary::of(self.by_round(load, figure).into_values())
    }

    /// The round-trip times of all rounds together.
    pub(crate) fn times(&self, load: Load) -> Option<Histogram<u64>> {
        let own = self.measurements.iter().filter(|found| found.load == load);
        let mut all: Option<Histogram<u64>> = None;
        for times in own.filter_map(|found| found.sample.as_ref()?.times.as_ref()) {
            match &mut all {
                Some(all) => all.add(times).ok()?,
                None => all = Some(times.clone()),
            }
        }
        all
    }

    fn complain(&mut self, output: &Output) {
        let alarming =
            |line: &&str| ["panicked", "WARN", "ERRO", "CRIT"].iter().any(|word| line.contains(word));
        for line in output.lines().filter(alarming) {
            if self.complaints.len() < COMPLAINTS || self.complaints.contains_key(line) {
                *self.complaints.entry(line.to_owned()).or_default() += 1;
            }
        }
    }
}

/// A contender at work.
struct Stand<'e> {
    contender: &'e dyn Contender,
    role: Role,
    lab: Lab,
    process: Option<Process>,
    /// The place of its record.
    place: usize,
}

impl Stand<'_> {
    fn subject(&self) -> Subject<'_> {
        Subject { lab: &self.lab, process: self.process.as_ref() }
    }

    /// What it has counted of its locks. One that does not answer has no figure, and that is told as such.
    fn locks(&self) -> Option<Locks> {
        self.contender.locks(&self.lab).ok().flatten()
    }
}

/// Measures all of them as planned, and tells of each step.
pub(crate) fn run(entries: &[Entry], plan: &Plan, say: impl Fn(&str)) -> Vec<Record> {
    let mut records: Vec<_> = entries.iter().map(Record::new).collect();
    let mut stands = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        if !plan.loads.iter().any(|load| entry.role.takes(*load)) {
            continue;
        }
        let Ok(contender) = &entry.contender else { continue };
        match open(entry, contender.as_ref(), place, &mut records[place]) {
            Ok(stand) => stands.push(stand),
            Err(error) => records[place].failure = Some(format!("{error:#}")),
        }
    }
    idle(&stands, &mut records, plan, When::AtStart, &say);
    for round in 1..=plan.rounds {
        for load in plan.loads.iter().copied().filter(|load| load.is_in_the_rounds()) {
            say(&format!("round {round} of {}: {load}", plan.rounds));
            turn(&stands, &mut records, plan, (round, load), None);
        }
    }
    if plan.loads.contains(&Load::RoundTripLoaded) {
        let background = background(&records);
        if let Some(rate) = background {
            say(&format!("round trips under load are measured beside {rate} datagrams per second"));
        }
        for round in 1..=plan.rounds {
            say(&format!("round {round} of {}: {}", plan.rounds, Load::RoundTripLoaded));
            turn(&stands, &mut records, plan, (round, Load::RoundTripLoaded), background);
        }
    }
    idle(&stands, &mut records, plan, When::AtEnd, &say);
    for stand in stands {
        let record = &mut records[stand.place];
        if let Err(error) = close(stand, record) {
            record.complaints.insert(format!("it did not end well: {error:#}"), 1);
        }
    }
    less_direct(&mut records);
    records
}

/// Measures one load with all contenders, one after the other. Each round begins with another of them: the first one after another
/// load was measured to be up to a tenth slower than the same program as the last one.
fn turn(
    stands: &[Stand<'_>],
    records: &mut [Record],
    plan: &Plan,
    (round, load): (u32, Load),
    background: Option<u64>,
) {
    let taking: Vec<_> = stands.iter().filter(|stand| stand.role.takes(load)).collect();
    for stand in in_turn(&taking, round) {
        let record = &mut records[stand.place];
        // Where new sessions arrive at both workers, and nowhere else: packets of known ones need no lock, and would only thin out
        // what was counted.
        let before = if load == Load::Connections { stand.locks() } else { None };
        let outcome = stand.subject().measure(load, plan.seconds, background);
        if let Some((before, after)) = before.and_then(|before| Some((before, stand.locks()?))) {
            *record.locks_at_connections.get_or_insert_default() += after - before;
        }
        record.measurements.push(Measurement::new(round, load, outcome));
    }
}

/// All of them, another one first in each round; rounds count from 1.
fn in_turn<T>(all: &[T], round: u32) -> impl Iterator<Item = &T> {
    let first = (round as usize).saturating_sub(1).checked_rem(all.len()).unwrap_or_default();
    let (before, after) = all.split_at(first);
    after.iter().chain(before)
}

/// Leaves all alone, if that is asked for.
fn idle(stands: &[Stand<'_>], records: &mut [Record], plan: &Plan, when: When, say: impl Fn(&str)) {
    if !plan.loads.contains(&Load::Idle) {
        return;
    }
    say("leaving all alone");
    let stands: Vec<_> = stands.iter().filter(|stand| stand.role.takes(Load::Idle)).collect();
    let subjects: Vec<_> = stands.iter().map(|stand| stand.subject()).collect();
    for number in 1..=IDLE_SAMPLES {
        let outcomes = rest(&subjects, when, Duration::from_secs_f64(IDLE_SECONDS / f64::from(IDLE_SAMPLES)));
        for (stand, outcome) in stands.iter().zip(outcomes) {
            records[stand.place].measurements.push(Measurement::new(number, Load::Idle, outcome));
        }
    }
}

/// The rate beside which round-trip times are measured: the same for all, and no translator is overloaded by it.
fn background(records: &[Record]) -> Option<u64> {
    let load = Load::Throughput { payload: Load::SMALL };
    let rates = records
        .iter()
        .filter(|record| record.role.is_translator())
        .filter_map(|record| record.summary(load, Figure::LosslessPerSecond))
        .map(|summary| summary.median)
        .filter(|rate| *rate > 0.0);
    let lowest = rates.min_by(f64::total_cmp)?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the search goes from 10,000 to 1,280,000"
    )]
    let lowest = lowest as u64;
    Some(lowest * BACKGROUND_PERCENT / 100)
}

/// Adds to what a datagram costs the machine the same figure less that of the direct way in the same round.
fn less_direct(records: &mut [Record]) {
    let Some(direct) = records.iter().find(|record| record.role == Role::Direct) else { return };
    let mut base = BTreeMap::new();
    for load in Load::ALL {
        for (round, figure) in direct.by_round(load, Figure::MachineMicros) {
            base.insert((load, round), figure);
        }
    }
    for record in records.iter_mut().filter(|record| record.role != Role::Direct) {
        for found in &mut record.measurements {
            let Some(sample) = &mut found.sample else { continue };
            let own = sample.figures.get(&Figure::MachineMicros);
            if let Some((own, base)) = own.zip(base.get(&(found.load, found.round))) {
                sample.figures.insert(Figure::MachineMicrosLessDirect, own - base);
            }
        }
    }
}

/// Starts one contender and sees that packets get through.
fn open<'e>(
    entry: &Entry,
    contender: &'e dyn Contender,
    place: usize,
    record: &mut Record,
) -> Result<Stand<'e>> {
    let lab = entry.lab()?;
    let process = contender.start(&lab)?;
    if let Some(process) = &process {
        // The bare loop translates TCP and UDP only.
        let pinged = entry.role.is_translator().then_some(process);
        let ready = contender.wait_until_ready(&lab, process).and_then(|()| lab.check(pinged));
        if ready.is_err() {
            record.complain(&process.output());
        }
        ready?;
    } else {
        lab.check(None)?;
    }
    Ok(Stand { contender, role: entry.role, lab, process, place })
}

/// Asks one contender what it has counted, and ends it.
fn close(mut stand: Stand<'_>, record: &mut Record) -> Result<()> {
    record.locks = stand.locks();
    let Some(process) = &mut stand.process else { return Ok(()) };
    let counters = stand.contender.counters(&stand.lab);
    process.stop().context("ending it")?;
    record.complain(&process.output());
    record.drops.extend(counters?);
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record with these figures of one load, one of each per round.
    pub(crate) fn record(name: &'static str, role: Role, figures: &[(Load, Figure, &[f64])]) -> Record {
        let mut measurements = Vec::new();
        for (load, figure, rounds) in figures {
            for (round, value) in (1..).zip(*rounds) {
                let sample = Sample { figures: BTreeMap::from([(*figure, *value)]), times: None };
                measurements.push(Measurement::new(round, *load, Ok(sample)));
            }
        }
        Record {
            name,
            role,
            version: "1".to_owned(),
            configuration: String::new(),
            failure: None,
            measurements,
            drops: BTreeMap::new(),
            locks_at_connections: None,
            locks: None,
            complaints: BTreeMap::new(),
        }
    }

    #[test]
    fn the_stream_beside_echoes_is_four_fifths_of_the_slowest_translators_rate() {
        let load = Load::Throughput { payload: 64 };
        let rates = |name, role, rates| record(name, role, &[(load, Figure::LosslessPerSecond, rates)]);
        let records = [
            rates("kernel", Role::Forwarding, &[400_000.0]),
            rates("bare", Role::Bare, &[30_000.0]),
            rates("tayga", Role::Other, &[90_000.0, 100_000.0, 110_000.0]),
            rates("this", Role::Sessions, &[200_000.0]),
            rates("never", Role::Other, &[0.0]),
        ];
        assert_eq!(background(&records), Some(80_000));
        assert_eq!(background(&records[..2]), None, "no translator");
    }

    #[test]
    fn the_direct_way_is_taken_off_in_its_own_round() {
        let load = Load::Bursts;
        let mut records = [
            record("this", Role::Sessions, &[(load, Figure::MachineMicros, &[5.0, 7.0])]),
            record("direct", Role::Direct, &[(load, Figure::MachineMicros, &[2.0, 3.0])]),
        ];
        less_direct(&mut records);
        let found = records[0].by_round(load, Figure::MachineMicrosLessDirect);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(1, 3.0), (2, 4.0)]);
        assert!(records[1].by_round(load, Figure::MachineMicrosLessDirect).is_empty());
    }

    #[test]
    fn each_round_begins_with_another_one_and_has_all() {
        let orders: Vec<Vec<_>> =
            (1..=4).map(|round| in_turn(&["a", "b", "c"], round).copied().collect()).collect();
        assert_eq!(orders, [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]);
        assert_eq!(in_turn::<u8>(&[], 3).count(), 0);
    }

    #[test]
    fn times_of_all_rounds_are_told_together() {
        let mut all = record("this", Role::Sessions, &[]);
        for (round, time) in [(1, 100_000), (2, 300_000)] {
            let mut times = crate::load::echo::histogram().unwrap();
            times.record(time).unwrap();
            let sample = Sample { times: Some(times), ..Sample::default() };
            all.measurements.push(Measurement::new(round, Load::RoundTrip, Ok(sample)));
        }
        let times = all.times(Load::RoundTrip).unwrap();
        assert_eq!((times.len(), times.count_at(100_000), times.count_at(300_000)), (2, 1, 1));
        assert!(all.times(Load::RoundTripLoaded).is_none());
    }

    #[test]
    fn the_estimate_grows_with_rounds_and_contenders() {
        let plan = |rounds| Plan { loads: Load::ALL.to_vec(), rounds, seconds: 1 };
        let one = plan(1).estimate([Role::Sessions].into_iter());
        assert!(plan(7).estimate([Role::Sessions].into_iter()) > one * 5);
        assert!(plan(1).estimate([Role::Sessions, Role::Direct].into_iter()) > one);
    }
}
