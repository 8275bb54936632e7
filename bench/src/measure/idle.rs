//! What contenders take while nothing is under way: all of them at once, since they do not disturb each other.

use std::time::Duration;

use anyhow::Result;

use super::usage::{Usage, resident};
use super::{Figure, Sample, Subject};
use crate::load::pace::{now, sleep_until};

/// When the contenders are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// They have been started and have carried a few packets.
    AtStart,
    /// All loads are over.
    AtEnd,
}

/// Leaves all alone for so long, and says what each took meanwhile, and how much memory it holds.
pub(crate) fn rest(subjects: &[Subject<'_>], when: When, duration: Duration) -> Vec<Result<Sample>> {
    let before: Vec<_> = subjects.iter().map(Subject::usage).collect();
    let begun = now();
    sleep_until(begun + super::nanos(duration));
    let seconds = (now() - begun) as f64 / 1e9;
    let look = |(subject, before): (&Subject<'_>, Result<Option<Usage>>)| {
        let (Some(process), Some(before)) = (subject.process, before?) else { return Ok(Sample::default()) };
        let spent = Usage::of(process.id())?.since(before);
        let (memory, busy) = match when {
            When::AtStart => (Figure::MemoryAtStart, Figure::IdlePercent),
            When::AtEnd => (Figure::MemoryAtEnd, Figure::IdlePercentAtEnd),
        };
        let mut sample = Sample::of([
            (memory, resident(process.id())? as f64 / 1e6),
            (busy, 100.0 * spent.cpu.as_secs_f64() / seconds),
        ]);
        if when == When::AtStart {
            sample.figures.insert(Figure::WakeUpsPerSecond, spent.wake_ups as f64 / seconds);
        }
        Ok(sample)
    };
    subjects.iter().zip(before).map(look).collect()
}
