use std::path::Path;

use easy_tun::Offloads;
use interproto::{TrafficClass, ZeroChecksum};

use super::*;

mod hosts;
mod limits;
mod pools;

/// Each text has one problem, at this place and with these words.
fn refused(cases: &[(&str, &str, &str)]) {
    for (text, place, words) in cases {
        let problems = parse(text).expect_err(text);
        assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
        let found = problems[0].starts_with(&format!("p.toml:{place}: ")) && problems[0].contains(words);
        assert!(found, "{text}\n{place} {words} is not what is said: {}", problems[0]);
    }
}

fn parse(text: &str) -> Result<Settings, Vec<String>> {
    let (partial, problems) = file::parse(Path::new("p.toml"), text);
    // As the program does it: flags, of which there are none here, go before the file.
    Partial::default()
        .over(partial)
        .settle(problems)
        .map_err(|problems| problems.to_string().lines().map(str::to_owned).collect())
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let settings = parse("").unwrap();
    assert_eq!(settings.pools, Pools::Automatic);
    assert_eq!(settings.reservation_timeout, DEFAULT_RESERVATION_TIMEOUT);
    assert_eq!(settings.prometheus, Prometheus::Default);
    assert_eq!(settings.control_socket, ControlSocket::Default);
    assert_eq!(settings.hold, HoldSettings::default());
    assert_eq!(settings.translation, Params::DEFAULT);
    assert_eq!(settings.icmp_errors_per_second, DEFAULT_ICMP_ERRORS_PER_SECOND);
    assert_eq!(settings.translation_prefixes, [Prefix::WELL_KNOWN]);
    assert_eq!(settings.sessions, SessionSettings::default());
    assert_eq!(settings.quota, QuotaSettings::default());
    assert_eq!(settings.timers, Timers::DEFAULT);
    assert_eq!(settings.fragments, FragmentSettings::default());
    assert_eq!((settings.records, settings.deterministic), (None, None));
    assert!(settings.eams.is_empty() && settings.forwards.is_empty() && settings.below_rfc.is_empty());
}

