//! How a worker shares its processor: whether it lets those finish whom it finds there, and whether those let it finish whom it wakes.
//!
//! Who sends from this machine wakes a worker with its first packet, often on its own processor. A thread of the kind that all are
//! (`SCHED_OTHER`) takes the processor from the sender then, in the middle of what that has to send: each packet of a burst is met and
//! written alone, with two changes of threads around it, and the receiver is woken on another processor, since this one has two to run.
//! One that waits until the sender sleeps (`SCHED_BATCH`) finds the whole burst, and hands the processor on to the receiver.
//!
//! But where somebody computes without a break, such a thread waits for milliseconds, until the kernel's tick. So a worker asks the kernel
//! now and then how long it has waited for a processor, and where that is too long it is a thread like any other for a while.
//!
//! Whom a worker's packet wakes on the same processor takes that from it in every other write, before it has gone to sleep: of two equal threads
//! each has had more than half of the processor now and then. A worker of a lower nice value is due more of it than it uses, and goes to sleep
//! first, which saves two changes of threads for each packet.

use std::io;
use std::time::Duration;

use fast_nat::Timestamp;
use slog::{Logger, debug, info, warn};

use crate::config::{DEFAULT_WORKER_NICE, Settings};
use crate::scheduling::{Policy, Waits, nice, policy, schedule, set_nice};

/// The shortest slice that the kernel takes: who is woken by what a worker writes takes the processor from it less often before it sleeps.
const SLICE: Duration = Duration::from_micros(100);
/// The kernel is asked at most so often, while packets come.
const LOOK: Duration = Duration::from_millis(100);
/// From fewer turns nothing follows: everybody waits for a tick now and then.
const LEAST_TURNS: u32 = 32;
/// Longer waits than this, on average for each turn, are those for somebody who computes. Waiting for senders to finish was measured
/// to take 10 to 70 µs, and for a program that computes 1000 to 2000 µs.
const PATIENCE: Duration = Duration::from_micros(250);
/// For how long a worker is a thread like any other after the first such finding, and at most: each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(64);
/// After so long without such a finding the next one is the first again.
const CALM: Duration = Duration::from_secs(10);

fn turn_into(policy: Policy) -> io::Result<()> {
    schedule(policy, (policy == Policy::Batch).then_some(SLICE))
}

/// Gives the calling thread, which must be the worker's, its nice value.
pub(super) fn weigh(settings: &Settings) -> io::Result<()> {
    set_nice(settings.worker_nice_from(nice()?))
}

/// Says that workers stay as they are.
pub(super) fn complain(settings: &Settings, why: &io::Error, log: &Logger) {
    if let Some(nice) = settings.worker_nice {
        warn!(log, "workers cannot have the nice value that is set; grant CAP_SYS_NICE, or raise the limit (RLIMIT_NICE)";
            "worker_nice" => nice, "because" => %why);
    } else {
        info!(log, "workers are due no more of a processor than whom they wake there, which costs throughput; grant CAP_SYS_NICE, or \
            raise the limit (RLIMIT_NICE)"; "worker_nice" => DEFAULT_WORKER_NICE, "because" => %why);
    }
}

/// What follows from how long a worker has waited. Time is a parameter.
#[derive(Debug)]
struct Choice {
    policy: Policy,
    /// When it is time to look again.
    due: Timestamp,
    /// Turns since the last look, and what had been waited then.
    turns: u32,
    waited: Duration,
    /// How long the next pause is.
    pause: Duration,
    /// Since when there was no reason for a pause.
    calm_since: Timestamp,
}

impl Choice {
    fn new(now: Timestamp, waited: Duration) -> Self {
        Self { policy: Policy::Batch, due: now + LOOK, turns: 0, waited, pause: FIRST_PAUSE, calm_since: now }
    }

