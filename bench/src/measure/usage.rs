//! What the contender's process and its device have done so far, read from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::contenders::DEVICE;
use crate::links::Link;

/// Two of these, before and after, say what a measurement cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Usage {
    /// Processor time of all threads, in user mode and in the kernel, to the nanosecond.
    pub(super) cpu: Duration,
    /// How often a thread waited for something: voluntary context switches.
    pub(super) wake_ups: u64,
    /// The same of the threads that carry packets; `None` where no thread has such a name.
    pub(super) worker_wake_ups: Option<u64>,
    /// Packets that the device dropped before the contender could take them.
    pub(super) missed: u64,
    /// Packets that the contender wrote to the device.
    pub(super) written: u64,
}

impl Usage {
    /// The figures of this process, and of the device in its namespace.
    pub(super) fn of(id: u32) -> Result<Self> {
        let table = read(&format!("/proc/{id}/net/dev"))?;
        let device = Link::find(&table, DEVICE).context("the contender's device is gone")?;
        let mut usage = Self { missed: device.dropped, written: device.received, ..Self::default() };
        let tasks = fs::read_dir(format!("/proc/{id}/task")).context("the contender has ended")?;
        for task in tasks {
            let folder = task?.path();
            let file = |name: &str| fs::read_to_string(folder.join(name)).ok();
            // A thread that ends between two looks takes its figures along.
            let Some((schedstat, status)) = file("schedstat").zip(file("status")) else { continue };
            usage.cpu += on_processor(&schedstat).context("schedstat has an unknown form")?;
            let wake_ups = field(&status, "voluntary_ctxt_switches:").unwrap_or_default();
            usage.wake_ups += wake_ups;
            if is_worker(&status) {
                *usage.worker_wake_ups.get_or_insert_default() += wake_ups;
            }
        }
        Ok(usage)
    }

    /// What has been done since.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            wake_ups: self.wake_ups.saturating_sub(earlier.wake_ups),
            worker_wake_ups: self
                .worker_wake_ups
                .zip(earlier.worker_wake_ups)
                .map(|(now, then)| now.saturating_sub(then)),
            missed: self.missed.saturating_sub(earlier.missed),
            written: self.written.saturating_sub(earlier.written),
        }
    }
}

/// The resident memory of a process, in bytes.
pub(super) fn resident(id: u32) -> Result<u64> {
    let text = read(&format!("/proc/{id}/smaps_rollup"))?;
    field(&text, "Rss:").map(|kilobytes| kilobytes * 1024).context("smaps_rollup has an unknown form")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}: the contender has ended"))
}

/// The first figure of `schedstat`: ns on a processor.
fn on_processor(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Whether a thread's `status` is that of one that carries packets, as this router and the bare loop call theirs.
fn is_worker(status: &str) -> bool {
    let name = status.lines().find_map(|line| line.strip_prefix("Name:"));
    name.is_some_and(|name| name.trim_start().starts_with("worker-"))
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_in_nanoseconds() {
        assert_eq!(on_processor("186690 5818622 2\n"), Some(Duration::from_nanos(186_690)));
        assert_eq!(on_processor(""), None);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "nonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t150\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(150));
        assert_eq!(field("Rss:                1234 kB\n", "Rss:"), Some(1234));
        assert_eq!(field(status, "Rss:"), None);
    }

    #[test]
    fn a_worker_is_known_by_its_name() {
        assert!(is_worker("Name:\tworker-0\nUmask:\t0022\n"));
        assert!(!is_worker("Name:\tprotomask\nUmask:\t0022\n"));
        assert!(!is_worker("Name:\tno-worker-0\nworker-0\n"));
    }

    #[test]
    fn wake_ups_of_workers_are_those_between_two_looks_and_unknown_without_workers() {
        let of = |worker_wake_ups| Usage { worker_wake_ups, ..Usage::default() };
        assert_eq!(of(Some(9)).since(of(Some(7))).worker_wake_ups, Some(2));
        assert_eq!(of(None).since(of(None)).worker_wake_ups, None);
    }

    #[test]
    fn the_figures_of_a_process_that_works_grow() {
        let id = std::process::id();
        assert!(resident(id).unwrap() > 100_000);
        let before = fs::read_to_string(format!("/proc/{id}/task/{id}/schedstat")).unwrap();
        assert!(on_processor(&before).is_some());
    }
}
