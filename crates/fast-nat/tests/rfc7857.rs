//! RFC 7857, updates of RFC 4787, 5382 and 5508.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[allow(dead_code, reason = "each test program needs other parts of it")]
mod common;

use common::{BLOCK, Lab, POOL, TICK, answer, flow, host, mins, opener, remote, secs};
use fast_nat::nat64::{Inbound, Outbound, PortClass, Protocol, Refused, SessionState, Signal};

fn tcp() -> Outbound {
    flow(Protocol::Tcp, host(1), 5000, remote(1), 80)
}

#[test]
fn section_2_2_a_rst_is_forwarded_and_the_session_waits_four_minutes() {
    for state in [SessionState::Established, SessionState::V4FinRcv, SessionState::V6FinRcv] {
        for host_resets in [true, false] {
            let mut lab = Lab::new();
            lab.give(host(1), 2048);
            let (_, answers) = lab.establish(&tcp());
            match state {
                SessionState::V4FinRcv => drop(lab.back(&answers, Signal::Fin).unwrap()),
                SessionState::V6FinRcv => drop(lab.out(&tcp(), Signal::Fin).unwrap()),
                _ => {}
            }
            assert_eq!(lab.state(&tcp()), Some(state));
            lab.wait(mins(30));
            if host_resets {
                lab.out(&tcp(), Signal::Rst).unwrap();
            } else {
                lab.back(&answers, Signal::Rst).unwrap();
            }
            lab.ends_after(mins(4), "the session", |lab| lab.state(&tcp()) == Some(SessionState::Trans));
            assert_eq!(lab.count(), 0);
        }
    }
}

#[test]
fn section_2_2_a_forged_rst_does_not_end_a_connection_that_goes_on() {
    let mut lab = Lab::new();
    lab.give(host(1), 2048);
    let (_, answers) = lab.establish(&tcp());
    for _ in 0..10 {
        lab.back(&answers, Signal::Rst).unwrap();
        lab.wait(mins(4));
        lab.out(&tcp(), Signal::None).unwrap();
        assert_eq!(lab.state(&tcp()), Some(SessionState::Established));
        lab.wait(mins(30));
    }
}

#[test]
fn section_4_a_host_whose_ports_are_out_gets_none_of_another_address() {
    let lab = Lab::new();
    lab.give(host(1), 2048);
    for n in 0..BLOCK {
        lab.open(&Outbound { port: 5000 + n, ..tcp() });
    }
    let next = Outbound { port: 9000, ..tcp() };
    assert_eq!(lab.out(&next, Signal::Syn), Err(Refused::NeedsBlock(PortClass::High)));
    let elsewhere =
        fast_nat::nat64::Block { address: remote(77), first_port: 2048, size: BLOCK, reserved: Vec::new() };
    lab.nat.give_block(host(1), &elsewhere, lab.now).unwrap_err();
    assert_eq!(lab.out(&next, Signal::Syn), Err(Refused::NeedsBlock(PortClass::High)));
}

#[test]
fn section_5_and_6_mapping_and_filtering_are_each_protocols_own() {
    for mapped_protocol in Protocol::ALL {
        let lab = Lab::new();
        lab.give_ports(host(1), 2048, 1);
        let mapped = lab.open(&flow(mapped_protocol, host(1), 5000, remote(1), 53));
        for other in Protocol::ALL.into_iter().filter(|other| *other != mapped_protocol) {
            let there = flow(other, host(1), 5000, remote(1), 53);
            assert_eq!(lab.nat.find_outbound(&there), None);
            let refused = lab.back(&answer(&there, &mapped), Signal::None);
            assert!(matches!(refused, Err(Refused::NoBinding | Refused::NoSession)), "{refused:?}");
        }
    }
}

/// A stranger's packets, one a minute, under another remote port each time.
fn stranger(of: &Inbound, n: u16) -> Inbound {
    Inbound {
        remote: remote(66),
        remote_port: if of.protocol == Protocol::Icmp { 0 } else { 1000 + n },
        ..*of
    }
}

#[test]
fn section_7_an_outsider_cannot_keep_a_mapping_alive() {
    for protocol in Protocol::ALL {
        for same_port in [true, false] {
            let mut lab = Lab::new();
            let flow = flow(protocol, host(1), 5000, remote(1), 53);
            lab.give(flow.host, 2048);
            let mapped = lab.open(&flow);
            let timer = match protocol {
                Protocol::Tcp => mins(4),
                Protocol::Udp => mins(5),
                Protocol::Icmp => secs(60),
            };
            let began = lab.now;
            let mut n = 0;
            while lab.nat.usage().bindings > 0 {
                let from = stranger(&answer(&flow, &mapped), if same_port { 0 } else { n });
                let _ = lab.back(&from, opener(protocol));
                lab.wait(secs(10));
                n += 1;
                // What it opened while the host took part lasts once more, and no longer.
                assert!(lab.now.since(began) <= 2 * timer + secs(10), "{protocol}, {n} packets");
            }
            assert!(lab.now.since(began) > timer);
        }
    }
}

