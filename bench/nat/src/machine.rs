//! What this machine can do at the moment: random reads, which is what sessions cost where there are many.

use std::hint::black_box;

use anyhow::Result;

use crate::clock::{Cost, Stopwatch};

/// A cache line.
type Line = [u64; 8];

/// 256 MiB of them.
const LINES: usize = 1 << 22;

const READS: usize = 1 << 19;

/// The cost of a random read in a large memory.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Each has to wait for the one before it.
    pub(crate) in_turn: Vec<Cost>,
    /// None has to wait for another.
    pub(crate) side_by_side: Vec<Cost>,
}

/// Measures both in turn.
pub(crate) fn measure(rounds: u32, random: &mut fastrand::Rng) -> Result<Reads> {
    let memory: Vec<Line> = (0..LINES).map(|_| [random.u64(..LINES as u64); 8]).collect();
    let mut reads = Reads::default();
    for _ in 0..rounds {
        let order: Vec<usize> = (0..READS).map(|_| random.usize(..LINES)).collect();
        let mut clock = Stopwatch::start()?;
        let mut at = 0;
        for step in &order {
            // Where to read next depends on what was read, and never runs in a circle.
            at = (memory[at][0] as usize + step) % LINES;
        }
        black_box(at);
        reads.in_turn.push(clock.lap()?.each(READS));
        let sum = order.iter().fold(0, |sum: u64, at| sum.wrapping_add(memory[*at][1]));
        black_box(sum);
        reads.side_by_side.push(clock.lap()?.each(READS));
    }
    Ok(reads)
}
