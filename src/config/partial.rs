//! What flags or a file have given, and where.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use rfc6052::Prefix;

use super::text::{OffloadsText, TrafficClassText, ZeroChecksumText};
use super::{
    BlockFor, ControlSocket, Filtering, ForwardProtocol, MssClamp, OnExit, Placed, PortRange, Prometheus,
    Sharing, StaticPair, SyslogTarget, WhenFull,
};
use crate::logging::{LogFormat, LogLevel};

/// What has been given so far, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of `Settings` of the same names say what they are")]
pub struct Partial {
    pub interface: Option<Placed<String>>,
    pub translation_prefixes: Option<Vec<Placed<Prefix>>>,
    pub pools: Option<Vec<PartialPool>>,
    /// Masquerade every pool, whatever is said of it.
    pub masquerade_all: bool,
    pub static_pairs: Vec<Placed<StaticPair>>,
    pub eams: Vec<PartialEam>,
    pub forwards: Vec<PartialForward>,
    pub sessions: PartialSessions,
    pub quota: PartialQuota,
    pub timers: PartialTimers,
    pub fragments_memory: Option<Placed<usize>>,
    pub records: PartialRecords,
    pub deterministic: PartialDeterministic,
    pub state: PartialState,
    pub reservation_timeout: Option<Placed<Duration>>,
    pub address_rest: Option<Placed<Duration>>,
    pub max_leases_per_subnet: Option<Placed<u32>>,
    pub num_queues: Option<Placed<usize>>,
    pub worker_nice: Option<Placed<i32>>,
    pub mtu: Option<Placed<u16>>,
    pub offloads: Option<Placed<OffloadsText>>,
    pub join: Option<Placed<bool>>,
    pub steering: Option<Placed<bool>>,
    pub mss_clamp: Option<Placed<MssClamp>>,
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
    pub hang_after: Option<Placed<Duration>>,
    pub prometheus: Option<Placed<Prometheus>>,
    pub control_socket: Option<Placed<ControlSocket>>,
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
            translation_prefixes: self.translation_prefixes.or(below.translation_prefixes),
            pools: self.pools.or(below.pools),
            masquerade_all: self.masquerade_all || below.masquerade_all,
            static_pairs: if self.static_pairs.is_empty() { below.static_pairs } else { self.static_pairs },
            eams: if self.eams.is_empty() { below.eams } else { self.eams },
            forwards: if self.forwards.is_empty() { below.forwards } else { self.forwards },
            sessions: self.sessions.over(below.sessions),
            quota: self.quota.over(below.quota),
            timers: self.timers.over(below.timers),
            fragments_memory: self.fragments_memory.or(below.fragments_memory),
            records: self.records.over(below.records),
            deterministic: self.deterministic.over(below.deterministic),
            state: self.state.over(below.state),
            reservation_timeout: self.reservation_timeout.or(below.reservation_timeout),
            address_rest: self.address_rest.or(below.address_rest),
            max_leases_per_subnet: self.max_leases_per_subnet.or(below.max_leases_per_subnet),
            num_queues: self.num_queues.or(below.num_queues),
            worker_nice: self.worker_nice.or(below.worker_nice),
            mtu: self.mtu.or(below.mtu),
            offloads: self.offloads.or(below.offloads),
            join: self.join.or(below.join),
            steering: self.steering.or(below.steering),
            mss_clamp: self.mss_clamp.or(below.mss_clamp),
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
            hang_after: self.hang_after.or(below.hang_after),
            prometheus: self.prometheus.or(below.prometheus),
            control_socket: self.control_socket.or(below.control_socket),
            hold_packets_per_host: self.hold_packets_per_host.or(below.hold_packets_per_host),
            hold_hosts: self.hold_hosts.or(below.hold_hosts),
            hold_timeout: self.hold_timeout.or(below.hold_timeout),
            log_format: self.log_format.or(below.log_format),
            log_level: self.log_level.or(below.log_level),
            verbosity: self.verbosity.saturating_add(below.verbosity),
        }
    }
}

/// Where state is kept that outlives the process, or that none is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartialState {
    /// There.
    pub dir: Option<Placed<PathBuf>>,
    /// Whether none is.
    pub none: Option<Placed<bool>>,
}

