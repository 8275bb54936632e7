//! The router's part of the kernel's configuration, against the real kernel in network namespaces of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "the helpers of tests fail the test that calls them"
)]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use netlab::Namespace;
use protomask::kernel::firewall::{self, Finding};
use protomask::kernel::masquerade::{self, Masquerade};
use protomask::kernel::preflight::{self, Existing, Intent, Problem};
use protomask::kernel::sysctl::Sysctls;
use protomask::kernel::{LINK_ALIAS, cleanup};
use rtnl::{Change, Desired, DesiredLink, Handle, diff};

/// Far beyond what any of this takes.
const PATIENCE: Duration = Duration::from_secs(30);

const POOL: &str = "192.168.255.0/24";

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn hide(interface: &str, pools: &[&str]) -> Masquerade {
    Masquerade {
        interface: interface.into(),
        pools: pools.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn persistent_tun(name: &str) {
    let mut configuration = tun::Configuration::default();
    configuration.tun_name(name);
    configuration.platform_config(|platform| {
        platform.ensure_root_privileges(false);
    });
    tun::create(&configuration).expect("a TUN device").persist().expect("a persistent one");
}

fn desired(name: &str, routes: &[&str]) -> Desired {
    Desired {
        link: DesiredLink { name: name.into(), up: true, mtu: 1500, alias: LINK_ALIAS.into() },
        addresses: vec![],
        routes: routes.iter().map(|text| net(text)).collect(),
    }
}

/// A directory for sysctl records that goes with the value.
struct Records(PathBuf);

impl Records {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("protomask-kernel-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn sysctls(&self) -> Sysctls {
        Sysctls::at("/proc/sys", &self.0)
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether there is an `nft` program: a second opinion on our table, and the maker of foreign rules.
fn has_nft() -> bool {
    if Command::new("nft").arg("--version").output().is_ok() {
        return true;
    }
    let required = std::env::var_os(netlab::REQUIRE_VARIABLE).is_some_and(|value| value == "1");
    assert!(!required, "{}=1, but there is no `nft` program (Debian: nftables)", netlab::REQUIRE_VARIABLE);
    eprintln!("SKIPPED in part: there is no `nft` program (Debian: nftables)");
    false
}

fn nft(namespace: &Namespace, arguments: &[&str]) -> String {
    let output = namespace.command("nft").args(arguments).output().expect("nft starts");
    assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_table_reads_as_it_was_meant_and_is_recognised() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let namespace = Namespace::new("table").unwrap();
    let wanted = hide("nat64", &[POOL, "10.0.0.0/8", "192.0.2.1/32", "203.0.113.128/25"]);
    namespace.run(|| {
        assert!(!masquerade::is_installed(&wanted).unwrap());
        assert!(!masquerade::remove("nat64").unwrap(), "nothing to remove yet");
        masquerade::install(&wanted).unwrap();
        assert!(masquerade::is_installed(&wanted).unwrap());
        assert_eq!(masquerade::list_ours().unwrap(), ["protomask_nat64"]);
    });
    if has_nft() {
        let listing = nft(&namespace, &["list", "ruleset"]);
        for line in [
            "table ip protomask_nat64 {",
            "type nat hook postrouting priority srcnat; policy accept;",
            "ip saddr 192.168.255.0/24 oifname != \"nat64\" masquerade",
            "ip saddr 10.0.0.0/8 oifname != \"nat64\" masquerade",
            "ip saddr 192.0.2.1 oifname != \"nat64\" masquerade",
            "ip saddr 203.0.113.128/25 oifname != \"nat64\" masquerade",
        ] {
            assert!(listing.contains(line), "{line:?} is missing in:\n{listing}");
        }
        assert_eq!(listing.matches("masquerade").count(), 4, "{listing}");
    }
    namespace.run(|| {
        assert!(masquerade::remove("nat64").unwrap());
        assert!(!masquerade::remove("nat64").unwrap(), "idempotent");
        assert!(masquerade::list_ours().unwrap().is_empty());
    });
}

#[test]
fn a_table_that_differs_is_noticed_and_replaced() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let namespace = Namespace::new("replace").unwrap();
    namespace.run(|| {
        let first = hide("nat64", &[POOL]);
        let second = hide("nat64", &[POOL, "10.0.0.0/8"]);
        masquerade::install(&first).unwrap();
        assert!(!masquerade::is_installed(&second).unwrap(), "a pool too few");
        masquerade::install(&second).unwrap();
        assert!(masquerade::is_installed(&second).unwrap());
        assert!(!masquerade::is_installed(&first).unwrap(), "a pool too many");
        masquerade::install(&second).unwrap();
        assert!(masquerade::is_installed(&second).unwrap(), "no rule is there twice");
        // Another interface has its own table, which the first is not confused with.
        masquerade::install(&hide("nat65", &[POOL])).unwrap();
        assert!(masquerade::remove("nat64").unwrap());
        assert_eq!(masquerade::list_ours().unwrap(), ["protomask_nat65"]);
    });
    if has_nft() {
        namespace.run(|| masquerade::install(&hide("nat64", &[POOL])).unwrap());
        for tampering in [
            "add rule ip protomask_nat64 postrouting ip saddr 10.0.0.0/8 masquerade",
            "insert rule ip protomask_nat64 postrouting accept",
            "add chain ip protomask_nat64 more",
            "flush table ip protomask_nat64",
        ] {
            nft(&namespace, &tampering.split(' ').collect::<Vec<_>>());
            namespace.run(|| {
                let wanted = hide("nat64", &[POOL]);
                assert!(!masquerade::is_installed(&wanted).unwrap(), "{tampering}");
                masquerade::install(&wanted).unwrap();
                assert!(masquerade::is_installed(&wanted).unwrap(), "repaired after {tampering}");
            });
        }
    }
}

#[test]
fn many_pools_fit_one_transaction() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    Namespace::new("many").unwrap().run(|| {
        let pools = (0..=255).map(|octet| Ipv4Net::new_assert(Ipv4Addr::new(10, octet, 0, 0), 16)).collect();
        let wanted = Masquerade { interface: "nat64".into(), pools };
        masquerade::install(&wanted).unwrap();
        assert!(masquerade::is_installed(&wanted).unwrap());
    });
}

#[test]
fn an_interface_with_an_odd_name_gets_a_table_that_nft_can_name() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let namespace = Namespace::new("odd").unwrap();
    namespace.run(|| {
        let wanted = hide("wan-1.5@#x", &[POOL]);
        masquerade::install(&wanted).unwrap();
        assert!(masquerade::is_installed(&wanted).unwrap());
    });
    let table = masquerade::table_name("wan-1.5@#x");
    if has_nft() {
        let listing = nft(&namespace, &["list", "table", "ip", &table]);
        assert!(listing.contains("oifname != \"wan-1.5@#x\""), "{listing}");
    }
}

/// inside (the pool's addresses, behind `nat64`) -- router -- outside (a server that has no route to the pool)
struct Masqueraded {
    inside: Namespace,
    router: Namespace,
    outside: Namespace,
}

impl Masqueraded {
    const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 255, 7);
    const ROUTER_INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 255, 1);
    const ROUTER_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    fn new() -> Self {
        let inside = Namespace::new("inside").unwrap();
        let router = Namespace::new("router").unwrap();
        let outside = Namespace::new("outside").unwrap();
        netlab::veth(&router, "nat64", &inside, "eth0", 1500).unwrap();
        netlab::veth(&router, "uplink", &outside, "eth0", 1500).unwrap();
        router.add_address("nat64", Ipv4Net::new_assert(Self::ROUTER_INSIDE, 24)).unwrap();
        inside.add_address("eth0", Ipv4Net::new_assert(Self::HOST, 24)).unwrap();
        router.add_address("uplink", Ipv4Net::new_assert(Self::ROUTER_OUTSIDE, 24)).unwrap();
        outside.add_address("eth0", Ipv4Net::new_assert(Self::SERVER, 24)).unwrap();
        inside.add_route(net("0.0.0.0/0"), Some(IpAddr::V4(Self::ROUTER_INSIDE)), "eth0").unwrap();
        router.sysctl("net.ipv4.ip_forward", "1").unwrap();
        Self { inside, router, outside }
    }

    fn socket(namespace: &Namespace, address: Ipv4Addr) -> UdpSocket {
        namespace.run(|| {
            let socket = UdpSocket::bind((address, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
    }
}

#[test]
fn a_packet_of_the_pool_leaves_with_the_routers_address_and_the_answer_finds_back() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Masqueraded::new();
    lab.router.run(|| masquerade::install(&hide("nat64", &[POOL])).unwrap());
    let host = Masqueraded::socket(&lab.inside, Masqueraded::HOST);
    let server = Masqueraded::socket(&lab.outside, Masqueraded::SERVER);
    let mut buffer = [0; 64];

    host.send_to(b"question", server.local_addr().unwrap()).unwrap();
    let (length, seen) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"question");
    assert_eq!(seen.ip(), IpAddr::V4(Masqueraded::ROUTER_OUTSIDE), "the router's own address");

    server.send_to(b"answer", seen).unwrap();
    let (length, from) = host.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"answer"[..], server.local_addr().unwrap()));

    // Replacing the table does not disturb the flow.
    lab.router.run(|| masquerade::install(&hide("nat64", &[POOL, "10.0.0.0/8"])).unwrap());
    server.send_to(b"again", seen).unwrap();
    let (length, _) = host.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"again");
}

