//! From an image to the tables: entry by entry, as far as they still fit the configuration.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use fast_nat::nat64::{
    Nat64, NotRestored, Protocol, RestingPort, SavedBlock, SavedSession, SessionState, Timers,
};
use fast_nat::{BlockPool, Deterministic, LeasePool, LeaseTable, SavedLease, Timestamp};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use rfc6052::Prefix;

use super::format::Moment;
use super::image::Image;
use crate::config::{PoolSettings, Settings, Sharing, pools_of};
use crate::datapath::Rules;
use crate::plan::Plan;

/// What entries are put back into, and what says whether they fit.
#[derive(Debug, Clone, Copy)]
pub struct Restoring<'r> {
    /// The settings of this run.
    pub settings: &'r Settings,
    /// Its pools.
    pub plan: &'r Plan,
    /// Who may use the router, and reach whom.
    pub rules: &'r Rules,
    /// Whose ports are whose by computation, if that is so.
    pub deterministic: Option<&'r Deterministic>,
    /// Where sessions and blocks go.
    pub nat: &'r Nat64,
    /// Where leases go.
    pub leases: &'r LeaseTable,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// A session, with its binding.
    Session,
    /// A port block.
    Block,
    /// A lease of a whole address.
    Lease,
    /// A port forward or static pair that was added or removed while the router ran.
    Mapping,
}

impl Entry {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Session, Self::Block, Self::Lease, Self::Mapping];

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Block => "block",
            Self::Lease => "lease",
            Self::Mapping => "mapping",
        }
    }
}

/// Why an entry was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// The tables do not take it.
    Refused(NotRestored),
    /// There is no such translation prefix any more.
    NoPrefix,
    /// Its host may not use the router any more, or may not reach this destination.
    NotAllowed,
    /// The settings stand against it.
    Conflict,
}

impl Dropped {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        NotRestored::ALL.into_iter().map(Self::Refused).chain([
            Self::NoPrefix,
            Self::NotAllowed,
            Self::Conflict,
        ])
    }

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused(reason) => reason.as_str(),
            Self::NoPrefix => "no_prefix",
            Self::NotAllowed => "not_allowed",
            Self::Conflict => "conflict",
        }
    }
}

impl From<NotRestored> for Dropped {
    fn from(reason: NotRestored) -> Self {
        Self::Refused(reason)
    }
}

/// What has become of the entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many are back.
    pub restored: BTreeMap<Entry, u64>,
    /// How many are not, by the word of the reason.
    pub dropped: BTreeMap<(Entry, &'static str), u64>,
    /// Ports and addresses that rest on.
    pub resting: u64,
}

