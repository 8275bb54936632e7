//! RFC 4787, behaviour of a NAT for UDP. What it asks is asked of TCP and ICMP too, by RFC 5382, 5508 and 6146.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[allow(dead_code, reason = "each test program needs other parts of it")]
mod common;

use std::collections::HashSet;

use common::{BLOCK, Lab, POOL, TICK, answer, flow, host, host_of, mins, opener, remote, secs};
use fast_nat::nat64::{
    Block, Filtering, GiveError, Inbound, NatConfig, Outbound, PortClass, Protocol, Refused, SessionState,
    Signal,
};

#[test]
fn req_1_a_hosts_port_has_one_mapping_whatever_it_sends_to() {
    for protocol in Protocol::ALL {
        let lab = Lab::new();
        let first = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(first.host, 2048);
        let mapped = lab.open(&first);
        for n in 2..=200 {
            let other = flow(protocol, host(1), 5000, remote(n), 53 + u16::from(n));
            let also = lab.open(&other);
            assert_eq!((also.address, also.port), (mapped.address, mapped.port));
        }
        assert_eq!(lab.nat.usage().bindings, 1);
    }
}

#[test]
fn req_2_all_mappings_of_a_host_have_the_same_address() {
    let lab = Lab::new();
    lab.give(host(1), 2048);
    let other = Block { address: remote(77), first_port: 2048, size: BLOCK, reserved: Vec::new() };
    assert_eq!(lab.nat.give_block(host(1), &other, lab.now), Err(GiveError::OtherAddress(POOL)));
    // Another host may have it.
    lab.nat.give_block(host(2), &other, lab.now).unwrap();
    lab.give(host(1), 4096);
    for n in 0..2 * BLOCK {
        assert_eq!(lab.open(&flow(Protocol::Udp, host(1), 5000 + n, remote(1), 53)).address, POOL);
    }
}

#[test]
fn req_2_a_host_keeps_its_address_as_long_as_it_has_a_block() {
    let mut lab = Lab::new();
    let flow = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    let block = lab.give(flow.host, 2048);
    lab.open(&flow);
    lab.wait(mins(5) + TICK);
    assert_eq!(lab.count(), 0);
    let other = Block { address: remote(77), first_port: 2048, size: BLOCK, reserved: Vec::new() };
    assert_eq!(lab.nat.give_block(flow.host, &other, lab.now), Err(GiveError::OtherAddress(POOL)));
    lab.wait(mins(2) + TICK);
    assert!(lab.nat.take_back(block, lab.now).is_some());
    lab.nat.give_block(flow.host, &other, lab.now).unwrap();
    assert_eq!(lab.open(&flow).address, remote(77));
}

#[test]
fn req_3_a_port_is_never_used_for_two_hosts_or_ports_at_once() {
    for protocol in Protocol::ALL {
        let lab = Lab::with(|config| config.lease_prefix_len = 64);
        lab.give(host_of(1, 1), 2048);
        let mut ports = HashSet::new();
        for n in 0..BLOCK {
            // To different remotes, where a NAT that overloads would use a port twice.
            let flow = flow(protocol, host_of(1, n % 7), 5000 + n, remote(u8::try_from(n).unwrap()), 53);
            assert!(ports.insert(lab.open(&flow).port));
        }
        let next = flow(protocol, host_of(1, 1), 9000, remote(200), 53);
        assert_eq!(lab.out(&next, opener(protocol)), Err(Refused::NeedsBlock(PortClass::High)));
    }
}

fn with_low_ports(config: &mut NatConfig) {
    config.low_ports = true;
}

#[test]
fn req_3a_a_low_port_is_mapped_to_a_low_port_and_a_high_one_to_a_high_one() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let lab = Lab::with(with_low_ports);
        lab.give(host(1), 512);
        lab.give(host(1), 2048);
        for n in 0..BLOCK / 2 {
            assert!(lab.open(&flow(protocol, host(1), 1000 - n, remote(1), 53)).port < 1024);
            assert!(lab.open(&flow(protocol, host(1), 1024 + n, remote(1), 53)).port >= 1024);
        }
    }
}

