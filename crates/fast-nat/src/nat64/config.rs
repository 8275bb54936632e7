//! Settings of the engine, and its unit of time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::{Lanes, Timestamp};

/// Milliseconds in a tick, the engine's unit of time. A timer never ends early, and at most one tick late.
pub(crate) const TICK_MS: u64 = 100;

/// The largest tables: an index names an entry by 24 bits.
pub const MOST_ENTRIES: u32 = (1 << 24) - 2;

/// The moment in ticks: 13 years fit.
pub(crate) fn tick(now: Timestamp) -> u32 {
    u32::try_from(now.as_millis() / TICK_MS).unwrap_or(u32::MAX)
}

/// The moment of a tick.
pub(crate) fn moment(tick: u32) -> Timestamp {
    Timestamp::from_millis(u64::from(tick) * TICK_MS)
}

fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(u128::from(TICK_MS))).unwrap_or(u32::MAX)
}

/// Which packets from the IPv4 side a binding lets in (RFC 6146 §3.5, RFC 4787 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filtering {
    /// Those of everybody: the default, best for applications.
    #[default]
    EndpointIndependent,
    /// Those of addresses that the host has sent to from this port.
    AddressDependent,
}

/// How long things last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// An established TCP connection without a packet (RFC 5382 REQ-5: no less than 2 h 4 min).
    pub tcp_established: Duration,
    /// A TCP connection that is being opened or closed (RFC 5382 REQ-5: no less than 4 min).
    pub tcp_transitory: Duration,
    /// A stored IPv4 SYN (RFC 6146 §4: 6 s).
    pub tcp_incoming_syn: Duration,
    /// A UDP session (RFC 4787 REQ-5: no less than 2 min, 5 min recommended).
    pub udp: Duration,
    /// An ICMP query session (RFC 5508 REQ-2: no less than 60 s).
    pub icmp: Duration,
    /// How long a UDP port or an ICMP identifier rests before it is used again (RFC 6888 REQ-8).
    pub port_rest: Duration,
    /// How long a TCP port rests before it is used again (RFC 6888 REQ-8).
    pub tcp_port_rest: Duration,
    /// How long a block without a binding stays with its host. It stays at least until its ports have rested.
    pub block_idle: Duration,
}

impl Timers {
    /// The RFCs' values.
    pub const DEFAULT: Self = Self {
        tcp_established: Duration::from_mins(2 * 60 + 4),
        tcp_transitory: Duration::from_mins(4),
        tcp_incoming_syn: Duration::from_secs(6),
        udp: Duration::from_mins(5),
        icmp: Duration::from_mins(1),
        port_rest: Duration::from_mins(2),
        tcp_port_rest: Duration::from_mins(2),
        block_idle: Duration::from_mins(2),
    };
}

impl Default for Timers {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What one subscriber may have (RFC 6888 REQ-4, REQ-5): as many sessions as these that its hosts open, and as many that are
/// opened from outside. So a stranger cannot use up what the hosts need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Sessions at a time.
    pub sessions: u32,
    /// New sessions per second; 0: as many as it likes. At most 1,000,000.
    pub new_sessions_per_second: u32,
    /// New sessions at once.
    pub burst: u32,
}

impl Quota {
    pub(crate) fn check(&self) -> Result<(), InvalidConfig> {
        let is_right = self.new_sessions_per_second <= 1_000_000 && (1..=10_000_000).contains(&self.burst);
        if is_right { Ok(()) } else { Err(InvalidConfig::Rate) }
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self { sessions: 32_768, new_sessions_per_second: 2000, burst: 4000 }
    }
}

/// Settings of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatConfig {
    /// Sessions at a time: 1 to [`MOST_ENTRIES`]. Each takes 64 bytes, its place in the index 6.
    pub max_sessions: u32,
    /// Bindings at a time: 1 to [`MOST_ENTRIES`]. Each takes 64 bytes, its places in the indexes 12.
    pub max_bindings: u32,
    /// Hosts (and subscribers) at a time: 1 to [`MOST_ENTRIES`].
    pub max_hosts: u32,
    /// Port blocks under lease: 1 to [`MOST_ENTRIES`].
    pub max_blocks: u32,
    /// IPv4 SYNs that wait for their host: at most 65,536, of at most 548 bytes each.
    pub max_stored_syns: u32,
    /// Which packets from the IPv4 side get in.
    pub filtering: Filtering,
    /// How long things last.
    pub timers: Timers,
    /// What one subscriber may have.
    pub quota: Quota,
    /// The length of a subscriber's prefix: 1 to 128.
    pub subscriber_prefix_len: u8,
    /// The length of the prefix whose hosts share blocks: 128, each host has its own, or the subscriber's.
    pub lease_prefix_len: u8,
    /// Whether ports below 1024 are to be had: a host's low ports are then mapped to low ports where possible.
    pub low_ports: bool,
    /// By how many lanes ports are chosen: as many as whoever shares packets out goes by. What has a port keeps it.
    pub lanes: Lanes,
    /// The most ports of one block and protocol that rest at a time (RFC 6888 REQ-8): of more than that, those that have rested
    /// longest are free.
    pub max_resting_ports: u16,
    /// Events that may wait to be fetched; 0: none are made.
    pub events: usize,
    /// Whether it is noted which sessions and blocks have changed, a bit for each: for whoever keeps a copy
    /// ([`Nat64::take_changed_sessions`](super::Nat64::take_changed_sessions)).
    pub track_changes: bool,
    /// For tests and replays: a number that makes every choice repeatable. `None`: a stranger cannot foresee any.
    pub seed: Option<u64>,
}

