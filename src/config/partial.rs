//! What flags or a file have given, and how the two become [`Settings`].

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use interproto::Params;
use ipnet::{Ipv4Net, Ipv6Net};
use rfc6052::Prefix;

use super::text::{TrafficClassText, ZeroChecksumText};
use super::{
    AllowFrom, DEFAULT_ADDRESS_REST, DEFAULT_ICMP_ERRORS_PER_SECOND, DEFAULT_INTERFACE, DEFAULT_MTU,
    DEFAULT_RESERVATION_TIMEOUT, HoldSettings, LogSettings, OnExit, Placed, PoolSettings, Pools, Problem,
    Problems, Prometheus, SHORTEST_POOL, Settings, StaticPair,
};
use crate::logging::{LogFormat, LogLevel};

/// What has been given so far, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of `Settings` of the same names say what they are")]
pub struct Partial {
    pub interface: Option<Placed<String>>,
    pub translation_prefix: Option<Placed<Prefix>>,
    pub pools: Option<Vec<Placed<PoolSettings>>>,
    /// Masquerade every pool, whatever is said of it.
    pub masquerade_all: bool,
    pub static_pairs: Vec<Placed<StaticPair>>,
    pub reservation_timeout: Option<Placed<Duration>>,
    pub address_rest: Option<Placed<Duration>>,
    pub max_leases_per_subnet: Option<Placed<u32>>,
    pub num_queues: Option<Placed<usize>>,
    pub mtu: Option<Placed<u16>>,
    pub allow_from: Option<Vec<Placed<Ipv6Net>>>,
    pub deny_to: Option<Vec<Placed<Ipv4Net>>>,
    pub allow_non_global: Option<Placed<bool>>,
    pub icmp_source_v4: Option<Placed<Ipv4Addr>>,
    pub icmp_source_v6: Option<Placed<Ipv6Addr>>,
    pub icmp_errors_per_second: Option<Placed<u32>>,
    pub icmp_router_pool: Option<Placed<Ipv4Net>>,
    pub lowest_ipv6_mtu: Option<Placed<u16>>,
    pub traffic_class: Option<Placed<TrafficClassText>>,
    pub udp_zero_checksum: Option<Placed<ZeroChecksumText>>,
    pub enable_forwarding: Option<Placed<bool>>,
    pub on_exit: Option<Placed<OnExit>>,
    pub prometheus: Option<Placed<Prometheus>>,
    pub hold_packets_per_host: Option<Placed<usize>>,
    pub hold_hosts: Option<Placed<usize>>,
    pub hold_timeout: Option<Placed<Duration>>,
    pub log_format: Option<Placed<LogFormat>>,
    pub log_level: Option<Placed<LogLevel>>,
    /// How many steps more than `log_level` are logged.
    pub verbosity: u8,
}