#[test]
fn every_key_is_read() {
    let settings = parse(
        r#"
        interface = "nat0"
        translation_prefix = ["64:ff9b:1::/96", "64:ff9b:2::/96"]
        reservation_timeout = "1h 30m"
        address_rest = 5
        max_leases_per_subnet = 7
        num_queues = 3
        worker_nice = -7
        mtu = 1600
        offloads = "checksum, tso6"
        join = false
        steering = false
        mss_clamp = 1220
        allow_from = ["fc00::/7", "2001:db8::/32"]
        deny_to = ["192.0.2.0/24"]
        allow_non_global = true
        icmp_source_v4 = "192.0.0.8"
        icmp_source_v6 = "2001:db8::1"
        icmp_errors_per_second = 10
        icmp_router_pool = "192.0.2.0/28"
        enable_forwarding = true
        on_exit = "keep"
        hang_after = "1500ms"
        state_dir = "/srv/protomask"
        prometheus = "off"
        control_socket = "/run/here.sock"
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
        udp = 150
        icmp = "1s"
        port_rest = "3m"
        tcp_port_rest = "0s"
        fragment = "3s"
        block_idle = "4m"
        below_rfc = true
        [fragments]
        memory = 65_536
        [records]
        syslog = "tcp:[2001:db8::514]:601"
        when_full = "go-on"
        sessions = true
        [[pool]]
        prefix = "203.0.113.0/25"
        sharing = "exclusive"
        hosts = ["2001:db8:1::/48"]
        [[pool]]
        prefix = "203.0.113.128/25"
        masquerade = true
        sharing = "ports"
        ports = "2048-4095"
        reserved_ports = ["3000-3010", "3306", 3389]
        [[static]]
        address = "203.0.113.10"
        host = "2001:db8::10"
        [[forward]]
        protocol = "udp"
        address = "203.0.113.129"
        port = 53
        host = "2001:db8::53"
        host_port = 5353
        prefix = "64:ff9b:2::/96"
        [[forward]]
        protocol = "tcp"
        address = "203.0.113.129"
        port = 80
        host = "2001:db8::80"
        [[eam]]
        ipv4 = "192.0.2.0/28"
        ipv6 = "2001:db8:aaaa::/124"
        [[eam]]
        ipv4 = "192.0.2.200"
        ipv6 = "2001:db8:bbbb::1"
        "#,
    )
    .unwrap();
    let expected = Settings {
        interface: "nat0".into(),
        translation_prefixes: vec!["64:ff9b:1::/96".parse().unwrap(), "64:ff9b:2::/96".parse().unwrap()],
        pools: Pools::Explicit(vec![
            PoolSettings {
                sharing: Sharing::Exclusive,
                hosts: vec!["2001:db8:1::/48".parse().unwrap()],
                ..PoolSettings::new("203.0.113.0/25".parse().unwrap())
            },
            PoolSettings {
                masquerade: true,
                ports: PortRange::new(2048, 4095).unwrap(),
                reserved_ports: [(3000, 3010), (3306, 3306), (3389, 3389)]
                    .map(|(first, last)| PortRange::new(first, last).unwrap())
                    .to_vec(),
                ..PoolSettings::new("203.0.113.128/25".parse().unwrap())
            },
        ]),
        static_pairs: vec![StaticPair {
            host: "2001:db8::10".parse().unwrap(),
            address: "203.0.113.10".parse().unwrap(),
        }],
        eams: vec![
            Eam::new("192.0.2.0/28".parse().unwrap(), "2001:db8:aaaa::/124".parse().unwrap()).unwrap(),
            Eam::pair("192.0.2.200".parse().unwrap(), "2001:db8:bbbb::1".parse().unwrap()),
        ],
        forwards: vec![
            Forward {
                protocol: ForwardProtocol::Udp,
                address: "203.0.113.129".parse().unwrap(),
                port: 53,
                host: "2001:db8::53".parse().unwrap(),
                host_port: 5353,
                prefix: 1,
            },
            Forward {
                protocol: ForwardProtocol::Tcp,
                address: "203.0.113.129".parse().unwrap(),
                port: 80,
                host: "2001:db8::80".parse().unwrap(),
                host_port: 80,
                prefix: 0,
            },
        ],
        sessions: SessionSettings {
            max: 2_000_000,
            max_hosts: 1000,
            max_stored_syns: 0,
            max_resting_ports: 100,
            filtering: Filtering::AddressDependent,
            answer_filtered: false,
            block_size: 64,
            block_for: BlockFor::Subscriber,
        },
        quota: QuotaSettings {
            subscriber_prefix_len: 56,
            ports: Some(1000),
            sessions: 2000,
            new_sessions_per_second: 30,
            new_sessions_burst: 40,
        },
        timers: Timers {
            tcp_established: Duration::from_hours(3),
            tcp_transitory: Duration::from_mins(5),
            tcp_incoming_syn: Duration::from_secs(7),
            udp: Duration::from_secs(150),
            icmp: Duration::from_secs(1),
            port_rest: Duration::from_mins(3),
            tcp_port_rest: Duration::ZERO,
            block_idle: Duration::from_mins(4),
        },
        below_rfc: vec!["timers.icmp: 1s is less than the 1m of RFC 5508 REQ-2".into()],
        fragments: FragmentSettings { memory: 65_536, timeout: Duration::from_secs(3) },
        records: Some(RecordSettings {
            sink: RecordSink::Syslog(SyslogTarget::Tcp("[2001:db8::514]:601".into())),
            when_full: WhenFull::GoOn,
            sessions: true,
        }),
        deterministic: None,
        state_dir: Some("/srv/protomask".into()),
        reservation_timeout: Duration::from_mins(90),
        address_rest: Duration::from_secs(5),
        max_leases_per_subnet: Some(7),
        num_queues: 3,
        worker_nice: Some(-7),
        mtu: 1600,
        offloads: Offloads::CHECKSUM | Offloads::TSO6,
        join: false,
        steering: false,
        mss_clamp: MssClamp::Most(1220),
        allow_from: AllowFrom::Only(vec!["fc00::/7".parse().unwrap(), "2001:db8::/32".parse().unwrap()]),
        deny_to: vec!["192.0.2.0/24".parse().unwrap()],
        allow_non_global: true,
        icmp_source_v4: Some("192.0.0.8".parse().unwrap()),
        icmp_source_v6: Some("2001:db8::1".parse().unwrap()),
        icmp_errors_per_second: 10,
        icmp_router_pool: Some("192.0.2.0/28".parse().unwrap()),
        translation: Params {
            lowest_ipv6_mtu: 1500,
            traffic_class: TrafficClass::Dscp(46),
            udp_zero_checksum: ZeroChecksum::Drop,
            ..Params::DEFAULT
        },
        enable_forwarding: true,
        on_exit: OnExit::Keep,
        hang_after: Duration::from_millis(1500),
        prometheus: Prometheus::Off,
        control_socket: ControlSocket::At("/run/here.sock".into()),
        hold: HoldSettings { packets_per_host: 2, hosts: 10, timeout: Duration::from_secs(2) },
        log: LogSettings { format: LogFormat::Json, level: LogLevel::Debug },
    };
    assert_eq!(settings, expected);
}

