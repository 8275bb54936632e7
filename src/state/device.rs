//! What the device had dropped when the router last looked: so that the next start can say what it dropped meanwhile.
//!
//! It is noted every ten seconds and in the end, and nothing but a line of the log depends on it.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::folder::{self, Folder};
use super::framed;

const NAME: &str = "protomask device";
const VERSION: u16 = 1;

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The kernel's name for the time since the machine was started.
    boot: u128,
    /// Milliseconds since then.
    at: u64,
    /// The index of the device.
    index: u32,
    /// Packets to the router that it had dropped.
    dropped: u64,
}

/// What the device dropped between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meanwhile {
    /// Packets.
    pub dropped: u64,
    /// The time that they were counted in; `None`: the device's whole life.
    pub within: Option<Duration>,
}

impl Note {
    /// What has been dropped by now.
    pub(super) fn now(interface: &str, index: u32) -> Option<Self> {
        let at = crate::clock::now().as_millis();
        Some(Self { boot: boot(), at, index, dropped: dropped_by(interface)? })
    }

    /// What the last run noted for this interface; anything that is not as it was written is as good as nothing.
    pub fn read(base: &Path, interface: &str) -> Option<Self> {
        let file = fs::read(base.join(interface).join(folder::DEVICE)).ok()?;
        framed::read(NAME, VERSION, &file).ok()
    }

    pub(super) fn write(&self, folder: &Folder) -> io::Result<()> {
        let (path, new) = (folder.path().join(folder::DEVICE), folder.path().join(folder::NEW_DEVICE));
        // It is worth no work of the disk: what survives the process is enough.
        folder::create(&new)?.write_all(&framed::write(NAME, VERSION, self)?)?;
        fs::rename(&new, path)
    }
}

/// What a device that an earlier run made has dropped since that one last noted it. `None`: the kernel does not say.
pub fn meanwhile(before: Option<Note>, interface: &str, index: u32) -> Option<Meanwhile> {
    Some(since(before, Note::now(interface, index)?))
}

fn since(before: Option<Note>, now: Note) -> Meanwhile {
    let before = before.filter(|before| {
        (before.boot, before.index) == (now.boot, now.index) && now.boot != 0 && before.dropped <= now.dropped
    });
    match before {
        Some(before) => Meanwhile {
            dropped: now.dropped - before.dropped,
            within: Some(Duration::from_millis(now.at.saturating_sub(before.at))),
        },
        None => Meanwhile { dropped: now.dropped, within: None },
    }
}

fn boot() -> u128 {
    u128::from_be_bytes(super::boot_id())
}

/// Packets that the kernel has dropped on the way into this device, in the network namespace of this thread.
fn dropped_by(interface: &str) -> Option<u64> {
    of_table(&fs::read_to_string("/proc/thread-self/net/dev").ok()?, interface)
}

/// `proc_pid_net(5)`: behind the name eight figures of what was received, then bytes, packets, errors and drops of what was sent.
fn of_table(table: &str, interface: &str) -> Option<u64> {
    let mut lines = table.lines();
    let figures = lines.find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    figures.split_ascii_whitespace().nth(11)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       1       2    0    0    0     0          0         0        1       2    0    3    0     0       0          0
 nat640:       1       2    0    0    0     0          0         0        1       2    0    4    0     0       0          0
 nat64: 1469 22    0    5    0     0          0         0     1469      22    0    201    0     0       0          0
";

    #[test]
    fn the_kernels_figure_is_found_by_the_whole_name() {
        assert_eq!(of_table(TABLE, "nat64"), Some(201));
        assert_eq!((of_table(TABLE, "nat6"), of_table(TABLE, "lo")), (None, Some(3)));
        assert!(dropped_by("lo").is_some(), "the table of this kernel");
    }

    #[test]
    fn only_what_the_same_device_dropped_since_counts() {
        let note = Note { boot: 7, at: 1000, index: 3, dropped: 10 };
        let now = Note { at: 5000, dropped: 25, ..note };
        let within = Some(Duration::from_secs(4));
        assert_eq!(since(Some(note), now), Meanwhile { dropped: 15, within });
        let all = Meanwhile { dropped: 25, within: None };
        for other in [
            None,
            Some(Note { boot: 8, ..note }),
            Some(Note { index: 4, ..note }),
            // One of the same name and number that was made anew.
            Some(Note { dropped: 26, ..note }),
        ] {
            assert_eq!(since(other, now), all, "{other:?}");
        }
    }
}