#[test]
fn what_leaves_by_the_interface_itself_is_not_masqueraded() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Masqueraded::new();
    // The server side is told to be the TUN side: what goes there keeps its source.
    lab.router.run(|| masquerade::install(&hide("uplink", &[POOL])).unwrap());
    let back = Some(IpAddr::V4(Masqueraded::ROUTER_OUTSIDE));
    lab.outside.add_route(net(POOL), back, "eth0").unwrap();
    let host = Masqueraded::socket(&lab.inside, Masqueraded::HOST);
    let server = Masqueraded::socket(&lab.outside, Masqueraded::SERVER);
    host.send_to(b"x", server.local_addr().unwrap()).unwrap();
    let (_, seen) = server.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(seen, SocketAddr::from((Masqueraded::HOST, host.local_addr().unwrap().port())));
}

#[test]
fn a_forward_chain_that_drops_is_named() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let namespace = Namespace::new("firewall").unwrap();
    namespace.run(|| assert_eq!(firewall::findings("nat64").unwrap(), []));
    // Ours is none of those.
    namespace.run(|| masquerade::install(&hide("nat64", &[POOL])).unwrap());
    namespace.run(|| assert_eq!(firewall::findings("nat64").unwrap(), []));
    if !has_nft() {
        return;
    }
    for ruleset in [
        "add table ip filter",
        "add chain ip filter FORWARD { type filter hook forward priority filter; policy drop; }",
        "add chain ip filter DOCKER-USER",
        "add chain ip filter INPUT { type filter hook input priority filter; policy drop; }",
        "add table inet firewalld",
        "add chain inet firewalld filter_FORWARD { type filter hook forward priority filter + 10; policy accept; }",
        "add rule inet firewalld filter_FORWARD ct state established,related accept",
        "add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
        "add table ip6 own",
        "add chain ip6 own through { type filter hook forward priority 5; policy accept; }",
        "add rule ip6 own through iifname \"eth7\" drop",
        "add rule ip6 own through counter log drop",
        "add table inet fine",
        "add chain inet fine through { type filter hook forward priority 6; policy accept; }",
        "add rule inet fine through iifname \"eth7\" drop",
    ] {
        nft(&namespace, &[ruleset]);
    }
    let findings = namespace.run(|| firewall::findings("nat64").unwrap());
    let sentences: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let all = sentences.join("\n");
    assert_eq!(findings.len(), 3, "{all}");
    for part in [
        "`ip filter FORWARD` drops forwarded packets by its policy",
        "iptables -I DOCKER-USER -i nat64 -j ACCEPT",
        "`inet firewalld filter_FORWARD` drops forwarded packets by a rule",
        "firewall-cmd",
        "`ip6 own through` drops forwarded packets by a rule",
        "nft insert rule ip6 own through iifname \"nat64\" accept",
    ] {
        assert!(all.contains(part), "{part:?} is missing in:\n{all}");
    }
    assert!(findings.iter().all(|finding| matches!(finding, Finding::Drops { .. })));
    // The remedy is a command that works, and who has followed it is not told again.
    nft(&namespace, &["insert rule ip6 own through iifname \"nat64\" accept"]);
    assert_eq!(
        namespace.run(|| firewall::findings("nat64").unwrap()).len(),
        3,
        "one direction is not enough"
    );
    nft(&namespace, &["insert rule ip6 own through oifname \"nat64\" counter accept"]);
    assert_eq!(namespace.run(|| firewall::findings("nat64").unwrap()).len(), 2);
    assert_eq!(
        namespace.run(|| firewall::findings("nat65").unwrap()).len(),
        3,
        "it was for another interface"
    );
}

