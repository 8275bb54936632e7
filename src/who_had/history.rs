//! What records tell of one port: who had it from when to when, and how sure that is.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use super::when::When;
use crate::records::{Event, Line, Stamp};

/// Somebody had the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    /// Who.
    pub host: Ipv6Addr,
    /// The subscriber that the host belongs to.
    pub subscriber: Option<Ipv6Net>,
    /// The ports that it had; `None`: all of the address.
    pub ports: Option<(u16, u16)>,
    /// Since when.
    pub from: Stamp,
    /// How it ended.
    pub end: End,
    /// Which router gave it.
    pub router: String,
    /// Which run of it.
    pub instance: String,
    /// How many records are missing that might have told of an earlier end.
    pub missing: u64,
}

/// How somebody's having a port ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was given back.
    Returned {
        /// When.
        at: Stamp,
        /// Why.
        reason: Option<String>,
    },
    /// The router ended in good order.
    RouterEnded(Stamp),
    /// The router was gone without a word; at this time at the latest, when it started anew.
    RouterStartedAnew {
        /// When.
        at: Stamp,
        /// The last record before.
        last: Stamp,
    },
    /// The same port was given to somebody by then: the record of the return is missing.
    GivenAnew(Stamp),
    /// As far as the records go it has not ended. This is the last record of that run of the router.
    Held(Stamp),
}

impl End {
    /// When it ended at the latest; `None`: not yet.
    pub fn at(&self) -> Option<Stamp> {
        match self {
            Self::Returned { at, .. }
            | Self::RouterEnded(at)
            | Self::RouterStartedAnew { at, .. }
            | Self::GivenAnew(at) => Some(*at),
            Self::Held(_) => None,
        }
    }
}

/// Collects what records tell of one port. Records may come in any order, and more than once. Memory grows with the
/// records of that port, the runs of routers and the gaps in their numbers, not with the records.
#[derive(Debug)]
pub struct History {
    address: Ipv4Addr,
    port: u16,
    runs: Vec<Run>,
    by_name: HashMap<(String, String), usize>,
    /// The run of the last record: the next one is most likely of the same.
    current: usize,
}

/// One run of a router.
#[derive(Debug)]
struct Run {
    router: String,
    instance: String,
    first: Stamp,
    last: Stamp,
    numbers: Numbers,
    started: Option<Start>,
    ended: Option<(u64, Stamp)>,
    told: BTreeMap<u64, Told>,
}

#[derive(Debug)]
struct Start {
    at: Stamp,
    configuration: Option<String>,
}

/// A record of the port.
#[derive(Debug, Clone)]
struct Told {
    time: Stamp,
    host: Ipv6Addr,
    subscriber: Option<Ipv6Net>,
    ports: Option<(u16, u16)>,
    /// At a return: since when it had been given, and why it was given back.
    returned: Option<(Stamp, Option<String>)>,
}

/// How far the times of one moment may be apart in two records: a clock was being set.
const SAME: u64 = 1000;

impl History {
    /// Of this port.
    pub fn new(address: Ipv4Addr, port: u16) -> Self {
        Self { address, port, runs: Vec::new(), by_name: HashMap::new(), current: 0 }
    }

    /// Takes in a record.
    pub fn take(&mut self, line: &Line<'_>) {
        let told = self.tells_of_the_port(line);
        let run = self.run(line);
        run.first = run.first.min(line.time);
        run.last = run.last.max(line.time);
        run.numbers.insert(line.sequence);
        match line.event {
            Event::RecordingStarted => {
                let configuration = line.configuration.as_deref().map(str::to_owned);
                run.started = Some(Start { at: line.time, configuration });
            }
            Event::RecordingEnded => run.ended = Some((line.sequence, line.time)),
            _ => {}
        }
        if let Some(told) = told {
            run.told.insert(line.sequence, told);
        }
    }

