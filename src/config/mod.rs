//! Settings: what a run of the router is told, by flags and by one TOML file.
//!
//! Flags and file are both read into a [`Partial`]; a flag overrides the file. [`Partial::settle`] turns the two into
//! [`Settings`], in which every value is legal, or into the list of all that is wrong.

mod check;
mod file;
mod nat;
mod partial;
mod place;
mod pools;
mod ports;
mod settle;
mod text;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use easy_tun::Offloads;
use fast_nat::Eam;
use fast_nat::nat64::Timers;
use interproto::Params;
use ipnet::{Ipv4Net, Ipv6Net};
use rfc6052::Prefix;
use serde::Deserialize;

pub use file::{parse, read, read_text};
pub use nat::{
    BlockFor, DEFAULT_QUOTA_PORTS, DeterministicSettings, Filtering, Forward, ForwardProtocol,
    FragmentSettings, QuotaSettings, RecordSettings, RecordSink, SessionSettings, Sharing, SyslogTarget,
    WhenFull,
};
pub use partial::{
    Mappings, Partial, PartialDeterministic, PartialEam, PartialForward, PartialPool, PartialQuota,
    PartialRecords, PartialSessions, PartialState, PartialTimers,
};
pub use place::{Place, Placed, Problem, Problems};
pub use pools::{PoolSettings, Pools, pools_of};
pub use ports::PortRange;
pub use text::{NetOrAddress, OffloadsText, Text, parse_duration};

use crate::logging::{LogFormat, LogLevel};

/// The name of the TUN device where none is given.
pub const DEFAULT_INTERFACE: &str = "nat64";

/// How long a host may be silent before its lease ends, where nothing is given. RFC 4787 REQ-5 and RFC 5382 REQ-5: a TCP
/// connection may be silent for two hours and four minutes.
pub const DEFAULT_RESERVATION_TIMEOUT: Duration = Duration::from_mins(2 * 60 + 4);

/// How long an address rests after a lease (RFC 6888 REQ-8).
pub const DEFAULT_ADDRESS_REST: Duration = Duration::from_mins(2);

/// The device's MTU in bytes where none is given: longer than what links carry, so that the kernel's next step, which
/// knows the real link, decides what fits and says so to the sender.
pub const DEFAULT_MTU: u16 = 9216;

/// ICMP errors of the router's own per second, for each worker and family. RFC 4443 §2.4 (f) leaves the figure to the operator;
/// a traceroute of many hosts at once must still get its answers.
pub const DEFAULT_ICMP_ERRORS_PER_SECOND: u32 = 1000;

/// How long a thread may be busy with one thing where nothing is given. A handler takes milliseconds, and a thread waits a tenth of a
/// second for a processor where six others want one.
pub const DEFAULT_HANG_AFTER: Duration = Duration::from_secs(2);

/// The nice value of packet workers where none is given: three times the weight of a thread like any other. Whom a worker's packet wakes on its
/// processor takes that from it before it has gone to sleep, unless more of the processor is due to the worker than it uses.
pub const DEFAULT_WORKER_NICE: i32 = -5;

/// Leases that the hosts of one /64 may hold at a time in a given pool, where nothing else is said.
pub const DEFAULT_MAX_LEASES_PER_SUBNET: u32 = 128;

/// Where metrics are served unless told otherwise: on loopback.
pub const DEFAULT_PROMETHEUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// The most translation prefixes.
pub const MAX_TRANSLATION_PREFIXES: usize = 16;

/// The shortest pool prefix: a million addresses, whose leases a restarted `pool` reads in under a second.
const SHORTEST_POOL: u8 = 12;