#[test]
fn forwarding_is_turned_on_and_back_and_an_interface_that_forwarded_still_does() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let records = Records::new("forwarding");
    let namespace = Namespace::new("forwarding").unwrap();
    let peer = Namespace::new("peer").unwrap();
    netlab::veth(&namespace, "br0", &peer, "eth0", 1500).unwrap();
    netlab::veth(&namespace, "eth0.100", &peer, "eth1", 1500).unwrap();
    namespace.sysctl("net.ipv4.conf.br0.forwarding", "1").unwrap();
    namespace.sysctl("net.ipv6.conf.br0.forwarding", "1").unwrap();
    namespace.sysctl("net.ipv4.conf.all.accept_redirects", "1").unwrap();
    let read = |key: &str| namespace.read_sysctl(key).unwrap();
    namespace.block_on(async {
        let sysctls = records.sysctls();
        let snapshot = Handle::open().unwrap().snapshot().await.unwrap();
        assert!(!sysctls.forwarding().unwrap().is_on());
        assert_eq!(
            sysctls.commands_to_enable(&snapshot).unwrap(),
            ["sysctl -w net.ipv6.conf.all.forwarding=1", "sysctl -w net.ipv4.ip_forward=1"]
        );
        let changes = sysctls.enable("nat64", &snapshot).unwrap();
        assert_eq!(changes.changed.len(), 2);
        assert!(sysctls.forwarding().unwrap().is_on());
    });
    assert_eq!(read("net/ipv6/conf/eth0.100/forwarding"), "1");
    namespace.run(|| {
        let restored = records.sysctls().restore("nat64").unwrap();
        assert_eq!((restored.changed.len(), restored.left.len()), (2, 0), "{restored:?}");
        assert!(records.sysctls().records().unwrap().is_empty());
    });
    for (key, expected) in [
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv6.conf.all.forwarding", "0"),
        ("net.ipv4.conf.br0.forwarding", "1"),
        ("net.ipv6.conf.br0.forwarding", "1"),
        ("net/ipv4/conf/eth0.100/forwarding", "0"),
        ("net/ipv6/conf/eth0.100/forwarding", "0"),
        ("net.ipv4.conf.all.accept_redirects", "1"),
    ] {
        assert_eq!(read(key), expected, "{key}");
    }
}

