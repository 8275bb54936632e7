//! What something costs: processor time of this thread, and time on the wall.

use std::ops::{Add, AddAssign};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Two times of the same piece of work, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Of the thread: what else the machine runs meanwhile is not counted.
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
}

impl Cost {
    /// The cost of one of `count` equal pieces.
    pub(crate) fn each(self, count: usize) -> Self {
        let count = count.max(1) as f64;
        Self { cpu: self.cpu / count, wall: self.wall / count }
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, wall: self.wall + other.wall }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Runs since it was made or last asked.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    cpu: Duration,
    wall: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self { wall: Instant::now(), cpu: cpu_time()? })
    }

    /// The cost since the start, or since the last lap.
    pub(crate) fn lap(&mut self) -> Result<Cost> {
        let now = Self { cpu: cpu_time()?, wall: Instant::now() };
        let cost = Cost {
            cpu: now.cpu.saturating_sub(self.cpu).as_nanos() as f64,
            wall: now.wall.duration_since(self.wall).as_nanos() as f64,
        };
        *self = now;
        Ok(cost)
    }
}

fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
