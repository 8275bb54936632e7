//! How what was given becomes [`Settings`]: every value is checked, and all that is wrong is said at once.

use std::time::Duration;

use easy_tun::Offloads;
use interproto::Params;

use super::check::{Check, OwnAddresses, is_true, values};
use super::{
    AllowFrom, ControlSocket, DEFAULT_ADDRESS_REST, DEFAULT_HANG_AFTER, DEFAULT_ICMP_ERRORS_PER_SECOND,
    DEFAULT_MTU, DEFAULT_RESERVATION_TIMEOUT, DEFAULT_WORKER_NICE, FragmentSettings, HoldSettings,
    LogSettings, MssClamp, OnExit, Partial, Place, Pools, Problem, Problems, Prometheus, Settings,
};
use crate::logging::{LogFormat, LogLevel};

impl Partial {
    /// Checks everything, `found` being what is known to be wrong already.
    pub fn settle(self, mut found: Vec<Problem>) -> Result<Settings, Problems> {
        let mut check = Check { problems: &mut found };
        let second = Duration::from_secs(1);
        let hold = HoldSettings::default();
        let translation_prefixes = check.translation_prefixes(self.translation_prefixes);
        let is_deterministic = self.deterministic.section.is_some();
        let sessions = check.sessions(self.sessions, is_deterministic);
        let pools = self
            .pools
            .map(|pools| check.pools(pools, &translation_prefixes, sessions.block_size, self.masquerade_all));
        check.static_pairs(&self.static_pairs, &translation_prefixes);
        let eams = check.eams(self.eams, &self.static_pairs, &translation_prefixes, pools.as_deref());
        let pairs: Vec<_> = self.static_pairs.into_iter().map(|placed| placed.value).collect();
        let own = OwnAddresses::new(&pairs, &eams);
        let forwards = check.forwards(self.forwards, &translation_prefixes, pools.as_deref(), &own);
        check.icmp_sources(self.icmp_source_v4.as_ref(), self.icmp_source_v6.as_ref());
        check.router_address(self.icmp_source_v4.as_ref(), pools.as_deref(), &own, &forwards);
        check.router_pool(self.icmp_router_pool.as_ref());
        let quota = check.quota(self.quota, sessions.block_size, is_deterministic);
        let deterministic = check.deterministic(self.deterministic, &sessions, &quota, pools.as_deref());
        let (timers, fragment_timeout, below_rfc) = check.timers(self.timers);
        let records = check.records(self.records);
        let default = Params::DEFAULT;
        let translation = Params {
            lowest_ipv6_mtu: check.between(
                self.lowest_ipv6_mtu,
                default.lowest_ipv6_mtu,
                (1280, u16::MAX),
                "translation.lowest_ipv6_mtu",
            ),
            traffic_class: self.traffic_class.map_or(default.traffic_class, |placed| placed.value.0),
            udp_zero_checksum: self
                .udp_zero_checksum
                .map_or(default.udp_zero_checksum, |placed| placed.value.0),
            ..default
        };
        let settings = Settings {
            interface: check.interface(self.interface),
            translation_prefixes,
            pools: pools.map_or(Pools::Automatic, Pools::Explicit),
            static_pairs: pairs,
            eams,
            forwards,
            sessions,
            quota,
            timers,
            below_rfc,
            fragments: FragmentSettings {
                memory: check.between(
                    self.fragments_memory,
                    FragmentSettings::default().memory,
                    (64 << 10, 1 << 30),
                    "fragments.memory",
                ),
                timeout: fragment_timeout,
            },
            records,
            deterministic,
            state_dir: check.state(self.state),
            reservation_timeout: check.between(
                self.reservation_timeout,
                DEFAULT_RESERVATION_TIMEOUT,
                (second, second * 86_400 * 365),
                "reservation_timeout",
            ),
            address_rest: check.between(
                self.address_rest,
                DEFAULT_ADDRESS_REST,
                (Duration::ZERO, second * 86_400),
                "address_rest",
            ),
            max_leases_per_subnet: self
                .max_leases_per_subnet
                .map(|most| check.between(Some(most), 1, (1, u32::MAX), "max_leases_per_subnet")),
            num_queues: check.between(
                self.num_queues,
                default_queues(),
                (1, easy_tun::MAX_QUEUES),
                "num_queues",
            ),
            worker_nice: self
                .worker_nice
                .map(|nice| check.between(Some(nice), DEFAULT_WORKER_NICE, (-20, 19), "worker_nice")),
            mtu: check.between(self.mtu, DEFAULT_MTU, (1280, u16::MAX), "mtu"),
            offloads: self.offloads.map_or(Offloads::all(), |placed| placed.value.0),
            join: self.join.is_none_or(|placed| placed.value),
            steering: self.steering.is_none_or(|placed| placed.value),
            mss_clamp: self.mss_clamp.map_or(MssClamp::Off, |placed| placed.value),
            allow_from: self.allow_from.map_or(AllowFrom::Automatic, |nets| AllowFrom::Only(values(nets))),
            deny_to: self.deny_to.map(values).unwrap_or_default(),
            allow_non_global: is_true(self.allow_non_global.as_ref()),
            icmp_source_v4: self.icmp_source_v4.map(|placed| placed.value),
            icmp_source_v6: self.icmp_source_v6.map(|placed| placed.value),
            icmp_errors_per_second: check.between(
                self.icmp_errors_per_second,
                DEFAULT_ICMP_ERRORS_PER_SECOND,
                (0, 1_000_000),
                "icmp_errors_per_second",
            ),
            icmp_router_pool: self.icmp_router_pool.map(|placed| placed.value),
            translation,
            enable_forwarding: is_true(self.enable_forwarding.as_ref()),
            on_exit: self.on_exit.map_or(OnExit::default(), |placed| placed.value),
            hang_after: check.between(
                self.hang_after,
                DEFAULT_HANG_AFTER,
                (Duration::from_millis(500), second * 60),
                "hang_after",
            ),
            prometheus: self.prometheus.map_or(Prometheus::Default, |placed| placed.value),
            control_socket: self.control_socket.map_or(ControlSocket::Default, |placed| placed.value),
            hold: HoldSettings {
                packets_per_host: check.between(
                    self.hold_packets_per_host,
                    hold.packets_per_host,
                    (0, 16),
                    "hold.packets_per_host",
                ),
                hosts: check.between(self.hold_hosts, hold.hosts, (1, 4096), "hold.hosts"),
                timeout: check.between(
                    self.hold_timeout,
                    hold.timeout,
                    (Duration::from_millis(100), second * 60),
                    "hold.timeout",
                ),
            },
            log: LogSettings {
                format: self.log_format.map_or(LogFormat::default(), |placed| placed.value),
                level: self
                    .log_level
                    .map_or(LogLevel::default(), |placed| placed.value)
                    .more_verbose(self.verbosity),
            },
        };
        found.sort_by_key(|problem| match problem.place {
            Place::Flag(_) => (0, 0),
            Place::File { line, column, .. } => (line, column),
        });
        if found.is_empty() { Ok(settings) } else { Err(Problems::Wrong(found)) }
    }
}

/// One queue per processor.
fn default_queues() -> usize {
    std::thread::available_parallelism().map_or(1, |number| number.get().min(easy_tun::MAX_QUEUES))
}