// The checksum (RFC 4443 section 2.3) is left to the kernel, which fills it in on a raw ICMPv6 socket.
fn router_advertisement() -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0];
    // Router lifetime in seconds, reachable time, retransmission timer (RFC 4861 section 4.2).
    message.extend(1800u16.to_be_bytes());
    message.extend([0; 8]);
    message
}

fn advertise(router: &Namespace, link: &str) {
    let index = router.index(link).unwrap();
    router.run(|| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::RAW, Some(socket2::Protocol::ICMPV6))
                .unwrap();
        socket.set_multicast_hops_v6(255).unwrap();
        socket.set_multicast_if_v6(index).unwrap();
        let all_nodes = std::net::SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, index);
        match socket.send_to(&router_advertisement(), &all_nodes.into()) {
            // The link-local address it is sent from is still on its way.
            Err(error)
                if matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable) => {}
            other => assert_eq!(other.unwrap(), router_advertisement().len()),
        }
    });
}

fn has_advertised_default(snapshot: &rtnl::Snapshot) -> bool {
    snapshot.routes.iter().any(|route| {
        route.protocol == rtnl::protocol::RA && route.destination == net("::/0") && route.gateway().is_some()
    })
}

/// A host whose default route came by router advertisement, and the provider that sent it.
fn advertised_host() -> (Namespace, Namespace) {
    let host = Namespace::new("host").unwrap();
    let provider = Namespace::new("provider").unwrap();
    provider.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    netlab::veth(&host, "uplink", &provider, "eth0", 1500).unwrap();
    host.sysctl("net.ipv6.conf.uplink.accept_ra", "1").unwrap();
    host.block_on(async {
        let mut watcher = rtnl::Watcher::open().unwrap();
        let handle = Handle::open().unwrap();
        let arrived = tokio::time::timeout(PATIENCE, async {
            // The links' own addresses may still be on their way: advertise until one was heard.
            while !has_advertised_default(&handle.snapshot().await.unwrap()) {
                advertise(&provider, "eth0");
                let _ = tokio::time::timeout(Duration::from_millis(100), watcher.next()).await;
            }
        });
        arrived.await.expect("a default route by router advertisement");
    });
    (host, provider)
}

