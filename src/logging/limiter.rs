//! How often equal messages may come. Pure: `now` is a parameter.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// The bounds of a [`Limiter`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Equal messages that pass within one interval.
    pub(super) burst: u32,
    /// The interval; it begins with the first message of a kind.
    pub(super) interval: Duration,
    /// Kinds that are told apart at a time. What comes on top shares one allowance of `burst`.
    pub(super) kinds: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { burst: 10, interval: Duration::from_secs(10), kinds: 256 }
    }
}

/// The kind that all messages share which find the table full.
const OTHERS: u64 = 0;

/// An interval in which messages were suppressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suppressed<T> {
    /// The first message that was suppressed; `None` where the messages were of many kinds.
    pub(super) example: Option<T>,
    /// How many were.
    pub(super) count: u64,
}

#[derive(Debug)]
struct Window<T> {
    passed: u32,
    suppressed: u64,
    example: Option<T>,
}

/// Lets the first messages of a kind in an interval pass, and counts the rest. `T` describes a message.
#[derive(Debug)]
pub(super) struct Limiter<T> {
    limits: Limits,
    /// At most `limits.kinds` windows and one for [`OTHERS`].
    windows: HashMap<u64, Window<T>>,
    /// All windows in the order of their beginning, which is that of their end.
    order: VecDeque<(Instant, u64)>,
}

impl<T> Limiter<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, windows: HashMap::new(), order: VecDeque::new() }
    }

    /// Whether a message of this kind (a hash) may pass. `describe` is called for the first one that may not.
    pub(super) fn admit(&mut self, kind: u64, now: Instant, describe: impl FnOnce() -> T) -> bool {
        let kind = if kind == OTHERS { 1 } else { kind };
        let full = self.windows.len() - usize::from(self.windows.contains_key(&OTHERS)) >= self.limits.kinds;
        let kind = if full && !self.windows.contains_key(&kind) { OTHERS } else { kind };
        let window = self.windows.entry(kind).or_insert_with(|| {
            self.order.push_back((now + self.limits.interval, kind));
            Window { passed: 0, suppressed: 0, example: None }
        });
        if window.passed < self.limits.burst {
            window.passed += 1;
            return true;
        }
        window.suppressed += 1;
        if kind != OTHERS && window.example.is_none() {
            window.example = Some(describe());
        }
        false
    }

    /// When the next interval ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.order.front().map(|(end, _)| *end)
    }

    /// Ends the intervals that are over by now, up to the first one in which something was suppressed.
    pub(super) fn end_next(&mut self, now: Instant) -> Option<Suppressed<T>> {
        while self.next_end().is_some_and(|end| end <= now) {
            let ended = self.pop();
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    /// Ends all intervals, whether they are over or not.
    pub(super) fn end_all(&mut self) -> Vec<Suppressed<T>> {
        let mut all = Vec::new();
        while !self.order.is_empty() {
            all.extend(self.pop());
        }
        all
    }

    fn pop(&mut self) -> Option<Suppressed<T>> {
        let (_, kind) = self.order.pop_front()?;
        let window = self.windows.remove(&kind)?;
        (window.suppressed > 0).then_some(Suppressed { example: window.example, count: window.suppressed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { burst: 3, interval: Duration::from_secs(10), kinds: 2 };

    fn pass(limiter: &mut Limiter<&'static str>, kind: u64, now: Instant, times: usize) -> usize {
        (0..times).filter(|_| limiter.admit(kind, now, || "an example")).count()
    }

    #[test]
    fn a_burst_of_equal_messages_passes_in_part_and_the_rest_is_told_when_the_interval_is_over() {
        let mut limiter = Limiter::new(LIMITS);
        let start = Instant::now();
        assert_eq!(pass(&mut limiter, 7, start, 50), 3);
        assert_eq!(limiter.next_end(), Some(start + LIMITS.interval));
        assert_eq!(limiter.end_next(start + Duration::from_secs(9)), None, "not over yet");
        let told = Suppressed { example: Some("an example"), count: 47 };
        assert_eq!(limiter.end_next(start + LIMITS.interval), Some(told));
        assert_eq!(limiter.next_end(), None, "nothing is kept of a kind that is silent");
        assert_eq!(pass(&mut limiter, 7, start + LIMITS.interval, 5), 3, "a new interval, a new allowance");
    }

    #[test]
    fn an_interval_in_which_nothing_was_suppressed_ends_without_a_word() {
        let mut limiter = Limiter::new(LIMITS);
        let start = Instant::now();
        assert_eq!(pass(&mut limiter, 7, start, 3), 3);
        assert_eq!(limiter.end_next(start + LIMITS.interval), None);
    }

    #[test]
    fn kinds_do_not_take_each_others_allowance() {
        let mut limiter = Limiter::new(LIMITS);
        let start = Instant::now();
        assert_eq!(pass(&mut limiter, 7, start, 10), 3);
        assert_eq!(pass(&mut limiter, 8, start, 10), 3);
    }

    #[test]
    fn the_kinds_that_find_no_room_share_one_allowance_and_the_table_stays_bounded() {
        let mut limiter = Limiter::new(LIMITS);
        let start = Instant::now();
        let passed: usize = (1..=1000).map(|kind| pass(&mut limiter, kind, start, 1)).sum();
        assert_eq!(passed, 2 + 3);
        assert_eq!(limiter.windows.len(), LIMITS.kinds + 1);
        assert_eq!(limiter.order.len(), LIMITS.kinds + 1);
        assert_eq!(limiter.end_all(), [Suppressed { example: None, count: 995 }]);
        assert!(limiter.windows.is_empty());
    }

    #[test]
    fn room_is_made_as_intervals_end() {
        let mut limiter = Limiter::new(LIMITS);
        let start = Instant::now();
        pass(&mut limiter, 7, start, 1);
        pass(&mut limiter, 8, start + Duration::from_secs(5), 1);
        assert_eq!(limiter.end_next(start + Duration::from_secs(12)), None);
        assert_eq!(limiter.next_end(), Some(start + Duration::from_secs(15)), "the second is not over");
        assert_eq!(pass(&mut limiter, 9, start + Duration::from_secs(12), 10), 3);
        assert!(!limiter.windows.contains_key(&OTHERS));
    }
}
