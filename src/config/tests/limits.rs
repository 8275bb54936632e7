//! Sessions, quotas, timers, records and the deterministic mode.

use super::*;

#[test]
fn bounds_are_kept_and_said() {
    refused(&[
        ("[sessions]\nmax = 999", "2:7", "sessions.max: 999 is not between 1000 and 16000000"),
        ("[sessions]\nmax = 16_000_001", "2:7", "sessions.max"),
        ("[sessions]\nmax_hosts = 15", "2:13", "sessions.max_hosts: 15 is not between 16 and 16000000"),
        ("[sessions]\nmax_stored_syns = 65_537", "2:19", "sessions.max_stored_syns"),
        ("[sessions]\nfiltering = \"none\"", "2:13", "`endpoint-independent` or `address-dependent`"),
        ("[sessions]\nblock_size = 100", "2:14", "sessions.block_size: 100 is none of 16, 32"),
        ("[sessions]\nblock_size = 8", "2:14", "sessions.block_size: 8 is none of"),
        ("[sessions]\nblock_size = 8192", "2:14", "sessions.block_size: 8192 is none of"),
        ("[sessions]\nblock_for = \"net\"", "2:13", "`host` or `subscriber`"),
        ("[sessions]\ncolour = 1", "2:1", "unknown key colour in sessions; known here: max, max_hosts"),
        (
            "[quota]\nsubscriber_prefix_len = 31",
            "2:25",
            "quota.subscriber_prefix_len: 31 is not between 32 and 128",
        ),
        ("[quota]\nsubscriber_prefix_len = 129", "2:25", "quota.subscriber_prefix_len"),
        ("[quota]\nports = 127", "2:9", "127 are less than one block of 128"),
        ("[quota]\nnew_sessions_per_second = 1_000_001", "2:27", "quota.new_sessions_per_second"),
        ("[quota]\nnew_sessions_burst = 0", "2:22", "quota.new_sessions_burst"),
        ("[quota]\ncolour = 1", "2:1", "unknown key colour in quota"),
        (
            "[fragments]\nmemory = 65_535",
            "2:10",
            "fragments.memory: 65535 is not between 65536 and 1073741824",
        ),
        ("[fragments]\nmemory = 1_073_741_825", "2:10", "fragments.memory"),
        ("[fragments]\ncolour = 1", "2:1", "unknown key colour in fragments"),
        ("[timers]\nudp = \"25h\"", "2:7", "timers.udp: 1day 1h is not between 1s and 1day"),
        (
            "[timers]\nbelow_rfc = true\nudp = \"500ms\"",
            "3:7",
            "timers.udp: 500ms is not between 1s and 1day",
        ),
        ("[timers]\ncolour = 1", "2:1", "unknown key colour in timers"),
        ("timers = 3", "1:10", "write [timers]"),
    ]);
    for right in [
        "[sessions]\nmax = 1000\nmax_hosts = 16\nmax_stored_syns = 65_536",
        "[sessions]\nmax = 16_000_000\nmax_hosts = 16_000_000",
        "[quota]\nsubscriber_prefix_len = 32\nports = 128\nsessions = 0\nnew_sessions_per_second = 0",
        "[fragments]\nmemory = 1_073_741_824",
    ] {
        parse(right).unwrap();
    }
}

#[test]
fn zero_means_unlimited_where_a_quota_says_so() {
    let quota = |text: &str| parse(&format!("[quota]\n{text}")).unwrap().quota;
    assert_eq!(quota("ports = 0").most_ports(false), u32::MAX);
    assert_eq!(quota("ports = 200").most_ports(true), 200);
    let silent = quota("");
    assert_eq!((silent.most_ports(false), silent.most_ports(true)), (16_384, u32::MAX));
    assert_eq!((silent.most_sessions(), quota("sessions = 0").most_sessions()), (32_768, u32::MAX));
}

#[test]
fn a_burst_is_twice_the_rate_unless_it_is_given() {
    let burst = |text: &str| parse(&format!("[quota]\n{text}")).unwrap().quota.new_sessions_burst;
    assert_eq!(burst(""), 4000);
    assert_eq!(burst("new_sessions_per_second = 100"), 200);
    assert_eq!(burst("new_sessions_per_second = 100\nnew_sessions_burst = 7"), 7);
    assert_eq!(burst("new_sessions_per_second = 0"), 1);
}

#[test]
fn blocks_are_leased_by_hosts_or_by_subscribers() {
    assert_eq!(parse("").unwrap().lease_prefix_len(), 128);
    let text = "[sessions]\nblock_for = \"subscriber\"\n[quota]\nsubscriber_prefix_len = 56";
    assert_eq!(parse(text).unwrap().lease_prefix_len(), 56);
}