#[test]
fn a_default_route_that_came_by_router_advertisement_stays() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let records = Records::new("advertised");
    let (host, _provider) = advertised_host();
    host.block_on(async {
        let handle = Handle::open().unwrap();
        let sysctls = records.sysctls();
        let before = handle.snapshot().await.unwrap();
        assert_eq!(
            sysctls.commands_to_enable(&before).unwrap()[0],
            "sysctl -w net.ipv6.conf.uplink.accept_ra=2"
        );
        sysctls.enable("nat64", &before).unwrap();
        assert!(sysctls.forwarding().unwrap().is_on());
        assert!(has_advertised_default(&handle.snapshot().await.unwrap()), "it outlived the switch");

        sysctls.restore("nat64").unwrap();
        assert!(has_advertised_default(&handle.snapshot().await.unwrap()), "and the way back");
    });
    assert_eq!(host.read_sysctl("net.ipv6.conf.uplink.accept_ra").unwrap(), "1");
}

/// What the test above guards against. In a namespace of its own: a kernel that once kept such a route over the switch
/// does not look for it again.
#[test]
fn without_that_care_the_kernel_forgets_an_advertised_default_route() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (host, _provider) = advertised_host();
    host.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    host.block_on(async {
        let snapshot = Handle::open().unwrap().snapshot().await.unwrap();
        assert!(!has_advertised_default(&snapshot), "this kernel keeps it by itself");
    });
}

#[test]
fn preflight_sees_what_the_kernel_holds() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let topology = netlab::Topology::new().unwrap();
    topology.router.add_route(net("64:ff9b::/96"), None, "client0").unwrap();
    topology.router.block_on(async {
        let snapshot = Handle::open().unwrap().snapshot().await.unwrap();
        let pools = [netlab::Topology::SERVER_NET, netlab::Topology::POOL];
        let prefixes = ["64:ff9b::/96".parse().unwrap(), "64:ff9b:1::/96".parse().unwrap()];
        let problems =
            preflight::check(&Intent { interface: "client0", pools: &pools, prefixes: &prefixes }, &snapshot);
        assert!(
            matches!(
                problems.as_slice(),
                [
                    Problem::InterfaceTaken { .. },
                    Problem::PoolHoldsLocalAddress { .. },
                    Problem::PoolRouted { .. },
                    Problem::PrefixRouted { .. },
                ]
            ),
            "{problems:?}"
        );
        assert_eq!(preflight::choose_default_pool(&snapshot, "nat64").unwrap().to_string(), POOL);
        let allowed = preflight::default_allow_from(&snapshot, "nat64");
        assert_eq!(allowed, [netlab::Topology::CLIENT_NET, "fc00::/7".parse().unwrap()]);
    });
}