impl Partial {
    /// These settings where they are given, otherwise those of `below`: flags over a file.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            interface: self.interface.or(below.interface),
            translation_prefix: self.translation_prefix.or(below.translation_prefix),
            pools: self.pools.or(below.pools),
            masquerade_all: self.masquerade_all || below.masquerade_all,
            static_pairs: if self.static_pairs.is_empty() { below.static_pairs } else { self.static_pairs },
            reservation_timeout: self.reservation_timeout.or(below.reservation_timeout),
            address_rest: self.address_rest.or(below.address_rest),
            max_leases_per_subnet: self.max_leases_per_subnet.or(below.max_leases_per_subnet),
            num_queues: self.num_queues.or(below.num_queues),
            mtu: self.mtu.or(below.mtu),
            allow_from: self.allow_from.or(below.allow_from),
            deny_to: self.deny_to.or(below.deny_to),
            allow_non_global: self.allow_non_global.or(below.allow_non_global),
            icmp_source_v4: self.icmp_source_v4.or(below.icmp_source_v4),
            icmp_source_v6: self.icmp_source_v6.or(below.icmp_source_v6),
            icmp_errors_per_second: self.icmp_errors_per_second.or(below.icmp_errors_per_second),
            icmp_router_pool: self.icmp_router_pool.or(below.icmp_router_pool),
            lowest_ipv6_mtu: self.lowest_ipv6_mtu.or(below.lowest_ipv6_mtu),
            traffic_class: self.traffic_class.or(below.traffic_class),
            udp_zero_checksum: self.udp_zero_checksum.or(below.udp_zero_checksum),
            enable_forwarding: self.enable_forwarding.or(below.enable_forwarding),
            on_exit: self.on_exit.or(below.on_exit),
            prometheus: self.prometheus.or(below.prometheus),
            hold_packets_per_host: self.hold_packets_per_host.or(below.hold_packets_per_host),
            hold_hosts: self.hold_hosts.or(below.hold_hosts),
            hold_timeout: self.hold_timeout.or(below.hold_timeout),
            log_format: self.log_format.or(below.log_format),
            log_level: self.log_level.or(below.log_level),
            verbosity: self.verbosity.saturating_add(below.verbosity),
        }
    }

    /// Checks everything, `found` being what is known to be wrong already.
    pub fn settle(self, mut found: Vec<Problem>) -> Result<Settings, Problems> {
        let mut check = Check { problems: &mut found };
        let second = Duration::from_secs(1);
        let hold = HoldSettings::default();
        let pools = self.pools.map(|pools| check.pools(pools));
        check.static_pairs(&self.static_pairs, self.translation_prefix.as_ref());
        check.translation_prefix(self.translation_prefix.as_ref());
        check.icmp_sources(self.icmp_source_v4.as_ref(), self.icmp_source_v6.as_ref());
        check.router_address(self.icmp_source_v4.as_ref(), pools.as_deref(), &self.static_pairs);
        check.router_pool(self.icmp_router_pool.as_ref());
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
            translation_prefix: self.translation_prefix.map_or(Prefix::WELL_KNOWN, |placed| placed.value),
            pools: match pools {
                None => Pools::Automatic,
                Some(pools) => {
                    let all = self.masquerade_all;
                    let with =
                        |pool: PoolSettings| PoolSettings { masquerade: pool.masquerade || all, ..pool };
                    Pools::Explicit(pools.into_iter().map(with).collect())
                }
            },
            static_pairs: self.static_pairs.into_iter().map(|placed| placed.value).collect(),
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
            mtu: check.between(self.mtu, DEFAULT_MTU, (1280, u16::MAX), "mtu"),
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
            prometheus: self.prometheus.map_or(Prometheus::Default, |placed| placed.value),
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
        if found.is_empty() { Ok(settings) } else { Err(Problems::Wrong(found)) }
    }
}

fn values<T>(placed: Vec<Placed<T>>) -> Vec<T> {
    placed.into_iter().map(|placed| placed.value).collect()
}

fn is_true(placed: Option<&Placed<bool>>) -> bool {
    placed.is_some_and(|placed| placed.value)
}

/// One queue per processor.
fn default_queues() -> usize {
    std::thread::available_parallelism().map_or(1, |number| number.get().min(easy_tun::MAX_QUEUES))
}

struct Check<'p> {
    problems: &'p mut Vec<Problem>,
}

