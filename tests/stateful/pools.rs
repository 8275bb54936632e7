//! Pools and prefixes side by side in one router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::Ipv4Net;
use netlab::{PingOptions, Server, ping, tcp_exchange, udp_exchange};

use crate::common::{PATIENCE, Router, through};
use crate::lab::{OTHER, POOL, SERVER, clients, hear, prepare, udp};

const EXCLUSIVE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 128), 28);

const CONFIG: &str = "translation_prefix = [\"64:ff9b:1::/96\", \"2001:db8:64::/96\"]
[[pool]]
prefix = \"203.0.113.128/28\"
sharing = \"exclusive\"
hosts = [\"2001:db8:1::/64\"]
[[pool]]
prefix = \"203.0.113.1/32\"
sharing = \"ports\"
hosts = [\"2001:db8:2::/64\", \"2001:db8:3::/64\"]
";

/// As [`through`], under the second prefix.
fn second(address: Ipv4Addr) -> Ipv6Addr {
    let suffix = u128::from(address.to_bits());
    Ipv6Addr::from_bits(Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 0).to_bits() | suffix)
}

#[test]
fn each_host_gets_what_its_pool_gives_under_either_prefix() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = prepare(&clients(4));
    let router = Router::start(&lab, &["--config", &lab.file("pools.toml", CONFIG)]);
    let udp_echo = Server::udp_echo(&lab.server, (SERVER, 7)).unwrap();
    let tcp_echo = Server::tcp_echo(&lab.server, (SERVER, 7)).unwrap();
    let mut public = Vec::new();
    for client in &lab.clients[..3] {
        // The same port of each host.
        let source = Some(SocketAddr::from((client.addresses[0], 4000)));
        for prefixed in [through(SERVER), second(SERVER)] {
            let target = (prefixed, 7).into();
            // A connected socket hears nobody but whom it has sent to: the answer comes under the same prefix.
            let echoed = udp_exchange(&client.namespace, source, target, b"hello", PATIENCE).unwrap();
            assert_eq!(echoed, b"hello");
            public.push(*udp_echo.peers().last().unwrap());
            let sent = vec![0xa5; 50_000];
            assert!(tcp_exchange(&client.namespace, source, target, &sent, PATIENCE).unwrap() == sent);
            assert!(ping(&client.namespace, prefixed, &PingOptions::default()).unwrap().is_reply());
        }
    }
    let IpAddr::V4(own) = public[0].ip() else { panic!("{public:?}") };
    assert!(EXCLUSIVE.contains(&own), "{own}");
    // One address for one host, whose ports stay as they are.
    assert_eq!(public[..2], [(own, 4000).into(); 2]);
    // One address for all others, and a mapping for each host and prefix.
    for (number, seen) in public.iter().enumerate().skip(2) {
        assert_eq!(seen.ip(), IpAddr::V4(POOL));
        assert!(!public[..number].contains(seen), "{public:?}");
    }
    assert!(
        tcp_echo.peers().iter().all(|peer| peer.ip() == own || peer.ip() == POOL),
        "{:?}",
        tcp_echo.peers()
    );

    // From outside each mapping is reached under the prefix that made it.
    let stranger = udp(&lab.server, (OTHER, 1234));
    let host = udp(&lab.clients[1].namespace, (lab.clients[1].addresses[0], 4000));
    for (seen, prefixed) in [(public[2], through(OTHER)), (public[3], second(OTHER))] {
        stranger.send_to(b"from outside", seen).unwrap();
        assert_eq!(hear(&host), ("from outside".to_owned(), (prefixed, 1234).into()));
    }

    // Nothing was said about the last one, and it gets nothing.
    let outcome = ping(&lab.clients[3].namespace, through(SERVER), &PingOptions::default()).unwrap();
    assert!(matches!(outcome, netlab::PingOutcome::Error { icmp_type: 1, .. }), "{outcome:?}");
    router.end();
}