#[test]
fn a_timer_below_its_rfc_is_refused_with_the_rfc_unless_that_is_wanted() {
    for (timer, least, below, rfc) in [
        ("tcp_established", "2h 4m", "2h 3m 59s", "2h 4m of RFC 5382 REQ-5"),
        ("tcp_transitory", "4m", "3m 59s", "4m of RFC 5382 REQ-5"),
        ("tcp_incoming_syn", "6s", "5s", "6s of RFC 6146 §4"),
        ("udp", "2m", "1m 59s", "2m of RFC 4787 REQ-5"),
        ("icmp", "1m", "59s", "1m of RFC 5508 REQ-2"),
        ("port_rest", "2m", "0s", "2m of RFC 6888 REQ-8"),
        ("fragment", "2s", "1s", "2s of RFC 6146 §4"),
    ] {
        let settings = parse(&format!("[timers]\n{timer} = \"{least}\"")).unwrap();
        assert!(settings.below_rfc.is_empty(), "{settings:?}");
        let text = format!("[timers]\n{timer} = \"{below}\"");
        let place = format!("2:{}", timer.len() + 4);
        let words =
            format!("timers.{timer}: {below} is less than the {rfc}; timers.below_rfc = true allows it");
        refused(&[(&text, &place, &words)]);
        refused(&[(&format!("{text}\nbelow_rfc = false"), &place, &words)]);
        let settings = parse(&format!("{text}\nbelow_rfc = true")).unwrap();
        assert_eq!(settings.below_rfc, [format!("timers.{timer}: {below} is less than the {rfc}")]);
    }
    // RFC 6888 REQ-8 excepts TCP ports of a router that tracks connections.
    let settings = parse("[timers]\ntcp_port_rest = 0\nblock_idle = 0").unwrap();
    assert_eq!((settings.timers.tcp_port_rest, settings.timers.block_idle), (Duration::ZERO, Duration::ZERO));
}

#[test]
fn records_go_to_one_place() {
    let sink = |text: &str| parse(&format!("[records]\n{text}")).unwrap().records.unwrap();
    let file = sink("file = \"/var/log/protomask/allocations.jsonl\"");
    assert_eq!(file.sink, RecordSink::File("/var/log/protomask/allocations.jsonl".into()));
    assert_eq!((file.when_full, file.sessions), (WhenFull::Wait, false));
    for (text, target) in [
        ("unix:/dev/log", SyslogTarget::Unix("/dev/log".into())),
        ("udp:192.0.2.1:514", SyslogTarget::Udp("192.0.2.1:514".into())),
        ("tcp:log.example.org:601", SyslogTarget::Tcp("log.example.org:601".into())),
        ("udp:[2001:db8::1]:514", SyslogTarget::Udp("[2001:db8::1]:514".into())),
    ] {
        assert_eq!(sink(&format!("syslog = \"{text}\"")).sink, RecordSink::Syslog(target));
    }
    for wrong in [
        "",
        "/dev/log",
        "unix:dev/log",
        "udp:192.0.2.1",
        "udp::514",
        "tcp:host:0",
        "udp:2001:db8::1:514",
        "tls:h:1",
    ] {
        refused(&[(
            &format!("[records]\nsyslog = \"{wrong}\""),
            "2:10",
            "write unix:/dev/log, udp:HOST:PORT",
        )]);
    }
    refused(&[
        ("[records]", "1:1", "records needs file or syslog"),
        ("[records]\nsessions = true", "1:1", "records needs file or syslog"),
        ("[records]\nfile = \"/a\"\nsyslog = \"unix:/dev/log\"", "3:10", "not both"),
        ("[records]\nfile = \"a.jsonl\"", "2:8", "a.jsonl does not begin with /"),
        ("[records]\nfile = \"/a\"\nwhen_full = \"stop\"", "3:13", "`wait` or `go-on`"),
        ("[records]\nfile = \"/a\"\ncolour = 1", "3:1", "unknown key colour in records"),
    ]);
}

#[test]
fn state_is_kept_in_a_folder_or_not_at_all() {
    let folder = |text: &str| parse(text).unwrap().state_dir;
    assert_eq!(folder(""), Some("/var/lib/protomask".into()));
    assert_eq!(folder("state_dir = \"/srv/a\""), Some("/srv/a".into()));
    assert_eq!(folder("state_dir = \"/srv/a\"\nno_state = false"), Some("/srv/a".into()));
    assert_eq!(folder("no_state = true"), None);
    refused(&[
        ("state_dir = \"state\"", "1:13", "state does not begin with /"),
        ("state_dir = \"/srv/a\"\nno_state = true", "2:12", "not both"),
        ("no_state = \"yes\"", "1:12", "no_state"),
    ]);
}

/// 16 addresses with 63 times 1024 ports each.
const POOL: &str = "[[pool]]\nprefix = \"192.0.2.0/28\"\n";

#[test]
fn in_deterministic_mode_ports_belong_to_subscribers_and_are_the_quota() {
    let text = format!("{POOL}[deterministic]\nhosts = [\"2001:db8::/56\"]\nports_per_subscriber = 1024");
    let settings = parse(&text).unwrap();
    assert_eq!(
        settings.deterministic,
        Some(DeterministicSettings {
            hosts: vec!["2001:db8::/56".parse().unwrap()],
            ports_per_subscriber: 1024
        })
    );
    assert_eq!((settings.sessions.block_for, settings.lease_prefix_len()), (BlockFor::Subscriber, 64));
    assert_eq!(settings.quota.most_ports(false), u32::MAX);
}

