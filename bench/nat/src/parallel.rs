//! Look-ups on one thread and on two, without and with a third that begins and ends sessions.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use fast_nat::Timestamp;
use fast_nat::nat64::{Nat64, Outbound};
use serde::Serialize;

use crate::arrivals::Arrivals;
use crate::clock::{Cost, Stopwatch};
use crate::lookups::{LOOKUPS, outbound};

/// How often each thread looks all its keys up in one measurement.
const PASSES: usize = 4;

/// Who works at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Crew {
    pub(crate) readers: usize,
    pub(crate) writer: bool,
}

impl Crew {
    pub(crate) const ALL: [Self; 4] = [
        Self { readers: 1, writer: false },
        Self { readers: 2, writer: false },
        Self { readers: 1, writer: true },
        Self { readers: 2, writer: true },
    ];

    pub(crate) fn name(self) -> String {
        let threads = if self.readers == 1 { "one thread" } else { "two threads" };
        if self.writer { format!("{threads}, and one that makes sessions") } else { threads.to_owned() }
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Round {
    /// Look-ups per second, of all threads together, on the wall.
    pub(crate) per_second: f64,
    /// Processor time of one look-up.
    pub(crate) nanoseconds: f64,
    /// New sessions per second, beside that.
    pub(crate) sessions: f64,
    /// Locks that were not free at the first try, for a million packets.
    pub(crate) contended: f64,
}

/// All crews take turns.
pub(crate) fn measure(
    arrivals: &mut Arrivals,
    keys: &[Vec<Outbound>; 2],
    rounds: u32,
) -> Result<Vec<(Crew, Vec<Round>)>> {
    let mut figures: Vec<_> = Crew::ALL.into_iter().map(|crew| (crew, Vec::new())).collect();
    for _ in 0..rounds {
        for (crew, rounds) in &mut figures {
            rounds.push(run(*crew, arrivals, keys)?);
        }
    }
    Ok(figures)
}

fn run(crew: Crew, arrivals: &mut Arrivals, keys: &[Vec<Outbound>; 2]) -> Result<Round> {
    let nat = std::sync::Arc::clone(&arrivals.router.nat);
    let contended = nat.contended();
    let now = AtomicU64::new(arrivals.now().as_millis());
    let done = AtomicBool::new(false);
    let start = Barrier::new(crew.readers + 1 + usize::from(crew.writer));
    let panicked = || anyhow!("a thread panicked");

    let (costs, wall, sessions) = std::thread::scope(|scope| {
        let readers: Vec<_> = (keys.iter().take(crew.readers))
            .map(|keys| scope.spawn(|| read(&nat, keys, &start, &now)))
            .collect();
        let writer = crew.writer.then(|| scope.spawn(|| write(arrivals, &start, &done, &now)));
        start.wait();
        let began = Instant::now();
        let costs: Result<Vec<_>> =
            readers.into_iter().map(|reader| reader.join().map_err(|_| panicked())?).collect();
        let wall = began.elapsed();
        done.store(true, Ordering::Relaxed);
        let sessions = match writer {
            Some(writer) => writer.join().map_err(|_| panicked())??,
            None => 0,
        };
        anyhow::Ok((costs?, wall, sessions))
    })?;

    let lookups = (crew.readers * PASSES * LOOKUPS) as f64;
    let cpu: f64 = costs.iter().map(|cost: &Cost| cost.cpu).sum();
    // A session has two packets or four.
    let packets = lookups + 3.0 * sessions as f64;
    Ok(Round {
        per_second: lookups / wall.as_secs_f64(),
        nanoseconds: cpu / lookups,
        sessions: sessions as f64 / wall.as_secs_f64(),
        contended: (nat.contended() - contended) as f64 * 1e6 / packets,
    })
}

fn read(nat: &Nat64, keys: &[Outbound], start: &Barrier, now: &AtomicU64) -> Result<Cost> {
    start.wait();
    let mut clock = Stopwatch::start()?;
    for _ in 0..PASSES {
        let found = outbound(nat, keys, true, || Timestamp::from_millis(now.load(Ordering::Relaxed)));
        ensure!(found == keys.len(), "{found} of {} sessions were found", keys.len());
    }
    clock.lap()
}

/// Begins and ends sessions until the readers are done. Says how many.
fn write(arrivals: &mut Arrivals, start: &Barrier, done: &AtomicBool, now: &AtomicU64) -> Result<usize> {
    start.wait();
    let mut sessions = 0;
    while !done.load(Ordering::Relaxed) {
        sessions += arrivals.run(1).context("beside the look-ups")?.sessions;
        now.store(arrivals.now().as_millis(), Ordering::Relaxed);
    }
    Ok(sessions)
}
