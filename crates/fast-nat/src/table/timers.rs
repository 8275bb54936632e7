//! When to look at which lease again.
//!
//! Lazy: a packet moves no timer. An entry is visited when its timer fires and is set anew from when its host was last
//! seen. A binary heap from the standard library does: one push and one pop per lease and lifetime.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv6Addr;

use crate::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Timestamp, Ipv6Addr, u32)>>);

impl Timers {
    pub(super) fn arm(&mut self, at: Timestamp, host: Ipv6Addr, generation: u32) {
        self.0.push(Reverse((at, host, generation)));
    }

    /// Takes at most `budget` timers out that fire at `now`.
    pub(super) fn due(&mut self, now: Timestamp, budget: usize) -> Vec<(Ipv6Addr, u32)> {
        let mut due = Vec::new();
        while due.len() < budget
            && let Some(Reverse((at, host, generation))) = self.0.peek().copied()
            && at <= now
        {
            self.0.pop();
            due.push((host, generation));
        }
        due
    }

    /// The leases that have a timer.
    #[cfg(feature = "fault-injection")]
    pub(super) fn generations(&self) -> std::collections::HashSet<u32> {
        self.0.iter().map(|Reverse((.., generation))| *generation).collect()
    }

    /// Gives memory back. A lease that is ended by request leaves its timer behind until it fires; `held` leases have
    /// as many live timers.
    pub(super) fn tidy(&mut self, held: usize) {
        if self.0.capacity() > 4 * (held + 256) {
            self.0.shrink_to(2 * self.0.len());
        }
    }
}
