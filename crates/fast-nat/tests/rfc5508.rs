//! RFC 5508, behaviour of a NAT for ICMP, as far as its state decides it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[allow(dead_code, reason = "each test program needs other parts of it")]
mod common;

use std::collections::HashSet;

use common::{BLOCK, Lab, TICK, answer, flow, host, mins, opener, remote, secs};
use fast_nat::nat64::{Inbound, Outbound, Protocol, Refused, SessionState, Signal};

const IDENTIFIER: u16 = 0x1234;

fn echo() -> Outbound {
    flow(Protocol::Icmp, host(1), IDENTIFIER, remote(1), 0)
}

#[test]
fn req_1_queries_of_hosts_pass_and_each_gets_its_own_replies() {
    let lab = Lab::new();
    let mut identifiers = HashSet::new();
    let mut replies = Vec::new();
    for n in 1..=30 {
        lab.give(host(n), 2048 + n * BLOCK);
        // All with the same identifier and to the same destination.
        let query = Outbound { host: host(n), ..echo() };
        let mapped = lab.open(&query);
        assert!(identifiers.insert(mapped.port));
        replies.push((answer(&query, &mapped), query));
    }
    for (reply, query) in replies {
        let reached = lab.back(&reply, Signal::None).unwrap();
        assert_eq!((reached.host, reached.port), (query.host, IDENTIFIER));
    }
}

#[test]
fn req_1_an_identifier_has_one_mapping_whatever_it_is_sent_to() {
    let lab = Lab::new();
    lab.give(host(1), 2048);
    let mapped = lab.open(&echo());
    for n in 2..50 {
        assert_eq!(lab.open(&Outbound { remote: remote(n), ..echo() }).port, mapped.port);
    }
}

#[test]
fn req_1_the_identifiers_zero_and_65535_pass_like_any_other() {
    let lab = Lab::new();
    lab.give(host(1), 2048);
    for identifier in [0, 1023, 1024, u16::MAX] {
        let query = Outbound { port: identifier, ..echo() };
        let mapped = lab.open(&query);
        assert_eq!(lab.back(&answer(&query, &mapped), Signal::None).unwrap().port, identifier);
    }
}

#[test]
fn req_2_a_query_session_lasts_sixty_seconds_and_is_refreshed_by_queries_and_replies() {
    let mut lab = Lab::new();
    lab.give(host(1), 2048);
    let mapped = lab.open(&echo());
    lab.wait(secs(60));
    lab.back(&answer(&echo(), &mapped), Signal::None).unwrap();
    lab.wait(secs(60));
    lab.out(&echo(), Signal::None).unwrap();
    lab.ends_after(secs(60), "the session", |lab| lab.state(&echo()).is_some());
}

#[test]
fn req_4_and_5_an_error_about_a_packet_without_a_mapping_finds_nothing() {
    let lab = Lab::new();
    for n in [1, 2] {
        lab.give(host(n), 2048 + n * BLOCK);
    }
    for protocol in Protocol::ALL {
        let flow = Outbound { remote_port: 53, ..flow(protocol, host(1), 5000, remote(1), 53) };
        let flow = if protocol == Protocol::Icmp { Outbound { remote_port: 0, ..flow } } else { flow };
        let mapped = lab.open(&flow);
        let answers = answer(&flow, &mapped);
        // What the host has sent, and what was sent to it, is found.
        assert!(lab.nat.find_inbound(&answers).is_some_and(|found| found.session.is_some()));
        assert!(lab.nat.find_outbound(&flow).is_some_and(|found| found.session.is_some()));
        for forged in [
            Inbound { port: mapped.port ^ 1, ..answers },
            Inbound { address: remote(50), ..answers },
            Inbound { remote: remote(50), ..answers },
        ] {
            assert_eq!(lab.nat.find_inbound(&forged), None, "{forged:?}");
        }
        for forged in [
            Outbound { port: 5001, ..flow },
            Outbound { host: host(2), ..flow },
            Outbound { remote: remote(50), ..flow },
            Outbound { prefix: 1, ..flow },
        ] {
            assert_eq!(lab.nat.find_outbound(&forged), None, "{forged:?}");
        }
    }
}

