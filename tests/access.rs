//! Who may use the router, and what may be reached through it: refusals are answered and counted by their name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{Lab, PLAIN, Router, icmp_error, plain_and, through, well_known};
use netlab::{PingOptions, PingOutcome, Topology, TopologyOptions, ping};

/// `ICMPv6` Destination Unreachable, administratively prohibited (RFC 4443 section 3.1).
const PROHIBITED: (u8, u8) = (1, 1);

fn ping_as(lab: &Lab, source: Ipv6Addr, target: Ipv6Addr) -> PingOutcome {
    let options = PingOptions { source: Some(source.into()), ..PingOptions::default() };
    ping(lab.client(), target, &options).unwrap()
}

#[test]
fn a_source_that_is_not_allowed_is_told_so_and_takes_no_address() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&TopologyOptions { clients: 2, ..TopologyOptions::default() });
    let router = Router::start(&lab, &plain_and(&["--allow-from", "2001:db8:1::/64"]));
    let target = through(Topology::SERVER_V4);
    assert!(ping(lab.client(), target, &PingOptions::default()).unwrap().is_reply());
    let outcome = ping(&lab.clients[1].namespace, target, &PingOptions::default()).unwrap();
    assert_eq!(icmp_error(&outcome), PROHIBITED, "{outcome:?}");
    router.wait_for_dropped("source_not_allowed", 1);
    router.wait_for_leased(1);
}

#[test]
fn a_destination_that_is_denied_is_refused_and_its_neighbour_is_not() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let neighbour = Ipv4Addr::new(198, 51, 100, 3);
    lab.server.add_address("eth0", ipnet::Ipv4Net::new_assert(neighbour, 24)).unwrap();
    let router = Router::start(&lab, &plain_and(&["--deny-to", "198.51.100.2/32"]));
    let outcome = ping_as(&lab, Topology::CLIENT_V6, through(Topology::SERVER_V4));
    assert_eq!(icmp_error(&outcome), PROHIBITED, "{outcome:?}");
    assert!(ping_as(&lab, Topology::CLIENT_V6, through(neighbour)).is_reply());
    router.wait_for_dropped("destination_denied", 1);
}

#[test]
fn the_routers_own_addresses_loopback_and_link_local_are_denied_without_a_word_in_the_settings() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &PLAIN);
    let denied = [
        Topology::ROUTER_V4,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(127, 255, 0, 1),
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
    ];
    for address in denied {
        let outcome = ping_as(&lab, Topology::CLIENT_V6, through(address));
        assert_eq!(icmp_error(&outcome), PROHIBITED, "{address}: {outcome:?}");
    }
    router.wait_for_dropped("destination_denied", denied.len() as u64);
    assert!(ping_as(&lab, Topology::CLIENT_V6, through(Topology::SERVER_V4)).is_reply());
}

#[test]
fn an_address_that_the_host_gets_later_is_denied_too() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let mut router = Router::start(&lab, &PLAIN);
    let address = Ipv4Addr::new(198, 51, 100, 77);
    lab.router.add_address("server", ipnet::Ipv4Net::new_assert(address, 24)).unwrap();
    router.wait("the new address is denied", |_| {
        matches!(
            ping_as(&lab, Topology::CLIENT_V6, through(address)),
            PingOutcome::Error { icmp_type: 1, code: 1, .. }
        )
    });
}

#[test]
fn a_non_global_address_under_the_well_known_prefix_is_refused_unless_allowed() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let pool = ["--pool-prefix", "203.0.113.0/24", "--sharing", "exclusive"];
    let lab = Lab::new();
    let router = Router::start(&lab, &pool);
    let target = well_known(Topology::SERVER_V4);
    let outcome = ping_as(&lab, Topology::CLIENT_V6, target);
    assert_eq!(icmp_error(&outcome), PROHIBITED, "{outcome:?}");
    router.wait_for_dropped("non_global", 1);
    router.end();

    let router = Router::start(&lab, &[&pool[..], &["--allow-non-global"]].concat());
    assert!(ping_as(&lab, Topology::CLIENT_V6, target).is_reply());
    assert_eq!(router.metrics().dropped("non_global"), 0);
}

#[test]
fn a_forged_source_inside_the_prefix_takes_no_address_and_gets_no_answer() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &PLAIN);
    // The client claims to be an IPv4 host, as a loop would look (RFC 6146 section 3.5).
    let forged = through(Ipv4Addr::new(192, 0, 2, 1));
    lab.client().add_address("eth0", ipnet::Ipv6Net::new_assert(forged, 128)).unwrap();
    let options =
        PingOptions { source: Some(forged.into()), timeout: common::SHORT, ..PingOptions::default() };
    let outcome = ping(lab.client(), through(Topology::SERVER_V4), &options).unwrap();
    assert_eq!(outcome, PingOutcome::Timeout);
    let metrics = router.wait_for_dropped("source_in_prefix", 1);
    assert_eq!(metrics.sum("protomask_pool_addresses", &["state=\"used\""]), 0);
}

#[test]
fn a_packet_to_an_address_of_the_pool_that_nobody_holds_is_answered_and_takes_nothing() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &PLAIN);
    let outcome = ping(&lab.server, Ipv4Addr::new(203, 0, 113, 99), &PingOptions::default()).unwrap();
    let PingOutcome::Error { from, icmp_type: 3, code: 1, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(from, IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), "the router's own address in the pool");
    let metrics = router.wait_for_dropped("no_binding", 1);
    assert_eq!(metrics.sum("protomask_pool_addresses", &["state=\"used\""]), 0);
}