#[test]
fn req_3a_a_low_port_asks_for_a_low_block_and_goes_without_where_there_is_none() {
    let lab = Lab::with(with_low_ports);
    lab.give(host(1), 2048);
    let low = flow(Protocol::Udp, host(1), 123, remote(1), 123);
    assert_eq!(lab.out(&low, Signal::None), Err(Refused::NeedsBlock(PortClass::Low)));
    assert_eq!(lab.out(&low, Signal::None), Err(Refused::NeedsBlock(PortClass::Low)));
    lab.nat.deny_low(low.host);
    assert!(lab.open(&low).port >= 2048);
    // Another host is none the wiser.
    let other = Outbound { host: host(2), ..low };
    lab.give(other.host, 4096);
    assert_eq!(lab.out(&other, Signal::None), Err(Refused::NeedsBlock(PortClass::Low)));
    lab.give(other.host, 512);
    assert!(lab.open(&other).port < 1024);
}

#[test]
fn req_3a_a_pool_without_low_ports_maps_a_low_port_to_a_high_one_at_once() {
    let lab = Lab::new();
    let low = flow(Protocol::Udp, host(1), 123, remote(1), 123);
    assert_eq!(lab.out(&low, Signal::None), Err(Refused::NeedsBlock(PortClass::High)));
    lab.give(low.host, 2048);
    assert!(lab.open(&low).port >= 2048);
}

#[test]
fn req_3a_an_icmp_identifier_is_no_port_and_has_no_class() {
    let lab = Lab::with(with_low_ports);
    lab.give(host(1), 512);
    lab.give(host(1), 2048);
    for identifier in [0, 1, 1023, 1024, 65_535] {
        let mapped = lab.open(&flow(Protocol::Icmp, host(1), identifier, remote(1), 0));
        assert!(mapped.port >= 2048);
        assert_eq!(mapped.port % 2, identifier % 2);
    }
}

#[test]
fn req_3a_a_high_port_never_takes_a_low_one() {
    let lab = Lab::with(with_low_ports);
    lab.give(host(1), 512);
    let high = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    assert_eq!(lab.out(&high, Signal::None), Err(Refused::NeedsBlock(PortClass::High)));
}

#[test]
fn req_4_a_port_keeps_its_parity_while_there_is_a_port_of_it() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let lab = Lab::with(with_low_ports);
        lab.give(host(1), 512);
        lab.give(host(1), 2048);
        for n in 0..BLOCK / 2 {
            for from in [5000 + 2 * n, 5001 + 2 * n, 700 + 2 * n, 701 + 2 * n] {
                let port = lab.open(&flow(protocol, host(1), from, remote(1), 53)).port;
                assert_eq!(port % 2, from % 2, "{protocol} {from}");
                assert_eq!(port < 1024, from < 1024, "{protocol} {from}");
            }
        }
    }
}

#[test]
fn req_4_a_port_of_the_other_parity_is_better_than_none() {
    let lab = Lab::new();
    lab.give(host(1), 2048);
    let odd =
        (0..BLOCK).map(|n| lab.open(&flow(Protocol::Udp, host(1), 5001 + 2 * n, remote(1), 53)).port % 2);
    let odd: Vec<_> = odd.collect();
    assert_eq!(odd[..32], [1; 32]);
    assert_eq!(odd[32..], [0; 32]);
}

#[test]
fn req_5_a_mapping_lasts_five_minutes_without_traffic() {
    let mut lab = Lab::new();
    let flow = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    lab.give(flow.host, 2048);
    let mapped = lab.open(&flow);
    let answers = answer(&flow, &mapped);
    lab.ends_after(mins(5), "the mapping", |lab| lab.nat.find_inbound(&answers).is_some());
    assert_eq!(lab.nat.usage().bindings, 0);
}

#[test]
fn req_5_well_known_remote_ports_have_no_shorter_timer() {
    for remote_port in [53, 123, 443] {
        let mut lab = Lab::new();
        let flow = flow(Protocol::Udp, host(1), 5000, remote(1), remote_port);
        lab.give(flow.host, 2048);
        lab.open(&flow);
        lab.ends_after(mins(5), "the mapping", |lab| lab.state(&flow).is_some());
    }
}

#[test]
fn req_6_packets_of_the_host_refresh_a_mapping() {
    for (protocol, timer) in [(Protocol::Udp, mins(5)), (Protocol::Icmp, secs(60))] {
        let mut lab = Lab::new();
        let flow = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(flow.host, 2048);
        let mapped = lab.open(&flow);
        for _ in 0..10 {
            lab.wait(timer);
            assert_eq!(lab.out(&flow, Signal::None).unwrap().port, mapped.port);
        }
        lab.ends_after(timer, "the mapping", |lab| lab.state(&flow).is_some());
    }
}

