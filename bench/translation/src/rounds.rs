//! The translators take turns.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::contenders::{BATCH, Contender};
use crate::packets::Case;

/// Nanoseconds per packet of one round.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Round {
    pub(crate) original: f64,
    pub(crate) in_place: f64,
    pub(crate) refresh_only: f64,
    pub(crate) copied_in: f64,
    pub(crate) described: f64,
    pub(crate) partial: f64,
}

impl Round {
    /// What the translation in place costs without writing the headers afresh, which only a benchmark does.
    pub(crate) fn translation(&self) -> f64 {
        self.in_place - self.refresh_only
    }

    /// The same with a description that says nothing.
    pub(crate) fn described(&self) -> f64 {
        self.described - self.refresh_only
    }

    /// The same with a partial checksum.
    pub(crate) fn partial(&self) -> f64 {
        self.partial - self.refresh_only
    }
}

/// Each round measures every translator once, A B C A B C, so that what else the machine does meets them alike.
pub(crate) fn measure(case: Case, packet: &[u8], rounds: u32, each: Duration) -> Result<Vec<Round>> {
    let mut repeats = [0; Contender::ALL.len()];
    for (repeat, contender) in repeats.iter_mut().zip(Contender::ALL) {
        *repeat = warm_up(contender, case, packet, each)?;
    }
    let mut figures = Vec::new();
    for _ in 0..rounds {
        let mut costs = [0.0; Contender::ALL.len()];
        for ((cost, repeat), contender) in costs.iter_mut().zip(repeats).zip(Contender::ALL) {
            let (took, _) = contender.run(case, packet, repeat)?;
            *cost = took.as_nanos() as f64 / repeat as f64;
        }
        let [original, in_place, refresh_only, copied_in, described, partial] = costs;
        figures.push(Round { original, in_place, refresh_only, copied_in, described, partial });
    }
    Ok(figures)
}

/// Translates until that has taken half of `each` in one go, and says how many translations take about all of it.
fn warm_up(contender: Contender, case: Case, packet: &[u8], each: Duration) -> Result<u64> {
    let mut repeat = 4 * BATCH as u64;
    loop {
        let (took, _) = contender.run(case, packet, repeat)?;
        if took * 2 >= each {
            let wanted = u128::from(repeat) * each.as_nanos() / took.as_nanos().max(1);
            return Ok(u64::try_from(wanted)?.next_multiple_of(BATCH as u64));
        }
        repeat *= 2;
    }
}
