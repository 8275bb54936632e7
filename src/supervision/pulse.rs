//! The pulse: one word per thread of work that says `idle` or `busy since T`.
//!
//! Its owner writes it, the watchdog reads it. Being idle costs nothing, and only being busy for too long is a
//! hang: an actor that waits for messages for a week is healthy.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of the kernel's monotonic clock, without suspend: a machine that was asleep did not hang. As coarse as the kernel's ticks
/// (1 to 10 ms), and so cheap that a worker can afford it at each turn.
fn millis() -> u64 {
    // The clock exists on every kernel since 2.6.32; there is no other way for this call to fail.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from);
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const IDLE: u64 = 0;

/// What one thread of work is doing: 0 for idle, otherwise the moment (in milliseconds, plus one) since which it has
/// been busy with one thing. On a cache line of its own: some are written for each packet.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// Marks the beginning of a piece of work.
    pub fn enter(&self) {
        self.0.store(millis().saturating_add(1), Ordering::Relaxed);
    }

    /// Marks its end.
    pub fn leave(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }

    /// For how long the owner has been busy with one piece of work; `None` while idle.
    pub fn busy_for(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            IDLE => None,
            since => Some(Duration::from_millis(millis().saturating_add(1).saturating_sub(since))),
        }
    }
}

/// A future whose every poll shows on a [`Pulse`].
///
/// An actor's handlers run inside the poll of its context, so wrapping that one future shows a hang in any handler,
/// in `started()` and in `stopped()`. Tasks on one Arbiter take turns, so they may share a pulse.
#[derive(Debug)]
pub struct Pulsed<'p, F> {
    pulse: &'p Pulse,
    inner: F,
}

impl<'p, F> Pulsed<'p, F> {
    /// Shows the polls of `inner` on `pulse`.
    pub fn new(pulse: &'p Pulse, inner: F) -> Self {
        Self { pulse, inner }
    }
}

impl<F: Future + Unpin> Future for Pulsed<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.pulse.enter();
        let _leave = LeaveOnDrop(self.pulse);
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// A panic must leave the pulse idle: it is reported as a panic, not as a hang.
struct LeaveOnDrop<'p>(&'p Pulse);

impl Drop for LeaveOnDrop<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_is_idle_before_and_after_a_poll_and_busy_during_it() {
        let pulse = Pulse::default();
        assert_eq!(pulse.busy_for(), None);
        let seen = futures::executor::block_on(Pulsed::new(
            &pulse,
            Box::pin(std::future::poll_fn(|_| Poll::Ready(pulse.busy_for().is_some()))),
        ));
        assert!(seen, "the watchdog must see the poll while it runs");
        assert_eq!(pulse.busy_for(), None);
    }

    #[test]
    fn a_panicking_poll_leaves_the_pulse_idle() {
        let pulse = Pulse::default();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            futures::executor::block_on(Pulsed::new(
                &pulse,
                Box::pin(std::future::poll_fn(|_| -> Poll<()> { panic!("as the test wants") })),
            ));
        }));
        assert!(result.is_err());
        assert_eq!(pulse.busy_for(), None);
    }
}
