//! What the tables hold. Sessions and bindings are read without a lock, hosts, subscribers and blocks under one.
//!
//! An entry that is read without a lock has a version: odd while it is in use, and another one each time. Who reads it
//! looks at the version before and after; if that is the same odd number, what was read belongs together.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use parking_lot::Mutex;

use super::ports::PortSet;
use super::slab::{Chunks, Entry};
use super::tcp::Side;
use super::{PortClass, Protocol, SessionState};
use crate::Timestamp;
use crate::memory::{Atoms, Mapped};

/// Address and port in one number.
pub(super) const fn endpoint(address: Ipv4Addr, port: u16) -> u64 {
    (address.to_bits() as u64) << 16 | port as u64
}

/// The address and port of such a number.
pub(super) const fn endpoint_parts(bits: u64) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from_bits((bits >> 16) as u32), bits as u16)
}

/// Whether a version is that of an entry in use.
pub(super) const fn in_use(version: u32) -> bool {
    version & 1 == 1
}

/// Begins or ends the use of an entry; its other fields are written before the one and after the other.
pub(super) fn turn(version: &AtomicU32) -> u32 {
    let next = version.load(Ordering::Relaxed).wrapping_add(1);
    version.store(next, Ordering::Release);
    // What is written from here on must not be seen with the old version.
    fence(Ordering::Release);
    next
}

/// A session.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Session {
    pub(super) version: AtomicU32,
    pub(super) binding: AtomicU32,
    /// The remote [`endpoint`].
    pub(super) remote: AtomicU64,
    /// See [`Standing`].
    pub(super) standing: AtomicU32,
    /// In ticks.
    pub(super) last_seen: AtomicU32,
    /// Neighbours in the list of its timer.
    pub(super) before: AtomicU32,
    pub(super) behind: AtomicU32,
    /// From the IPv6 and the IPv4 side.
    pub(super) packets: [AtomicU64; 2],
    pub(super) bytes: [AtomicU64; 2],
}

// SAFETY: all fields are atomics of integers.
#[allow(unsafe_code)]
unsafe impl Atoms for Session {}

impl Entry for Session {
    type Memory = Mapped<Self>;

    fn link(&self) -> &AtomicU32 {
        &self.behind
    }
}

/// State, flags and timer slot of a session in one word, written under its shard's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing(pub(super) u32);

impl Standing {
    /// Its host has sent on it, and more than a refusal.
    const TAKEN_PART: u32 = 1 << 8;
    /// Its remote has sent on it.
    const ANSWERED: u32 = 1 << 9;
    /// It has been established, and that was told.
    const ESTABLISHED: u32 = 1 << 10;
    /// It was opened from the IPv4 side.
    const FROM_OUTSIDE: u32 = 1 << 11;
    const PROTOCOL_SHIFT: u32 = 12;

    pub(super) const fn new(protocol: Protocol, state: SessionState) -> Self {
        Self((protocol as u32) << Self::PROTOCOL_SHIFT | state as u32)
    }

    /// The protocol of its binding.
    pub(super) const fn protocol(self) -> Protocol {
        Protocol::from_bits((self.0 >> Self::PROTOCOL_SHIFT) as u8 & 3)
    }

    pub(super) const fn state(self) -> SessionState {
        SessionState::from_bits(self.0 as u8)
    }

    pub(super) const fn with_state(self, state: SessionState) -> Self {
        Self(self.0 & !0xff | state as u32)
    }

    pub(super) const fn taken_part(self) -> bool {
        self.0 & Self::TAKEN_PART != 0
    }

    pub(super) const fn with_taken_part(self) -> Self {
        Self(self.0 | Self::TAKEN_PART)
    }

    pub(super) const fn answered(self) -> bool {
        self.0 & Self::ANSWERED != 0
    }

    pub(super) const fn with_answered(self) -> Self {
        Self(self.0 | Self::ANSWERED)
    }

    pub(super) const fn was_established(self) -> bool {
        self.0 & Self::ESTABLISHED != 0
    }

    pub(super) const fn with_established(self) -> Self {
        Self(self.0 | Self::ESTABLISHED)
    }

    pub(super) const fn opened_from_outside(self) -> Self {
        Self(self.0 | Self::FROM_OUTSIDE)
    }

    pub(super) const fn opened_by(self) -> Side {
        if self.0 & Self::FROM_OUTSIDE == 0 { Side::V6 } else { Side::V4 }
    }

    pub(super) const fn slot(self) -> usize {
        (self.0 >> 16) as usize
    }

    pub(super) const fn with_slot(self, slot: usize) -> Self {
        Self(self.0 & 0xffff | (slot as u32) << 16)
    }
}

