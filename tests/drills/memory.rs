//! What a restart leaves in memory: nothing.

use std::fs;
use std::time::{Duration, Instant};

use protomask::supervision::faults::Inject;
use protomask::supervision::{Concern, State};

use crate::lab::{Lab, PATIENCE, Wanted, pause};
use crate::{Folder, alone, number, shared_ports};

/// Restarts of each concern before anything is measured: what is made once is there then.
const WARM_UP: u64 = 10;
/// Bytes that a restart may leave behind on the average: less than the smallest thing that one makes, an actor, has.
const PER_RESTART: i64 = 256;
/// Bytes that come and go by themselves: what a table or a queue grows by.
const NOISE: i64 = 128 << 10;

/// What the process has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Has {
    /// Bytes in the hands of the program.
    pub(crate) allocated: usize,
    /// Bytes of memory.
    pub(crate) resident: usize,
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
}

impl Has {
    pub(crate) fn now() -> Self {
        let entries = |folder: &str| fs::read_dir(folder).unwrap().count();
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            allocated: allocated(),
            resident: pages * 4096,
            threads: entries("/proc/self/task"),
            descriptors: entries("/proc/self/fd"),
        }
    }
}

/// Bytes that the allocator has given out and not got back, of its heap and of mappings.
#[allow(unsafe_code, reason = "there is no other way to ask the allocator")]
fn allocated() -> usize {
    // SAFETY: it takes nothing and answers with numbers.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

fn restart(lab: &Lab, concern: Concern, inject: Inject) {
    let generation = lab.status(concern).generation;
    let _ = lab.inject(concern, inject, PATIENCE);
    let start = Instant::now();
    loop {
        let status = lab.status(concern);
        if status.generation > generation
            && status.state == State::Running
            && lab.inject(concern, Inject::Nothing, PATIENCE).is_ok()
        {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{concern} does not come back: {status:?}");
        pause(Duration::from_millis(1));
    }
}

/// What there is when nothing is under way any more.
fn settled(lab: &Lab) -> Has {
    for concern in Concern::ALL {
        assert_eq!(lab.inject(concern, Inject::Nothing, PATIENCE), Ok(()));
    }
    // Threads of those that ended are on their way out.
    let mut least = Has::now();
    for _ in 0..20 {
        pause(Duration::from_millis(20));
        let now = Has::now();
        least = Has {
            allocated: least.allocated.min(now.allocated),
            resident: now.resident,
            threads: least.threads.min(now.threads),
            descriptors: least.descriptors.min(now.descriptors),
        };
    }
    least
}

#[test]
fn restarts_leave_no_memory_thread_or_descriptor_behind() {
    let restarts = number("PROTOMASK_RESTARTS", 25) as u32;
    let _alone = alone();
    let folder = Folder::new();
    let Some(lab) = Lab::start(&Wanted { hosts: 8, ..shared_ports(&folder) }) else { return };
    lab.ping_once(1, PATIENCE);
    for concern in Concern::ALL {
        for _ in 0..WARM_UP {
            restart(&lab, concern, Inject::Panic);
            restart(&lab, concern, Inject::Stop);
        }
    }
    println!("{restarts} restarts of each concern, half of them panics");
    let first = settled(&lab);
    for concern in Concern::ALL {
        let before = settled(&lab);
        for n in 0..restarts {
            restart(&lab, concern, if n % 2 == 0 { Inject::Panic } else { Inject::Stop });
        }
        let after = settled(&lab);
        let grown = i64::try_from(after.allocated).unwrap() - i64::try_from(before.allocated).unwrap();
        println!(
            "{concern:<9} {:>8} bytes a restart; resident {} -> {} KiB, threads {} -> {}, descriptors {} -> {}",
            grown / i64::from(restarts),
            before.resident / 1024,
            after.resident / 1024,
            before.threads,
            after.threads,
            before.descriptors,
            after.descriptors
        );
        assert!(grown <= NOISE + PER_RESTART * i64::from(restarts), "{concern}: {before:?}, then {after:?}");
        // One or two come and go by themselves.
        assert!(after.threads < before.threads + 3, "{concern}");
        assert!(after.descriptors < before.descriptors + 3, "{concern}");
    }
    println!("{first:?}\n{:?}", settled(&lab));
    assert!(lab.ping_once(1, PATIENCE).is_reply());
    lab.end();
}
