//! Counts what became of the executions of this process.
//!
//! With `PROTOMASK_FUZZ_STATS=DIR` each process writes its counts to a file of its own there, after every 65,536 executions.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::harness::Outcome;

/// Executions between two writings.
const EACH: u64 = 1 << 16;

/// Counts by outcome.
#[derive(Debug, Default)]
struct Counts {
    executions: u64,
    outcomes: BTreeMap<String, u64>,
}

static COUNTS: Mutex<Option<Counts>> = Mutex::new(None);

/// Counts one execution of a target.
pub fn count(target: &str, outcome: Outcome) {
    let Ok(mut counts) = COUNTS.lock() else { return };
    let counts = counts.get_or_insert_default();
    counts.executions += 1;
    // The strings are made once for each outcome.
    match counts.outcomes.get_mut(outcome.word()) {
        Some(number) => *number += 1,
        None => drop(counts.outcomes.insert(outcome.word().to_owned(), 1)),
    }
    if counts.executions % EACH == 0
        && let Some(folder) = std::env::var_os("PROTOMASK_FUZZ_STATS")
    {
        let file = PathBuf::from(folder).join(format!("{target}.{}.txt", std::process::id()));
        let mut text = format!("executions {}\n", counts.executions);
        for (outcome, number) in &counts.outcomes {
            text.push_str(&format!("{outcome} {number}\n"));
        }
        // Statistics are no reason to end a campaign.
        let _ = fs::write(file, text);
    }
}