#[test]
fn workers_have_a_nice_value_of_their_own_unless_somebody_has_chosen_one() {
    let from = |text: &str, own| parse(text).unwrap().worker_nice_from(own);
    assert_eq!([0, 3, -3].map(|own| from("", own)), [DEFAULT_WORKER_NICE, 3, -3]);
    assert_eq!([0, 3, -3].map(|own| from("worker_nice = 0", own)), [0; 3]);
    assert_eq!([-20, 19].map(|nice| from(&format!("worker_nice = {nice}"), 0)), [-20, 19]);
    for bad in ["-21", "20", "\"auto\""] {
        let problems = parse(&format!("worker_nice = {bad}")).unwrap_err();
        assert!(problems[0].starts_with("p.toml:1:15: "), "{bad}: {problems:?}");
    }
}

#[test]
fn a_time_after_which_a_thread_hangs_is_neither_too_short_nor_too_long() {
    for (good, time) in [("\"500ms\"", 500), ("60", 60_000), ("\"1m\"", 60_000)] {
        let settings = parse(&format!("hang_after = {good}")).unwrap();
        assert_eq!(settings.hang_after, Duration::from_millis(time), "{good}");
    }
    for bad in ["\"499ms\"", "0", "61", "\"soon\""] {
        let problems = parse(&format!("hang_after = {bad}")).unwrap_err();
        assert!(problems[0].starts_with("p.toml:1:14: "), "{bad}: {problems:?}");
    }
    assert_eq!(parse("").unwrap().hang_after, DEFAULT_HANG_AFTER);
}

#[test]
fn all_that_is_wrong_is_said_at_once_with_line_and_column() {
    let text = "\
interfaces = \"nat0\"
mtu = 1000
translation_prefix = \"64:ff9b::/95\"
num_queues = \"two\"
deny_to = [\"192.0.2.0/24\", \"10.0.0.0/40\"]
[[pool]]
prefix = \"203.0.113.1/24\"
[[pool]]
masquerade = true
[[static]]
address = \"203.0.113.10\"
host = \"fe80::1\"
colour = 1
";
    let problems = parse(text).unwrap_err();
    let expected = [
        ("p.toml:1:1:", "unknown key interfaces; known here: interface,"),
        ("p.toml:2:7:", "mtu: 1000 is not between 1280 and 65535"),
        ("p.toml:3:22:", "/95 is not a length"),
        ("p.toml:4:14:", "num_queues"),
        ("p.toml:5:28:", "10.0.0.0/40"),
        ("p.toml:7:10:", "the network is 203.0.113.0/24"),
        ("p.toml:8:1:", "pool needs prefix"),
        ("p.toml:11:11:", "fe80::1 cannot be the address of a host"),
        ("p.toml:13:1:", "unknown key colour in static"),
    ];
    for (place, what) in expected {
        let found = problems.iter().any(|problem| problem.starts_with(place) && problem.contains(what));
        assert!(found, "{place} {what} is not among\n{}", problems.join("\n"));
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn offloads_and_segment_sizes_are_named_or_refused_by_name() {
    let settings = parse("offloads = \"off\"\nmss_clamp = \"auto\"").unwrap();
    assert_eq!((settings.offloads, settings.mss_clamp), (Offloads::empty(), MssClamp::Auto));
    let settings = parse("").unwrap();
    assert_eq!((settings.offloads, settings.mss_clamp), (Offloads::all(), MssClamp::Off));
    assert!(settings.join && settings.steering);
    refused(&[
        (
            "offloads = \"tso4, gro\"",
            "1:12",
            "\"gro\" is no offload; write auto, off, or some of checksum, tso4",
        ),
        ("mss_clamp = 535", "1:13", "a segment size from 536 to 65535 bytes"),
        ("mss_clamp = \"on\"", "1:13", "write off, auto, or a segment size"),
        ("mss_clamp = true", "1:13", "\"off\", \"auto\" or a segment size in bytes"),
    ]);
}

#[test]
fn the_control_socket_has_an_absolute_path_or_is_off() {
    assert_eq!(parse("control_socket = \"off\"").unwrap().control_socket, ControlSocket::Off);
    refused(&[("control_socket = \"here.sock\"", "1:18", "begins with /; write one, or off")]);
}

#[test]
fn a_file_that_is_no_toml_is_said_to_be_none_with_the_place() {
    let problems = parse("mtu = \n[pool\n").unwrap_err();
    assert!(problems[0].starts_with("p.toml:1:"), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.starts_with("p.toml:2:")), "{problems:?}");
}

#[test]
fn pools_and_pairs_are_checked_against_each_other() {
    let problems = parse(
        "[[pool]]\nprefix = \"203.0.113.0/24\"\n[[pool]]\nprefix = \"203.0.113.128/25\"\n\
         [[static]]\naddress = \"203.0.113.9\"\nhost = \"2001:db8::9\"\n\
         [[static]]\naddress = \"203.0.113.9\"\nhost = \"2001:db8::9\"\n",
    )
    .unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[0].contains("overlaps the pool 203.0.113.0/24 (p.toml:2:10)"), "{problems:#?}");
}

#[test]
fn a_flag_overrides_the_file_and_leaves_the_rest() {
    let (file, _) = file::parse(Path::new("p.toml"), "mtu = 1600\nnum_queues = 3\n");
    let flags = Partial { num_queues: Some(Placed::by_flag("--num-queues", 1)), ..Partial::default() };
    let settings = flags.over(file).settle(Vec::new()).unwrap();
    assert_eq!((settings.mtu, settings.num_queues), (1600, 1));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = read(Path::new("/nonexistent/p.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/p.toml") && error.contains("--config"), "{error}");
}

proptest::proptest! {
    /// Whatever the file says: an answer, never a panic.
    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\PC\n\\[\\]=\"]{0,120}") {
        let _ = parse(&text);
    }
}

