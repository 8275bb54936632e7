//! Processor time of the whole machine, from `/proc/stat`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

use crate::load::pace::now;

/// Two of these, before and after, say for how long the processors were busy.
///
/// What is read is the time in which they were **not** busy: idle, waiting for I/O, or taken away by the hypervisor. The
/// kernel measures idle time by the clock (with `NO_HZ`, which all distributions have) and shows it in steps of 10 ms, while
/// the times of user, system and softirq are samples of a tick, which misses what is shorter than a tick and in step with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Machine {
    /// When it was read, in ns.
    at: u64,
    processors: u32,
    /// Of all processors together.
    unused: Duration,
}

impl Machine {
    pub(super) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let ticks = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u32::try_from(ticks).ok()).unwrap_or(100);
        Self::parse(&text, now(), ticks).context("/proc/stat has an unknown form")
    }

    /// The line `cpu` has, in this order: user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(text: &str, at: u64, ticks_per_second: u32) -> Option<Self> {
        let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let figures: Vec<u64> = all.split_whitespace().map_while(|figure| figure.parse().ok()).collect();
        let unused = figures.get(3)? + figures.get(4)? + figures.get(7)?;
        let numbered = |line: &&str| {
            line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let processors = u32::try_from(text.lines().filter(numbered).count()).ok()?;
        Some(Self { at, processors, unused: Duration::from_secs(unused) / ticks_per_second })
    }

    /// Processor time, of all processors together, that somebody used since.
    pub(super) fn busy_since(self, earlier: Self) -> Duration {
        let all = Duration::from_nanos(self.at.saturating_sub(earlier.at)) * self.processors;
        all.saturating_sub(self.unused.saturating_sub(earlier.unused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_idle_nor_waiting_nor_stolen_is_busy() {
        let text = |idle: u64, iowait: u64, steal: u64| {
            format!("cpu  500 0 700 {idle} {iowait} 0 9 {steal} 0 0\ncpu0 1 0 1\ncpu1 1 0 1\nintr 5\n")
        };
        let before = Machine::parse(&text(1000, 10, 0), 5_000_000_000, 100).unwrap();
        let after = Machine::parse(&text(1150, 20, 10), 6_000_000_000, 100).unwrap();
        assert_eq!(after.busy_since(before), Duration::from_millis(300), "2 s less 1.5, 0.1 and 0.1");
    }

    #[test]
    fn rounding_makes_no_time_below_zero() {
        let text = |idle: u64| format!("cpu  0 0 0 {idle} 0 0 0 0\ncpu0 0\n");
        let before = Machine::parse(&text(0), 0, 100).unwrap();
        let after = Machine::parse(&text(101), 1_000_000_000, 100).unwrap();
        assert_eq!(after.busy_since(before), Duration::ZERO);
        assert_eq!(Machine::parse("cpu  1 2\n", 0, 100), None);
    }
}
