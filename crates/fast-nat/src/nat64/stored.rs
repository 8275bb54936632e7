//! IPv4 SYNs that wait for their host to open the same connection (RFC 6146 §3.5.2.2).
//!
//! Bounded: so many SYNs of at most [`LONGEST`] bytes. They all wait equally long, so the oldest is over first.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::entries::endpoint;
use crate::faults::{self, Point};

/// What an ICMPv4 error can quote of a SYN: 576 bytes without its own headers (RFC 1812 §4.3.2.3).
const LONGEST: usize = 548;

/// From whom to whom.
pub(super) type Flow = (u64, u64);

#[derive(Debug)]
struct Waiting {
    packet: Box<[u8]>,
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
        let mut inner = self.lock();
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
        // Its end comes first: a panic behind this leaves an end of nothing, and never a SYN without one.
        inner.order.push_back((tick, flow, number));
        faults::at(Point::SynKeep);
        inner.waiting.insert(flow, Waiting { packet, number });
        inner.of_remote.insert(flow.0, flow.1);
        true
    }

    /// Takes the SYN of this flow out, if it waits.
    pub(super) fn take(&self, flow: Flow) -> bool {
        if self.len() == 0 {
            return false;
        }
        let mut inner = self.lock();
        if !inner.waiting.contains_key(&flow) {
            return false;
        }
        // In this order: nobody else would ever forget the remote.
        inner.forget_remote(flow);
        faults::at(Point::SynTake);
        inner.waiting.remove(&flow).is_some()
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
        let mut inner = self.lock();
        while let Some((since, flow, number)) = inner.order.front().copied()
            && tick.saturating_sub(since) > timer
        {
            let is_it = inner.waiting.get(&flow).is_some_and(|waiting| waiting.number == number);
            let packet = if is_it {
                inner.forget_remote(flow);
                faults::at(Point::SynOverdue);
                inner.waiting.remove(&flow).map(|waiting| waiting.packet)
            } else {
                None
            };
            // Last: a SYN that waits is never without its end.
            inner.order.pop_front();
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    /// Whether each SYN that waits has its end, and each remote is one of a SYN that waits.
    #[cfg(feature = "fault-injection")]
    pub(super) fn is_sound(&self) -> bool {
        let inner = self.inner.lock();
        let has_end = |flow: &Flow, waiting: &Waiting| {
            inner.order.iter().any(|(_, other, number)| other == flow && *number == waiting.number)
        };
        inner.waiting.len() == self.len() as usize
            && inner.waiting.iter().all(|(flow, waiting)| has_end(flow, waiting))
            && inner.of_remote.iter().all(|(remote, local)| inner.waiting.contains_key(&(*remote, *local)))
    }

    fn lock(&self) -> Locked<'_> {
        Locked { inner: self.inner.lock(), count: &self.count }
    }
}

impl Inner {
    /// This flow is not the one that its remote is known by, if it was.
    fn forget_remote(&mut self, flow: Flow) {
        if self.of_remote.get(&flow.0) == Some(&flow.1) {
            self.of_remote.remove(&flow.0);
        }
    }
}

/// Under the lock. The count is right when it is given back, whatever happens before.
struct Locked<'s> {
    inner: MutexGuard<'s, Inner>,
    count: &'s AtomicU32,
}

impl Deref for Locked<'_> {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.count.store(self.inner.waiting.len() as u32, Ordering::Relaxed);
    }
}