#[test]
fn addresses_that_no_router_can_have_or_lease_are_refused() {
    for (text, expected) in [
        ("translation_prefix = \"ff00::/96\"", "no addresses that can be routed"),
        ("translation_prefix = \"::/96\"", "no addresses that can be routed"),
        ("icmp_source_v4 = \"224.0.0.1\"", "cannot be the address of a router"),
        ("icmp_router_pool = \"224.0.0.0/28\"", "no router can have an address of"),
        ("icmp_router_pool = \"192.0.2.1/28\"", "the network is 192.0.2.0/28"),
        ("[translation]\nlowest_ipv6_mtu = 1279", "1279 is not between 1280 and 65535"),
        ("[translation]\ntraffic_class = \"dscp:64\"", "dscp:N with N from 0 to 63"),
        ("[translation]\nudp_zero_checksum = \"pass\"", "write compute or drop"),
        ("icmp_source_v6 = \"ff02::1\"", "cannot be the address of a router"),
        ("icmp_source_v4 = \"192.0.2.1\"\n[[pool]]\nprefix = \"192.0.2.1/32\"", "none is left"),
        (
            "icmp_source_v4 = \"192.0.2.1\"\n[[static]]\naddress = \"192.0.2.1\"\nhost = \"2001:db8::1\"",
            "is the address of a static pair",
        ),
    ] {
        let problems = parse(text).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{text}: {problems:?}");
    }
}

fn repository(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_shipped_examples_are_right_even_with_every_line_in_force() {
    let example = repository("deploy/protomask.toml");
    parse(&example).unwrap();
    parse(&repository("deploy/kubernetes/protomask.toml")).unwrap();
    // `#key = value` is an example, `# A sentence.` is none.
    parse(&example.replace("\n#", "\n").replace("\n ", "\n# ")).unwrap();
}

#[test]
fn the_defaults_of_the_example_are_those_of_the_program() {
    let example = repository("deploy/protomask.toml").replace("\n#", "\n").replace("\n ", "\n# ");
    let settings = parse(&example).unwrap();
    assert_eq!(settings.sessions, SessionSettings::default());
    let ports = Some(DEFAULT_QUOTA_PORTS);
    assert_eq!(settings.quota, QuotaSettings { ports, ..QuotaSettings::default() });
    assert_eq!(settings.timers, Timers::DEFAULT);
    assert_eq!(settings.fragments, FragmentSettings::default());
    assert_eq!(settings.hold, HoldSettings::default());
    assert_eq!(settings.translation, Params::DEFAULT);
}

#[test]
fn the_reference_shows_configurations_that_are_right() {
    let reference = repository("docs/configuration.md");
    let blocks: Vec<_> =
        reference.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 5, "{blocks:?}");
    for block in blocks {
        parse(block).unwrap_or_else(|problems| panic!("{block}\n{problems:#?}"));
    }
}

#[test]
fn the_reference_knows_every_key() {
    let reference = repository("docs/configuration.md");
    let mut number = 0;
    for section in [
        "",
        "[log]",
        "[translation]",
        "[hold]",
        "[[pool]]",
        "[[static]]",
        "[[eam]]",
        "[[forward]]",
        "[sessions]",
        "[quota]",
        "[timers]",
        "[fragments]",
        "[records]",
        "[deterministic]",
    ] {
        let problems = parse(&format!("{section}\nno_such_key = 1")).unwrap_err();
        let known = problems.iter().find_map(|problem| problem.split_once("known here: ")).unwrap().1;
        for key in known.split(", ") {
            let is_told =
                [format!("`{key}`"), format!("[{key}]"), format!("{section} {key}`"), format!("\n{key} = ")];
            assert!(
                is_told.iter().any(|told| reference.contains(told)),
                "{section} {key} is not in the reference"
            );
            number += 1;
        }
    }
    assert!(number > 80, "{number} keys");
}
