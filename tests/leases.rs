//! Who holds which address, for how long, and what happens when there is none left.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use common::{Lab, PATIENCE, PLAIN, Router, eventually, icmp_error, pause, through};
use netlab::{PingOptions, PingOutcome, Server, Topology, TopologyOptions, http_get, ping, udp_exchange};

/// As short as a lease can be for a test that lets it end; expiry is looked at twice a second.
const SHORT_LEASE: &str =
    "translation_prefix = \"64:ff9b:1::/96\"\nreservation_timeout = \"2s\"\naddress_rest = \"1s\"\n";

fn ping_as(lab: &Lab, source: Ipv6Addr) -> PingOutcome {
    let options = PingOptions { source: Some(source.into()), ..PingOptions::default() };
    ping(lab.client(), through(Topology::SERVER_V4), &options).unwrap()
}

/// Sends a datagram to the echo server as this host, and waits for the answer.
fn speak(lab: &Lab, source: Ipv6Addr) {
    let target = SocketAddr::from((through(Topology::SERVER_V4), 7));
    let echoed = udp_exchange(lab.client(), Some((source, 0).into()), target, b"speak", PATIENCE).unwrap();
    assert_eq!(echoed, b"speak");
}

fn last_peer(server: &Server) -> Ipv4Addr {
    match server.peers().last().unwrap().ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} reached an IPv4-only server"),
    }
}

#[test]
fn a_pool_that_runs_out_refuses_new_hosts_only_and_heals_when_a_lease_has_ended_and_rested() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { addresses_per_client: 3, ..TopologyOptions::default() });
    // Of a /30 the router keeps the first address for itself; one is left for hosts.
    let lease = SHORT_LEASE.replace("address_rest = \"1s\"", "address_rest = \"3s\"");
    let config = format!("{lease}[[pool]]\nprefix = \"203.0.113.0/30\"\nsharing = \"exclusive\"\n");
    let router = Router::start(&lab, &["--config", &lab.file("pool.toml", &config)]);
    let [first, second, third] = lab.clients[0].addresses[..] else { panic!("three addresses") };

    assert!(ping_as(&lab, first).is_reply());
    for new in [second, third] {
        let outcome = ping_as(&lab, new);
        // RFC 6146 section 3.5.1.1 and RFC 4443 section 3.1: address unreachable.
        assert_eq!(icmp_error(&outcome), (1, 3), "{new}: {outcome:?}");
    }
    let silent = Instant::now();
    assert!(ping_as(&lab, first).is_reply(), "a host with a lease goes on");
    router.wait_for_dropped("pool_exhausted", 2);
    router.wait_for_leased(1);

    // The first host is silent from now on.
    eventually("the second host gets the address", PATIENCE, || {
        ping_as(&lab, second).is_reply().then_some(())
    });
    let took = silent.elapsed();
    println!("healed after {took:?}");
    assert!(took >= Duration::from_secs(5), "2 s of silence and 3 s of rest come before: {took:?}");
    let outcome = ping_as(&lab, first);
    assert_eq!(icmp_error(&outcome), (1, 3), "the address is the second host's now: {outcome:?}");
    router.end();
}

#[test]
fn a_lease_lasts_while_its_host_speaks() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let echo = Server::udp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let config = format!("{SHORT_LEASE}[[pool]]\nprefix = \"203.0.113.0/24\"\nsharing = \"exclusive\"\n");
    let router = Router::start(&lab, &["--config", &lab.file("pool.toml", &config)]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        speak(&lab, Topology::CLIENT_V6);
        pause(Duration::from_millis(500));
    }
    let mut seen: Vec<_> = echo.peers().iter().map(SocketAddr::ip).collect();
    seen.dedup();
    assert_eq!(
        seen.len(),
        1,
        "one address, three times as long as a silent host would have kept it: {seen:?}"
    );
    assert_eq!(router.log().with_msg("lease ended").len(), 0, "{}", router.log().text());
}

#[test]
fn a_lease_ends_under_a_host_that_only_listens_so_no_outsider_can_pin_it() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let echo = Server::udp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let config = format!("{SHORT_LEASE}[[pool]]\nprefix = \"203.0.113.0/24\"\nsharing = \"exclusive\"\n");
    let router = Router::start(&lab, &["--config", &lab.file("pool.toml", &config)]);
    speak(&lab, Topology::CLIENT_V6);
    let start = Instant::now();
    let address = last_peer(&echo);
    // A socket that hears and does not answer.
    let listener = lab.client().run(|| std::net::UdpSocket::bind((Topology::CLIENT_V6, 4000)).unwrap());
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    let outsider = lab.server.run(|| std::net::UdpSocket::bind((Topology::SERVER_V4, 9999)).unwrap());
    outsider.send_to(b"hello", (address, 4000)).unwrap();
    listener.recv_from(&mut [0; 16]).unwrap();

    let ended = eventually("the lease ends although packets come in", PATIENCE, || {
        // The kernel reports the router's "no binding" on a later call.
        let _ = outsider.send_to(b"hello", (address, 4000));
        router.log().with_msg("lease ended").pop()
    });
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(ended.field("because"), "expired");
    assert_eq!(ended.field("address"), address.to_string());
    assert_eq!(ended.field("host"), Topology::CLIENT_V6.to_string());
    // From now on nobody is there, and the outsider is told.
    let outcome = ping(&lab.server, address, &PingOptions::default()).unwrap();
    assert_eq!(icmp_error(&outcome), (3, 1), "{outcome:?}");
    router
        .wait_for_metrics("the outsider's packets are counted", |metrics| metrics.dropped("no_binding") >= 1);
}

