//! Datagrams in one direction at a pace, counted on both ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

use super::pace::{Pace, Schedule, be_punctual, now, sleep_until};
use super::socket::{Cutter, Flow, Receiver, Sender};

/// Each stream has a number, so that stragglers of one are not counted for the next.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// What came of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Counts {
    /// Datagrams that the client's kernel took.
    pub(crate) sent: u64,
    /// Datagrams that the server got.
    pub(crate) received: u64,
    /// How often the sender woke up.
    pub(crate) wake_ups: u64,
    /// How long it sent, in seconds.
    pub(crate) seconds: f64,
}

impl Counts {
    /// Lost datagrams, in percent of those sent.
    pub(crate) fn loss_percent(&self) -> f64 {
        100.0 * self.sent.saturating_sub(self.received) as f64 / self.sent.max(1) as f64
    }

    /// Datagrams sent per second.
    pub(crate) fn rate(&self) -> f64 {
        self.sent as f64 / self.seconds.max(1e-9)
    }
}

/// How the datagrams that are due go to the client's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handing {
    /// Each is sent, forwarded and received by the next kernel before the next one is sent.
    OneByOne,
    /// Each burst is sent as a whole, and its datagrams arrive right behind each other.
    Together,
}

/// Sends from the client to the server, and returns when the last datagram has arrived or nothing came for a while: no
/// backlog is left for who comes next.
pub(crate) fn run(flow: &Flow, payload: u16, pace: Pace, handing: Handing) -> Result<Counts> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let counting = scope.spawn(|| receive(flow, number, &is_over));
        // On a thread of its own: its timer slack would be inherited by every program started later.
        let sent = scope.spawn(|| send(flow, number, payload, pace, handing)).join();
        is_over.store(true, Ordering::Release);
        let received = counting.join().map_err(|_| anyhow!("the receiver panicked"))??;
        let (sent, wake_ups, elapsed) = sent.map_err(|_| anyhow!("the sender panicked"))??;
        Ok(Counts { sent, received, wake_ups, seconds: elapsed as f64 / 1e9 })
    })
}

fn send(flow: &Flow, number: u64, payload: u16, pace: Pace, handing: Handing) -> Result<(u64, u64, u64)> {
    be_punctual();
    let mut text = vec![0x5a; payload.into()];
    text[..8].copy_from_slice(&number.to_be_bytes());
    match handing {
        Handing::OneByOne => {
            let mut sender = Sender::new(&flow.client, &text);
            keep_pace(pace, |due| sender.send(due))
        }
        Handing::Together => {
            let cutter = Cutter::new(&flow.client, &text, pace.burst)?;
            keep_pace(pace, |due| cutter.send(due))
        }
    }
}

/// Hands over what is due when it is due. Answers with what was taken, the number of wake-ups and how long it took.
fn keep_pace(pace: Pace, mut hand_over: impl FnMut(u64) -> Result<u64>) -> Result<(u64, u64, u64)> {
    let begun = now();
    let mut schedule = Schedule::new(pace, begun);
    let (mut sent, mut wake_ups) = (0, 0);
    loop {
        sleep_until(schedule.next());
        let Some(due) = schedule.due(now()) else { return Ok((sent, wake_ups, now() - begun)) };
        sent += hand_over(due)?;
        wake_ups += 1;
    }
}

fn receive(flow: &Flow, number: u64, is_over: &AtomicBool) -> Result<u64> {
    let mark = number.to_be_bytes();
    let mut arrivals = Receiver::new(&flow.server);
    let mut received = 0;
    loop {
        // Asked before the silence, which must lie behind the end.
        let was_over = is_over.load(Ordering::Acquire);
        let count = arrivals.receive(|datagram| received += u64::from(datagram.starts_with(&mark)))?;
        if count == 0 && was_over {
            return Ok(received);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_of_what_was_sent() {
        let counts = Counts { sent: 2000, received: 1999, wake_ups: 100, seconds: 0.5 };
        assert!((counts.loss_percent() - 0.05).abs() < 1e-9);
        assert!((counts.rate() - 4000.0).abs() < 1e-9);
        let none = Counts { sent: 0, received: 0, wake_ups: 0, seconds: 0.0 };
        assert!(none.loss_percent().abs() < 1e-9);
    }
}
