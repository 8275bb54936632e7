//! When how many datagrams are due.

use nix::errno::Errno;
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// The shortest time between two wake-ups, in ns: what is due meanwhile is sent together. At 40,000 datagrams per second
/// each has a wake-up of its own.
const SHORTEST: u64 = 25_000;
/// A sender that overslept catches up on so much time, in ns, and gives up the rest: else the generator's own delay would
/// overflow queues and look like a loss of who is measured.
const CATCH_UP: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn now() -> u64 {
    // The clock is there on every Linux, and counts from the start of the machine.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| u64::try_from(time.num_nanoseconds()).unwrap_or_default())
}

/// Sleeps until that time of [`now`].
pub(crate) fn sleep_until(time: u64) {
    let time = TimeSpec::nanoseconds(i64::try_from(time).unwrap_or(i64::MAX));
    while clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &time)
        == Err(Errno::EINTR)
    {}
}

/// Lets the calling thread wake when it asks to, and not up to 50 µs later.
pub(crate) fn be_punctual() {
    // Where it is refused, all contenders have the same slack.
    let _ = nix::sys::prctl::set_timerslack(1);
}

/// A rate, the way datagrams go together, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pace {
    /// Datagrams per second.
    pub(crate) rate: u64,
    /// So many are sent back to back, and then there is a pause.
    pub(crate) burst: u64,
    /// For how long, in ns.
    pub(crate) duration: u64,
}

/// Says at each wake-up how many datagrams are due. Time is a parameter.
#[derive(Debug)]
pub(crate) struct Schedule {
    pace: Pace,
    /// When the schedule began; later than it did where the sender has given up time.
    start: u64,
    begun: u64,
    sent: u64,
    next: u64,
}

impl Schedule {
    /// The first burst is due at once.
    pub(crate) fn new(pace: Pace, now: u64) -> Self {
        Self { pace, start: now, begun: now, sent: 0, next: now }
    }

    /// When to wake up next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many datagrams are to be sent now; `None` when the time is over.
    pub(crate) fn due(&mut self, now: u64) -> Option<u64> {
        let Pace { rate, burst, duration } = self.pace;
        if now.saturating_sub(self.begun) >= duration {
            return None;
        }
        let total = Self::until(self.pace, now.saturating_sub(self.start));
        let most = (rate * CATCH_UP / SECOND).max(burst);
        let mut due = total.saturating_sub(self.sent);
        if due > most {
            // The schedule slips by what is given up.
            self.start += (due - most) * SECOND / rate;
            due = most;
        }
        self.sent += due;
        let step = SHORTEST.max(burst * SECOND / rate);
        let steps = now.saturating_sub(self.start) / step + 1;
        self.next = (self.start + steps * step).max(now + 1);
        Some(due)
    }

    /// How many datagrams belong to so many ns, in whole bursts, the first of them at the beginning.
    fn until(pace: Pace, elapsed: u64) -> u64 {
        let exact = u128::from(elapsed) * u128::from(pace.rate) / u128::from(SECOND);
        let exact = u64::try_from(exact).unwrap_or(u64::MAX);
        (exact / pace.burst + 1) * pace.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wakes up when the schedule asks for it, late by what `late` says, and answers with all times and numbers.
    fn walk(pace: Pace, late: impl Fn(u64) -> u64) -> Vec<(u64, u64)> {
        let mut schedule = Schedule::new(pace, 5_000);
        let mut steps = Vec::new();
        loop {
            let now = schedule.next() + late(steps.len() as u64);
            let Some(due) = schedule.due(now) else { return steps };
            steps.push((now - 5_000, due));
            assert!(schedule.next() > now, "it never wakes at a time that is over");
        }
    }

    #[test]
    fn twenty_thousand_a_second_are_one_at_each_fifty_microseconds() {
        let steps = walk(Pace { rate: 20_000, burst: 1, duration: SECOND / 10 }, |_| 0);
        assert_eq!(steps.len(), 2000);
        assert!(steps.iter().enumerate().all(|(step, found)| *found == (step as u64 * 50_000, 1)));
    }

    #[test]
    fn bursts_of_eight_have_the_same_mean_rate() {
        let steps = walk(Pace { rate: 20_000, burst: 8, duration: SECOND / 10 }, |_| 0);
        assert_eq!(steps.iter().map(|(_, due)| due).sum::<u64>(), 2000);
        assert!(steps.iter().enumerate().all(|(step, found)| *found == (step as u64 * 400_000, 8)));
    }

    #[test]
    fn high_rates_are_sent_in_equal_parts() {
        let steps = walk(Pace { rate: 400_000, burst: 1, duration: SECOND / 100 }, |_| 0);
        assert_eq!(steps.iter().map(|(_, due)| due).sum::<u64>(), 3991, "10 per step and one at the start");
        assert!(steps[1..].iter().all(|(_, due)| *due == 10));
    }

    #[test]
    fn a_short_delay_is_caught_up_with() {
        let pace = Pace { rate: 20_000, burst: 1, duration: SECOND / 10 };
        let sent: u64 =
            walk(pace, |step| if step == 100 { 500_000 } else { 7_000 }).iter().map(|s| s.1).sum();
        assert_eq!(sent, 2000);
    }

    #[test]
    fn a_long_delay_is_given_up_and_makes_no_flood() {
        let pace = Pace { rate: 200_000, burst: 1, duration: SECOND / 10 };
        let steps = walk(pace, |step| if step == 100 { 20_000_000 } else { 0 });
        let most = steps.iter().map(|(_, due)| *due).max();
        assert_eq!(most, Some(200), "what belongs to one millisecond");
        let sent: u64 = steps.iter().map(|(_, due)| due).sum();
        assert!((16_000..16_300).contains(&sent), "19 ms of 100 are lost: {sent}");
    }
}