#[test]
fn a_host_that_comes_back_finds_its_old_address() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { addresses_per_client: 2, ..TopologyOptions::default() });
    let echo = Server::udp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let config = format!("{SHORT_LEASE}[[pool]]\nprefix = \"203.0.113.0/24\"\nsharing = \"exclusive\"\n");
    let mut router = Router::start(&lab, &["--config", &lab.file("pool.toml", &config)]);
    let [first, second] = lab.clients[0].addresses[..] else { panic!("two addresses") };
    speak(&lab, first);
    let before = last_peer(&echo);
    router.wait_for_log("lease ended", |record| record.field("address") == before.to_string());
    speak(&lab, second);
    assert_ne!(last_peer(&echo), before, "an address rests, and others are free");
    speak(&lab, first);
    assert_eq!(last_peer(&echo), before);
}

#[test]
fn a_static_pair_is_reached_from_the_ipv4_side_before_its_host_has_sent_anything() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { addresses_per_client: 2, ..TopologyOptions::default() });
    let [inside, outside] = lab.clients[0].addresses[..] else { panic!("two addresses") };
    // One address inside the pool and one outside of it, which gets a route of its own.
    let config = format!(
        "translation_prefix = \"64:ff9b:1::/96\"\n[[pool]]\nprefix = \"203.0.113.0/24\"\nsharing = \"exclusive\"\n\
         [[static]]\naddress = \"203.0.113.2\"\nhost = \"{inside}\"\n\
         [[static]]\naddress = \"192.0.2.10\"\nhost = \"{outside}\"\n"
    );
    let router = Router::start(&lab, &["--config", &lab.file("static.toml", &config)]);
    let page = Server::http(lab.client(), (inside, 80), "served over IPv6").unwrap();
    assert_eq!(page.address().port(), 80);
    for address in [Ipv4Addr::new(203, 0, 113, 2), Ipv4Addr::new(192, 0, 2, 10)] {
        let outcome = ping(&lab.server, address, &PingOptions::default()).unwrap();
        assert!(outcome.is_reply(), "{address}: {outcome:?}");
    }
    let answer = http_get(&lab.server, (Ipv4Addr::new(203, 0, 113, 2), 80).into(), "/", PATIENCE).unwrap();
    assert_eq!(answer.text(), "served over IPv6");
    assert_eq!(page.peers()[0].ip(), IpAddr::V6(through(Topology::SERVER_V4)));

    // And its host is seen under that address, which nobody else gets.
    let echo = Server::udp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    speak(&lab, outside);
    assert_eq!(last_peer(&echo), Ipv4Addr::new(192, 0, 2, 10));
    router.end();
}

#[test]
fn one_subnet_cannot_take_more_leases_than_it_may() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let options = TopologyOptions { clients: 2, addresses_per_client: 3, ..TopologyOptions::default() };
    let lab = Lab::with(&options);
    let config = "translation_prefix = \"64:ff9b:1::/96\"\nmax_leases_per_subnet = 2\n[[pool]]\nprefix = \"203.0.113.0/24\"\nsharing = \"exclusive\"\n";
    let router = Router::start(&lab, &["--config", &lab.file("limit.toml", config)]);
    let [first, second, third] = lab.clients[0].addresses[..] else { panic!("three addresses") };
    assert!(ping_as(&lab, first).is_reply());
    assert!(ping_as(&lab, second).is_reply());
    let outcome = ping_as(&lab, third);
    assert_eq!(icmp_error(&outcome), (1, 1), "{outcome:?}");
    router.wait_for_dropped("subnet_limit", 1);
    let neighbour = &lab.clients[1];
    let outcome = ping(&neighbour.namespace, through(Topology::SERVER_V4), &PingOptions::default()).unwrap();
    assert!(outcome.is_reply(), "another subnet is not concerned: {outcome:?}");
}

#[test]
fn a_burst_of_new_hosts_is_logged_in_part_and_counted_in_full() {
    const HOSTS: u16 = 60;
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { addresses_per_client: HOSTS, ..TopologyOptions::default() });
    let router = Router::start(&lab, &PLAIN);
    for source in &lab.clients[0].addresses {
        assert!(ping_as(&lab, *source).is_reply());
    }
    let granted = router.metrics().sum("protomask_leases_granted_total", &[]);
    assert_eq!(granted, u64::from(HOSTS));
    let ended = router.end_by(nix::sys::signal::Signal::SIGTERM);
    let written = ended.log.iter().filter(|record| record.msg() == "lease granted").count();
    // Ten in ten seconds; on a slow machine the sixty take more than one interval.
    assert!((1..usize::from(HOSTS)).contains(&written), "{written} of {HOSTS} were written");
    let suppressed: usize =
        ended.log.iter().filter_map(|record| record.field("suppressed").parse::<usize>().ok()).sum();
    assert!(suppressed > 0, "what was left out is told: {:?}", ended.log);
}
