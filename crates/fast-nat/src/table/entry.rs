use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Lease, LeaseKind, Timestamp};

/// A lease in the table. What each packet touches is atomic.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) host: Ipv6Addr,
    pub(super) address: Ipv4Addr,
    pub(super) kind: LeaseKind,
    pub(super) generation: u32,
    pub(super) granted: Timestamp,
    last_seen: AtomicU64,
}

impl Entry {
    pub(super) fn new(
        host: Ipv6Addr,
        address: Ipv4Addr,
        kind: LeaseKind,
        generation: u32,
        (granted, last_seen): (Timestamp, Timestamp),
    ) -> Self {
        Self { host, address, kind, generation, granted, last_seen: AtomicU64::new(last_seen.as_millis()) }
    }

    /// The host sent a packet. Times never run backwards: two workers may bring theirs in either order.
    #[inline]
    pub(super) fn refresh(&self, now: Timestamp) {
        if self.last_seen.load(Ordering::Relaxed) < now.as_millis() {
            self.last_seen.fetch_max(now.as_millis(), Ordering::Relaxed);
        }
    }

    pub(super) fn last_seen(&self) -> Timestamp {
        Timestamp::from_millis(self.last_seen.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn lease(&self) -> Lease {
        Lease {
            host: self.host,
            address: self.address,
            kind: self.kind,
            generation: self.generation,
            granted: self.granted,
            last_seen: self.last_seen(),
        }
    }
}
