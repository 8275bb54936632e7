//! What the translator's process and its device have done so far, read from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

use crate::translators::DEVICE;

/// Two of these, before and after, say what a measurement cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// Processor time of all threads, in user mode and in the kernel.
    pub(super) cpu: Duration,
    /// Packets that the translator took from the device.
    pub(super) read: u64,
    /// Packets that the device dropped before the translator could take them.
    pub(super) missed: u64,
    /// Packets that the translator wrote to the device.
    pub(super) written: u64,
}

impl Usage {
    /// The figures of this process, and of the device in its namespace.
    pub(super) fn of(id: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{id}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}: the translator has ended"))
        };
        let ticks = ticks(&read("stat")?).context("/proc/PID/stat has an unknown form")?;
        let per_second =
            sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u32::try_from(ticks).ok()).unwrap_or(100);
        let [written, read, missed] = device(&read("net/dev")?).context("the translator's device is gone")?;
        Ok(Self { cpu: Duration::from_secs(ticks) / per_second, read, missed, written })
    }

    /// What has been done since.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            read: self.read.saturating_sub(earlier.read),
            missed: self.missed.saturating_sub(earlier.missed),
            written: self.written.saturating_sub(earlier.written),
        }
    }
}

/// Fields 14 and 15, `utime` and `stime`; the second field, the name, may hold spaces and ends with the last bracket.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Packets received by the kernel, sent to the translator, and dropped on the way to it.
fn device(table: &str) -> Option<[u64; 3]> {
    let figures = table.lines().find_map(|line| line.trim().strip_prefix(DEVICE)?.strip_prefix(':'))?;
    let figures: Vec<u64> = figures.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
    Some([*figures.get(1)?, *figures.get(9)?, *figures.get(11)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_a_name_with_spaces_and_brackets() {
        let stat = "42 (a) b) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0";
        assert_eq!(ticks(stat), Some(200));
    }

    #[test]
    fn the_device_is_found_among_others() {
        let table = "Inter-|   Receive |  Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n\
                     bench0: 100 10 0 0 0 0 0 0 200 20 0 3 0 0 0 0\n";
        assert_eq!(device(table), Some([10, 20, 3]));
    }
}