    /// Counts a turn; `true` if it is time to look.
    fn turn(&mut self, now: Timestamp) -> bool {
        self.turns = self.turns.saturating_add(1);
        self.turns >= LEAST_TURNS && now >= self.due
    }

    /// What the worker is to be, now that it has waited so long since it began.
    fn look(&mut self, now: Timestamp, waited: Duration) -> Policy {
        let mean = waited.saturating_sub(self.waited) / self.turns.max(1);
        (self.turns, self.waited) = (0, waited);
        self.due = now + LOOK;
        match self.policy {
            Policy::Other => (self.policy, self.calm_since) = (Policy::Batch, now),
            Policy::Batch if mean > PATIENCE => {
                self.policy = Policy::Other;
                self.due = now + self.pause;
                self.pause = LONGEST_PAUSE.min(2 * self.pause);
            }
            Policy::Batch if now.since(self.calm_since) >= CALM => self.pause = FIRST_PAUSE,
            Policy::Batch => {}
        }
        self.policy
    }
}

/// A worker's scheduling. Where the kernel does not count waits, or whoever started the router has chosen a policy for it, nothing is
/// ever changed.
#[derive(Debug)]
pub(super) struct Scheduling(Option<(Choice, Waits)>);

impl Scheduling {
    /// For the calling thread, which must be the worker's.
    pub(super) fn begin(now: Timestamp, log: &Logger) -> Self {
        Self(Self::try_begin(now).unwrap_or_else(|error| {
            debug!(log, "a worker stays a thread like any other"; "because" => %error);
            None
        }))
    }

    fn try_begin(now: Timestamp) -> io::Result<Option<(Choice, Waits)>> {
        if policy()? != Some(Policy::Other) {
            return Ok(None);
        }
        let waits = Waits::of_this_thread()?;
        let choice = Choice::new(now, waits.total()?);
        turn_into(choice.policy)?;
        Ok(Some((choice, waits)))
    }

    /// At each turn. `true` if the worker waits for programs that compute, and so does no more let others finish.
    pub(super) fn turn(&mut self, now: Timestamp) -> bool {
        let is_due = self.0.as_mut().is_some_and(|(choice, _)| choice.turn(now));
        is_due && self.look(now)
    }

