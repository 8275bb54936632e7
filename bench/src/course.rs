//! The order of the measurements: all translators run, each in a laboratory of its own, and take turns at each load, so
//! that what else the machine does meets them alike.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::lab::Lab;
use crate::measure::{Load, Sample, measure};
use crate::process::{Output, Process};
use crate::translators::{Contestant, Translator};

/// All that was found about one translator.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Record {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) configuration: String,
    /// Why it could not be measured at all.
    pub(crate) failure: Option<String>,
    pub(crate) measurements: Vec<Measurement>,
    /// What it counted as dropped, by reason.
    pub(crate) drops: BTreeMap<String, u64>,
    /// Lines of its log that say that something is wrong, the first of them, and how often each came.
    pub(crate) complaints: BTreeMap<String, u64>,
}

/// One sample, or why there is none.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) round: u32,
    pub(crate) load: Load,
    pub(crate) sample: Option<Sample>,
    pub(crate) failure: Option<String>,
}

/// So many different lines of its log are kept of each translator.
const COMPLAINTS: usize = 10;

impl Record {
    /// Why there is no sample of this load.
    pub(crate) fn failure_of(&self, load: Load) -> Option<&str> {
        let own = self
            .measurements
            .iter()
            .filter(|found| found.load == load)
            .find_map(|found| found.failure.as_deref());
        own.or(self.failure.as_deref())
    }

    /// The figures that `figure` finds in the samples of one load, by round.
    pub(crate) fn by_round(&self, load: Load, figure: fn(&Sample) -> Option<f64>) -> BTreeMap<u32, f64> {
        let own = self.measurements.iter().filter(|found| found.load == load);
        own.filter_map(|found| Some((found.round, figure(found.sample.as_ref()?)?))).collect()
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

/// A translator at work.
struct Stand<'t> {
    translator: &'t dyn Translator,
    lab: Lab,
    process: Process,
}

/// Measures all of them, as many rounds as are asked for, and tells of each step.
pub(crate) fn run(contestants: &[Contestant], rounds: u32, seconds: u32, say: impl Fn(&str)) -> Vec<Record> {
    let mut records: Vec<_> = contestants.iter().map(describe).collect();
    let mut stands = Vec::new();
    for (contestant, record) in contestants.iter().zip(&mut records) {
        let Ok(translator) = &contestant.translator else { continue };
        match open(translator.as_ref(), record) {
            Ok(stand) => stands.push((stand, record)),
            Err(error) => record.failure = Some(format!("{error:#}")),
        }
    }
    for round in 1..=rounds {
        for load in Load::ALL {
            say(&format!("round {round} of {rounds}: {load:?}"));
            for (stand, record) in &mut stands {
                let (sample, failure) = match measure(&stand.lab, &stand.process, load, seconds) {
                    Ok(sample) => (Some(sample), None),
                    Err(error) => (None, Some(format!("{error:#}"))),
                };
                record.measurements.push(Measurement { round, load, sample, failure });
            }
        }
    }
    for (stand, record) in stands {
        if let Err(error) = close(stand, record) {
            record.complaints.insert(format!("it did not end well: {error:#}"), 1);
        }
    }
    records
}

fn describe(contestant: &Contestant) -> Record {
    let record = Record { name: contestant.name, ..Record::default() };
    match &contestant.translator {
        Ok(translator) => Record {
            version: translator.version().to_owned(),
            configuration: translator.configuration(),
            ..record
        },
        Err(error) => Record { failure: Some(format!("{error:#}")), ..record },
    }
}

/// Starts one translator and sees that it translates.
fn open<'t>(translator: &'t dyn Translator, record: &mut Record) -> Result<Stand<'t>> {
    let lab = Lab::new()?;
    let process = translator.start(&lab)?;
    let ready = translator.wait_until_ready(&lab, &process).and_then(|()| lab.check(&process));
    if ready.is_err() {
        record.complain(&process.output());
    }
    ready.map(|()| Stand { translator, lab, process })
}

/// Asks one translator what it has counted, and ends it.
fn close(mut stand: Stand<'_>, record: &mut Record) -> Result<()> {
    let counters = stand.translator.counters(&stand.lab);
    stand.process.stop()?;
    record.complain(&stand.process.output());
    record.drops.extend(counters?);
    Ok(())
}
