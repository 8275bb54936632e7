use std::path::Path;

use super::*;
use crate::config::{Mappings, parse};
use crate::plan::Plan;

/// Every key once; some lines are replaced by the cases.
const FILE: &str = r#"
interface = "nat0"
translation_prefix = ["64:ff9b:1::/96", "64:ff9b:2::/96"]
reservation_timeout = "3h"
address_rest = "5s"
max_leases_per_subnet = 7
num_queues = 3
worker_nice = -7
mtu = 1600
offloads = "checksum"
join = false
steering = false
mss_clamp = 1220
allow_from = ["fc00::/7"]
deny_to = ["192.0.2.0/24"]
allow_non_global = true
icmp_source_v4 = "192.0.0.8"
icmp_source_v6 = "2001:db8::1"
icmp_errors_per_second = 10
icmp_router_pool = "192.0.2.0/28"
enable_forwarding = true
on_exit = "keep"
hang_after = "3s"
prometheus = "off"
control_socket = "off"
state_dir = "/s"
[log]
format = "json"
level = "debug"
[translation]
lowest_ipv6_mtu = 1500
traffic_class = "dscp:46"
udp_zero_checksum = "drop"
[hold]
packets_per_host = 2
hosts = 10
timeout = "2s"
[sessions]
max = 2_000_000
max_hosts = 1000
max_stored_syns = 0
max_resting_ports = 100
filtering = "address-dependent"
answer_filtered = false
block_size = 64
block_for = "subscriber"
[quota]
subscriber_prefix_len = 56
ports = 1000
sessions = 2000
new_sessions_per_second = 30
new_sessions_burst = 40
[timers]
tcp_established = "3h"
tcp_transitory = "5m"
tcp_incoming_syn = "7s"
udp = "150s"
icmp = "70s"
port_rest = "3m"
tcp_port_rest = "1s"
fragment = "3s"
block_idle = "4m"
below_rfc = false
[fragments]
memory = 65_536
[records]
syslog = "unix:/dev/log"
when_full = "go-on"
[[pool]]
prefix = "203.0.113.0/25"
sharing = "exclusive"
hosts = ["2001:db8:1::/48"]
[[pool]]
prefix = "203.0.113.128/25"
ports = "2048-4095"
[[static]]
address = "203.0.113.10"
host = "2001:db8::10"
[[forward]]
protocol = "udp"
address = "203.0.113.129"
port = 53
host = "2001:db8::53"
[[eam]]
ipv4 = "198.51.100.0/28"
ipv6 = "2001:db8:aaaa::/124"
"#;

