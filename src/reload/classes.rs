//! What of the settings can change while the router runs.
//!
//! The parts are taken to pieces field by field, without a rest: a new setting does not compile before it is said what
//! becomes of it.

use crate::config::{
    Configuration, LogSettings, Partial, PartialDeterministic, PartialPool, PartialQuota, PartialRecords,
    PartialSessions, PartialState, PoolSettings, Pools, QuotaSettings, SessionSettings, Settings, Sharing,
};
use crate::generation::Generation;

/// The new settings as far as they can hold now, and the keys of those that wait for a restart.
pub fn sort(running: &Generation, wanted: &Configuration) -> (Partial, Vec<&'static str>) {
    let pinned = Pinned::of(running, &wanted.settings);
    let pending = pending(&running.settings, &wanted.settings, pinned);
    (what_can_hold(&running.base, wanted.partial.clone(), pinned), pending)
}

/// What depends on how the tables were made.
#[derive(Debug, Clone, Copy)]
struct Pinned {
    /// The pools stay as they are.
    pools: bool,
    /// So do static pairs and explicit mappings: deterministic ports are computed around them.
    addresses: bool,
}

impl Pinned {
    fn of(running: &Generation, wanted: &Settings) -> Self {
        let deterministic = running.settings.deterministic.is_some() || wanted.deterministic.is_some();
        let new = match &wanted.pools {
            Pools::Automatic => &[][..],
            Pools::Explicit(pools) => pools,
        };
        let is_shared = |pool: &&PoolSettings| pool.sharing == Sharing::Ports;
        let overlap = |a: &PoolSettings, b: &PoolSettings| {
            a.net.contains(&b.net.network()) || b.net.contains(&a.net.network())
        };
        // An address cannot be shared and be somebody's own.
        let shares_otherwise = new
            .iter()
            .any(|pool| running.plan.held().any(|held| overlap(held, pool) && held.sharing != pool.sharing));
        // Made small where nothing was shared at the start, and without low ports where no pool had any.
        let base = &running.tables;
        let has_no_table = !base.shares && (new.iter().any(|pool| is_shared(&pool)) || new.is_empty());
        let has_no_low =
            !base.low_ports && new.iter().filter(is_shared).any(|pool| pool.ports.first() < 1024);
        Self {
            pools: deterministic || shares_otherwise || has_no_table || has_no_low,
            addresses: deterministic,
        }
    }
}

/// What was given anew, with what was given before in the place of all that needs a restart.
fn what_can_hold(running: &Partial, wanted: Partial, pinned: Pinned) -> Partial {
    let before = running.clone();
    let Partial {
        interface: _,
        translation_prefixes,
        pools,
        masquerade_all,
        static_pairs,
        eams,
        forwards,
        sessions,
        quota,
        timers,
        fragments_memory: _,
        records: _,
        deterministic: _,
        reservation_timeout,
        address_rest,
        max_leases_per_subnet,
        num_queues: _,
        worker_nice: _,
        mtu: _,
        offloads: _,
        join: _,
        steering: _,
        mss_clamp,
        allow_from,
        deny_to,
        allow_non_global,
        icmp_source_v4,
        icmp_source_v6,
        icmp_errors_per_second,
        icmp_router_pool,
        lowest_ipv6_mtu,
        traffic_class,
        udp_zero_checksum,
        enable_forwarding: _,
        state: PartialState { dir: _, none: _ },
        on_exit,
        hang_after: _,
        prometheus,
        control_socket: _,
        hold_packets_per_host,
        hold_hosts,
        hold_timeout,
        log_format: _,
        log_level,
        verbosity,
    } = wanted;
    let PartialSessions {
        max: _,
        max_hosts: _,
        max_stored_syns: _,
        max_resting_ports: _,
        filtering: _,
        answer_filtered,
        block_size: _,
        block_for: _,
    } = sessions;
    let PartialQuota {
        subscriber_prefix_len: _,
        ports,
        sessions: quota_sessions,
        new_sessions_per_second,
        new_sessions_burst,
    } = quota;
    Partial {
        interface: before.interface,
        translation_prefixes,
        pools: if pinned.pools { before.pools } else { pools },
        masquerade_all: if pinned.pools { before.masquerade_all } else { masquerade_all },
        static_pairs: if pinned.addresses { before.static_pairs } else { static_pairs },
        eams: if pinned.addresses { before.eams } else { eams },
        forwards,
        sessions: PartialSessions { answer_filtered, ..before.sessions },
        quota: PartialQuota {
            ports,
            sessions: quota_sessions,
            new_sessions_per_second,
            new_sessions_burst,
            ..before.quota
        },
        timers,
        fragments_memory: before.fragments_memory,
        records: before.records,
        deterministic: before.deterministic,
        reservation_timeout,
        address_rest,
        max_leases_per_subnet,
        num_queues: before.num_queues,
        worker_nice: before.worker_nice,
        mtu: before.mtu,
        offloads: before.offloads,
        join: before.join,
        steering: before.steering,
        mss_clamp,
        allow_from,
        deny_to,
        allow_non_global,
        icmp_source_v4,
        icmp_source_v6,
        icmp_errors_per_second,
        icmp_router_pool,
        lowest_ipv6_mtu,
        traffic_class,
        udp_zero_checksum,
        enable_forwarding: before.enable_forwarding,
        state: before.state,
        on_exit,
        hang_after: before.hang_after,
        prometheus,
        control_socket: before.control_socket,
        hold_packets_per_host,
        hold_hosts,
        hold_timeout,
        log_format: before.log_format,
        log_level,
        verbosity,
    }
}

