//! Pools and prefixes side by side in one router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::Ipv4Net;
use netlab::{Client, PingOptions, Server, ping, tcp_exchange, udp_exchange};

use crate::common::{PATIENCE, Router, icmp_error, through};
use crate::lab::{OTHER, POOL, SERVER, clients, hear, prepare, udp};

const EXCLUSIVE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 128), 28);

const CONFIG: &str = "translation_prefix = [\"64:ff9b:1::/96\", \"2001:db8:64::/96\"]
[[pool]]
prefix = \"203.0.113.128/28\"
sharing = \"exclusive\"
translation_prefix = \"2001:db8:64::/96\"
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
fn each_host_gets_what_its_pool_gives_under_the_prefixes_that_are_served() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = prepare(&clients(4));
    let router = Router::start(&lab, &["--config", &lab.file("pools.toml", CONFIG)]);
    let udp_echo = Server::udp_echo(&lab.server, (SERVER, 7)).unwrap();
    let tcp_echo = Server::tcp_echo(&lab.server, (SERVER, 7)).unwrap();
    // A connected socket hears nobody but whom it has sent to: answers come under the same prefix.
    let speak = |client: &Client, prefixed: Ipv6Addr| {
        // The same port of each host.
        let source = Some(SocketAddr::from((client.addresses[0], 4000)));
        let target = (prefixed, 7).into();
        let echoed = udp_exchange(&client.namespace, source, target, b"hello", PATIENCE).unwrap();
        assert_eq!(echoed, b"hello");
        let sent = vec![0xa5; 50_000];
        assert!(tcp_exchange(&client.namespace, source, target, &sent, PATIENCE).unwrap() == sent);
        assert!(ping(&client.namespace, prefixed, &PingOptions::default()).unwrap().is_reply());
        let (datagram, connection) = (udp_echo.peers().pop().unwrap(), tcp_echo.peers().pop().unwrap());
        assert_eq!(datagram.ip(), connection.ip(), "paired");
        datagram
    };

    // An address for one host alone, whose ports stay as they are. No session says under which prefix it is to be reached, so
    // that its pool serves one.
    let alone = speak(&lab.clients[0], second(SERVER));
    let IpAddr::V4(own) = alone.ip() else { panic!("{alone}") };
    assert!(EXCLUSIVE.contains(&own), "{own}");
    assert_eq!(alone.port(), 4000);
    let outcome = ping(&lab.clients[0].namespace, through(SERVER), &PingOptions::default()).unwrap();
    assert_eq!(icmp_error(&outcome), (1, 1), "{outcome:?}");
    router.wait_for_dropped("prefix_not_served", 1);

    // An address for all others, and a mapping for each host and prefix.
    let public: Vec<SocketAddr> = [1, 2]
        .into_iter()
        .flat_map(|number: usize| [(number, through(SERVER)), (number, second(SERVER))])
        .map(|(number, prefixed)| speak(&lab.clients[number], prefixed))
        .collect();
    for (number, seen) in public.iter().enumerate() {
        assert_eq!(seen.ip(), IpAddr::V4(POOL));
        assert!(!public[..number].contains(seen), "{public:?}");
    }

    // From outside each mapping is reached under the prefix that made it.
    let stranger = udp(&lab.server, (OTHER, 1234));
    let host = udp(&lab.clients[1].namespace, (lab.clients[1].addresses[0], 4000));
    for (seen, prefixed) in [(public[0], through(OTHER)), (public[1], second(OTHER))] {
        stranger.send_to(b"from outside", seen).unwrap();
        assert_eq!(hear(&host), ("from outside".to_owned(), (prefixed, 1234).into()));
    }

    // Nothing was said about the last one, and it gets nothing.
    let outcome = ping(&lab.clients[3].namespace, through(SERVER), &PingOptions::default()).unwrap();
    assert_eq!(icmp_error(&outcome), (1, 3), "{outcome:?}");
    router.end();
}
