//! What one worker has counted. Its owner alone writes; `metrics` sums over the workers at a scrape.

use std::sync::atomic::{AtomicU64, Ordering};

use interproto::VirtioNetHdr;

use super::{DropReason, Refusal};

/// A counter with one writer: an add without a locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker calls this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The value so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets and their bytes, as they stand in IP headers. A super-packet counts as the packets that it is on the wire.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: Counter,
    /// Bytes.
    pub bytes: Counter,
}

impl Traffic {
    /// Counts so many packets, which are so long together.
    #[inline]
    pub fn count(&self, packets: u64, bytes: u64) {
        self.packets.add(packets);
        self.bytes.add(bytes);
    }
}

/// The counters of one worker. On a cache line of its own, so that workers do not slow each other down.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    /// IPv6 packets read from the device.
    pub received_v6: Traffic,
    /// IPv4 packets read from the device.
    pub received_v4: Traffic,
    /// IPv4 packets written, translated from IPv6.
    pub forwarded_6to4: Traffic,
    /// IPv6 packets written, translated from IPv4.
    pub forwarded_4to6: Traffic,
    /// ICMP errors of the router's own.
    pub icmp_errors: Counter,
    /// ICMP errors that the rate limit held back (RFC 4443 §2.4 (f), RFC 1812 §4.3.2.8).
    pub icmp_errors_limited: Counter,
    /// ICMP errors and probes of the router's own that the device did not take.
    pub own_lost: Counter,
    /// The kernel's own multicast on the device (router solicitations, MLD reports): not meant for translation.
    pub kernel_chatter: Counter,
    /// First packets of new hosts that were held. A super-packet counts as the packets that it is on the wire.
    pub held: Counter,
    /// Fragments that were parked.
    pub fragments_parked: Counter,
    /// Datagrams that were put together.
    pub reassembled: Counter,
    /// Echo requests to the router's own addresses that were replied to.
    pub echo_replies: Counter,
    /// Established connections whose host was asked whether they are still there (RFC 6146 §3.5.2.2).
    pub probes: Counter,
    /// Sessions that this worker began.
    pub sessions_begun: Counter,
    /// Leases asked for in the pool.
    pub lease_requests: Counter,
    /// Reads from the device that failed.
    pub read_errors: Counter,
    /// Times the worker had waited too long for a processor.
    pub processor_contentions: Counter,
    /// Allocations of the worker's thread, in test builds.
    #[cfg(feature = "count-allocations")]
    pub allocations: Counter,
    drops: [Counter; DropReason::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            received_v6: Traffic::default(),
            received_v4: Traffic::default(),
            forwarded_6to4: Traffic::default(),
            forwarded_4to6: Traffic::default(),
            icmp_errors: Counter::default(),
            icmp_errors_limited: Counter::default(),
            own_lost: Counter::default(),
            kernel_chatter: Counter::default(),
            held: Counter::default(),
            fragments_parked: Counter::default(),
            reassembled: Counter::default(),
            echo_replies: Counter::default(),
            probes: Counter::default(),
            sessions_begun: Counter::default(),
            lease_requests: Counter::default(),
            read_errors: Counter::default(),
            processor_contentions: Counter::default(),
            #[cfg(feature = "count-allocations")]
            allocations: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Counters {
    /// Counts a packet that was not forwarded.
    #[inline]
    pub fn dropped(&self, reason: DropReason) {
        self.drops[reason.index()].add(1);
    }

    /// Counts so many packets that were not forwarded.
    pub fn dropped_many(&self, reason: DropReason, packets: u64) {
        self.drops[reason.index()].add(packets);
    }

    /// Counts a translated frame, which is so many packets on the wire: as forwarded, or as lost if the device did not take it.
    #[inline]
    pub fn written(&self, frame: &[u8], (packets, bytes): (usize, usize), taken: bool) {
        let is_v4 = frame.get(VirtioNetHdr::LENGTH).is_some_and(|first| first >> 4 == 4);
        let forwarded = if is_v4 { &self.forwarded_6to4 } else { &self.forwarded_4to6 };
        if taken {
            forwarded.count(packets as u64, bytes as u64);
        } else {
            self.dropped_many(Refusal::WriteFailed.into(), packets as u64);
        }
    }

    /// Takes over how much this thread has allocated so far, in test builds. The worker's own thread alone calls this.
    #[inline]
    pub fn count_allocations(&self) {
        #[cfg(feature = "count-allocations")]
        // A new worker's thread begins at zero again.
        self.allocations.add(crate::allocations::of_this_thread().wrapping_sub(self.allocations.get()));
    }

    /// Packets not forwarded for this reason so far.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason.index()].get()
    }
}