/// Everything that a run is told. Every value is legal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each turns one thing on or off, and depends on no other")]
pub struct Settings {
    /// Name of the TUN device.
    pub interface: String,
    /// Where the IPv4 internet appears on the IPv6 side: 1 to [`MAX_TRANSLATION_PREFIXES`], no two of which overlap. Mind
    /// [`translation_prefix`](Self::translation_prefix).
    pub translation_prefixes: Vec<Prefix>,
    /// What addresses are leased from.
    pub pools: Pools,
    /// IPv6 hosts with an IPv4 address of their own for good.
    pub static_pairs: Vec<StaticPair>,
    /// IPv6 networks whose hosts have IPv4 addresses of their own for good (RFC 7757). With the static pairs, no two have a
    /// prefix in common.
    pub eams: Vec<Eam>,
    /// Ports that lead to a host for good.
    pub forwards: Vec<Forward>,
    /// Tables, and what they let in.
    pub sessions: SessionSettings,
    /// What one subscriber may hold.
    pub quota: QuotaSettings,
    /// How long things live.
    pub timers: Timers,
    /// A sentence for each timer that is shorter than its RFC says, for the log.
    pub below_rfc: Vec<String>,
    /// Fragments that wait for the rest of their packet.
    pub fragments: FragmentSettings,
    /// Records of who was given what; `None`: none are written.
    pub records: Option<RecordSettings>,
    /// Ports by computation. With it, [`BlockFor::Subscriber`] holds and no quota of ports.
    pub deterministic: Option<DeterministicSettings>,
    /// The folder in which state that outlives the process has a folder; `None`: none is kept.
    pub state_dir: Option<PathBuf>,
    /// How long a host may be silent before its lease ends.
    pub reservation_timeout: Duration,
    /// How long an address rests after a lease.
    pub address_rest: Duration,
    /// Leases that the hosts of one /64 may hold at a time. Not given: [`DEFAULT_MAX_LEASES_PER_SUBNET`] of a given pool,
    /// all of a pool that the router chose itself.
    pub max_leases_per_subnet: Option<u32>,
    /// Queues of the device, and packet workers: 1 to 256.
    pub num_queues: usize,
    /// The nice value of packet workers, -20 to 19. Not given: see [`Self::worker_nice_from`].
    pub worker_nice: Option<i32>,
    /// The device's MTU in bytes: 1280 to 65535.
    pub mtu: u16,
    /// What the kernel is asked to leave to the router; it gets what the kernel grants.
    pub offloads: Offloads,
    /// Whether consecutive packets of one flow are joined where the device takes super-packets.
    pub join: bool,
    /// Whether a program in the kernel chooses the worker of each packet, where it may be loaded: see [`crate::kernel::lanes`].
    pub steering: bool,
    /// What is done about the segment sizes that TCP connections announce.
    pub mss_clamp: MssClamp,
    /// Who may use the router.
    pub allow_from: AllowFrom,
    /// Destinations that nobody may reach, beside [`built_in_denied`] and the router's own addresses.
    pub deny_to: Vec<Ipv4Net>,
    /// Whether non-global IPv4 addresses may appear under the well-known prefix (RFC 6052 §3.1).
    pub allow_non_global: bool,
    /// The source of the router's own ICMPv4 errors; the first pool's first address where not given.
    pub icmp_source_v4: Option<Ipv4Addr>,
    /// The source of the router's own ICMPv6 errors; a global address of this host where not given.
    pub icmp_source_v6: Option<Ipv6Addr>,
    /// ICMP errors of the router's own per second, for each worker and family; 0: none (RFC 4443 §2.4 (f), RFC 7915 §4.4,
    /// §5.4).
    pub icmp_errors_per_second: u32,
    /// The sources, on the IPv4 side, of errors from IPv6 routers without an IPv4 address (RFC 6791); the leased address of the
    /// host that the error is from behind where not given.
    pub icmp_router_pool: Option<Ipv4Net>,
    /// The parameters of translation.
    pub translation: Params,
    /// Whether forwarding may be turned on.
    pub enable_forwarding: bool,
    /// What a clean end does with what was made.
    pub on_exit: OnExit,
    /// A thread that is busy with one thing for longer hangs.
    pub hang_after: Duration,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub prometheus: Prometheus,
    /// Where the router is asked and told.
    pub control_socket: ControlSocket,
    /// How first packets of new hosts wait.
    pub hold: HoldSettings,
    /// What is logged, and how.
    pub log: LogSettings,
}

impl Settings {
    /// The first translation prefix: the one that the router's own addresses and port forwards appear under where nothing
    /// else is said.
    pub fn translation_prefix(&self) -> Prefix {
        self.translation_prefixes.first().copied().unwrap_or(Prefix::WELL_KNOWN)
    }

    /// The nice value of packet workers in a router with this one: [`DEFAULT_WORKER_NICE`] where nobody has chosen any, neither here nor by the
    /// one that it is started with.
    pub fn worker_nice_from(&self, own: i32) -> i32 {
        self.worker_nice.unwrap_or(if own == 0 { DEFAULT_WORKER_NICE } else { own })
    }

    /// The translation prefixes as networks.
    pub fn prefix_nets(&self) -> Vec<Ipv6Net> {
        self.translation_prefixes.iter().map(|prefix| Ipv6Net::from(*prefix)).collect()
    }

    /// Static pairs and explicit mappings: the former are mappings of one address each.
    pub fn mappings(&self) -> Vec<Eam> {
        let pairs = self.static_pairs.iter().map(|pair| Eam::pair(pair.address, pair.host));
        pairs.chain(self.eams.iter().copied()).collect()
    }