impl Outcome {
    pub(super) fn count(&mut self, entry: Entry, result: Result<(), Dropped>) {
        match result {
            Ok(()) => *self.restored.entry(entry).or_insert(0) += 1,
            Err(reason) => *self.dropped.entry((entry, reason.as_str())).or_insert(0) += 1,
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        for (entry, count) in other.restored {
            *self.restored.entry(entry).or_insert(0) += count;
        }
        for (of, count) in other.dropped {
            *self.dropped.entry(of).or_insert(0) += count;
        }
        self.resting += other.resting;
    }

    /// How many of these are back.
    pub fn restored(&self, entry: Entry) -> u64 {
        self.restored.get(&entry).copied().unwrap_or_default()
    }

    /// How many of these are not back for this reason.
    pub fn dropped(&self, entry: Entry, reason: Dropped) -> u64 {
        self.dropped.get(&(entry, reason.as_str())).copied().unwrap_or_default()
    }

    /// How many are not back, of all kinds.
    pub fn all_dropped(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// `session over: 3, block not_in_pool: 1`
    pub fn describe_dropped(&self) -> String {
        let of = |((entry, reason), count): (&(Entry, &str), &u64)| {
            format!("{} {reason}: {count}", entry.as_str())
        };
        self.dropped.iter().map(of).collect::<Vec<_>>().join(", ")
    }
}

/// Sessions that a thread puts back at a time, and how many it says beforehand that it will need.
const PART: usize = 16_384;
const BATCH: usize = 64;

/// Threads that put sessions back: they wait for memory most of the time, and a start has the machine for itself.
const MOST_THREADS: usize = 8;

/// The number of no prefix: there are 16 at most.
const NO_PREFIX: u8 = u8::MAX;

/// Turns the times of an image into those of this process. Time that has passed since counts.
#[derive(Debug, Clone, Copy)]
struct Clock {
    last: Moment,
    /// How long ago the last of the image was written.
    since_last: u64,
    now: Timestamp,
}

impl Clock {
    /// `same_boot`: the machine has not been started anew since, so the one clock that nobody sets tells how long ago that was.
    fn new(last: Moment, now: Moment, same_boot: bool) -> Self {
        let since_last = if same_boot && now.boot >= last.boot {
            now.boot - last.boot
        } else {
            now.wall.saturating_sub(last.wall)
        };
        Self { last, since_last, now: Timestamp::from_millis(now.boot) }
    }

    /// How long ago a moment of the image was.
    fn age(&self, then: Timestamp) -> Duration {
        let before_last = self.last.boot.saturating_sub(then.as_millis());
        Duration::from_millis(before_last.saturating_add(self.since_last))
    }

    /// A moment of the image on the clock of this process; its start where that is earlier.
    fn translate(&self, then: Timestamp) -> Timestamp {
        let age = u64::try_from(self.age(then).as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(self.now.as_millis().saturating_sub(age))
    }
}

impl Restoring<'_> {
    /// Puts back what fits. `told` is told of every block and lease that is back.
    pub(super) fn restore(&self, image: Image, now: Moment, boot: [u8; 16]) -> Result<Outcome, String> {
        let same_boot = image.boot == boot && boot != [0; 16];
        let clock = Clock::new(image.last, now, same_boot);
        let mut outcome = Outcome::default();
        self.nat.begin_restore(clock.now);
        self.restore_leases(&image.leases, &image.ended, &clock, &mut outcome)?;
        let blocks = self.restore_blocks(image.blocks.into_entries(), &clock, &mut outcome)?;
        self.restore_sessions(image.sessions.into_entries(), &image.prefixes, &clock, &mut outcome);
        self.restore_resting(&image.resting, &blocks, &clock, &mut outcome);
        Ok(outcome)
    }

    fn is_served(&self, host: Ipv6Addr, net: Ipv4Net, sharing: Sharing) -> bool {
        pools_of(&self.plan.pools, host).any(|pool: &PoolSettings| pool.net == net && pool.sharing == sharing)
    }

    fn restore_leases(
        &self,
        leases: &HashMap<Ipv4Addr, SavedLease>,
        ended: &HashMap<Ipv4Addr, SavedLease>,
        clock: &Clock,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let config = self.plan.lease_pool(self.settings, self.nat.config().lanes);
        let mut pool = LeasePool::new(&config).map_err(|error| error.to_string())?;
        // Its host may have sent until the last was written: what each packet touches is not kept from moment to moment.
        let silent = Duration::from_millis(clock.since_last);
        for saved in leases.values() {
            let (granted, host) = (clock.translate(saved.granted), saved.host);
            let lease =
                SavedLease { granted, last_seen: clock.translate(to_timestamp(clock.last)), ..*saved };
            let result = if silent >= self.settings.reservation_timeout {
                Err(NotRestored::Over.into())
            } else if !self.is_allowed(host) {
                Err(Dropped::NotAllowed)
            } else {
                let may_use = |net| self.is_served(host, net, Sharing::Exclusive);
                pool.restore(self.leases, &lease, may_use).map_err(Dropped::from)
            };
            outcome.count(Entry::Lease, result);
        }
        let mut ended: Vec<_> = ended.values().collect();
        ended.sort_unstable_by_key(|lease| lease.last_seen);
        for saved in ended.into_iter().filter(|lease| clock.age(lease.last_seen) < config.rest) {
            let (at, granted) = (clock.translate(saved.last_seen), clock.translate(saved.granted));
            let lease = SavedLease { granted, last_seen: at, ..*saved };
            outcome.resting += u64::from(pool.restore_resting(self.leases, &lease, at));
        }
        Ok(())
    }

    /// The answer is whose the blocks are that are back, by address and last port, with their first port.
    fn restore_blocks(
        &self,
        mut blocks: Vec<SavedBlock>,
        clock: &Clock,
        outcome: &mut Outcome,
    ) -> Result<Owners, String> {
        let mut pool =
            BlockPool::new(&self.plan.block_pool(self.settings)).map_err(|error| error.to_string())?;
        for block in &mut blocks {
            block.given = clock.translate(block.given);
        }
        let mut owners: Owners = blocks
            .iter()
            .map(|block| ((block.address, block.first_port), (block.size, block.host)))
            .collect();
        let all = blocks.len() as u64;
        let fits = |block: &SavedBlock, net| {
            self.is_served(block.host, net, Sharing::Ports) && self.is_computed(block)
        };
        pool.restore(self.nat, blocks, clock.now, fits, |block, reason| {
            outcome.count(Entry::Block, Err(reason.into()));
            if owners.get(&(block.address, block.first_port)).is_some_and(|(_, host)| *host == block.host) {
                owners.remove(&(block.address, block.first_port));
            }
        });
        let dropped: u64 =
            outcome.dropped.iter().filter(|((entry, _), _)| *entry == Entry::Block).map(|(_, n)| n).sum();
        if all > dropped {
            outcome.restored.insert(Entry::Block, all - dropped);
        }
        Ok(owners)
    }

    /// Whether a block is its host's by computation, where blocks are.
    fn is_computed(&self, block: &SavedBlock) -> bool {
        let Some(plan) = self.deterministic else { return true };
        block.size == self.settings.sessions.block_size
            && plan.blocks_of(block.host).is_some_and(|(address, mut blocks)| {
                address == block.address && blocks.any(|first_port| first_port == block.first_port)
            })
    }

    fn is_allowed(&self, host: Ipv6Addr) -> bool {
        self.rules.allow_from.as_ref().is_none_or(|allowed| allowed.contains(host))
    }

    fn restore_sessions(
        &self,
        mut sessions: Vec<SavedSession>,
        prefixes: &[Prefix],
        clock: &Clock,
        outcome: &mut Outcome,
    ) {
        // Which number the prefixes of then have now.
        let current = |prefix: &Prefix| self.rules.prefixes.iter().position(|other| other == prefix);
        let numbers: Vec<_> =
            prefixes.iter().map(|prefix| current(prefix).and_then(|at| u8::try_from(at).ok())).collect();
        let parts = Mutex::new(sessions.chunks_mut(PART));
        let next = || parts.lock().next();
        let work = || {
            let mut outcome = Outcome::default();
            while let Some(part) = next() {
                self.restore_part(part, &numbers, clock, &mut outcome);
            }
            outcome
        };
        let helpers = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS) - 1;
        std::thread::scope(|scope| {
            // Where there is no thread to be had, the others do its work.
            let spawn =
                |_| std::thread::Builder::new().name("restore".to_owned()).spawn_scoped(scope, work).ok();
            let helpers: Vec<_> = (0..helpers).filter_map(spawn).collect();
            outcome.add(work());
            for helper in helpers {
                outcome.add(helper.join().unwrap_or_default());
            }
        });
    }

    fn restore_part(
        &self,
        part: &mut [SavedSession],
        numbers: &[Option<u8>],
        clock: &Clock,
        outcome: &mut Outcome,
    ) {
        // What lies together in memory is put back together.
        part.sort_unstable_by_key(|session| (session.outbound.host, session.address, session.port));
        for batch in part.chunks_mut(BATCH) {
            let mut flows = Vec::with_capacity(BATCH);
            for session in &mut *batch {
                if let Some(number) = numbers.get(usize::from(session.outbound.prefix)).copied().flatten() {
                    session.outbound.prefix = number;
                    flows.push(session.outbound);
                } else {
                    outcome.count(Entry::Session, Err(Dropped::NoPrefix));
                    session.outbound.prefix = NO_PREFIX;
                }
            }
            // The waiting for memory happens side by side.
            self.nat.warm_outbound(&flows, clock.now);
            for session in batch.iter().filter(|session| session.outbound.prefix != NO_PREFIX) {
                outcome.count(Entry::Session, self.restore_session(*session, clock));
            }
        }
    }

    fn restore_session(&self, mut session: SavedSession, clock: &Clock) -> Result<(), Dropped> {
        let flow = session.outbound;
        if !self.is_allowed(flow.host) || self.rules.deny_to.contains(flow.remote) {
            return Err(Dropped::NotAllowed);
        }
        let (lives, is_refreshed) = lifetime(&self.settings.timers, flow.protocol, session.state);
        if is_refreshed && session.course.has_taken_part() {
            // Packets may have begun its timer anew until the last was written: that is not kept from moment to moment.
            session.last_seen = session.last_seen.max(to_timestamp(clock.last));
        }
        if clock.age(session.last_seen) > lives {
            return Err(NotRestored::Over.into());
        }
        session.last_seen = clock.translate(session.last_seen);
        Ok(self.nat.restore_session(&session, clock.now)?)
    }

    fn restore_resting(
        &self,
        resting: &HashMap<(Protocol, Ipv4Addr, u16), Timestamp>,
        owners: &Owners,
        clock: &Clock,
        outcome: &mut Outcome,
    ) {
        let timers = &self.settings.timers;
        let rests =
            |protocol| if protocol == Protocol::Tcp { timers.tcp_port_rest } else { timers.port_rest };
        let on = resting.iter().filter(|((protocol, ..), since)| clock.age(**since) < rests(*protocol));
        let mut on: Vec<_> = on.collect();
        on.sort_unstable_by_key(|(_, since)| **since);
        for ((protocol, address, port), since) in on {
            let before = owners.range(..=(*address, *port)).next_back();
            let Some(((_, first_port), (size, host))) = before.filter(|((of, _), _)| of == address) else {
                continue;
            };
            if port - first_port < *size {
                let since = clock.translate(*since);
                let port = RestingPort { protocol: *protocol, address: *address, port: *port, since };
                outcome.resting += u64::from(self.nat.restore_resting(*host, &port, clock.now));
            }
        }
    }
}

/// By address and first port: how many ports, and whose.
type Owners = BTreeMap<(Ipv4Addr, u16), (u16, Ipv6Addr)>;

fn to_timestamp(moment: Moment) -> Timestamp {
    Timestamp::from_millis(moment.boot)
}

/// How long a session lives without a packet, and whether packets that change nothing else begin its timer anew.
fn lifetime(timers: &Timers, protocol: Protocol, state: SessionState) -> (Duration, bool) {
    use SessionState::{Established, V4FinRcv, V6FinRcv};
    match (protocol, state) {
        (Protocol::Tcp, Established | V4FinRcv | V6FinRcv) => (timers.tcp_established, true),
        (Protocol::Tcp, _) => (timers.tcp_transitory, false),
        (Protocol::Udp, _) => (timers.udp, true),
        (Protocol::Icmp, _) => (timers.icmp, true),
    }
}
