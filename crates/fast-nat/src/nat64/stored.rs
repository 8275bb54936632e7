//! IPv4 SYNs that wait for their host to open the same connection (RFC 6146 §3.5.2.2).
//!
//! Bounded: so many SYNs of at most [`LONGEST`] bytes. They all wait equally long, so the oldest is over first.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::entries::endpoint;

/// What an ICMPv4 error can quote of a SYN: 576 bytes without its own headers (RFC 1812 §4.3.2.3).
const LONGEST: usize = 548;

/// From whom to whom.
pub(super) type Flow = (u64, u64);

#[derive(Debug)]
struct Waiting {
    packet: Box<[u8]>,
    since: u32,
    /// Tells it from one of the same flow that waited before.
    number: u64,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: HashMap<Flow, Waiting>,
    /// Of each remote the flow that was stored last.
    of_remote: HashMap<u64, u64>,
    order: VecDeque<(u32, Flow, u64)>,
    stored: u64,
}

/// The SYNs that wait.
#[derive(Debug)]
pub(super) struct StoredSyns {
    most: u32,
    count: AtomicU32,
    inner: Mutex<Inner>,
}

impl StoredSyns {
    pub(super) fn new(most: u32) -> Self {
        let most_too = most as usize;
        let inner = Inner {
            waiting: HashMap::with_capacity(most_too),
            of_remote: HashMap::with_capacity(most_too),
            // Those that were taken up keep their place until their time is over.
            order: VecDeque::with_capacity(2 * most_too),
            stored: 0,
        };
        Self { most, count: AtomicU32::new(0), inner: Mutex::new(inner) }
    }

    pub(super) fn is_stuck(&self, patience: Duration) -> bool {
        self.inner.try_lock_for(patience).is_none()
    }

    pub(super) fn len(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Keeps a SYN. `false`: there is no room.
    pub(super) fn keep(&self, flow: Flow, packet: &[u8], tick: u32) -> bool {
        let packet = packet.get(..LONGEST).unwrap_or(packet).into();
        let mut inner = self.inner.lock();
        if let Some(waiting) = inner.waiting.get_mut(&flow) {
            waiting.packet = packet;
            return true;
        }
        let most = self.most as usize;
        if inner.waiting.len() >= most || inner.order.len() >= 2 * most {
            return false;
        }
        inner.stored += 1;
        let number = inner.stored;
        inner.waiting.insert(flow, Waiting { packet, since: tick, number });
        inner.of_remote.insert(flow.0, flow.1);
        inner.order.push_back((tick, flow, number));
        self.count.store(inner.waiting.len() as u32, Ordering::Relaxed);
        true
    }

    /// Takes the SYN of this flow out, if it waits.
    pub(super) fn take(&self, flow: Flow) -> bool {
        if self.len() == 0 {
            return false;
        }
        let mut inner = self.inner.lock();
        let taken = inner.waiting.remove(&flow).is_some();
        if taken && inner.of_remote.get(&flow.0) == Some(&flow.1) {
            inner.of_remote.remove(&flow.0);
        }
        self.count.store(inner.waiting.len() as u32, Ordering::Relaxed);
        taken
    }

    /// The address and port that this remote has last sent a SYN to.
    pub(super) fn wanted_by(&self, remote: Ipv4Addr, port: u16) -> Option<u64> {
        if self.len() == 0 {
            return None;
        }
        self.inner.lock().of_remote.get(&endpoint(remote, port)).copied()
    }

    /// The next SYN that has waited for more than `timer` ticks.
    pub(super) fn overdue(&self, tick: u32, timer: u32) -> Option<Box<[u8]>> {
        let mut inner = self.inner.lock();
        while let Some((since, flow, number)) = inner.order.front().copied()
            && tick.saturating_sub(since) > timer
        {
            inner.order.pop_front();
            let is_it = inner.waiting.get(&flow).is_some_and(|waiting| waiting.number == number);
            if is_it && let Some(waiting) = inner.waiting.remove(&flow) {
                debug_assert_eq!(waiting.since, since);
                if inner.of_remote.get(&flow.0) == Some(&flow.1) {
                    inner.of_remote.remove(&flow.0);
                }
                self.count.store(inner.waiting.len() as u32, Ordering::Relaxed);
                return Some(waiting.packet);
            }
        }
        None
    }
}