#[test]
fn cleanup_removes_all_that_is_ours_and_nothing_else() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let records = Records::new("cleanup");
    let namespace = Namespace::new("cleanup").unwrap();
    let peer = Namespace::new("peer").unwrap();
    netlab::veth(&namespace, "uplink", &peer, "eth0", 1500).unwrap();
    namespace.add_address("uplink", Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 1), 24)).unwrap();
    namespace.block_on(async {
        let handle = Handle::open().unwrap();
        let sysctls = records.sysctls();
        let before = handle.snapshot().await.unwrap();
        assert_eq!(cleanup::cleanup(&handle, &sysctls, false).await, cleanup::Report::default());

        // What an unclean end leaves: two devices without a process, a stray route, two tables, changed sysctls.
        for name in ["nat64", "nat65"] {
            persistent_tun(name);
            let wish = desired(name, &[]);
            let plan = diff(&wish, &handle.snapshot().await.unwrap());
            handle.apply(&plan).await.unwrap();
            masquerade::install(&hide(name, &[POOL])).unwrap();
        }
        let wish = desired("nat64", &[POOL, "64:ff9b::/96"]);
        handle.apply(&diff(&wish, &handle.snapshot().await.unwrap())).await.unwrap();
        let uplink = before.link_by_name("uplink").unwrap().index;
        handle.make(&Change::AddRoute { link: uplink, destination: net("10.9.0.0/16") }).await.unwrap();
        sysctls.enable("nat64", &before).unwrap();
        // A TUN device of somebody else.
        persistent_tun("vpn");

        let snapshot = handle.snapshot().await.unwrap();
        assert!(matches!(preflight::existing(&snapshot, "nat64"), Existing::Ours(_)));
        assert!(matches!(preflight::existing(&snapshot, "vpn"), Existing::Foreign(_)));
        assert!(matches!(preflight::existing(&snapshot, "nat66"), Existing::Absent));
        // Of these two routes one does not fit any more.
        let fewer = desired("nat64", &[POOL]);
        assert_eq!(
            cleanup::leftovers(&snapshot, &fewer),
            [Change::RemoveRoute {
                link: snapshot.link_by_name("nat64").unwrap().index,
                destination: net("64:ff9b::/96")
            }]
        );

        let report = cleanup::cleanup(&handle, &sysctls, false).await;
        assert!(report.is_clean(), "{report}");
        let text = report.to_string();
        for part in [
            "interface nat64",
            "interface nat65",
            "64:ff9b::/96 dev nat64",
            "10.9.0.0/16 dev uplink",
            "table ip protomask_nat64",
            "table ip protomask_nat65",
            "net.ipv4.ip_forward: 1 -> 0",
            "net.ipv6.conf.all.forwarding: 1 -> 0",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }

        let after = handle.snapshot().await.unwrap();
        assert!(after.link_by_name("vpn").is_some(), "somebody else's device is gone");
        let names = |snapshot: &rtnl::Snapshot| {
            snapshot
                .links
                .iter()
                .map(|link| link.name.clone())
                .filter(|name| name != "vpn")
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&after), names(&before));
        for route in &before.routes {
            assert!(after.routes.contains(route), "{route:?} is gone");
        }
        assert!(
            after.routes.iter().all(|route| route.protocol != rtnl::ROUTE_PROTOCOL),
            "{:?}",
            after.routes
        );
        assert!(masquerade::list_ours().unwrap().is_empty());
        assert!(!sysctls.forwarding().unwrap().ipv4 && !sysctls.forwarding().unwrap().ipv6);
        assert_eq!(
            cleanup::cleanup(&handle, &sysctls, false).await,
            cleanup::Report::default(),
            "idempotent"
        );
    });
}