    fn run(&mut self, line: &Line<'_>) -> &mut Run {
        let is_current = self
            .runs
            .get(self.current)
            .is_some_and(|run| run.instance == line.instance && run.router == line.router);
        if !is_current {
            let name = (line.router.clone().into_owned(), line.instance.clone().into_owned());
            let (router, instance) = name.clone();
            let next = self.runs.len();
            self.current = *self.by_name.entry(name).or_insert(next);
            if self.current == next {
                let (first, last) = (line.time, line.time);
                let (numbers, told) = (Numbers::default(), BTreeMap::new());
                let (started, ended) = (None, None);
                self.runs.push(Run { router, instance, first, last, numbers, started, ended, told });
            }
        }
        &mut self.runs[self.current]
    }

    fn tells_of_the_port(&self, line: &Line<'_>) -> Option<Told> {
        let (is_block, is_return) = match line.event {
            Event::BlockGiven => (true, false),
            Event::BlockReturned => (true, true),
            Event::LeaseGiven => (false, false),
            Event::LeaseEnded => (false, true),
            _ => return None,
        };
        if line.address? != self.address {
            return None;
        }
        let ports = if is_block { Some((line.first_port?, line.last_port?)) } else { None };
        if ports.is_some_and(|(first, last)| !(first..=last).contains(&self.port)) {
            return None;
        }
        let reason = || line.reason.as_deref().map(str::to_owned);
        let returned = is_return.then(|| (line.given.unwrap_or(line.time), reason()));
        Some(Told { time: line.time, host: line.host?, subscriber: line.subscriber, ports, returned })
    }

    /// Who had the port at that time: more than one only where records are missing or routers share an address.
    pub fn at(&self, when: When) -> Vec<Tenure> {
        let mut tenures = self.all();
        tenures
            .retain(|tenure| tenure.from <= when.last && tenure.end.at().is_none_or(|end| end >= when.first));
        tenures
    }

    /// Everybody who had it, router by router, in the order of time.
    pub fn all(&self) -> Vec<Tenure> {
        let mut runs: Vec<&Run> = self.runs.iter().collect();
        runs.sort_by(|a, b| (&a.router, a.begin()).cmp(&(&b.router, b.begin())));
        let mut tenures = Vec::new();
        for (n, run) in runs.iter().enumerate() {
            let next = runs.get(n + 1).filter(|next| next.router == run.router);
            run.tenures(next.map(|next| next.begin()), &mut tenures);
        }
        tenures
    }

    /// The first and the last moment that there is a record of.
    pub fn covers(&self) -> Option<(Stamp, Stamp)> {
        let first = self.runs.iter().map(|run| run.first).min()?;
        Some((first, self.runs.iter().map(|run| run.last).max()?))
    }

    /// How many records are missing from the runs that may have been at work at that time.
    pub fn missing(&self, when: When) -> u64 {
        self.at_work(when).map(|run| run.numbers.missing(0, u64::MAX)).sum()
    }

    /// Where the records of a run that may have been at work at that time do not begin with its first one: when they begin.
    /// What was given earlier, and not returned since, is not in them.
    pub fn begins_late(&self, when: When) -> Option<Stamp> {
        self.at_work(when).filter(|run| !run.numbers.0.contains_key(&1)).map(|run| run.first).min()
    }

    /// The runs that may have been at work at that time, as far as they and the next run of the same router tell.
    fn at_work(&self, when: When) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| {
            let later = self.runs.iter().filter(|other| other.router == run.router && other.first > run.last);
            let end = run.ended.map(|(_, at)| at).or_else(|| later.map(Run::begin).min());
            let began = !run.numbers.0.contains_key(&1) || run.first <= when.last;
            began && end.is_none_or(|end| end >= when.first)
        })
    }

    /// The plans of deterministic mode by which the routers worked at that time; `None` for one without.
    pub fn configurations(&self, when: When) -> Vec<Option<&str>> {
        let mut latest: HashMap<&str, &Start> = HashMap::new();
        for run in &self.runs {
            let Some(start) = run.started.as_ref().filter(|start| start.at <= when.last) else { continue };
            let known = latest.entry(&run.router).or_insert(start);
            if start.at > known.at {
                *known = start;
            }
        }
        latest.into_values().map(|start| start.configuration.as_deref()).collect()
    }
}

