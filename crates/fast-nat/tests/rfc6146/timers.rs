//! §4: every timer, to the tick: never early, and at most one tick late.

use std::time::Duration;

use fast_nat::nat64::{
    NatConfig, Outbound, Output, PortClass, Protocol, Refused, SessionState, Signal, Timers,
};

use crate::common::{Lab, POOL, TICK, answer, flow, host, mins, opener, remote, secs};

/// A timer, and how to set it.
type Set = fn(&mut Timers) -> &mut Duration;

const TIMERS: [(&str, Set); 8] = [
    ("tcp_established", |timers| &mut timers.tcp_established),
    ("tcp_transitory", |timers| &mut timers.tcp_transitory),
    ("tcp_incoming_syn", |timers| &mut timers.tcp_incoming_syn),
    ("udp", |timers| &mut timers.udp),
    ("icmp", |timers| &mut timers.icmp),
    ("port_rest", |timers| &mut timers.port_rest),
    ("tcp_port_rest", |timers| &mut timers.tcp_port_rest),
    ("block_idle", |timers| &mut timers.block_idle),
];

/// The defaults in the order of [`TIMERS`].
const DEFAULTS: [Duration; 8] =
    [mins(124), mins(4), secs(6), mins(5), secs(60), secs(120), secs(120), secs(120)];

#[test]
fn the_timers_are_those_of_the_rfcs_by_default() {
    let mut timers = NatConfig::default().timers;
    for ((name, timer), expected) in TIMERS.iter().zip(DEFAULTS) {
        assert_eq!(*timer(&mut timers), expected, "{name}");
    }
}

/// What one timer of an engine is about: made, it stands in front of its end.
fn under(name: &str, lab: &mut Lab) -> Box<dyn Fn(&Lab) -> bool> {
    let tcp = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
    match name {
        "tcp_established" => {
            lab.give(tcp.host, 2048);
            lab.establish(&tcp);
            Box::new(move |lab| lab.state(&tcp) == Some(SessionState::Established))
        }
        "tcp_transitory" => {
            lab.give(tcp.host, 2048);
            lab.open(&tcp);
            Box::new(move |lab| lab.state(&tcp).is_some())
        }
        "tcp_incoming_syn" => {
            let syn = answer(
                &tcp,
                &fast_nat::nat64::Mapped {
                    address: POOL,
                    port: 2048,
                    session: None,
                    created: false,
                    wants_block: None,
                },
            );
            assert_eq!(lab.back(&syn, Signal::Syn), Err(Refused::Stored));
            Box::new(|lab| {
                let waits = lab.nat.usage().stored_syns == 1;
                assert_eq!(lab.outputs().len(), usize::from(!waits), "an error when it is over, not before");
                waits
            })
        }
        "udp" | "icmp" => {
            let protocol = if name == "udp" { Protocol::Udp } else { Protocol::Icmp };
            let flow = Outbound { protocol, ..tcp };
            let flow = if name == "icmp" { Outbound { remote_port: 0, ..flow } } else { flow };
            lab.give(flow.host, 2048);
            lab.open(&flow);
            Box::new(move |lab| lab.state(&flow).is_some())
        }
        "port_rest" => rests(lab, Protocol::Udp),
        "tcp_port_rest" => rests(lab, Protocol::Tcp),
        "block_idle" => {
            let block = lab.give(tcp.host, 2048);
            Box::new(move |lab| {
                let idle = lab.nat.idle_blocks(lab.now, 10);
                let stays = idle.is_empty();
                assert!(stays || idle == [block]);
                assert_eq!(lab.nat.take_back(block, lab.now).is_none(), stays);
                stays
            })
        }
        _ => unreachable!("no such timer"),
    }
}

/// A host with one port, which has just become free.
fn rests(lab: &mut Lab, protocol: Protocol) -> Box<dyn Fn(&Lab) -> bool> {
    let flow = flow(protocol, host(1), 5000, remote(1), 80);
    lab.give_ports(flow.host, 2048, 1);
    lab.open(&flow);
    for _ in 0..100_000 {
        if lab.count() == 0 {
            break;
        }
        lab.wait(TICK);
    }
    // Asked for by another port each time: what is refused leaves nothing behind.
    Box::new(move |lab| {
        let other = Outbound { port: 6001, ..flow };
        match lab.out(&other, opener(protocol)) {
            Ok(_) => false,
            Err(refused) => {
                assert_eq!(refused, Refused::NeedsBlock(PortClass::High));
                true
            }
        }
    })
}

#[test]
fn no_timer_is_early_and_none_is_more_than_a_tick_late() {
    for ((name, _), default) in TIMERS.iter().zip(DEFAULTS) {
        // Wherever in a tick it begins.
        for offset in [0, 1, 59, 60, 99] {
            let mut lab = Lab::new();
            lab.pass(Duration::from_millis(offset));
            let is_there = under(name, &mut lab);
            lab.ends_after(default, &format!("{name} + {offset} ms"), is_there);
        }
    }
}

