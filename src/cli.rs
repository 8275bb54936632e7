//! The command line.
#![allow(clippy::doc_markdown, reason = "clap prints these comments as they are")]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use ipnet::{Ipv4Net, Ipv6Net};
use rfc6052::Prefix;

use crate::config::{
    self, Configuration, ControlSocket, MssClamp, OffloadsText, OnExit, Partial, PartialPool, PartialState,
    Placed, Problems, Prometheus, Sharing, parse_duration,
};
use crate::control::client::Ctl;
use crate::logging::LogFormat;
use crate::who_had::WhoHad;

/// A NAT64 router: IPv6-only networks reach the IPv4 internet through it.
///
/// Without any flag it translates under 64:ff9b::/96 for the directly connected IPv6 networks, behind this host's own
/// IPv4 address.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What else to do than to route.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What the router is told.
    #[command(flatten)]
    pub flags: Flags,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  ended as asked        4  the interface name is taken
  1  another failure       5  a pool cannot be used
  2  wrong flag or file    6  the translation prefix cannot be used
  3  root, CAP_NET_ADMIN   7  gave up; start it again
     or /dev/net/tun is missing";

/// What else the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say all that is wrong with a configuration file, with line and column.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Remove everything that protomask has left in the kernel: devices, routes, nftables tables, changed sysctls. State that the
    /// next start goes on with (--state-dir) is kept.
    Cleanup {
        /// Do it even while a router runs, which loses its device by it.
        #[arg(long)]
        force: bool,
    },
    /// Say who had an address and a port at a time, from the configuration in deterministic mode, and from allocation
    /// records otherwise. Exit code 1: nobody had it.
    WhoHad(WhoHad),
    /// Ask a running router, or tell it, by its control socket.
    Ctl(Ctl),
    /// Route with these flags, in a process below this one that is started again when it ends unasked. Its device's queues are kept
    /// meanwhile, so that packets wait instead of being lost. SIGUSR2 starts the program anew that lies at its path then.
    Keep(Box<Flags>),
    /// Show the router at work between network namespaces of its own. Needs root, and leaves this host's network alone.
    Demo,
}