#[test]
fn section_7_a_session_that_an_outsider_opened_is_refreshed_by_nobody_but_the_host() {
    for (protocol, timer) in [(Protocol::Udp, mins(5)), (Protocol::Icmp, secs(60))] {
        let mut lab = Lab::new();
        let flow = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(flow.host, 2048);
        let mapped = lab.open(&flow);
        let from = stranger(&answer(&flow, &mapped), 0);
        lab.back(&from, Signal::None).unwrap();
        let theirs = Outbound { remote: from.remote, remote_port: from.remote_port, ..flow };
        let mut lab_of = |answered: bool| {
            lab.wait(timer / 2);
            lab.out(&flow, Signal::None).unwrap();
            lab.back(&from, Signal::None).unwrap();
            if answered {
                lab.out(&theirs, Signal::None).unwrap();
                lab.back(&from, Signal::None).unwrap();
            }
            lab.wait(timer / 2 + TICK);
            let there = lab.state(&theirs).is_some();
            lab.out(&flow, Signal::None).unwrap();
            there
        };
        assert!(!lab_of(false), "{protocol}");
        lab.back(&from, Signal::None).unwrap();
        let mut answer_it = || {
            lab.out(&theirs, Signal::None).unwrap();
            for _ in 0..5 {
                lab.wait(timer);
                lab.out(&flow, Signal::None).unwrap();
                lab.back(&from, Signal::None).unwrap();
            }
            lab.state(&theirs)
        };
        assert_eq!(answer_it(), Some(SessionState::Established), "{protocol}");
    }
}

#[test]
fn section_7_when_nobody_inside_takes_part_any_more_strangers_find_no_binding() {
    let mut lab = Lab::new();
    let first = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    lab.give(first.host, 2048);
    let mapped = lab.open(&first);
    lab.wait(mins(4));
    lab.back(&stranger(&answer(&first, &mapped), 0), Signal::None).unwrap();
    lab.wait(mins(1) + TICK);
    assert_eq!((lab.state(&first), lab.count()), (None, 1));
    // The session that is there still reaches the host; a new one does not begin.
    lab.back(&stranger(&answer(&first, &mapped), 0), Signal::None).unwrap();
    let refused = lab.back(&stranger(&answer(&first, &mapped), 1), Signal::None);
    assert_eq!(refused, Err(Refused::NoBinding));
    // The host sends again: the binding is the same one, and open to all.
    assert_eq!(lab.open(&first).port, mapped.port);
    lab.back(&stranger(&answer(&first, &mapped), 1), Signal::None).unwrap();
}

#[test]
fn section_7_1_a_rst_of_the_host_in_answer_to_an_outsider_keeps_no_mapping_alive() {
    let mut lab = Lab::new();
    lab.give(host(1), 2048);
    let mapped = lab.open(&tcp());
    let began = lab.now;
    let mut n = 0;
    while lab.nat.usage().bindings > 0 {
        let from = stranger(&answer(&tcp(), &mapped), n);
        if lab.back(&from, Signal::Syn).is_ok() {
            // What a host's stack does to a SYN that nobody listens for.
            let theirs = Outbound { remote: from.remote, remote_port: from.remote_port, ..tcp() };
            lab.out(&theirs, Signal::Rst).unwrap();
        }
        lab.wait(secs(10));
        n += 1;
        assert!(lab.now.since(began) <= 2 * mins(4) + secs(10), "{n} SYNs");
    }
}

#[test]
fn section_7_1_a_rst_of_the_host_does_not_refresh_what_is_opening() {
    let mut lab = Lab::new();
    lab.give(host(1), 2048);
    let (mapped, _) = lab.establish(&tcp());
    let theirs = Outbound { remote: remote(2), ..tcp() };
    lab.back(&answer(&theirs, &mapped), Signal::Syn).unwrap();
    lab.wait(mins(2));
    lab.out(&theirs, Signal::Rst).unwrap();
    lab.ends_after(mins(2), "the session", |lab| lab.state(&theirs) == Some(SessionState::V4Init));
}

#[test]
fn section_9_a_port_is_random_among_those_of_its_parity_whatever_the_size_of_the_block() {
    for size in [16, 32, 64, 128, 256] {
        let mut lab = Lab::with(|config| {
            config.timers.tcp_port_rest = secs(0);
            config.timers.port_rest = secs(0);
            config.timers.block_idle = secs(0);
        });
        let mut counts = vec![0; usize::from(size)];
        let draws = size / 2 * 40;
        for n in 0..draws {
            // A host of its own each time: its first connection.
            let block =
                fast_nat::nat64::Block { address: POOL, first_port: 4096, size, reserved: Vec::new() };
            let host = host(n);
            let given = lab.nat.give_block(host, &block, lab.now).unwrap();
            let mapped = lab.open(&Outbound { host, port: 5001, ..tcp() });
            counts[usize::from(mapped.port - 4096)] += 1;
            assert!(lab.nat.end_session(mapped.session.unwrap(), lab.now));
            lab.pass(TICK);
            assert!(lab.nat.take_back(given, lab.now).is_some());
        }
        for (place, count) in counts.iter().enumerate() {
            // 40 on average, with a deviation of 6.3.
            let expected = if place % 2 == 1 { 5..=110 } else { 0..=0 };
            assert!(expected.contains(count), "port {place} of {size} came {count} times in {draws}");
        }
    }
}

#[test]
fn section_11_an_icmp_mapping_ends_with_its_last_session() {
    let mut lab = Lab::new();
    let first = flow(Protocol::Icmp, host(1), 5000, remote(1), 0);
    lab.give(first.host, 2048);
    lab.open(&first);
    lab.wait(secs(30));
    lab.open(&Outbound { remote: remote(2), ..first });
    lab.wait(secs(30) + TICK);
    assert_eq!((lab.count(), lab.nat.usage().bindings), (1, 1));
    lab.wait(secs(30));
    assert_eq!((lab.count(), lab.nat.usage().bindings), (0, 0));
}