#[test]
fn every_timer_can_be_set_and_sets_nothing_else() {
    for (changed, set) in TIMERS {
        for ((name, _), default) in TIMERS.iter().zip(DEFAULTS) {
            if *name == "block_idle" && changed.ends_with("port_rest") {
                continue; // A block stays until its ports have rested.
            }
            let mut lab = Lab::with(|config| *set(&mut config.timers) = secs(777));
            let expected = if *name == changed { secs(777) } else { default };
            let is_there = under(name, &mut lab);
            lab.ends_after(expected, &format!("{name}, when {changed} is set"), is_there);
        }
    }
}

#[test]
fn a_timer_that_is_no_whole_number_of_ticks_is_rounded_up() {
    for (millis, ticks) in [(1, 1), (100, 1), (101, 2), (1250, 13), (1300, 13)] {
        let mut lab = Lab::with(|config| config.timers.udp = Duration::from_millis(millis));
        let flow = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
        lab.give(flow.host, 2048);
        lab.open(&flow);
        lab.wait(ticks * TICK);
        assert_eq!(lab.count(), 1, "{millis} ms");
        lab.wait(TICK);
        assert_eq!(lab.count(), 0, "{millis} ms");
    }
}

#[test]
fn every_packet_that_refreshes_starts_its_timer_from_zero() {
    for (protocol, timer) in
        [(Protocol::Udp, mins(5)), (Protocol::Icmp, secs(60)), (Protocol::Tcp, mins(124))]
    {
        let mut lab = Lab::new();
        let flow = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(flow.host, 2048);
        let (_, answers) = lab.establish(&flow);
        for turn in 0..20 {
            // At its last tick, and in between.
            lab.wait(if turn % 3 == 0 { timer } else { timer / 7 });
            if turn % 2 == 0 {
                assert!(!lab.out(&flow, Signal::None).unwrap().created, "{protocol}, turn {turn}");
            } else {
                assert!(!lab.back(&answers, Signal::None).unwrap().created, "{protocol}, turn {turn}");
            }
        }
        lab.ends_after(timer, protocol.as_str(), |lab| lab.state(&flow) == Some(SessionState::Established));
    }
}

#[test]
fn what_is_over_lives_until_expire_has_seen_it_and_is_refreshed_until_then() {
    let mut lab = Lab::new();
    let flow = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    lab.give(flow.host, 2048);
    let mapped = lab.open(&flow);
    lab.pass(mins(60));
    let again = lab.out(&flow, Signal::None).unwrap();
    assert_eq!((again.port, again.session, again.created), (mapped.port, mapped.session, false));
    lab.ends_after(mins(5), "the session", |lab| lab.state(&flow).is_some());
}

#[test]
fn a_small_budget_ends_in_many_calls_what_a_large_one_ends_in_one() {
    let mut lab = Lab::with(|config| config.quota.burst = 1_000_000);
    let flows: Vec<_> = (0..500).map(|n| flow(Protocol::Udp, host(1), 5000 + n, remote(1), 53)).collect();
    lab.give_ports(host(1), 4096, 512);
    for flow in &flows {
        lab.open(flow);
    }
    lab.pass(mins(5) + TICK);
    let mut calls = 0;
    let mut left = lab.count();
    while lab.nat.expire(lab.now, 10) {
        let now = lab.count();
        assert!(left - now <= 10, "{} ended in one call", left - now);
        left = now;
        calls += 1;
        assert!(calls < 10_000);
    }
    assert!(calls >= 49, "{calls} calls");
    assert_eq!(lab.count(), 0);
}

#[test]
fn time_that_stands_still_or_goes_back_ends_nothing() {
    let mut lab = Lab::new();
    let flow = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    lab.give(flow.host, 2048);
    lab.open(&flow);
    let now = lab.now;
    for millis in [0, 500_000, 999_000] {
        lab.now = fast_nat::Timestamp::from_millis(millis);
        lab.expire();
        assert_eq!(lab.count(), 1);
    }
    lab.now = now;
    lab.ends_after(mins(5), "the session", |lab| lab.state(&flow).is_some());
}

#[test]
fn a_jump_of_years_ends_everything_and_the_engine_goes_on() {
    let mut lab = Lab::new();
    let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
    lab.give(flow.host, 2048);
    lab.establish(&flow);
    lab.wait(Duration::from_hours(24 * 365));
    assert_eq!(lab.state(&flow), Some(SessionState::Trans));
    assert_eq!(lab.outputs(), [Output::Probe(flow)]);
    lab.wait(Duration::from_hours(24 * 365));
    assert_eq!(lab.count(), 0);
    lab.wait(mins(10));
    lab.establish(&flow);
    lab.ends_after(mins(124), "the new one", |lab| lab.state(&flow) == Some(SessionState::Established));
}