impl Check<'_> {
    fn wrong<T>(&mut self, placed: &Placed<T>, message: String) {
        self.problems.push(Problem { place: placed.place.clone(), message });
    }

    fn between<T: PartialOrd + std::fmt::Debug + Copy>(
        &mut self,
        placed: Option<Placed<T>>,
        default: T,
        (least, most): (T, T),
        name: &str,
    ) -> T {
        let Some(placed) = placed else { return default };
        if placed.value < least || placed.value > most {
            let value = placed.value;
            self.wrong(&placed, format!("{name}: {value:?} is not between {least:?} and {most:?}"));
        }
        placed.value
    }

    fn interface(&mut self, placed: Option<Placed<String>>) -> String {
        let Some(placed) = placed else { return DEFAULT_INTERFACE.to_owned() };
        if let Err(error) = easy_tun::check_name(&placed.value) {
            self.wrong(&placed, format!("interface: {error}"));
        } else if placed.value.contains('%') {
            self.wrong(
                &placed,
                "interface: the name of a service's device is fixed; % is not allowed".to_owned(),
            );
        }
        placed.value
    }

    fn pools(&mut self, pools: Vec<Placed<PoolSettings>>) -> Vec<PoolSettings> {
        for (place, placed) in pools.iter().enumerate() {
            let net = placed.value.net;
            if net.addr() != net.network() {
                let meant = net.trunc();
                self.wrong(
                    placed,
                    format!("pool: {net} has bits set behind its prefix; the network is {meant}"),
                );
            }
            if net.prefix_len() < SHORTEST_POOL {
                self.wrong(
                    placed,
                    format!("pool: {net} is longer than a /{SHORTEST_POOL}, the largest pool"),
                );
            }
            let unusable = super::built_in_denied().into_iter().find(|denied| overlap(*denied, net));
            if let Some(denied) = unusable {
                self.wrong(
                    placed,
                    format!("pool: {net} overlaps {denied}, which no host can have an address of"),
                );
            }
            if let Some(other) = pools[..place].iter().find(|other| overlap(other.value.net, net)) {
                let (other, there) = (other.value.net, other.place.clone());
                self.wrong(placed, format!("pool: {net} overlaps the pool {other} ({there})"));
            }
        }
        values(pools)
    }

    fn translation_prefix(&mut self, placed: Option<&Placed<Prefix>>) {
        let Some(placed) = placed else { return };
        let first = placed.value.address();
        // ::/96 and ::ffff:0:0/96 are IPv4-compatible and IPv4-mapped addresses (RFC 4291 §2.5.5).
        if first.segments()[..5] == [0; 5] || first.is_unicast_link_local() || first.is_multicast() {
            let prefix = placed.value;
            self.wrong(placed, format!("translation_prefix: {prefix} holds no addresses that can be routed"));
        }
    }

    fn icmp_sources(&mut self, v4: Option<&Placed<Ipv4Addr>>, v6: Option<&Placed<Ipv6Addr>>) {
        if let Some(placed) = v4
            && super::built_in_denied().iter().any(|denied| denied.contains(&placed.value))
        {
            let address = placed.value;
            self.wrong(placed, format!("icmp_source_v4: {address} cannot be the address of a router"));
        }
        if let Some(placed) = v6
            && !fast_nat::is_eligible_host(placed.value)
        {
            let address = placed.value;
            self.wrong(placed, format!("icmp_source_v6: {address} cannot be the address of a router"));
        }
    }

    fn router_pool(&mut self, placed: Option<&Placed<Ipv4Net>>) {
        let Some(placed) = placed else { return };
        let net = placed.value;
        if net.addr() != net.network() {
            let meant = net.trunc();
            self.wrong(
                placed,
                format!("icmp_router_pool: {net} has bits set behind its prefix; the network is {meant}"),
            );
        }
        if let Some(denied) = super::built_in_denied().into_iter().find(|denied| overlap(*denied, net)) {
            self.wrong(
                placed,
                format!("icmp_router_pool: {net} overlaps {denied}, which no router can have an address of"),
            );
        }
    }

    /// The router's own address is never leased.
    fn router_address(
        &mut self,
        own: Option<&Placed<Ipv4Addr>>,
        pools: Option<&[PoolSettings]>,
        pairs: &[Placed<StaticPair>],
    ) {
        let Some(own) = own else { return };
        let address = own.value;
        if pairs.iter().any(|pair| pair.value.address == address) {
            self.wrong(own, format!("icmp_source_v4: {address} is the address of a static pair"));
        }
        if pools.is_some_and(|pools| pools.iter().all(|pool| pool.net == Ipv4Net::from(address))) {
            self.wrong(
                own,
                format!("icmp_source_v4: {address} is the only address of the pool; none is left"),
            );
        }
    }

    fn static_pairs(&mut self, pairs: &[Placed<StaticPair>], prefix: Option<&Placed<Prefix>>) {
        let prefix = prefix.map_or(Prefix::WELL_KNOWN, |placed| placed.value);
        for (place, placed) in pairs.iter().enumerate() {
            let StaticPair { host, address } = placed.value;
            if !fast_nat::is_eligible_host(host) || prefix.contains(host) {
                self.wrong(
                    placed,
                    format!("static: {host} cannot be the address of a host behind this router"),
                );
            }
            if super::built_in_denied().iter().any(|denied| denied.contains(&address)) {
                self.wrong(placed, format!("static: {address} cannot be a host's address"));
            }
            for other in &pairs[..place] {
                let there = other.place.clone();
                if other.value.address == address {
                    self.wrong(placed, format!("static: {address} is given away already ({there})"));
                }
                if other.value.host == host {
                    self.wrong(placed, format!("static: {host} has an address already ({there})"));
                }
            }
        }
    }
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}