#[test]
fn req_6_answers_refresh_a_session_that_the_host_has_a_part_in() {
    for (protocol, timer) in [(Protocol::Udp, mins(5)), (Protocol::Icmp, secs(60))] {
        let mut lab = Lab::new();
        let flow = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(flow.host, 2048);
        let mapped = lab.open(&flow);
        for _ in 0..10 {
            lab.wait(timer);
            lab.back(&answer(&flow, &mapped), Signal::None).unwrap();
        }
        lab.ends_after(timer, "the mapping", |lab| lab.state(&flow).is_some());
    }
}

#[test]
fn req_8_endpoint_independent_filtering_lets_anybody_in() {
    assert_eq!(NatConfig::default().filtering, Filtering::EndpointIndependent);
    for protocol in Protocol::ALL {
        let lab = Lab::new();
        let first = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(first.host, 2048);
        let mapped = lab.open(&first);
        for n in 2..100 {
            let stranger = Inbound { remote: remote(n), ..answer(&first, &mapped) };
            let reached = lab.back(&stranger, opener(protocol)).unwrap();
            assert_eq!((reached.host, reached.port, reached.created), (first.host, first.port, true));
            assert!(!lab.back(&stranger, opener(protocol)).unwrap().created);
        }
    }
}

#[test]
fn req_8_address_dependent_filtering_lets_in_whom_the_host_has_sent_to_from_any_port() {
    for protocol in [Protocol::Udp, Protocol::Icmp] {
        let mut lab = Lab::address_dependent();
        let first = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(first.host, 2048);
        let mapped = lab.open(&first);
        let answers = answer(&first, &mapped);
        let stranger = Inbound { remote: remote(2), ..answers };
        let before = lab.snapshot();
        assert_eq!(lab.back(&stranger, Signal::None), Err(Refused::Filtered));
        assert_eq!(lab.snapshot(), before, "a filtered packet changes nothing");
        lab.back(&answers, Signal::None).unwrap();
        if protocol == Protocol::Udp {
            assert!(lab.back(&Inbound { remote_port: 54, ..answers }, Signal::None).unwrap().created);
        }
        // The host sends to the stranger: it is none any more, and is one again when that session is over.
        let second = Outbound { remote: remote(2), ..first };
        lab.open(&second);
        lab.back(&stranger, Signal::None).unwrap();
        let timer = if protocol == Protocol::Udp { mins(5) } else { secs(60) };
        lab.wait(timer / 2);
        lab.out(&first, Signal::None).unwrap();
        lab.wait(timer / 2 + TICK);
        assert_eq!(lab.back(&stranger, Signal::None), Err(Refused::Filtered));
        lab.back(&answers, Signal::None).unwrap();
    }
}

#[test]
fn req_8_what_the_host_sent_to_from_another_port_lets_nobody_in() {
    let lab = Lab::address_dependent();
    lab.give(host(1), 2048);
    let first = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    let second = flow(Protocol::Udp, host(1), 5001, remote(2), 53);
    let mapped = lab.open(&first);
    lab.open(&second);
    let wrong = Inbound { remote: remote(2), ..answer(&first, &mapped) };
    assert_eq!(lab.back(&wrong, Signal::None), Err(Refused::Filtered));
}

#[test]
fn req_8_an_address_is_let_in_until_the_last_session_with_it_has_ended() {
    let mut lab = Lab::address_dependent();
    let first = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    lab.give(first.host, 2048);
    let mapped = lab.open(&first);
    lab.open(&Outbound { remote: remote(9), ..first });
    lab.wait(mins(2));
    let second = Outbound { remote_port: 54, ..first };
    lab.open(&second);
    lab.wait(mins(3) + TICK);
    assert_eq!((lab.state(&first).is_some(), lab.state(&second).is_some()), (false, true));
    let another = Inbound { remote_port: 55, ..answer(&first, &mapped) };
    assert!(lab.back(&another, Signal::None).unwrap().created);
}