impl Run {
    fn begin(&self) -> Stamp {
        self.started.as_ref().map_or(self.first, |start| start.at)
    }

    /// Who had the port in this run. `next`: when the next run of the same router began.
    fn tenures(&self, next: Option<Stamp>, tenures: &mut Vec<Tenure>) {
        let tenure = |told: &Told, from, end, missing| Tenure {
            host: told.host,
            subscriber: told.subscriber,
            ports: told.ports,
            from,
            end,
            router: self.router.clone(),
            instance: self.instance.clone(),
            missing,
        };
        let mut open: Option<(u64, &Told)> = None;
        for (number, told) in &self.told {
            let missing = open.map_or(0, |(since, _)| self.numbers.missing(since, *number));
            let Some((given, reason)) = &told.returned else {
                if let Some((_, holder)) = open.replace((*number, told)) {
                    tenures.push(tenure(holder, holder.time, End::GivenAnew(told.time), missing));
                }
                continue;
            };
            let end = End::Returned { at: told.time, reason: reason.clone() };
            match open.take() {
                Some((_, holder)) if holder.is_of_one_lease_with(told, *given, missing) => {
                    tenures.push(tenure(holder, holder.time, end, 0));
                }
                Some((_, holder)) => {
                    tenures.push(tenure(holder, holder.time, End::GivenAnew(*given), missing));
                    tenures.push(tenure(told, *given, end, 0));
                }
                // It was given before the records begin, or that record is missing; this one says since when.
                None => tenures.push(tenure(told, *given, end, 0)),
            }
        }
        if let Some((since, holder)) = open {
            let missing = self.numbers.missing(since, u64::MAX);
            let end = match (self.ended, next) {
                (Some((_, at)), _) => End::RouterEnded(at),
                (None, Some(at)) => End::RouterStartedAnew { at, last: self.last },
                (None, None) => End::Held(self.last),
            };
            tenures.push(tenure(holder, holder.time, end, missing));
        }
    }
}

impl Told {
    /// Whether a return, of what was given at `given`, is the end of what this record tells the beginning of.
    fn is_of_one_lease_with(&self, returned: &Self, given: Stamp, missing: u64) -> bool {
        let is_later = given.as_millis() > self.time.as_millis() + SAME;
        self.host == returned.host && self.ports == returned.ports && !(missing > 0 && is_later)
    }
}

/// Numbers that were seen, as ranges: first and last.
#[derive(Debug, Default)]
struct Numbers(BTreeMap<u64, u64>);

impl Numbers {
    fn insert(&mut self, number: u64) {
        if let Some((_, last)) = self.0.range_mut(..=number).next_back() {
            if number <= *last {
                return;
            }
            if number - 1 == *last {
                *last = number;
                self.join(number);
                return;
            }
        }
        self.0.insert(number, number);
        self.join(number);
    }

    /// Joins the range that ends with `number` to the one that begins behind it.
    fn join(&mut self, number: u64) {
        let Some(last) = number.checked_add(1).and_then(|next| self.0.remove(&next)) else { return };
        if let Some((_, joined)) = self.0.range_mut(..=number).next_back() {
            *joined = last;
        }
    }

    /// How many numbers are missing after `from` and before `to`, between the first and the last that were seen.
    fn missing(&self, from: u64, to: u64) -> u64 {
        let ranges = self.0.iter();
        let mut missing = 0;
        let mut before: Option<u64> = None;
        for (first, last) in ranges {
            if let Some(before) = before {
                // The gap is before + 1 ..= first - 1.
                let begin = before.max(from).saturating_add(1);
                missing += (*first).min(to).saturating_sub(begin);
            }
            before = Some(*last);
        }
        missing
    }
}

#[cfg(test)]
mod tests;