/// The flags of the router.
#[derive(Debug, Clone, Default, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Flags {
    /// Read settings from this file; a flag overrides it.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of the TUN device [default: nat64].
    #[arg(short, long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Lease IPv4 addresses from this network. May be repeated [default: a private network that is free here, behind
    /// this host's own IPv4 address].
    #[arg(long, value_name = "NET")]
    pub pool_prefix: Vec<Ipv4Net>,
    /// Hide the pools behind this host's own IPv4 address (an nftables table does it).
    #[arg(long)]
    pub masquerade: bool,
    /// How hosts share the addresses of the pools given with --pool-prefix: each has ports of an address, or an address
    /// to itself [default: ports].
    #[arg(long, value_name = "HOW", requires = "pool_prefix")]
    pub sharing: Option<Sharing>,
    /// Where the IPv4 internet appears on the IPv6 side. May be repeated [default: 64:ff9b::/96].
    #[arg(long, value_name = "NET")]
    pub translation_prefix: Vec<Prefix>,
    /// End a lease when its host has been silent for this long: seconds, or 2h, 90s ... [default: 2h 4m].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub reservation_timeout: Option<Duration>,
    /// Queues of the device, one packet worker each [default: one per processor].
    #[arg(long, value_name = "N")]
    pub num_queues: Option<usize>,
    /// What the kernel leaves to the router, as far as it can: auto (all), off, or some of checksum, tso4, tso6, tso_ecn, uso
    /// with commas between them [default: auto].
    #[arg(long, value_name = "WHAT")]
    pub offloads: Option<OffloadsText>,
    /// Lower the segment size that TCP connections announce: off, auto (to what this host's links carry), or to so many
    /// bytes [default: off].
    #[arg(long, value_name = "SIZE")]
    pub mss_clamp: Option<MssClamp>,
    /// Translate for hosts in this network only. May be repeated [default: directly connected networks and fc00::/7, or
    /// everyone where a pool is given].
    #[arg(long, value_name = "NET")]
    pub allow_from: Vec<Ipv6Net>,
    /// Refuse packets to this IPv4 network. May be repeated. Loopback, link-local, multicast and this host's own
    /// addresses are always refused.
    #[arg(long, value_name = "NET")]
    pub deny_to: Vec<Ipv4Net>,
    /// Translate non-global IPv4 addresses under 64:ff9b::/96 too, against RFC 6052 section 3.1.
    #[arg(long)]
    pub allow_non_global: bool,
    /// Source of the router's own ICMPv4 errors [default: the first pool's first address].
    #[arg(long, value_name = "ADDRESS")]
    pub icmp_source_v4: Option<Ipv4Addr>,
    /// Source of the router's own ICMPv6 errors [default: a global address of this host].
    #[arg(long, value_name = "ADDRESS")]
    pub icmp_source_v6: Option<Ipv6Addr>,
    /// Turn IPv4 and IPv6 forwarding on where they are off, and restore them in the end.
    #[arg(long)]
    pub enable_forwarding: bool,
    /// Keep there what a restart is to go on with: sessions, port blocks, leases. Each interface has a folder of its own in it
    /// [default: /var/lib/protomask].
    #[arg(long, value_name = "DIR", conflicts_with = "no_state")]
    pub state_dir: Option<PathBuf>,
    /// Keep nothing: a restart ends all sessions.
    #[arg(long)]
    pub no_state: bool,
    /// Take over from a router of this interface that runs: it hands over its device and state, and ends. It is asked by the control
    /// socket, and goes on if this one cannot start.
    #[arg(long)]
    pub replace: bool,
    /// What a clean end does with device, routes and nftables table [default: remove].
    #[arg(long, value_name = "WHAT")]
    pub on_exit: Option<OnExit>,
    /// A thread that is busy with one thing for longer hangs, and is replaced: seconds, or 500ms, 1m ... [default: 2s].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub hang_after: Option<Duration>,
    /// Serve /metrics, /healthz and /readyz there, or off [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDR")]
    pub prometheus: Option<Prometheus>,
    /// Listen there for `protomask ctl` [default: /run/protomask/INTERFACE.sock].
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<ControlSocket>,
    /// Listen for no `protomask ctl`.
    #[arg(long, conflicts_with = "control_socket")]
    pub no_control: bool,
    /// The form of log records, on standard error [default: terminal].
    #[arg(long, value_name = "FORM")]
    pub log_format: Option<LogFormat>,
    /// Log more: -v debug, -vv trace.
    #[arg(short, action = ArgAction::Count)]
    pub verbose: u8,
}

impl Flags {
    /// The settings of flags and file together.
    pub fn configuration(&self) -> Result<Configuration, Problems> {
        let Some(path) = &self.config else { return self.over(Partial::default()).configure(Vec::new()) };
        self.with_file(path, config::read_text(path)?.into())
    }

    /// The same, with this text of the file.
    pub fn with_file(&self, path: &Path, text: Arc<str>) -> Result<Configuration, Problems> {
        let (file, problems) = config::parse(path, &text);
        let configuration = self.over(file).configure(problems)?;
        Ok(Configuration { text: Some(text), ..configuration })
    }

    /// These flags over what a file says.
    fn over(&self, file: Partial) -> Partial {
        self.clone().partial().over(file)
    }