impl Session {
    /// Begins counting, with these packets and bytes from either side.
    pub(super) fn count_anew(&self, counts: [(u64, u64); 2]) {
        for ((of_packets, of_bytes), (packets, bytes)) in self.packets.iter().zip(&self.bytes).zip(counts) {
            of_packets.store(packets, Ordering::Relaxed);
            of_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn standing(&self) -> Standing {
        Standing(self.standing.load(Ordering::Relaxed))
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        self.standing.store(standing.0, Ordering::Relaxed);
    }

    pub(super) fn remote_address(&self) -> Ipv4Addr {
        endpoint_parts(self.remote.load(Ordering::Relaxed)).0
    }

    /// The timer begins anew. Time does not run backwards.
    #[inline]
    pub(super) fn refresh(&self, tick: u32) {
        if self.last_seen.load(Ordering::Relaxed) < tick {
            self.last_seen.store(tick, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn count(&self, side: Side, packets: u64, bytes: u64) {
        self.packets[side.index()].fetch_add(packets, Ordering::Relaxed);
        self.bytes[side.index()].fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A BIB entry.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Binding {
    pub(super) version: AtomicU32,
    /// See [`binding_key`].
    pub(super) key: AtomicU32,
    host: [AtomicU64; 2],
    /// The mapped [`endpoint`], and whether it is static.
    mapped: AtomicU64,
    /// The remote of one of its sessions, which one is looked at first.
    pub(super) hint_remote: AtomicU64,
    /// The number of that session; 0: none.
    pub(super) hint: AtomicU32,
    /// The number of its lessee.
    pub(super) owner: AtomicU32,
    /// The number of its block; 0: none.
    pub(super) block: AtomicU32,
    pub(super) sessions: AtomicU32,
    /// Sessions that its host has taken part in.
    pub(super) taken_part: AtomicU32,
    link: AtomicU32,
}

// SAFETY: all fields are atomics of integers.
#[allow(unsafe_code)]
unsafe impl Atoms for Binding {}

impl Entry for Binding {
    type Memory = Mapped<Self>;

    fn link(&self) -> &AtomicU32 {
        &self.link
    }
}

/// A host's port under one prefix, for one protocol.
pub(super) const fn binding_key(prefix: u8, protocol: Protocol, port: u16) -> u32 {
    (port as u32) << 16 | (prefix as u32) << 8 | protocol as u32
}

/// What does not change as long as a binding is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) version: u32,
    pub(super) key: u32,
    pub(super) host: Ipv6Addr,
    mapped: u64,
    pub(super) owner: u32,
}

const STATIC: u64 = 1 << 63;

impl Bound {
    pub(super) const fn new(key: u32, host: Ipv6Addr, address: Ipv4Addr, port: u16, owner: u32) -> Self {
        Self { version: 0, key, host, mapped: endpoint(address, port), owner }
    }

    pub(super) const fn made_static(self) -> Self {
        Self { mapped: self.mapped | STATIC, ..self }
    }

    pub(super) const fn is_static(&self) -> bool {
        self.mapped & STATIC != 0
    }

    pub(super) const fn endpoint(&self) -> (Ipv4Addr, u16) {
        endpoint_parts(self.mapped)
    }

    pub(super) const fn prefix(&self) -> u8 {
        (self.key >> 8) as u8
    }

    pub(super) const fn protocol(&self) -> Protocol {
        Protocol::from_bits(self.key as u8)
    }

    pub(super) const fn host_port(&self) -> u16 {
        (self.key >> 16) as u16
    }
}

impl Binding {
    /// All that does not change, if the binding is in use.
    #[inline]
    pub(super) fn read(&self) -> Option<Bound> {
        let version = self.version.load(Ordering::Acquire);
        let high = u128::from(self.host[0].load(Ordering::Relaxed));
        let low = u128::from(self.host[1].load(Ordering::Relaxed));
        let bound = Bound {
            version,
            key: self.key.load(Ordering::Relaxed),
            host: Ipv6Addr::from_bits(high << 64 | low),
            mapped: self.mapped.load(Ordering::Relaxed),
            owner: self.owner.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        (in_use(version) && self.version.load(Ordering::Relaxed) == version).then_some(bound)
    }

    /// Whether nothing keeps it but that it is static.
    pub(super) fn has_no_session(&self) -> bool {
        self.sessions.load(Ordering::Relaxed) == 0
    }

    /// It ends with its last session from now on.
    pub(super) fn make_dynamic(&self) {
        self.mapped.fetch_and(!STATIC, Ordering::Relaxed);
    }

    /// It does not end any more.
    pub(super) fn make_static(&self) {
        self.mapped.fetch_or(STATIC, Ordering::Relaxed);
    }

    /// Begins its use.
    pub(super) fn begin(&self, bound: &Bound, block: u32) {
        let bits = bound.host.to_bits();
        self.key.store(bound.key, Ordering::Relaxed);
        self.host[0].store((bits >> 64) as u64, Ordering::Relaxed);
        self.host[1].store(bits as u64, Ordering::Relaxed);
        self.mapped.store(bound.mapped, Ordering::Relaxed);
        self.owner.store(bound.owner, Ordering::Relaxed);
        self.block.store(block, Ordering::Relaxed);
        for count in [&self.hint, &self.sessions, &self.taken_part] {
            count.store(0, Ordering::Relaxed);
        }
        turn(&self.version);
    }
}

/// Who leases blocks: a host, or all hosts of a subscriber.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Host {
    link: AtomicU32,
    /// The shard that it and all of its belong to.
    pub(super) shard: AtomicU32,
    pub(super) subscriber: AtomicU32,
    /// The first of its blocks, all of them of one address.
    pub(super) first_block: AtomicU32,
    pub(super) data: Mutex<HostData>,
}

impl Entry for Host {
    type Memory = Chunks<Self>;

    fn link(&self) -> &AtomicU32 {
        &self.link
    }
}

#[derive(Debug, Default)]
pub(super) struct HostData {
    /// Its prefix, the rest zero.
    pub(super) prefix: u128,
    pub(super) blocks: u32,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) bindings: u32,
    /// Free ports, without those that rest: by class and protocol.
    pub(super) free: [[u32; 3]; 2],
    /// A block was asked for ahead of need since the last one came, by protocol.
    pub(super) asked: [bool; 3],
    /// There are no low ports for it.
    pub(super) low_denied: bool,
}

/// Who quotas are counted for.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Subscriber {
    link: AtomicU32,
    pub(super) data: Mutex<SubscriberData>,
}

impl Default for SubscriberData {
    fn default() -> Self {
        Self {
            prefix: Ipv6Addr::UNSPECIFIED,
            hosts: 0,
            opened: [0; 2],
            ports: 0,
            buckets: [Bucket::default(); 2],
        }
    }
}

impl Entry for Subscriber {
    type Memory = Chunks<Self>;

    fn link(&self) -> &AtomicU32 {
        &self.link
    }
}

#[derive(Debug)]
pub(super) struct SubscriberData {
    /// Its prefix, the rest zero: as an address, which may lie anywhere.
    pub(super) prefix: Ipv6Addr,
    pub(super) hosts: u32,
    /// Its sessions by the side that opened them.
    pub(super) opened: [u32; 2],
    /// Ports in the blocks of its hosts.
    pub(super) ports: u32,
    /// For new sessions, by the side that opens them.
    pub(super) buckets: [Bucket; 2],
}

/// Tenths of a session that may still be opened, and as of which tick.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    pub(super) tokens: u32,
    pub(super) filled: u32,
}

/// A port block.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct PortBlock {
    pub(super) version: AtomicU32,
    /// The number of its lessee; of the next free block while it is free.
    pub(super) owner: AtomicU32,
    pub(super) data: Mutex<BlockData>,
}

impl PortBlock {
    /// Where in memory the set of a protocol's ports is: asked for ahead, without the lock.
    pub(super) fn ports_line(&self, protocol: Protocol) -> *const [u8; 64] {
        std::ptr::from_ref(self).cast::<[u8; 64]>().wrapping_add(1 + protocol as usize)
    }
}

impl Entry for PortBlock {
    type Memory = Chunks<Self>;

    fn link(&self) -> &AtomicU32 {
        &self.owner
    }
}

/// In this order, with what is before it in a [`PortBlock`], all but the sets of ports is in one cache line, and each of these
/// in another.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct BlockData {
    pub(super) address: u32,
    pub(super) first_port: u16,
    pub(super) size: u16,
    pub(super) given: Timestamp,
    pub(super) reserved: Option<Box<Reserved>>,
    /// The next block of its lessee.
    pub(super) next: u32,
    pub(super) used: [u16; 3],
    /// It gives no port any more.
    pub(super) retired: bool,
    /// Since when no binding is in it, in ticks.
    pub(super) idle_since: u32,
    /// Neighbours in the shard's list of blocks without a binding.
    pub(super) idle_before: u32,
    pub(super) idle_behind: u32,
    /// Made when the protocol is first used.
    pub(super) ports: [PortSet; 3],
}

/// Ports of a block that are never used.
#[derive(Debug)]
pub(super) struct Reserved(pub(super) Box<[u16]>);

impl BlockData {
    pub(super) fn reserved(&self) -> &[u16] {
        self.reserved.as_ref().map_or(&[], |reserved| &reserved.0)
    }

    pub(super) fn class(&self) -> PortClass {
        PortClass::of(self.first_port)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.used == [0; 3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_as_small_as_the_documentation_says() {
        assert_eq!((size_of::<Session>(), size_of::<Binding>()), (64, 64));
        assert_eq!((size_of::<Host>(), size_of::<Subscriber>(), size_of::<PortBlock>()), (128, 64, 256));
    }
}
