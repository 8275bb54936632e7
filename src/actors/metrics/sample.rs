//! All figures at one moment, as plain values.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use easy_tun::Offloads;
use fast_nat::Timestamp;
use rtnl::LinkStats;

use crate::clock;
use crate::datapath::{Counter, Counters, DropReason, Traffic};
use crate::reload::Tally;
use crate::shared::{PoolGauges, Shared};
use crate::state::{Dropped, Entry, Keeping, Outcome, Status};
use crate::supervision::{Concern, Exit, State};

/// Packets and their bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Flow {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// The addresses of one pool.
#[derive(Debug, Default)]
pub(super) struct PoolSample {
    pub(super) name: String,
    /// Addresses or blocks.
    pub(super) unit: &'static str,
    pub(super) used: u64,
    pub(super) free: u64,
    pub(super) resting: u64,
    pub(super) high_water: u64,
}

/// How one concern stands.
#[derive(Debug)]
pub(super) struct ConcernSample {
    pub(super) name: &'static str,
    pub(super) up: bool,
    pub(super) generation: u64,
    /// By [`Exit::KINDS`].
    pub(super) exits: [u64; Exit::KINDS.len()],
}

/// All figures. Counters are since the start of the process, summed over the workers, except those of the device, which
/// are the kernel's since the device was made.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a gauge of its own
pub(super) struct Sample {
    pub(super) received_v4: Flow,
    pub(super) received_v6: Flow,
    pub(super) forwarded_6to4: Flow,
    pub(super) forwarded_4to6: Flow,
    /// By the word of the reason; every reason, also at 0.
    pub(super) drops: Vec<(&'static str, u64)>,
    pub(super) icmp_errors: u64,
    pub(super) icmp_errors_limited: u64,
    pub(super) own_lost: u64,
    pub(super) kernel_chatter: u64,
    pub(super) held: u64,
    pub(super) fragments_parked: u64,
    pub(super) reassembled: u64,
    pub(super) fragments: crate::datapath::fragments::Usage,
    pub(super) echo_replies: u64,
    pub(super) probes: u64,
    pub(super) sessions_begun: u64,
    pub(super) nat: fast_nat::nat64::NatUsage,
    pub(super) nat_capacity: u32,
    pub(super) nat_contended: u64,
    pub(super) nat_outputs_lost: u64,
    pub(super) blocks_returned: u64,
    /// `None`: no records are kept.
    pub(super) records: Option<crate::records::Counts>,
    pub(super) waited_for_records: u64,
    pub(super) session_events_lost: u64,
    pub(super) lease_requests: u64,
    pub(super) read_errors: u64,
    pub(super) processor_contentions: u64,
    pub(super) inbox_overflows: u64,
    pub(super) workers: u64,
    pub(super) offloads: Offloads,
    /// By worker.
    #[cfg(feature = "count-allocations")]
    pub(super) worker_allocations: Vec<u64>,
    pub(super) pools: Vec<PoolSample>,
    pub(super) leases: u64,
    pub(super) lease_capacity: u64,
    pub(super) leases_granted: u64,
    pub(super) leases_refused: u64,
    pub(super) leases_expired: u64,
    pub(super) leases_dropped: u64,
    pub(super) contended: u64,
    pub(super) concerns: Vec<ConcernSample>,
    pub(super) reloads: Tally,
    pub(super) generation: u64,
    /// Keys of settings that wait for a restart.
    pub(super) pending: Vec<&'static str>,
    pub(super) kernel_repairs: u64,
    pub(super) kernel_problems: u64,
    pub(super) kernel_forwards_v4: bool,
    pub(super) kernel_forwards_v6: bool,
    pub(super) link_up: bool,
    pub(super) ready: bool,
    pub(super) log_dropped: u64,
    /// `None`: no state is wanted.
    pub(super) state: Option<StateSample>,
    /// `None`: the kernel did not tell, and the figures are left out.
    pub(super) device: Option<LinkStats>,
    pub(super) scrape_errors: u64,
    pub(super) uptime: Duration,
}

impl Sample {
    /// Reads everything. Takes short locks only: that of the kernel view and those of the board.
    pub(super) fn take(
        shared: &Shared,
        uptime: Uptime,
        device: Option<LinkStats>,
        scrape_errors: u64,
    ) -> Self {
        let sum = |pick: fn(&Counters) -> &Counter| {
            shared.desks.iter().fold(0_u64, |sum, desk| sum.wrapping_add(pick(&desk.counters).get()))
        };
        let flow = |pick: fn(&Counters) -> &Traffic| {
            shared.desks.iter().map(|desk| pick(&desk.counters)).fold(Flow::default(), |sum, traffic| Flow {
                packets: sum.packets.wrapping_add(traffic.packets.get()),
                bytes: sum.bytes.wrapping_add(traffic.bytes.get()),
            })
        };
        let drops = |reason| {
            shared.desks.iter().fold(0_u64, |sum, desk| sum.wrapping_add(desk.counters.drops(reason)))
        };
        let generation = shared.generation();
        let kernel = shared.kernel.lock().clone();
        let leases = &shared.lease_counters;
        Self {
            received_v4: flow(|counters| &counters.received_v4),
            received_v6: flow(|counters| &counters.received_v6),
            forwarded_6to4: flow(|counters| &counters.forwarded_6to4),
            forwarded_4to6: flow(|counters| &counters.forwarded_4to6),
            #[cfg(feature = "count-allocations")]
            worker_allocations: shared.desks.iter().map(|desk| desk.counters.allocations.get()).collect(),
            drops: DropReason::all().map(|reason| (reason.as_str(), drops(reason))).collect(),
            icmp_errors: sum(|counters| &counters.icmp_errors),
            icmp_errors_limited: sum(|counters| &counters.icmp_errors_limited),
            own_lost: sum(|counters| &counters.own_lost),
            kernel_chatter: sum(|counters| &counters.kernel_chatter),
            held: sum(|counters| &counters.held),
            fragments_parked: sum(|counters| &counters.fragments_parked),
            reassembled: sum(|counters| &counters.reassembled),
            fragments: shared.tables.fragments.usage(),
            echo_replies: sum(|counters| &counters.echo_replies),
            probes: sum(|counters| &counters.probes),
            sessions_begun: sum(|counters| &counters.sessions_begun),
            nat: shared.tables.nat.usage(),
            nat_capacity: shared.tables.nat.config().max_sessions,
            nat_contended: shared.tables.nat.contended(),
            nat_outputs_lost: shared.tables.nat.outputs_lost(),
            records: shared.records.recorder().map(crate::records::Recorder::counts),
            waited_for_records: leases.waited_for_records.load(Ordering::Relaxed),
            session_events_lost: shared.tables.nat.events_lost(),
            blocks_returned: leases.returned.load(Ordering::Relaxed),
            lease_requests: sum(|counters| &counters.lease_requests),
            read_errors: sum(|counters| &counters.read_errors),
            processor_contentions: sum(|counters| &counters.processor_contentions),
            inbox_overflows: shared
                .desks
                .iter()
                .map(|desk| desk.inbox_overflows.load(Ordering::Relaxed))
                .sum(),
            workers: shared.desks.len() as u64,
            offloads: shared.offloads,
            pools: generation.gauges.iter().map(|gauges| PoolSample::from(&**gauges)).collect(),
            leases: shared.tables.leases.len() as u64,
            lease_capacity: shared.tables.leases.capacity() as u64,
            leases_granted: leases.granted.load(Ordering::Relaxed),
            leases_refused: leases.refused.load(Ordering::Relaxed),
            leases_expired: leases.expired.load(Ordering::Relaxed),
            leases_dropped: leases.dropped.load(Ordering::Relaxed),
            contended: shared.tables.leases.contended(),
            concerns: Concern::ALL.into_iter().map(|concern| ConcernSample::of(shared, concern)).collect(),
            reloads: shared.reloads.tally(),
            generation: generation.number,
            pending: generation.pending.clone(),
            kernel_repairs: shared.kernel_repairs.load(Ordering::Relaxed),
            kernel_problems: kernel.problems.len() as u64,
            kernel_forwards_v4: kernel.forwarding.ipv4,
            kernel_forwards_v6: kernel.forwarding.ipv6,
            link_up: kernel.link_up,
            ready: shared.problems().is_empty(),
            log_dropped: shared.log_dropped.load(Ordering::Relaxed),
            state: StateSample::of(&shared.state),
            device,
            scrape_errors,
            uptime: uptime.so_far(),
        }
    }
}

impl From<&PoolGauges> for PoolSample {
    fn from(gauges: &PoolGauges) -> Self {
        Self {
            name: gauges.net.to_string(),
            unit: gauges.unit,
            used: gauges.used.load(Ordering::Relaxed),
            free: gauges.free.load(Ordering::Relaxed),
            resting: gauges.resting.load(Ordering::Relaxed),
            high_water: gauges.high_water.load(Ordering::Relaxed),
        }
    }
}

/// How the state is kept that outlives the process.
#[derive(Debug, Default)]
pub(super) struct StateSample {
    pub(super) kept: bool,
    pub(super) failing: bool,
    pub(super) write_errors: u64,
    /// `None`: there is no snapshot yet.
    pub(super) snapshot_age: Option<Duration>,
    pub(super) snapshot_bytes: u64,
    pub(super) journal_bytes: u64,
    pub(super) set_aside: bool,
    /// By kind.
    pub(super) restored: Vec<(&'static str, u64)>,
    /// By kind and reason; every reason, also at 0.
    pub(super) dropped: Vec<(Entry, &'static str, u64)>,
    pub(super) restore_took: Duration,
}

impl StateSample {
    fn of(status: &Status) -> Option<Self> {
        if status.keeping == Keeping::Off {
            return None;
        }
        let outcome = status.outcome.as_ref();
        let restored = |entry| outcome.map_or(0, |outcome: &Outcome| outcome.restored(entry));
        let dropped = |entry, reason| outcome.map_or(0, |outcome: &Outcome| outcome.dropped(entry, reason));
        Some(Self {
            kept: matches!(status.keeping, Keeping::In(_)),
            failing: status.is_failing(),
            write_errors: status.write_errors.load(Ordering::Relaxed),
            snapshot_age: status.snapshot_age(),
            snapshot_bytes: status.snapshot_bytes.load(Ordering::Relaxed),
            journal_bytes: status.journal_bytes.load(Ordering::Relaxed),
            set_aside: status.set_aside.is_some(),
            restored: Entry::ALL.map(|entry| (entry.as_str(), restored(entry))).into(),
            dropped: Entry::ALL
                .into_iter()
                .flat_map(|entry| {
                    Dropped::all().map(move |reason| (entry, reason.as_str(), dropped(entry, reason)))
                })
                .collect(),
            restore_took: status.took,
        })
    }
}

impl ConcernSample {
    fn of(shared: &Shared, concern: Concern) -> Self {
        let status = shared.board.of(concern);
        Self {
            name: concern.as_str(),
            up: status.state == State::Running,
            generation: status.generation,
            exits: status.exits,
        }
    }
}

/// For how long the process has been running, time asleep included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uptime(Timestamp);

impl Uptime {
    /// Counts from the first call in the process: the first birth of `metrics`, within a second of the start.
    pub(super) fn of_this_process() -> Self {
        static START: OnceLock<Timestamp> = OnceLock::new();
        Self(*START.get_or_init(clock::now))
    }

    fn so_far(self) -> Duration {
        clock::now().since(self.0)
    }
}