    fn partial(self) -> Partial {
        let placed = Placed::by_flag;
        let masquerade = self.masquerade;
        let pools = listed("--pool-prefix", self.pool_prefix);
        let sharing = self.sharing.map(|value| Placed::by_flag("--sharing", value));
        let pool = |net| PartialPool { sharing: sharing.clone(), ..PartialPool::new(net) };
        Partial {
            interface: self.interface.map(|value| placed("--interface", value)),
            pools: pools.map(|nets| nets.into_iter().map(pool).collect()),
            masquerade_all: masquerade,
            translation_prefixes: listed("--translation-prefix", self.translation_prefix),
            reservation_timeout: self
                .reservation_timeout
                .map(|value| Placed::by_flag("--reservation-timeout", value)),
            num_queues: self.num_queues.map(|value| Placed::by_flag("--num-queues", value)),
            offloads: self.offloads.map(|value| Placed::by_flag("--offloads", value)),
            mss_clamp: self.mss_clamp.map(|value| Placed::by_flag("--mss-clamp", value)),
            allow_from: listed("--allow-from", self.allow_from),
            deny_to: listed("--deny-to", self.deny_to),
            allow_non_global: self.allow_non_global.then(|| Placed::by_flag("--allow-non-global", true)),
            icmp_source_v4: self.icmp_source_v4.map(|value| Placed::by_flag("--icmp-source-v4", value)),
            icmp_source_v6: self.icmp_source_v6.map(|value| Placed::by_flag("--icmp-source-v6", value)),
            enable_forwarding: self.enable_forwarding.then(|| Placed::by_flag("--enable-forwarding", true)),
            state: PartialState {
                dir: self.state_dir.map(|value| Placed::by_flag("--state-dir", value)),
                none: self.no_state.then(|| Placed::by_flag("--no-state", true)),
            },
            on_exit: self.on_exit.map(|value| Placed::by_flag("--on-exit", value)),
            hang_after: self.hang_after.map(|value| Placed::by_flag("--hang-after", value)),
            prometheus: self.prometheus.map(|value| Placed::by_flag("--prometheus", value)),
            control_socket: if self.no_control {
                Some(Placed::by_flag("--no-control", ControlSocket::Off))
            } else {
                self.control_socket.map(|value| Placed::by_flag("--control-socket", value))
            },
            log_format: self.log_format.map(|value| Placed::by_flag("--log-format", value)),
            verbosity: self.verbose,
            ..Partial::default()
        }
    }
}