#[test]
fn req_8_nobody_keeps_itself_let_in_by_sessions_that_it_has_opened_itself() {
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let mut lab = Lab::address_dependent();
        let first = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(first.host, 2048);
        let (mapped, _) = lab.establish(&first);
        let to_other = Outbound { remote: remote(2), ..first };
        lab.open(&to_other);
        let from_other = |n: u16| Inbound { remote_port: 1000 + n, ..answer(&to_other, &mapped) };
        // The host has sent to it once, and talks to somebody else since.
        for n in 0..20 {
            let _ = lab.back(&from_other(n), opener(protocol));
            lab.wait(mins(1));
            lab.out(&first, Signal::None).unwrap();
        }
        let refused = lab.back(&from_other(99), opener(protocol));
        assert!(matches!(refused, Err(Refused::Filtered | Refused::Stored)), "{protocol}: {refused:?}");
    }
}

#[test]
fn req_9_two_hosts_behind_the_nat_reach_each_other_by_their_outside_addresses_and_ports() {
    for protocol in Protocol::ALL {
        let lab = Lab::new();
        let (a, b) = (host(1), host(2));
        lab.give(a, 2048);
        lab.give(b, 4096);
        // Each has told a server where it is.
        let of_a = lab.open(&flow(protocol, a, 5000, remote(1), 53));
        let of_b = lab.open(&flow(protocol, b, 6000, remote(1), 53));

        // From A to B's outside address and port, and back. The source is A's outside address and port (REQ-9a).
        let there = Outbound { remote_port: of_b.port, ..flow(protocol, a, 5000, of_b.address, 0) };
        let there = if protocol == Protocol::Icmp { Outbound { remote_port: 0, ..there } } else { there };
        let left = lab.out(&there, opener(protocol)).unwrap();
        assert_eq!((left.address, left.port), (of_a.address, of_a.port));
        let hop = |from: &fast_nat::nat64::Mapped, to: &fast_nat::nat64::Mapped| Inbound {
            protocol,
            address: to.address,
            port: to.port,
            remote: from.address,
            remote_port: if protocol == Protocol::Icmp { 0 } else { from.port },
        };
        let reached = lab.back(&hop(&left, &of_b), opener(protocol)).unwrap();
        assert_eq!((reached.host, reached.port), (b, 6000));

        let home = flow(protocol, b, 6000, left.address, left.port);
        let returned = lab.out(&home, opener(protocol)).unwrap();
        assert_eq!((returned.address, returned.port, returned.created), (of_b.address, of_b.port, false));
        let reached = lab.back(&hop(&returned, &of_a), opener(protocol)).unwrap();
        assert_eq!((reached.host, reached.port, reached.created), (a, 5000, false));
        for flow in [there, home] {
            assert_eq!(lab.state(&flow), Some(SessionState::Established), "{protocol}");
        }
    }
}

#[test]
fn req_11_mapping_and_filtering_stay_the_same_when_everything_is_full() {
    let lab = Lab::with(|config| {
        config.filtering = Filtering::AddressDependent;
        config.max_sessions = 64;
        config.max_stored_syns = 0;
    });
    let first = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    lab.give(first.host, 2048);
    let mapped = lab.open(&first);
    for n in 1..64 {
        lab.open(&flow(Protocol::Udp, host(1), 5000 + n, remote(1), 53));
    }
    let before = lab.snapshot();
    let other = Outbound { remote: remote(2), ..first };
    assert_eq!(lab.out(&other, Signal::None), Err(Refused::TableFull));
    let stranger = Inbound { remote: remote(2), ..answer(&first, &mapped) };
    assert_eq!(lab.back(&stranger, Signal::None), Err(Refused::Filtered));
    assert_eq!(lab.snapshot(), before);
    assert_eq!(lab.out(&first, Signal::None).unwrap().port, mapped.port);
    lab.back(&answer(&first, &mapped), Signal::None).unwrap();
}

#[test]
fn req_12_the_session_of_a_packet_inside_an_error_is_found_and_stays_as_it_is() {
    let mut lab = Lab::new();
    let flow = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    lab.give(flow.host, 2048);
    let mapped = lab.open(&flow);
    lab.wait(mins(4));
    let before = lab.snapshot();
    let found = lab.nat.find_inbound(&answer(&flow, &mapped)).unwrap();
    assert_eq!((found.host, found.port, found.session), (flow.host, flow.port, mapped.session));
    assert_eq!(lab.snapshot(), before);
    lab.ends_after(mins(1), "the mapping", |lab| lab.state(&flow).is_some());
}