#[test]
fn req_6_an_error_neither_refreshes_nor_ends_a_session() {
    for protocol in Protocol::ALL {
        let mut lab = Lab::new();
        let flow = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(flow.host, 2048);
        let mapped = lab.open(&flow);
        let answers = answer(&flow, &mapped);
        let timer = match protocol {
            Protocol::Tcp => mins(4),
            Protocol::Udp => mins(5),
            Protocol::Icmp => secs(60),
        };
        lab.ends_after(timer, protocol.as_str(), |lab| {
            let found = lab.nat.find_inbound(&answers).and_then(|found| found.session);
            assert_eq!(lab.nat.find_outbound(&flow).and_then(|found| found.session), found);
            found.is_some()
        });
    }
}

#[test]
fn req_7_queries_between_two_hosts_behind_the_nat() {
    let lab = Lab::new();
    let (a, b) = (host(1), host(2));
    lab.give(a, 2048);
    lab.give(b, 4096);
    // B has an identifier outside; A asks there and B replies.
    let of_b = lab.open(&flow(Protocol::Icmp, b, 77, remote(1), 0));
    let query = flow(Protocol::Icmp, a, IDENTIFIER, of_b.address, 0);
    let left = lab.open(&query);
    let arriving = Inbound {
        protocol: Protocol::Icmp,
        address: of_b.address,
        port: of_b.port,
        remote: left.address,
        remote_port: 0,
    };
    let reached = lab.back(&arriving, Signal::None).unwrap();
    assert_eq!((reached.host, reached.port), (b, 77));
    let reply = flow(Protocol::Icmp, b, 77, left.address, 0);
    assert_eq!(lab.out(&reply, Signal::None).unwrap().port, of_b.port);
    assert_eq!(lab.state(&reply), Some(SessionState::Established));
}

#[test]
fn req_7_the_packet_inside_a_hairpinned_error_is_found_on_both_ways() {
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let lab = Lab::new();
        let (a, b) = (host(1), host(2));
        lab.give(a, 2048);
        lab.give(b, 4096);
        let of_b = lab.open(&flow(protocol, b, 6000, remote(1), 53));
        let there = flow(protocol, a, 5000, of_b.address, of_b.port);
        let left = lab.open(&there);
        let arriving = Inbound {
            protocol,
            address: of_b.address,
            port: of_b.port,
            remote: left.address,
            remote_port: left.port,
        };
        lab.back(&arriving, opener(protocol)).unwrap();
        // B's error quotes what reached it, from A's outside address to B: on the IPv4 side, to B's outside address.
        let quoted = flow(protocol, b, 6000, left.address, left.port);
        let found = lab.nat.find_outbound(&quoted).unwrap();
        assert_eq!((found.address, found.port), (of_b.address, of_b.port));
        assert!(found.session.is_some());
        // That packet was A's.
        let found = lab.nat.find_inbound(&answer(&there, &left)).unwrap();
        assert_eq!((found.host, found.port, found.session), (a, 5000, left.session));
    }
}

#[test]
fn req_8_a_query_that_finds_no_room_is_refused_by_name_and_passes_when_there_is_room() {
    let mut lab = Lab::with(|config| config.quota.sessions = 2);
    lab.give(host(1), 2048);
    for n in 1..=2 {
        lab.open(&Outbound { remote: remote(n), ..echo() });
    }
    let third = Outbound { remote: remote(3), ..echo() };
    assert_eq!(lab.out(&third, Signal::None), Err(Refused::SessionQuota));
    lab.wait(secs(60) + TICK);
    lab.open(&third);
}