impl Default for NatConfig {
    fn default() -> Self {
        Self {
            max_sessions: 1_000_000,
            max_bindings: 1_000_000,
            max_hosts: 131_072,
            max_blocks: 262_144,
            max_stored_syns: 1024,
            filtering: Filtering::default(),
            timers: Timers::DEFAULT,
            quota: Quota::default(),
            subscriber_prefix_len: 64,
            lease_prefix_len: 128,
            low_ports: false,
            lanes: Lanes::ONE,
            max_resting_ports: u16::MAX,
            events: 0,
            track_changes: false,
            seed: None,
        }
    }
}

/// Why an engine cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// A table of no entry, or of more than an index can name.
    #[error("{0} is not between 1 and {MOST_ENTRIES}")]
    Size(&'static str),
    /// A prefix length that is none, or a lease's that is neither 128 nor the subscriber's.
    #[error(
        "the subscriber's prefix length is 1 to 128, and blocks are leased to that or to single hosts (128)"
    )]
    PrefixLen,
    /// A burst of nothing, or a rate beyond what is counted.
    #[error("a subscriber may open 1 to 10,000,000 sessions at once and at most 1,000,000 per second")]
    Rate,
    /// More stored SYNs than there may be.
    #[error("at most 65,536 SYNs can be stored")]
    StoredSyns,
    /// The system has no addresses for tables of these sizes; what it says.
    #[error("no memory for tables of this size ({0}): allow fewer sessions, bindings or hosts")]
    Memory(std::io::ErrorKind),
}

impl From<std::io::Error> for InvalidConfig {
    fn from(error: std::io::Error) -> Self {
        Self::Memory(error.kind())
    }
}

impl NatConfig {
    pub(crate) fn check(&self) -> Result<(), InvalidConfig> {
        for (name, size) in [
            ("max_sessions", self.max_sessions),
            ("max_bindings", self.max_bindings),
            ("max_hosts", self.max_hosts),
            ("max_blocks", self.max_blocks),
        ] {
            if !(1..=MOST_ENTRIES).contains(&size) {
                return Err(InvalidConfig::Size(name));
            }
        }
        let subscriber = self.subscriber_prefix_len;
        if !(1..=128).contains(&subscriber) || ![128, subscriber].contains(&self.lease_prefix_len) {
            return Err(InvalidConfig::PrefixLen);
        }
        self.quota.check()?;
        if self.max_stored_syns > 65_536 { Err(InvalidConfig::StoredSyns) } else { Ok(()) }
    }
}

/// What may be set anew while packets pass: [`Timers`] in ticks, and [`Quota`]. Each value is read by itself.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) tcp_established: Limit,
    pub(crate) tcp_transitory: Limit,
    pub(crate) tcp_incoming_syn: Limit,
    pub(crate) udp: Limit,
    pub(crate) icmp: Limit,
    /// By [`super::Protocol`].
    pub(crate) rest: [Limit; 3],
    /// How long a block without a binding stays.
    pub(crate) block_idle: Limit,
    /// Sessions of a subscriber.
    pub(crate) sessions: Limit,
    /// New ones per second.
    pub(crate) rate: Limit,
    /// New ones at once.
    pub(crate) burst: Limit,
}

/// One of them.
#[derive(Debug, Default)]
pub(crate) struct Limit(AtomicU32);

impl Limit {
    #[inline]
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u32) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Limits {
    pub(crate) fn new(timers: &Timers, quota: &Quota) -> Self {
        let limits = Self::default();
        limits.set_timers(timers);
        limits.set_quota(quota);
        limits
    }

    pub(crate) fn set_timers(&self, timers: &Timers) {
        self.tcp_established.set(ticks(timers.tcp_established));
        self.tcp_transitory.set(ticks(timers.tcp_transitory));
        self.tcp_incoming_syn.set(ticks(timers.tcp_incoming_syn));
        self.udp.set(ticks(timers.udp));
        self.icmp.set(ticks(timers.icmp));
        let rest = [timers.tcp_port_rest, timers.port_rest, timers.port_rest].map(ticks);
        for (limit, rest) in self.rest.iter().zip(rest) {
            limit.set(rest);
        }
        self.block_idle.set(ticks(timers.block_idle).max(rest[0]).max(rest[1]));
    }

    pub(crate) fn set_quota(&self, quota: &Quota) {
        self.sessions.set(quota.sessions);
        self.rate.set(quota.new_sessions_per_second);
        self.burst.set(quota.burst);
    }
}