impl PartialState {
    /// Each of the two takes the place of what either says below.
    fn over(self, below: Self) -> Self {
        if self == Self::default() { below } else { self }
    }
}

/// Mappings that are not in the file: they were added at run time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mappings {
    /// Addresses for hosts.
    pub static_pairs: Vec<Placed<StaticPair>>,
    /// Forwarded ports.
    pub forwards: Vec<PartialForward>,
}

impl Partial {
    /// The same with these mappings more.
    #[must_use]
    pub fn with(&self, more: &Mappings) -> Self {
        let mut with = self.clone();
        with.static_pairs.extend(more.static_pairs.iter().cloned());
        with.forwards.extend(more.forwards.iter().cloned());
        with
    }
}

/// One pool, as far as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of `PoolSettings` of the same names say what they are")]
pub struct PartialPool {
    pub net: Placed<Ipv4Net>,
    pub masquerade: bool,
    pub sharing: Option<Placed<Sharing>>,
    pub ports: Option<Placed<PortRange>>,
    pub reserved_ports: Option<Placed<Vec<PortRange>>>,
    pub hosts: Option<Placed<Vec<Placed<Ipv6Net>>>>,
    pub translation_prefix: Option<Placed<Prefix>>,
}

impl PartialPool {
    /// A pool of which nothing but its addresses was said.
    pub fn new(net: Placed<Ipv4Net>) -> Self {
        Self {
            net,
            masquerade: false,
            sharing: None,
            ports: None,
            reserved_ports: None,
            hosts: None,
            translation_prefix: None,
        }
    }
}

/// One explicit address mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the methods of `fast_nat::Eam` of the same names say what they are")]
pub struct PartialEam {
    pub ipv4: Placed<Ipv4Net>,
    pub ipv6: Placed<Ipv6Net>,
}

/// One port forward.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of `Forward` of the same names say what they are")]
pub struct PartialForward {
    pub protocol: Placed<ForwardProtocol>,
    pub address: Placed<Ipv4Addr>,
    pub port: Placed<u16>,
    pub host: Placed<Ipv6Addr>,
    pub host_port: Option<Placed<u16>>,
    pub prefix: Option<Placed<Prefix>>,
}

/// Sections of the file: structures of optional fields, one of which goes before another of its kind.
macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the fields of the settings of the same names say what they are")]
        pub struct $name {
            $(pub $field: Option<Placed<$type>>,)*
        }

        impl $name {
            fn over(self, below: Self) -> Self {
                Self { $($field: self.$field.or(below.$field),)* }
            }
        }
    )*};
}

sections! {
    /// What was given of [`SessionSettings`](super::SessionSettings).
    PartialSessions {
        max: u32,
        max_hosts: u32,
        max_stored_syns: u32,
        max_resting_ports: u16,
        filtering: Filtering,
        answer_filtered: bool,
        block_size: u16,
        block_for: BlockFor,
    }
    /// What was given of [`QuotaSettings`](super::QuotaSettings).
    PartialQuota {
        subscriber_prefix_len: u8,
        ports: u32,
        sessions: u32,
        new_sessions_per_second: u32,
        new_sessions_burst: u32,
    }
    /// What was given of [`Timers`](fast_nat::nat64::Timers), and how long a fragment waits for the others.
    PartialTimers {
        tcp_established: Duration,
        tcp_transitory: Duration,
        tcp_incoming_syn: Duration,
        udp: Duration,
        icmp: Duration,
        port_rest: Duration,
        tcp_port_rest: Duration,
        fragment: Duration,
        block_idle: Duration,
        below_rfc: bool,
    }
    /// What was given of [`RecordSettings`](super::RecordSettings). `section`: that there is such a section at all.
    PartialRecords {
        section: (),
        file: PathBuf,
        syslog: SyslogTarget,
        when_full: WhenFull,
        sessions: bool,
    }
    /// What was given of [`DeterministicSettings`](super::DeterministicSettings). `section`: that there is such a section
    /// at all.
    PartialDeterministic {
        section: (),
        hosts: Vec<Placed<Ipv6Net>>,
        ports_per_subscriber: u32,
    }
}