/// A line, another one for it, and the key that waits for a restart then, if one does.
const CASES: [(&str, &str, Option<&str>); 69] = [
    ("interface = \"nat0\"", "interface = \"nat1\"", Some("interface")),
    ("64:ff9b:2::/96\"]", "64:ff9b:3::/96\"]", None),
    ("reservation_timeout = \"3h\"", "reservation_timeout = \"4h\"", None),
    ("address_rest = \"5s\"", "address_rest = \"6s\"", None),
    ("max_leases_per_subnet = 7", "max_leases_per_subnet = 8", None),
    ("num_queues = 3", "num_queues = 4", Some("num_queues")),
    ("worker_nice = -7", "worker_nice = -6", Some("worker_nice")),
    ("mtu = 1600\n", "mtu = 1601\n", Some("mtu")),
    ("offloads = \"checksum\"", "offloads = \"off\"", Some("offloads")),
    ("join = false", "join = true", Some("join")),
    ("steering = false", "steering = true", Some("steering")),
    ("mss_clamp = 1220", "mss_clamp = 1221", None),
    ("allow_from = [\"fc00::/7\"]", "allow_from = []", None),
    ("deny_to = [\"192.0.2.0/24\"]", "deny_to = []", None),
    ("allow_non_global = true", "allow_non_global = false", None),
    ("icmp_source_v4 = \"192.0.0.8\"", "icmp_source_v4 = \"192.0.0.9\"", None),
    ("icmp_source_v6 = \"2001:db8::1\"", "icmp_source_v6 = \"2001:db8::2\"", None),
    ("icmp_errors_per_second = 10", "icmp_errors_per_second = 11", None),
    ("icmp_router_pool = \"192.0.2.0/28\"", "icmp_router_pool = \"192.0.2.16/28\"", None),
    ("enable_forwarding = true", "enable_forwarding = false", Some("enable_forwarding")),
    ("on_exit = \"keep\"", "on_exit = \"remove\"", None),
    ("hang_after = \"3s\"", "hang_after = \"4s\"", Some("hang_after")),
    ("prometheus = \"off\"", "prometheus = \"127.0.0.1:1\"", None),
    ("control_socket = \"off\"", "control_socket = \"/x\"", Some("control_socket")),
    ("state_dir = \"/s\"", "state_dir = \"/t\"", Some("state_dir")),
    ("format = \"json\"", "format = \"terminal\"", Some("log.format")),
    ("level = \"debug\"", "level = \"info\"", None),
    ("lowest_ipv6_mtu = 1500", "lowest_ipv6_mtu = 1501", None),
    ("traffic_class = \"dscp:46\"", "traffic_class = \"zero\"", None),
    ("udp_zero_checksum = \"drop\"", "udp_zero_checksum = \"compute\"", None),
    ("packets_per_host = 2", "packets_per_host = 3", None),
    ("\nhosts = 10", "\nhosts = 11", None),
    ("timeout = \"2s\"", "timeout = \"3s\"", None),
    ("max = 2_000_000", "max = 3_000_000", Some("sessions.max")),
    ("max_hosts = 1000", "max_hosts = 1001", Some("sessions.max_hosts")),
    ("max_stored_syns = 0", "max_stored_syns = 1", Some("sessions.max_stored_syns")),
    ("max_resting_ports = 100", "max_resting_ports = 101", Some("sessions.max_resting_ports")),
    ("\"address-dependent\"", "\"endpoint-independent\"", Some("sessions.filtering")),
    ("answer_filtered = false", "answer_filtered = true", None),
    ("block_size = 64", "block_size = 128", Some("sessions.block_size")),
    ("block_for = \"subscriber\"", "block_for = \"host\"", Some("sessions.block_for")),
    ("subscriber_prefix_len = 56", "subscriber_prefix_len = 60", Some("quota.subscriber_prefix_len")),
    ("ports = 1000", "ports = 1001", None),
    ("sessions = 2000", "sessions = 2001", None),
    ("new_sessions_per_second = 30", "new_sessions_per_second = 31", None),
    ("new_sessions_burst = 40", "new_sessions_burst = 41", None),
    ("tcp_established = \"3h\"", "tcp_established = \"4h\"", None),
    ("tcp_transitory = \"5m\"", "tcp_transitory = \"6m\"", None),
    ("tcp_incoming_syn = \"7s\"", "tcp_incoming_syn = \"8s\"", None),
    ("udp = \"150s\"", "udp = \"151s\"", None),
    ("icmp = \"70s\"", "icmp = \"71s\"", None),
    ("port_rest = \"3m\"", "port_rest = \"4m\"", None),
    ("tcp_port_rest = \"1s\"", "tcp_port_rest = \"2s\"", None),
    ("fragment = \"3s\"", "fragment = \"4s\"", None),
    ("block_idle = \"4m\"", "block_idle = \"5m\"", None),
    ("icmp = \"70s\"\nport_rest = \"3m\"", "icmp = \"1s\"\nbelow_rfc = true\nport_rest = \"3m\"", None),
    ("memory = 65_536", "memory = 65_537", Some("fragments.memory")),
    ("when_full = \"go-on\"", "when_full = \"wait\"", Some("records")),
    ("syslog = \"unix:/dev/log\"", "syslog = \"unix:/dev/other\"", Some("records")),
    ("when_full = \"go-on\"", "when_full = \"go-on\"\nsessions = true", Some("records")),
    ("203.0.113.0/25", "203.0.113.0/26", None),
    ("ports = \"2048-4095\"", "ports = \"2048-8191\"", None),
    ("ports = \"2048-4095\"", "ports = \"2048-4095\"\nmasquerade = true", None),
    // Low ports are kept among themselves only by tables that were made so.
    ("ports = \"2048-4095\"", "ports = \"512-4095\"", Some("pool")),
    ("hosts = [\"2001:db8:1::/48\"]", "hosts = [\"2001:db8:2::/48\"]", None),
    // An address is somebody's own, or shared.
    ("prefix = \"203.0.113.128/25\"\nports", "prefix = \"192.0.2.128/25\"\nports", None),
    ("address = \"203.0.113.10\"", "address = \"203.0.113.11\"", None),
    ("port = 53", "port = 54", None),
    ("ipv6 = \"2001:db8:aaaa::/124\"", "ipv6 = \"2001:db8:aaab::/124\"", None),
];