/// The keys of the settings that are to be others and stay as they are.
fn pending(running: &Settings, wanted: &Settings, pinned: Pinned) -> Vec<&'static str> {
    let Settings {
        interface,
        translation_prefixes: _,
        pools,
        static_pairs,
        eams,
        forwards: _,
        sessions,
        quota,
        timers: _,
        below_rfc: _,
        fragments,
        records,
        deterministic,
        reservation_timeout: _,
        address_rest: _,
        max_leases_per_subnet: _,
        num_queues,
        worker_nice,
        mtu,
        offloads,
        join,
        steering,
        mss_clamp: _,
        allow_from: _,
        deny_to: _,
        allow_non_global: _,
        icmp_source_v4: _,
        icmp_source_v6: _,
        icmp_errors_per_second: _,
        icmp_router_pool: _,
        translation: _,
        enable_forwarding,
        state_dir,
        on_exit: _,
        hang_after,
        prometheus: _,
        control_socket,
        hold: _,
        log,
    } = wanted;
    let SessionSettings {
        max,
        max_hosts,
        max_stored_syns,
        max_resting_ports,
        filtering,
        answer_filtered: _,
        block_size,
        block_for,
    } = sessions;
    let QuotaSettings {
        subscriber_prefix_len,
        ports: _,
        sessions: _,
        new_sessions_per_second: _,
        new_sessions_burst: _,
    } = quota;
    let LogSettings { format, level: _ } = log;
    let before = &running.sessions;
    let differs = [
        ("interface", *interface != running.interface),
        ("pool", pinned.pools && *pools != running.pools),
        ("static", pinned.addresses && *static_pairs != running.static_pairs),
        ("eam", pinned.addresses && *eams != running.eams),
        ("sessions.max", *max != before.max),
        ("sessions.max_hosts", *max_hosts != before.max_hosts),
        ("sessions.max_stored_syns", *max_stored_syns != before.max_stored_syns),
        ("sessions.max_resting_ports", *max_resting_ports != before.max_resting_ports),
        ("sessions.filtering", *filtering != before.filtering),
        ("sessions.block_size", *block_size != before.block_size),
        // Deterministic mode, where that is what waits, brings its own.
        ("sessions.block_for", *block_for != before.block_for && *deterministic == running.deterministic),
        ("quota.subscriber_prefix_len", *subscriber_prefix_len != running.quota.subscriber_prefix_len),
        ("fragments.memory", fragments.memory != running.fragments.memory),
        ("records", *records != running.records),
        ("deterministic", *deterministic != running.deterministic),
        ("num_queues", *num_queues != running.num_queues),
        ("worker_nice", *worker_nice != running.worker_nice),
        ("mtu", *mtu != running.mtu),
        ("offloads", *offloads != running.offloads),
        ("join", *join != running.join),
        ("steering", *steering != running.steering),
        ("enable_forwarding", *enable_forwarding != running.enable_forwarding),
        ("state_dir", *state_dir != running.state_dir),
        ("hang_after", *hang_after != running.hang_after),
        ("control_socket", *control_socket != running.control_socket),
        ("log.format", *format != running.log.format),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// Sections that wait for a restart as a whole, or not at all: their fields need not be told apart.
#[allow(dead_code, reason = "does not compile when a field is added, so that somebody looks here")]
fn sections_without_classes_of_their_own(
    PartialRecords { section: _, file: _, syslog: _, when_full: _, sessions: _ }: PartialRecords,
    PartialDeterministic { section: _, hosts: _, ports_per_subscriber: _ }: PartialDeterministic,
    PartialPool {
        net: _,
        masquerade: _,
        sharing: _,
        ports: _,
        reserved_ports: _,
        hosts: _,
        translation_prefix: _,
    }: PartialPool,
) {
}

#[cfg(test)]
mod tests;