    /// Addresses in these networks that a host has for good, by a static pair or a mapping: they are nobody else's.
    pub fn mapped_within(&self, nets: impl Iterator<Item = Ipv4Net>) -> Vec<Ipv4Addr> {
        let mapped: Vec<_> = self.mappings().iter().map(Eam::ipv4).collect();
        let common = |net: Ipv4Net| {
            mapped.iter().flat_map(move |mapped| {
                let first = net.network().max(mapped.network()).to_bits();
                let last = net.broadcast().min(mapped.broadcast()).to_bits();
                (first..=last).map(Ipv4Addr::from_bits)
            })
        };
        nets.flat_map(common).collect()
    }

    /// The length of the prefix that leases blocks of ports: 128 where each host does so for itself.
    pub fn lease_prefix_len(&self) -> u8 {
        match self.sessions.block_for {
            BlockFor::Host => 128,
            BlockFor::Subscriber => self.quota.subscriber_prefix_len,
        }
    }
}

/// Settings, and what they came of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// What was given.
    pub partial: Partial,
    /// What it comes to.
    pub settings: Settings,
    /// The text of the file that is part of it.
    pub text: Option<Arc<str>>,
}

impl Partial {
    /// The settings together with these parts that they are made of; `found` is what is known to be wrong already.
    pub fn configure(self, found: Vec<Problem>) -> Result<Configuration, Problems> {
        let settings = self.clone().settle(found)?;
        Ok(Configuration { partial: self, settings, text: None })
    }
}

/// An IPv6 host and its IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StaticPair {
    /// The host.
    pub host: Ipv6Addr,
    /// Its address.
    pub address: Ipv4Addr,
}

/// Who may use the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowFrom {
    /// With pools of its own choice: directly connected prefixes and unique local addresses. With given pools: everyone.
    Automatic,
    /// These.
    Only(Vec<Ipv6Net>),
}

/// What a clean end does with the device, its routes and the masquerade table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnExit {
    /// Remove them, and restore the sysctls.
    #[default]
    Remove,
    /// Leave them for the next start.
    Keep,
}

/// Where metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prometheus {
    /// On loopback, if the port is free.
    Default,
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl Prometheus {
    /// Where they are to be served.
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Default => Some(DEFAULT_PROMETHEUS),
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

/// Where the control socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlSocket {
    /// At [`control_socket_of`] the interface, if that can be had.
    Default,
    /// Nowhere.
    Off,
    /// There; the path is absolute.
    At(PathBuf),
}

/// The default path of the control socket.
pub fn control_socket_of(interface: &str) -> PathBuf {
    // Interface names have no slash.
    Path::new(crate::kernel::sysctl::RECORD_DIR).join(format!("{interface}.sock"))
}

/// What no segment need be smaller than, in bytes: what is announced by saying nothing (RFC 9293 §3.7.1).
pub const LEAST_MSS: u16 = 536;

/// What is done about the segment size that a TCP connection announces in its SYN (RFC 9293 §3.7.1). Path MTU discovery does without, where
/// its ICMP errors arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MssClamp {
    /// Nothing.
    #[default]
    Off,
    /// It is lowered to what this host's links carry, translated.
    Auto,
    /// It is lowered to this many bytes, at least [`LEAST_MSS`].
    Most(u16),
}

/// How first packets of new hosts wait for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldSettings {
    /// Packets of one host: 0 (none wait) to 16.
    pub packets_per_host: usize,
    /// Hosts at a time and worker: 1 to 4096. All that waits takes 8 MiB a worker at most.
    pub hosts: usize,
    /// How long a packet waits: at most a minute.
    pub timeout: Duration,
}

impl Default for HoldSettings {
    fn default() -> Self {
        let limits = crate::datapath::hold::Limits::default();
        Self { packets_per_host: limits.packets_per_host, hosts: limits.hosts, timeout: limits.timeout }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSettings {
    /// The form of a record.
    pub format: LogFormat,
    /// The least important records that are written.
    pub level: LogLevel,
}

/// Destinations that are always denied: what a packet from another host must never reach through this one.
pub fn built_in_denied() -> Vec<Ipv4Net> {
    vec![
        Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8), // this host on this network (RFC 1122 §3.2.1.3)
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8), // loopback
        Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16), // link-local (RFC 3927)
        Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4), // multicast (RFC 5771)
        Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32),  // limited broadcast (RFC 919)
    ]
}

#[cfg(test)]
mod tests;