#[test]
fn what_the_deterministic_mode_cannot_do_is_said() {
    let mode = |hosts: &str, ports: &str, more: &str| {
        format!("{POOL}[deterministic]\nhosts = {hosts}\nports_per_subscriber = {ports}\n{more}")
    };
    let net = "[\"2001:db8::/56\"]";
    for (text, place, words) in [
        (format!("{POOL}[deterministic]\nports_per_subscriber = 1024"), "3:1", "deterministic needs hosts"),
        (mode("[]", "1024", ""), "4:9", "deterministic needs hosts"),
        (format!("{POOL}[deterministic]\nhosts = {net}"), "3:1", "deterministic needs ports_per_subscriber"),
        (
            mode("[\"2001:db8::/65\"]", "1024", ""),
            "4:10",
            "2001:db8::/65 is less than a subscriber, which is a /64",
        ),
        (mode("[\"2001:db8::1/60\"]", "1024", ""), "4:10", "the network is 2001:db8::/60"),
        (
            mode("[\"2001:db8::/60\", \"2001:db8::/62\"]", "1024", ""),
            "4:27",
            "2001:db8::/62 overlaps 2001:db8::/60 (p.toml:4:10)",
        ),
        (mode(net, "1000", ""), "5:24", "1000 is no multiple of sessions.block_size (128)"),
        (mode(net, "\"all\"", ""), "5:24", "ports_per_subscriber: invalid type"),
        (mode("[\"2001:db8::/129\"]", "1024", ""), "4:10", "2001:db8::/129"),
        (mode(net, "0", ""), "5:24", "0 is no multiple of"),
        (mode(net, "65664", ""), "5:24", "65664 is no multiple of sessions.block_size (128) up to 65536"),
        (mode(net, "1024", "colour = 1"), "6:1", "unknown key colour in deterministic"),
        (mode(net, "1024", "[sessions]\nblock_for = \"host\""), "7:13", "ports belong to subscribers"),
        (mode(net, "1024", "[quota]\nports = 2048"), "7:9", "leave this out"),
        (
            mode("[\"2001:db8::/48\"]", "1024", ""),
            "3:1",
            "room for 1008 subscribers with 1024 ports each, and there are 65536; 64528 would get none",
        ),
        (mode("[\"::/0\"]", "128", "[quota]\nsubscriber_prefix_len = 128"), "3:1", "would get none"),
        (
            mode(net, "1024", "[[pool]]\nprefix = \"192.0.2.16/28\"\nhosts = [\"2001:db8::/64\"]"),
            "3:1",
            "remove hosts from the pool 192.0.2.16/28",
        ),
    ] {
        refused(&[(&text, place, words)]);
    }
    let exclusive =
        mode(net, "1024", "").replace(POOL, "[[pool]]\nprefix = \"192.0.2.0/28\"\nsharing = \"exclusive\"\n");
    refused(&[
        (&exclusive, "4:1", "needs a [[pool]] with sharing = \"ports\""),
        (&mode(net, "1024", "").replace(POOL, ""), "1:1", "needs a [[pool]] with sharing = \"ports\""),
    ]);
    // Exactly full: 16 addresses for 63 subscribers each are 1008, of 512 + 256 + 128 + 64 + 32 + 16.
    let full = [
        "2001:db8::/55",
        "2001:db8:1::/56",
        "2001:db8:2::/57",
        "2001:db8:3::/58",
        "2001:db8:4::/59",
        "2001:db8:5::/60",
    ];
    parse(&mode(&format!("{full:?}"), "1024", "")).unwrap();
    let over = [&full[..], &["2001:db8:6::/64"]].concat();
    refused(&[(&mode(&format!("{over:?}"), "1024", ""), "3:1", "there are 1009; 1 would get none")]);
    parse(&mode(net, "1024", "[sessions]\nblock_for = \"subscriber\"")).unwrap();
}

#[test]
fn problems_come_in_the_order_of_the_file() {
    let text = "\
[[forward]]
protocol = \"tcp\"
address = \"192.0.2.1\"
port = 0
host = \"fe80::1\"
[quota]
subscriber_prefix_len = 1
[records]
[sessions]
max = 1
[timers]
udp = \"1s\"
";
    let problems = parse(text).unwrap_err();
    let places: Vec<_> = problems.iter().map(|problem| problem.split(": ").next().unwrap()).collect();
    let expected = [
        "p.toml:3:11",
        "p.toml:4:8",
        "p.toml:5:8",
        "p.toml:7:25",
        "p.toml:8:1",
        "p.toml:10:7",
        "p.toml:12:7",
    ];
    assert_eq!(places, expected, "{problems:#?}");
}