fn configuration(text: &str) -> Configuration {
    let (partial, problems) = parse(Path::new("t.toml"), text);
    partial.configure(problems).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

fn generation(text: &str) -> Generation {
    let configuration = configuration(text);
    let plan = Plan::settle(&configuration.settings, &rtnl::Snapshot::default()).unwrap();
    Generation::first(configuration, plan)
}

/// The settings that would hold, and what waits.
fn reload(before: &str, after: &str) -> (Settings, Vec<&'static str>) {
    let (base, pending) = sort(&generation(before), &configuration(after));
    (base.with(&Mappings::default()).settle(Vec::new()).unwrap(), pending)
}

#[test]
fn each_setting_holds_at_once_or_waits_and_says_so() {
    let before = configuration(FILE).settings;
    assert_eq!(reload(FILE, FILE), (before.clone(), vec![]));
    for (line, other, waits) in CASES {
        assert_eq!(FILE.matches(line).count(), 1, "{line}");
        let mut file = FILE.replace(line, other);
        if other.contains("below_rfc = true") {
            file = file.replace("below_rfc = false\n", "");
        }
        // A forward follows its pool.
        if other.contains("192.0.2.128/25") {
            file = file
                .replace("203.0.113.129", "192.0.2.129")
                .replace("deny_to = [\"192.0.2.0/24\"]", "deny_to = []");
        }
        let after = configuration(&file).settings;
        assert_ne!(after, before, "{other} changes nothing");
        let (holds, pending) = reload(FILE, &file);
        assert_eq!(pending, waits.into_iter().collect::<Vec<_>>(), "{other}");
        assert_eq!(holds, if waits.is_some() { before.clone() } else { after }, "{other}");
    }
}

#[test]
fn what_waits_does_not_keep_the_rest_from_holding() {
    let file = FILE.replace("mtu = 1600\n", "mtu = 1700\n").replace("udp = \"150s\"", "udp = \"200s\"");
    let (holds, pending) = reload(FILE, &file);
    assert_eq!(pending, ["mtu"]);
    assert_eq!((holds.mtu, holds.timers.udp.as_secs()), (1600, 200));
}

#[test]
fn pools_wait_where_the_tables_were_not_made_for_them() {
    let own = "[[pool]]\nprefix = \"203.0.113.0/24\"\nsharing = \"exclusive\"\nhosts = [\"2001:db8::/64\"]\n";
    let shared = "[[pool]]\nprefix = \"192.0.2.0/24\"\n";
    let both = format!("{own}{shared}");
    assert_eq!(reload(own, &both).1, ["pool"], "there are no tables for sessions");
    assert_eq!(reload(shared, &both).1, [""; 0]);
    assert_eq!(reload(own, "").1, ["pool"], "the router's own pool is shared");
    assert_eq!(reload("", shared).1, [""; 0]);
    let otherwise = "[[pool]]\nprefix = \"192.0.2.0/25\"\nsharing = \"exclusive\"\n";
    assert_eq!(reload(shared, otherwise).1, ["pool"], "an address cannot be shared and be somebody's own");
}

#[test]
fn computed_ports_stay_as_they_are_with_all_that_they_are_computed_of() {
    let shared = "[[pool]]\nprefix = \"192.0.2.0/24\"\n";
    let computed = format!(
        "[deterministic]\nhosts = [\"2001:db8::/60\"]\nports_per_subscriber = 128\n{shared}[[static]]\n\
         address = \"192.0.2.7\"\nhost = \"2001:db8:f::1\"\n"
    );
    let other = computed
        .replace("192.0.2.7", "192.0.2.8")
        .replace("192.0.2.0/24", "192.0.2.0/25")
        .replace("2001:db8::/60", "2001:db8::/61");
    assert_eq!(reload(&computed, &other).1, ["pool", "static", "deterministic"]);
    assert_eq!(reload(shared, &computed).1, ["static", "deterministic"]);
}
