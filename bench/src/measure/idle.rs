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
        Ok(sample(spent, resident(process.id())?, when, seconds))
    };
    subjects.iter().zip(before).map(look).collect()
}

/// What was used in so many seconds, and the memory in bytes.
fn sample(spent: Usage, memory: u64, when: When, seconds: f64) -> Sample {
    let each = |count: u64| count as f64 / seconds;
    let busy = 100.0 * spent.cpu.as_secs_f64() / seconds;
    let memory = memory as f64 / 1e6;
    let (mut sample, workers) = match when {
        When::AtStart => (
            Sample::of([
                (Figure::IdlePercent, busy),
                (Figure::WakeUpsPerSecond, each(spent.wake_ups)),
                (Figure::MemoryAtStart, memory),
            ]),
            Figure::WorkerWakeUpsPerSecond,
        ),
        When::AtEnd => (
            Sample::of([(Figure::IdlePercentAtEnd, busy), (Figure::MemoryAtEnd, memory)]),
            Figure::WorkerWakeUpsPerSecondAtEnd,
        ),
    };
    sample.figures.extend(spent.worker_wake_ups.map(|count| (workers, each(count))));
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_start_and_of_the_end_are_told_apart() {
        let spent = Usage {
            cpu: Duration::from_millis(3),
            wake_ups: 8,
            worker_wake_ups: Some(1),
            ..Usage::default()
        };
        let of = |when| sample(spent, 17_000_000, when, 2.0).figures.into_iter().collect::<Vec<_>>();
        assert_eq!(
            of(When::AtStart),
            [
                (Figure::IdlePercent, 0.15),
                (Figure::WakeUpsPerSecond, 4.0),
                (Figure::WorkerWakeUpsPerSecond, 0.5),
                (Figure::MemoryAtStart, 17.0)
            ]
        );
        assert_eq!(
            of(When::AtEnd),
            [
                (Figure::IdlePercentAtEnd, 0.15),
                (Figure::WorkerWakeUpsPerSecondAtEnd, 0.5),
                (Figure::MemoryAtEnd, 17.0)
            ]
        );
    }

    #[test]
    fn who_has_no_workers_has_no_figure_of_them() {
        let found = sample(Usage::default(), 1, When::AtStart, 1.0);
        assert!(!found.figures.contains_key(&Figure::WorkerWakeUpsPerSecond));
    }
}
