//! How the kernel schedules the calling thread.
// Neither `nix` nor `rustix` has these two calls, and a C library may refuse them (musl does).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// The scheduling policies of threads that are not real-time ones; see sched(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `SCHED_OTHER`, which all threads begin with: one that is woken may take the processor from whom it finds there.
    Other,
    /// `SCHED_BATCH`: one that is woken waits until the processor is free, or until the kernel's tick takes it from whom it finds there.
    Batch,
}

impl Policy {
    const fn number(self) -> u32 {
        // Small constants.
        #[allow(clippy::cast_sign_loss)]
        match self {
            Self::Other => libc::SCHED_OTHER as u32,
            Self::Batch => libc::SCHED_BATCH as u32,
        }
    }
}

/// What this thread is scheduled as; `None` for all that a [`Policy`] is not.
pub fn policy() -> io::Result<Option<Policy>> {
    let number = attributes()?.sched_policy;
    Ok([Policy::Other, Policy::Batch].into_iter().find(|policy| policy.number() == number))
}

/// Schedules this thread so from now on. Its nice value stays. No privilege is needed for it.
///
/// A slice is taken by Linux 6.12 and later, and is 100 µs at least: of two threads that are both due, the one with the shorter slice runs
/// first. `None` is the kernel's own.
pub fn schedule(policy: Policy, slice: Option<Duration>) -> io::Result<()> {
    let mut attributes = attributes()?;
    attributes.sched_policy = policy.number();
    attributes.sched_runtime = slice.map_or(0, |slice| u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX));
    // SAFETY: the kernel reads the structure, which says how long it is, and keeps no pointer to it.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// The attributes of this thread, as the kernel wants them back.
fn attributes() -> io::Result<libc::sched_attr> {
    const SIZE: u32 = size_of::<libc::sched_attr>() as u32;
    // SAFETY: the structure has integers only.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most as much as it is told that there is room for.
    done(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) })?;
    // A newer kernel tells its own size.
    attributes.size = SIZE;
    Ok(attributes)
}

/// The nice value of this thread: -20, which has the most of a processor, to 19.
pub fn nice() -> io::Result<i32> {
    // For Linux 0 is the thread that asks, not its process.
    Ok(rustix::process::getpriority_process(None)?)
}

/// Gives this thread another one. Lowering it takes `CAP_SYS_NICE`, or a limit that allows it (`RLIMIT_NICE`).
pub fn set_nice(nice: i32) -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, nice)?)
}

fn done(answer: libc::c_long) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's account of how long one thread had to wait for a processor.
#[derive(Debug)]
pub struct Waits(File);

impl Waits {
    /// That of the calling thread. An error where this kernel keeps no such account (`CONFIG_SCHED_INFO`).
    pub fn of_this_thread() -> io::Result<Self> {
        let waits = Self(File::open("/proc/thread-self/schedstat")?);
        waits.total().map(|_| waits)
    }

    /// For how long it was ready to run and had no processor, since it began. Allocates nothing.
    pub fn total(&self) -> io::Result<Duration> {
        // Three numbers of 64 bits: ns on a processor, ns waiting for one, and how often it got one.
        let mut text = [0; 64];
        let length = self.0.read_at(&mut text, 0)?;
        let text = str::from_utf8(&text[..length]).unwrap_or_default();
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        // The first is brought up to date by the kernel's tick, and may still be 0.
        match (numbers.nth(1), numbers.next()) {
            // Who reads this has got one.
            (Some(Ok(waited)), Some(Ok(1..))) => Ok(Duration::from_nanos(waited)),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel does not count it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
    use nix::unistd::Pid;

    use super::*;

    const SLICE: Duration = Duration::from_micros(100);

    #[test]
    fn a_thread_can_go_there_and_back_and_others_stay_as_they_are() {
        let there = thread::spawn(|| {
            let nice = attributes().unwrap().sched_nice;
            schedule(Policy::Batch, Some(SLICE)).unwrap();
            assert_eq!(policy().unwrap(), Some(Policy::Batch));
            assert_eq!(attributes().unwrap().sched_nice, nice);
            schedule(Policy::Other, None).unwrap();
            assert_eq!(policy().unwrap(), Some(Policy::Other));
            schedule(Policy::Batch, Some(SLICE)).unwrap();
        });
        there.join().unwrap();
        assert_eq!(policy().unwrap(), Some(Policy::Other));
    }

    #[test]
    fn a_nice_value_is_a_threads_own() {
        let there = thread::spawn(|| {
            let before = nice().unwrap();
            // Raising it takes no right.
            let after = (before + 1).min(19);
            set_nice(after).unwrap();
            schedule(Policy::Batch, Some(SLICE)).unwrap();
            assert_eq!(nice().unwrap(), after);
            before
        });
        assert_eq!(there.join().unwrap(), nice().unwrap());
    }

    #[test]
    fn a_policy_that_is_neither_is_told_as_none() {
        let idle = thread::spawn(|| {
            let mut attributes = attributes().unwrap();
            attributes.sched_policy = u32::try_from(libc::SCHED_IDLE).unwrap();
            // SAFETY: as above.
            done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }).unwrap();
            policy().unwrap()
        });
        assert_eq!(idle.join().unwrap(), None);
    }

    #[test]
    fn a_thread_that_has_just_begun_is_counted_too() {
        for _ in 0..1000 {
            thread::spawn(|| Waits::of_this_thread().unwrap().total().unwrap()).join().unwrap();
        }
    }

    #[test]
    fn who_shares_a_processor_has_waited_for_it() {
        // Both go to the processor that this one is on.
        let mut one = CpuSet::new();
        one.set(sched_getcpu().unwrap()).unwrap();
        let (start, end) = (Barrier::new(2), Barrier::new(2));
        let work = || {
            sched_setaffinity(Pid::from_raw(0), &one).unwrap();
            start.wait();
            let waits = Waits::of_this_thread().unwrap();
            let before = waits.total().unwrap();
            let begun = std::time::Instant::now();
            while begun.elapsed() < Duration::from_millis(100) {
                std::hint::spin_loop();
            }
            let waited = waits.total().unwrap().checked_sub(before).unwrap();
            end.wait();
            waited
        };
        let both = thread::scope(|scope| {
            let other = scope.spawn(work);
            let own = scope.spawn(work);
            own.join().unwrap() + other.join().unwrap()
        });
        // Together they had one processor for 100 ms and no more, less what the clock of the one ran while the other was not there yet.
        assert!(both >= Duration::from_millis(20), "{both:?}");
    }
}
