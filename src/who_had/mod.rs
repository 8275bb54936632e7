//! `protomask who-had`: who had an address and a port at a time.
//!
//! The answer comes from a configuration, where it is all that is needed (deterministic mode, forwards, static pairs,
//! explicit mappings), and otherwise from allocation records. It says what it rests on, and how sure it is.
#![allow(clippy::print_stderr, reason = "what a command says to the person who typed it")]

mod answer;
mod basis;
mod files;
mod history;
mod when;

use std::io::Write;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use clap::Args;

pub use answer::{Answer, Basis};
pub use basis::{fixed, plan};
pub use files::{Found, read, with_rotated};
pub use history::{End, History, Tenure};
pub use when::When;

use crate::config::{self, Partial, Problems, Settings};
use crate::exit::Exit;
use crate::records::{Protocol, RecordSink};

/// What is asked.
#[derive(Debug, Clone, Args)]
#[allow(clippy::doc_markdown, reason = "clap prints these comments as they are")]
pub struct WhoHad {
    /// The IPv4 address and port; for ICMP, the identifier of the echo query.
    #[arg(value_name = "ADDRESS:PORT")]
    pub endpoint: SocketAddrV4,
    /// When, in UTC: 2026-01-31T23:59:59.999Z; without a fraction, the whole second [default: now].
    #[arg(long, value_name = "TIME")]
    pub at: Option<When>,
    /// The protocol: matters for port forwards only, as all else is given for all protocols.
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<Protocol>,
    /// The router's configuration, as it was at that time. Names the file of records too.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Files of allocation records, in any order, also compressed with gzip, or - for standard input [default: the file
    /// in the configuration and what rotation has made of it].
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub records: Vec<PathBuf>,
    /// Answer with one JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Answers on `out`, and says on standard error what else there is to know. [`Exit::Failed`]: nobody had it, as far as can be
/// told.
pub fn run(asked: &WhoHad, out: &mut impl Write) -> Exit {
    match look(asked) {
        Ok(answers) => {
            for answer in &answers {
                // Standard output may be closed: that is no reason to fail.
                let _ = if asked.json { answer.write_json(out) } else { writeln!(out, "{answer}") };
            }
            if answers.is_empty() { Exit::Failed } else { Exit::Done }
        }
        Err(Trouble::Config(problems)) => {
            eprintln!("{problems}");
            Exit::Usage
        }
        Err(Trouble::Other(sentence)) => {
            eprintln!("protomask: {sentence}");
            Exit::Usage
        }
    }
}

/// Why there can be no answer.
enum Trouble {
    Config(Problems),
    Other(String),
}

fn look(asked: &WhoHad) -> Result<Vec<Answer>, Trouble> {
    let when = asked.at.unwrap_or_else(When::now);
    let (address, port) = (*asked.endpoint.ip(), asked.endpoint.port());
    let settings = asked.config.as_deref().map(settings).transpose()?;
    let configured = settings.as_ref().zip(asked.config.as_deref());

    let mut answers = Vec::new();
    if let Some((settings, path)) = configured {
        let hosts = fixed(settings, address, port, asked.protocol);
        answers.extend(hosts.into_iter().map(|host| Answer::fixed(host, asked.endpoint, settings, path)));
    }
    let plan = match configured.and_then(|(settings, path)| Some((plan(settings)?, path))) {
        Some((Ok(plan), path)) => Some((plan, path)),
        Some((Err(error), path)) => return Err(Trouble::Other(format!("{}: {error}", path.display()))),
        None => None,
    };
    let computed =
        plan.as_ref().and_then(|(plan, path)| Some((plan, plan.subscriber_of(address, port)?, *path)));
    // A computed answer needs no record; records that are named can tell whether the plan was another one then.
    let files = match (&asked.records, configured) {
        (records, _) if !records.is_empty() => records.clone(),
        (_, Some((settings, _))) if computed.is_none() => configured_records(settings)?,
        _ => Vec::new(),
    };
    if files.is_empty() && configured.is_none() {
        let sentence =
            "name the records with --records FILE, or the router's configuration with --config FILE";
        return Err(Trouble::Other(sentence.to_owned()));
    }
    let mut history = History::new(address, port);
    let mut found = Found::default();
    for path in &files {
        let read = read(path, |line| history.take(line));
        found = found.and(read.map_err(|error| Trouble::Other(format!("{}: {error}", path.display())))?);
    }
    if found.damaged > 0 {
        eprintln!("protomask: {} damaged lines were passed over", found.damaged);
    }
    if let Some((plan, subscriber, path)) = computed {
        let plans = history.configurations(when);
        let text = plan.to_string();
        if !plans.is_empty() && !plans.contains(&Some(text.as_str())) {
            let then = plans.into_iter().flatten().collect::<Vec<_>>().join("\n  ");
            let then = if then.is_empty() { "no deterministic mode" } else { &then };
            let path = path.display();
            let sentence = format!("{path} is not what the router worked by at {when}, which was:\n  {then}");
            return Err(Trouble::Other(sentence));
        }
        if answers.is_empty() {
            answers.push(Answer::computed(plan, subscriber, asked.endpoint, path));
        }
        return Ok(answers);
    }
    answers.extend(history.at(when).into_iter().map(|tenure| Answer::recorded(tenure, address)));
    for doubt in answers.iter().filter_map(|answer| answer.doubt(when)) {
        eprintln!("protomask: {doubt}");
    }
    if answers.is_empty() {
        eprintln!("protomask: {}", nobody(asked, when, &history, configured.map(|(_, path)| path), found));
    }
    Ok(answers)
}

fn settings(path: &Path) -> Result<Settings, Trouble> {
    let settled =
        config::read(path).and_then(|(partial, problems)| Partial::default().over(partial).settle(problems));
    settled.map_err(Trouble::Config)
}

fn configured_records(settings: &Settings) -> Result<Vec<PathBuf>, Trouble> {
    let Some(RecordSink::File(path)) = settings.records.as_ref().map(|records| &records.sink) else {
        return Ok(Vec::new());
    };
    with_rotated(path).map_err(|error| Trouble::Other(format!("{}: {error}", path.display())))
}

/// The sentence that nobody had it, and what that is worth.
fn nobody(asked: &WhoHad, when: When, history: &History, config: Option<&Path>, found: Found) -> String {
    let mut parts = vec![format!("nobody had {} at {when}", asked.endpoint)];
    if let Some(path) = config {
        parts.push(format!("by {}", path.display()));
    }
    if let Some((first, last)) = history.covers() {
        parts.push(format!("as far as {} records from {first} to {last} tell", found.records));
        if when.last < first {
            parts.push("that time is before the first of them".to_owned());
        } else if let Some(begin) = history.begins_late(when) {
            parts.push(format!("what was given before {begin}, and not returned since, is not in them"));
        }
        match history.missing(when) {
            0 => {}
            missing => parts.push(format!("{missing} records of routers that were at work then are missing")),
        }
    } else if !asked.records.is_empty() {
        parts.push("there is no record in the files".to_owned());
    } else {
        parts.push("no records were looked into; --records FILE names some".to_owned());
    }
    parts.join("; ")
}