/// What a flag that may be repeated has given; `None` where it was not.
fn listed<T>(flag: &'static str, values: Vec<T>) -> Option<Vec<Placed<T>>> {
    (!values.is_empty()).then(|| values.into_iter().map(|value| Placed::by_flag(flag, value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AllowFrom, Pools, Settings};

    fn settings(arguments: &[&str]) -> Settings {
        let cli = Cli::try_parse_from([&["protomask"], arguments].concat()).unwrap();
        cli.flags.configuration().unwrap().settings
    }

    #[test]
    fn the_command_line_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn without_a_flag_the_router_chooses_pool_and_users_itself() {
        let settings = settings(&[]);
        assert_eq!(settings.pools, Pools::Automatic);
        assert_eq!(settings.allow_from, AllowFrom::Automatic);
        assert_eq!(settings.translation_prefixes, [Prefix::WELL_KNOWN]);
        assert_eq!(settings.interface, "nat64");
    }

    #[test]
    fn the_flags_of_the_original_tool_work() {
        let settings = settings(&[
            "--pool-prefix",
            "203.0.113.0/24",
            "--pool-prefix",
            "198.51.100.0/24",
            "--translation-prefix",
            "64:ff9b:1::/96",
            "--reservation-timeout",
            "7200",
            "--num-queues",
            "3",
            "--prometheus",
            "127.0.0.1:8080",
            "-i",
            "nat0",
            "-v",
        ]);
        let Pools::Explicit(pools) = &settings.pools else { panic!("{:?}", settings.pools) };
        assert_eq!(
            pools.iter().map(|pool| pool.net.to_string()).collect::<Vec<_>>(),
            ["203.0.113.0/24", "198.51.100.0/24"]
        );
        assert!(pools.iter().all(|pool| !pool.masquerade));
        assert_eq!(settings.reservation_timeout, Duration::from_hours(2));
        assert_eq!(settings.num_queues, 3);
        assert_eq!(settings.prometheus, Prometheus::At("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(settings.interface, "nat0");
        assert_eq!(settings.log.level, crate::logging::LogLevel::Debug);
    }

    #[test]
    fn how_pools_are_shared_can_be_said_of_those_that_flags_give() {
        let sharing = |arguments: &[&str]| {
            let Pools::Explicit(pools) = settings(arguments).pools else { panic!("{arguments:?}") };
            pools.into_iter().map(|pool| pool.sharing).collect::<Vec<_>>()
        };
        let two = ["--pool-prefix", "192.0.2.0/28", "--pool-prefix", "192.0.2.16/28"];
        assert_eq!(sharing(&two), [Sharing::Ports; 2]);
        assert_eq!(sharing(&[&two[..], &["--sharing", "exclusive"]].concat()), [Sharing::Exclusive; 2]);
        assert_eq!(sharing(&[&two[..], &["--sharing", "ports"]].concat()), [Sharing::Ports; 2]);
        for wrong in [&["--sharing", "exclusive"][..], &[&two[..], &["--sharing", "all"]].concat()] {
            let error = Cli::try_parse_from([&["protomask"], wrong].concat()).unwrap_err().to_string();
            assert!(error.contains("--pool-prefix") || error.contains("--sharing"), "{error}");
        }
    }

    #[test]
    fn a_flag_about_state_takes_the_place_of_whatever_the_file_says_of_it() {
        assert_eq!(settings(&[]).state_dir, Some("/var/lib/protomask".into()));
        assert_eq!(settings(&["--state-dir", "/srv/a"]).state_dir, Some("/srv/a".into()));
        assert_eq!(settings(&["--no-state"]).state_dir, None);
        let both = ["protomask", "--no-state", "--state-dir", "/srv/a"];
        assert!(Cli::try_parse_from(both).unwrap_err().to_string().contains("cannot be used with"));
        let over = |flags: &[&str], dir: Option<&str>, none: Option<bool>| {
            let cli = Cli::try_parse_from([&["protomask"], flags].concat()).unwrap();
            let file = PartialState {
                dir: dir.map(|dir| Placed::by_flag("the file", dir.into())),
                none: none.map(|none| Placed::by_flag("the file", none)),
            };
            let file = Partial { state: file, ..Partial::default() };
            cli.flags.partial().over(file).settle(Vec::new()).unwrap().state_dir
        };
        assert_eq!(over(&["--no-state"], Some("/srv/b"), None), None);
        assert_eq!(over(&["--state-dir", "/srv/a"], None, Some(true)), Some("/srv/a".into()));
        assert_eq!(over(&[], None, Some(true)), None);
        assert_eq!(over(&[], Some("/srv/b"), None), Some("/srv/b".into()));
    }

    #[test]
    fn a_translation_prefix_may_be_given_more_than_once() {
        let settings =
            settings(&["--translation-prefix", "64:ff9b::/96", "--translation-prefix", "2001:db8:64::/96"]);
        assert_eq!(settings.translation_prefixes, [Prefix::WELL_KNOWN, "2001:db8:64::/96".parse().unwrap()]);
        let twice =
            ["protomask", "--translation-prefix", "64:ff9b::/96", "--translation-prefix", "64:ff9b::/96"];
        let error = Cli::try_parse_from(twice).unwrap().flags.configuration().unwrap_err().to_string();
        assert!(error.starts_with("--translation-prefix: ") && error.contains("overlaps"), "{error}");
    }

    #[test]
    fn a_wrong_value_names_its_flag() {
        for (arguments, expected) in [
            (["--translation-prefix", "64:ff9b::/95"], "/95 is not a length"),
            (["--reservation-timeout", "soon"], "--reservation-timeout"),
            (["--pool-prefix", "203.0.113.0/33"], "--pool-prefix"),
        ] {
            let error =
                Cli::try_parse_from([&["protomask"], &arguments[..]].concat()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let cli =
            Cli::try_parse_from(["protomask", "--num-queues", "0", "--interface", "much-too-long-a-name"])
                .unwrap();
        let error = cli.flags.configuration().unwrap_err().to_string();
        assert!(error.contains("--num-queues") && error.contains("--interface"), "both: {error}");
    }
}
