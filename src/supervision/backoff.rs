//! When to restart, and when to give up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::{DEFAULT_HANG_AFTER, Settings};

/// How restarts are paced and when they have become too many.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A pulse that is busy for longer than this is a hang.
    pub hang_after: Duration,
    /// An actor that has not finished starting after this long cannot start.
    pub start_within: Duration,
    /// More restarts of one concern than this within `restart_window` end the process.
    pub max_restarts: u32,
    /// The window that `max_restarts` counts in.
    pub restart_window: Duration,
    /// The wait before the first restart; doubled for each further one in a row.
    pub first_delay: Duration,
    /// The longest wait between restarts.
    pub longest_delay: Duration,
    /// An actor that ran for this long is healthy again, and its next wait is `first_delay`.
    pub healthy_after: Duration,
}

impl Limits {
    /// Those that these settings want.
    pub fn of(settings: &Settings) -> Self {
        Self { hang_after: settings.hang_after, ..Self::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hang_after: DEFAULT_HANG_AFTER,
            start_within: Duration::from_secs(10),
            max_restarts: 10,
            restart_window: Duration::from_mins(1),
            first_delay: Duration::from_millis(10),
            longest_delay: Duration::from_secs(5),
            healthy_after: Duration::from_secs(10),
        }
    }
}

/// What to do about an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start again after this wait.
    RestartAfter(Duration),
    /// Too many restarts within the window: this many.
    GiveUp(u32),
}

/// The restart history of one concern. `now` is a parameter: tested without waiting.
#[derive(Debug, Default)]
pub struct Backoff {
    /// At most `max_restarts + 1` entries: older ones leave with the window.
    exits: VecDeque<Instant>,
    in_a_row: u32,
}

impl Backoff {
    /// Counts an exit of an incarnation that had been running for `ran_for`, and decides.
    pub fn on_exit(&mut self, limits: &Limits, ran_for: Duration, now: Instant) -> Decision {
        if ran_for >= limits.healthy_after {
            self.in_a_row = 0;
        }
        while self.exits.front().is_some_and(|at| now.saturating_duration_since(*at) > limits.restart_window)
            || self.exits.len() > limits.max_restarts as usize
        {
            self.exits.pop_front();
        }
        self.exits.push_back(now);
        if self.exits.len() > limits.max_restarts as usize {
            return Decision::GiveUp(limits.max_restarts);
        }
        let delay = limits
            .first_delay
            .saturating_mul(1_u32.checked_shl(self.in_a_row).unwrap_or(u32::MAX))
            .min(limits.longest_delay);
        self.in_a_row = self.in_a_row.saturating_add(1);
        Decision::RestartAfter(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_after_which_a_thread_hangs_is_that_of_the_settings() {
        let settings = |text| {
            let (partial, problems) = crate::config::parse(std::path::Path::new("t.toml"), text);
            partial.settle(problems).unwrap()
        };
        assert_eq!(Limits::of(&settings("hang_after = 7")).hang_after, Duration::from_secs(7));
        assert_eq!(Limits::of(&settings("")).hang_after, Limits::default().hang_after);
    }

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_health() {
        let limits = Limits { max_restarts: 100, ..Limits::default() };
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let waits: Vec<_> = (0..12)
            .map(|_| match backoff.on_exit(&limits, Duration::ZERO, now) {
                Decision::RestartAfter(wait) => wait.as_millis(),
                Decision::GiveUp(_) => panic!("too early"),
            })
            .collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000, 5000]);
        assert_eq!(
            backoff.on_exit(&limits, limits.healthy_after, now),
            Decision::RestartAfter(limits.first_delay)
        );
    }

    #[test]
    fn a_storm_gives_up_but_the_same_number_over_a_longer_time_does_not() {
        let limits = Limits { max_restarts: 3, ..Limits::default() };
        let mut storm = Backoff::default();
        let mut slow = Backoff::default();
        let now = Instant::now();
        let mut last = Decision::GiveUp(0);
        for n in 0..4 {
            last = storm.on_exit(&limits, Duration::ZERO, now);
            let later = now + n * limits.restart_window;
            assert!(matches!(slow.on_exit(&limits, Duration::ZERO, later), Decision::RestartAfter(_)));
        }
        assert_eq!(last, Decision::GiveUp(3));
    }
}