    #[cold]
    fn look(&mut self, now: Timestamp) -> bool {
        let Some((choice, waits)) = &mut self.0 else { return false };
        let before = choice.policy;
        let looked = waits.total().and_then(|waited| {
            let after = choice.look(now, waited);
            if after == before { Ok(false) } else { turn_into(after).map(|()| after == Policy::Other) }
        });
        // What could be read and set at the beginning can be later. If not, it is to wait for nobody unseen.
        looked.unwrap_or_else(|_| {
            let _ = turn_into(Policy::Other);
            self.0 = None;
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Instant;

    use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
    use nix::unistd::Pid;

    use super::*;
    use crate::clock;

    /// A worker whose turns take so long, and for each of which it waits so long.
    struct Worker {
        choice: Choice,
        now: Timestamp,
        waited: Duration,
    }

    impl Worker {
        fn new() -> Self {
            let now = Timestamp::from_millis(1_000_000);
            Self { choice: Choice::new(now, Duration::ZERO), now, waited: Duration::ZERO }
        }

        /// Turns, one each millisecond, for so long; answers with the changes and when they came.
        fn work(&mut self, length: Duration, waits: Duration) -> Vec<(Duration, Policy)> {
            let (begin, mut changes) = (self.now, Vec::new());
            while self.now.since(begin) < length {
                self.now = self.now + Duration::from_millis(1);
                self.waited += waits;
                let before = self.choice.policy;
                if self.choice.turn(self.now) && self.choice.look(self.now, self.waited) != before {
                    changes.push((self.now.since(begin), self.choice.policy));
                }
            }
            changes
        }
    }

    fn quiet() -> Logger {
        Logger::root(slog::Discard, slog::o!())
    }

    const SHORT: Duration = Duration::from_micros(70);
    const LONG: Duration = Duration::from_millis(2);

    #[test]
    fn who_waits_for_senders_only_lets_them_finish_for_ever() {
        let mut worker = Worker::new();
        assert_eq!(worker.work(Duration::from_mins(10), SHORT), []);
        assert_eq!(worker.choice.policy, Policy::Batch);
    }

    #[test]
    fn who_waits_for_long_is_like_any_other_from_the_next_look_on() {
        let mut worker = Worker::new();
        worker.work(Duration::from_secs(1), SHORT);
        let changes = worker.work(Duration::from_millis(900), LONG);
        assert!(matches!(changes[..], [(after, Policy::Other)] if after <= 2 * LOOK), "{changes:?}");
    }

    #[test]
    fn it_tries_again_more_and_more_seldom() {
        let mut worker = Worker::new();
        let changes = worker.work(Duration::from_secs(400), LONG);
        let pauses: Vec<_> = changes
            .chunks_exact(2)
            .map(|pair| {
                assert_eq!((pair[0].1, pair[1].1), (Policy::Other, Policy::Batch));
                pair[1].0.saturating_sub(pair[0].0).as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64, 64, 64]);
        // A try takes no longer than a look.
        let is_short = |pair: &[(Duration, Policy)]| pair[1].0.saturating_sub(pair[0].0) <= 2 * LOOK;
        assert!(changes.windows(2).all(|pair| pair[0].1 == Policy::Other || is_short(pair)));
    }

    #[test]
    fn after_a_calm_while_a_pause_is_short_again() {
        let mut worker = Worker::new();
        worker.work(Duration::from_secs(20), LONG);
        worker.work(Duration::from_secs(45), SHORT);
        assert_eq!(worker.choice.policy, Policy::Batch);
        let changes = worker.work(Duration::from_secs(2), LONG);
        assert_eq!(changes.len(), 3, "a second is over: {changes:?}");
    }

    #[test]
    fn a_few_turns_are_no_reason() {
        let mut choice = Choice::new(Timestamp::from_millis(0), Duration::ZERO);
        for turn in 1..LEAST_TURNS {
            assert!(!choice.turn(Timestamp::from_millis(u64::from(turn) * 10_000)));
        }
        assert!(choice.turn(Timestamp::from_millis(1_000_000)));
    }

    #[test]
    fn a_thread_that_somebody_has_chosen_a_policy_for_keeps_it() {
        let kept = thread::spawn(|| {
            schedule(Policy::Batch, None).unwrap();
            let own = Scheduling::begin(Timestamp::from_millis(0), &quiet());
            (own.0.is_none(), policy().unwrap())
        });
        assert_eq!(kept.join().unwrap(), (true, Some(Policy::Batch)));
    }

    #[test]
    fn beside_somebody_who_computes_a_worker_is_soon_like_any_other() {
        let mut one = CpuSet::new();
        one.set(sched_getcpu().unwrap()).unwrap();
        let to_this_processor = || sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        let is_over = AtomicBool::new(false);
        let found = thread::scope(|scope| {
            scope.spawn(|| {
                to_this_processor();
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let worker = scope.spawn(|| {
                to_this_processor();
                let mut own = Scheduling::begin(clock::now(), &quiet());
                assert_eq!(policy().unwrap(), Some(Policy::Batch));
                let patience = Instant::now();
                while patience.elapsed() < Duration::from_secs(30) {
                    nanosleep(Duration::from_millis(1));
                    if own.turn(clock::now()) {
                        return policy().unwrap();
                    }
                }
                None
            });
            let found = worker.join();
            is_over.store(true, Ordering::Relaxed);
            found.unwrap()
        });
        assert_eq!(found, Some(Policy::Other));
    }

    /// The thread is to sleep, as a worker does.
    #[allow(clippy::disallowed_methods)]
    fn nanosleep(time: Duration) {
        thread::sleep(time);
    }
}
