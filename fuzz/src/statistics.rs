//! Counts what became of the executions of this process.
//!
//! With `PROTOMASK_FUZZ_STATS=DIR` each process writes its counts to a file of its own there, after every 65,536
//! executions: one line for all of them, and one for each verdict and reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use interproto::DropReason;

use crate::harness::Outcome;

/// Executions between two writings.
const EACH: u64 = 1 << 16;

/// Counts by verdict and reason.
#[derive(Debug)]
struct Counts {
    executions: u64,
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
}

static COUNTS: Mutex<Counts> = Mutex::new(Counts { executions: 0, outcomes: BTreeMap::new() });

/// Counts one execution of a target.
pub fn count(target: &str, outcome: Outcome) {
    let Ok(mut counts) = COUNTS.lock() else { return };
    counts.executions += 1;
    let reason = outcome.reason().map_or("-", DropReason::as_str);
    *counts.outcomes.entry((outcome.verdict(), reason)).or_insert(0) += 1;
    if counts.executions.is_multiple_of(EACH)
        && let Some(folder) = std::env::var_os("PROTOMASK_FUZZ_STATS")
    {
        let file = PathBuf::from(folder).join(format!("{target}.{}.txt", std::process::id()));
        let lines = counts
            .outcomes
            .iter()
            .map(|((verdict, reason), number)| format!("{verdict} {reason} {number}\n"));
        let text = format!("executions {}\n{}", counts.executions, lines.collect::<String>());
        // Statistics are no reason to end a campaign.
        let _ = fs::write(file, text);
    }
}

/// Whether an input with this outcome may enter the corpus: with `PROTOMASK_FUZZ_KEEP=forward` only what is translated.
pub fn is_kept(outcome: Outcome) -> bool {
    static KEPT: OnceLock<Option<String>> = OnceLock::new();
    let kept = KEPT.get_or_init(|| std::env::var("PROTOMASK_FUZZ_KEEP").ok());
    kept.as_ref().is_none_or(|verdict| verdict == outcome.verdict())
}
