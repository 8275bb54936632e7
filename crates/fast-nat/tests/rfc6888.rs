//! RFC 6888, what a carrier-grade NAT has to do: limits, port blocks, and that nobody pays for what another one does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[allow(dead_code, reason = "each test program needs other parts of it")]
mod common;

use std::collections::{BTreeMap, HashSet};

use common::{BLOCK, Lab, POOL, TICK, answer, flow, host, host_of, mins, opener, remote, secs};
use fast_nat::nat64::{
    Block, Filtering, GiveError, Inbound, NatConfig, NatUsage, Outbound, PortClass, Protocol, Refused,
    SessionState, SessionView, Signal, StaticBinding, StaticError,
};
use fast_nat::{BlockPool, BlockPoolConfig, BlockRefusal, Granted, PortNet};

fn udp(host: std::net::Ipv6Addr, port: u16) -> Outbound {
    flow(Protocol::Udp, host, port, remote(1), 53)
}

/// Every flow of `before` is still what it was, and passes both ways with its mapping.
fn untouched(lab: &Lab, before: &[SessionView]) {
    assert_eq!(lab.snapshot(), before);
    for view in before {
        let mapped = lab.out(&view.outbound, Signal::None).unwrap();
        assert_eq!((mapped.address, mapped.port), (view.inbound.address, view.inbound.port));
        assert_eq!(mapped.session, Some(view.reference));
        let reached = lab.back(&view.inbound, Signal::None).unwrap();
        assert_eq!((reached.host, reached.port), (view.outbound.host, view.outbound.port));
    }
}

#[test]
fn req_2_hosts_that_share_blocks_share_one_address() {
    let lab = Lab::with(|config| config.lease_prefix_len = 64);
    lab.give(host_of(1, 1), 2048);
    for n in 1..=16 {
        assert_eq!(lab.open(&udp(host_of(1, n), 5000)).address, POOL);
    }
    let other = Block { address: remote(77), first_port: 2048, size: BLOCK, reserved: Vec::new() };
    let refused = lab.nat.give_block(host_of(1, 9), &other, lab.now);
    assert_eq!(refused, Err(GiveError::OtherAddress(POOL)));
}

#[test]
fn req_4_a_subscriber_has_no_more_ports_than_its_blocks() {
    let lab = Lab::new();
    lab.give_ports(host(1), 2048, 16);
    lab.give_ports(host(2), 4096, 16);
    for protocol in Protocol::ALL {
        for n in 0..16 {
            lab.open(&flow(protocol, host(1), 5000 + n, remote(1), 53));
        }
        let next = flow(protocol, host(1), 6000, remote(1), 53);
        assert_eq!(lab.out(&next, opener(protocol)), Err(Refused::NeedsBlock(PortClass::High)));
        lab.open(&Outbound { host: host(2), ..next });
    }
}

#[test]
fn req_4c_a_subscriber_opens_no_more_than_its_burst_at_once_and_then_its_rate() {
    let mut lab = Lab::with(|config| {
        config.quota.new_sessions_per_second = 5;
        config.quota.burst = 10;
    });
    lab.give(host(1), 2048);
    lab.give(host(2), 4096);
    let mut opened = 0;
    let mut open = |lab: &Lab| {
        let flow = udp(host(1), 5000 + opened);
        let result = lab.out(&flow, Signal::None);
        opened += u16::from(result.is_ok());
        result.map(|_| ())
    };
    for _ in 0..10 {
        open(&lab).unwrap();
    }
    for _ in 0..5 {
        assert_eq!(open(&lab), Err(Refused::RateQuota), "what is refused costs nothing");
    }
    lab.pass(TICK);
    assert_eq!(open(&lab), Err(Refused::RateQuota), "half a session");
    lab.pass(TICK);
    open(&lab).unwrap();
    assert_eq!(open(&lab), Err(Refused::RateQuota));
    lab.pass(secs(1));
    for _ in 0..5 {
        open(&lab).unwrap();
    }
    assert_eq!(open(&lab), Err(Refused::RateQuota));
    // Somebody else is not concerned.
    lab.open(&udp(host(2), 5000));
    // It saves no more than its burst.
    lab.pass(mins(4));
    for _ in 0..10 {
        open(&lab).unwrap();
    }
    assert_eq!(open(&lab), Err(Refused::RateQuota));
}

#[test]
fn req_4c_the_rate_is_the_subscribers_whichever_of_its_hosts_asks() {
    let lab = Lab::with(|config| {
        config.quota.new_sessions_per_second = 1;
        config.quota.burst = 6;
    });
    for n in 1..=4 {
        lab.give(host_of(1, n), 2048 + n * BLOCK);
    }
    for n in 1..=3 {
        lab.open(&udp(host_of(1, n), 5000));
        lab.open(&udp(host_of(1, n), 5001));
    }
    assert_eq!(lab.out(&udp(host_of(1, 4), 5000), Signal::None), Err(Refused::RateQuota));
}

#[test]
fn req_4c_packets_of_sessions_that_are_there_cost_nothing() {
    let lab = Lab::with(|config| {
        config.quota.new_sessions_per_second = 1;
        config.quota.burst = 2;
    });
    lab.give(host(1), 2048);
    lab.open(&udp(host(1), 5000));
    for _ in 0..100 {
        lab.out(&udp(host(1), 5000), Signal::None).unwrap();
    }
    lab.open(&udp(host(1), 5001));
    // Nor does a packet that fails for want of a port.
    let lab = Lab::with(|config| {
        config.quota.new_sessions_per_second = 1;
        config.quota.burst = 1;
    });
    for _ in 0..3 {
        assert_eq!(lab.out(&udp(host(1), 5000), Signal::None), Err(Refused::NeedsBlock(PortClass::High)));
    }
    lab.give(host(1), 2048);
    lab.open(&udp(host(1), 5000));
    assert_eq!(lab.out(&udp(host(1), 5001), Signal::None), Err(Refused::RateQuota));
}

#[test]
fn req_5_a_subscriber_has_no_more_sessions_than_its_quota_and_all_its_hosts_share_it() {
    let mut lab = Lab::with(|config| config.quota.sessions = 12);
    for n in 1..=3 {
        lab.give(host_of(1, n), 2048 + n * BLOCK);
        for port in 0..4 {
            lab.open(&udp(host_of(1, n), 5000 + port));
        }
    }
    lab.give(host(2), 8192);
    let before = lab.snapshot();
    for n in 1..=3 {
        // With a binding and without one.
        let another = Outbound { remote: remote(2), ..udp(host_of(1, n), 5000) };
        assert_eq!(lab.out(&another, Signal::None), Err(Refused::SessionQuota));
        assert_eq!(lab.out(&udp(host_of(1, n), 6000), Signal::None), Err(Refused::SessionQuota));
    }
    untouched(&lab, &before);
    lab.open(&udp(host(2), 5000));
    // It heals by as much as has ended.
    lab.wait(mins(3));
    for port in 0..3 {
        lab.out(&udp(host_of(1, 1), 5000 + port), Signal::None).unwrap();
    }
    lab.wait(mins(2) + TICK);
    for n in 0..9 {
        lab.open(&Outbound { remote: remote(3 + n), ..udp(host_of(1, 1), 5000) });
    }
    let one_more = Outbound { remote: remote(99), ..udp(host_of(1, 1), 5000) };
    assert_eq!(lab.out(&one_more, Signal::None), Err(Refused::SessionQuota));
}

#[test]
fn req_4_and_5_what_strangers_open_is_counted_apart_and_takes_nothing_from_the_subscriber() {
    for (name, limit, expected) in [
        ("sessions", (|config| config.quota.sessions = 10) as fn(&mut NatConfig), Refused::SessionQuota),
        (
            "rate",
            |config| {
                config.quota.new_sessions_per_second = 1;
                config.quota.burst = 10;
            },
            Refused::RateQuota,
        ),
    ] {
        for protocol in Protocol::ALL {
            let mut lab = Lab::with(limit);
            lab.give(host(1), 2048);
            lab.give(host(2), 4096);
            let first = flow(protocol, host(1), 5000, remote(1), 53);
            let mapped = lab.open(&first);
            let stranger = |n| Inbound { remote: remote(n), ..answer(&first, &mapped) };
            for n in 100..110 {
                assert!(lab.back(&stranger(n), opener(protocol)).unwrap().created, "{name}, {protocol}");
            }
            for n in 110..150 {
                assert_eq!(lab.back(&stranger(n), opener(protocol)), Err(expected), "{name}, {protocol}");
            }
            // The host has all it may have, less its own.
            for n in 2..=10 {
                lab.open(&Outbound { remote: remote(n), ..first });
            }
            let next = Outbound { remote: remote(11), ..first };
            assert_eq!(lab.out(&next, opener(protocol)), Err(expected), "{name}, {protocol}");
            // Another subscriber is not concerned on either side.
            let other = Outbound { host: host(2), ..first };
            let mapped = lab.open(&other);
            lab.back(&Inbound { remote: remote(9), ..answer(&other, &mapped) }, opener(protocol)).unwrap();
            // It heals on both sides.
            lab.wait(mins(5) + TICK);
            assert_eq!(lab.count(), 0);
            let mapped = lab.open(&first);
            lab.back(&Inbound { remote: remote(99), ..answer(&first, &mapped) }, opener(protocol)).unwrap();
        }
    }
}

#[test]
fn req_5_a_session_stays_counted_where_it_began() {
    let mut lab = Lab::with(|config| config.quota.sessions = 2);
    lab.give(host(1), 2048);
    let mapped = lab.open(&udp(host(1), 5000));
    let theirs = Outbound { remote: remote(2), ..udp(host(1), 5000) };
    lab.back(&answer(&theirs, &mapped), Signal::None).unwrap();
    lab.out(&theirs, Signal::None).unwrap();
    lab.open(&udp(host(1), 5001));
    assert_eq!(lab.out(&udp(host(1), 5002), Signal::None), Err(Refused::SessionQuota));
    // Their end gives back what each had taken.
    for _ in 0..3 {
        lab.wait(mins(5) + TICK);
        assert_eq!(lab.count(), 0);
        let mapped = lab.open(&udp(host(1), 5000));
        lab.open(&udp(host(1), 5001));
        assert_eq!(lab.out(&udp(host(1), 5002), Signal::None), Err(Refused::SessionQuota));
        for n in 2..4 {
            let from = Inbound { remote: remote(n), ..answer(&udp(host(1), 5000), &mapped) };
            lab.back(&from, Signal::None).unwrap();
        }
        let from = Inbound { remote: remote(4), ..answer(&udp(host(1), 5000), &mapped) };
        assert_eq!(lab.back(&from, Signal::None), Err(Refused::SessionQuota));
    }
}

#[test]
fn req_4c_a_flow_that_finds_the_table_full_costs_nothing() {
    let mut lab = Lab::with(|config| {
        config.max_sessions = 2;
        config.quota.new_sessions_per_second = 1;
        config.quota.burst = 3;
    });
    lab.give(host(1), 2048);
    for n in 0..2 {
        lab.open(&udp(host(1), 5000 + n));
    }
    for n in 0..5 {
        assert_eq!(lab.out(&udp(host(1), 6000 + n), Signal::None), Err(Refused::TableFull));
        let another = Outbound { remote: remote(2), ..udp(host(1), 5000) };
        assert_eq!(lab.out(&another, Signal::None), Err(Refused::TableFull));
    }
    let sessions: Vec<_> = lab.nat.sessions().map(|view| view.reference).collect();
    for session in sessions {
        assert!(lab.nat.end_session(session, lab.now));
        assert!(!lab.nat.end_session(session, lab.now), "once");
    }
    lab.open(&udp(host(1), 7000));
    assert_eq!(lab.out(&udp(host(1), 7001), Signal::None), Err(Refused::RateQuota));
    lab.pass(secs(1));
    lab.open(&udp(host(1), 7001));
}

#[test]
fn req_5_a_flood_of_one_subscriber_takes_nothing_from_another_one() {
    let mut lab = Lab::with(|config| {
        config.quota.sessions = 100;
        config.quota.new_sessions_per_second = 200;
        config.quota.burst = 50;
    });
    lab.give_ports(host(1), 2048, 1024);
    lab.give(host(2), 8192);
    let (_, answers) = lab.establish(&udp(host(2), 5000));
    let mut refused: BTreeMap<String, u32> = BTreeMap::new();
    for n in 0..2000 {
        let spray = flow(Protocol::Tcp, host(1), 1024 + n, remote(u8::try_from(n % 250).unwrap()), 80);
        if let Err(why) = lab.out(&spray, Signal::Syn) {
            *refused.entry(format!("{why:?}")).or_default() += 1;
        }
        if n % 10 == 0 {
            lab.wait(TICK);
            lab.out(&udp(host(2), 5000), Signal::None).unwrap();
            lab.back(&answers, Signal::None).unwrap();
        }
        if n % 100 == 0 {
            lab.open(&udp(host(2), 6000 + n / 100));
        }
    }
    assert_eq!(refused.keys().map(String::as_str).collect::<Vec<_>>(), ["SessionQuota"]);
    assert_eq!(lab.nat.usage().sessions[0], 100);
    lab.wait(mins(4) + TICK);
    assert_eq!(lab.nat.usage().sessions[0], 0, "its own sessions heal");
    lab.open(&flow(Protocol::Tcp, host(1), 1024, remote(1), 80));
}

#[test]
fn req_7_filtering_is_endpoint_independent_by_default() {
    assert_eq!(NatConfig::default().filtering, Filtering::EndpointIndependent);
}

#[test]
fn req_8_a_port_rests_for_two_minutes_before_it_is_used_again() {
    for protocol in Protocol::ALL {
        let mut lab = Lab::new();
        lab.give_ports(host(1), 2048, 2);
        let [even, odd] = [5000, 5001].map(|port| flow(protocol, host(1), port, remote(1), 53));
        let timer = match protocol {
            Protocol::Tcp => mins(4),
            Protocol::Udp => mins(5),
            Protocol::Icmp => secs(60),
        };
        lab.open(&even);
        lab.wait(timer + TICK);
        assert_eq!(lab.count(), 0);
        // Neither its last user gets it nor anybody else: the other port is free.
        assert_eq!(lab.open(&even).port, 2049);
        lab.ends_after(secs(120), "the rest", |lab| {
            let refused = lab.out(&odd, opener(protocol));
            assert!(refused.is_ok() || refused == Err(Refused::NeedsBlock(PortClass::High)));
            refused.is_err()
        });
        assert_eq!(lab.nat.find_outbound(&odd).unwrap().port, 2048);
    }
}

#[test]
fn req_8_a_port_rests_for_its_own_protocol_alone() {
    let mut lab = Lab::new();
    lab.give_ports(host(1), 2048, 1);
    lab.open(&flow(Protocol::Icmp, host(1), 5000, remote(1), 0));
    lab.wait(secs(60) + TICK);
    assert_eq!(lab.count(), 0);
    lab.open(&udp(host(1), 5000));
    lab.open(&flow(Protocol::Tcp, host(1), 5000, remote(1), 80));
    assert_eq!(
        lab.out(&flow(Protocol::Icmp, host(1), 5000, remote(1), 0), Signal::None),
        Err(Refused::NeedsBlock(PortClass::High))
    );
}

#[test]
fn req_8_no_more_ports_rest_than_the_operator_allows_and_those_that_have_rested_longest_are_free() {
    for protocol in Protocol::ALL {
        let mut lab = Lab::with(|config| {
            config.max_resting_ports = 4;
            config.timers.icmp = mins(4);
        });
        lab.give_ports(host(1), 2048, 16);
        let flows: Vec<_> = (0..16).map(|n| flow(protocol, host(1), 5000 + n, remote(1), 53)).collect();
        let mut ended = Vec::new();
        let sessions: Vec<_> = flows.iter().map(|flow| lab.open(flow)).collect();
        for mapped in &sessions[..10] {
            assert!(lab.nat.end_session(mapped.session.unwrap(), lab.now));
            ended.push(mapped.port);
            lab.pass(TICK);
        }
        // Ten have ended, four of them rest: the last ones.
        let free: HashSet<_> =
            (0..6).map(|n| lab.open(&flow(protocol, host(1), 7000 + n, remote(1), 53)).port).collect();
        assert_eq!(free, ended[..6].iter().copied().collect(), "{protocol}");
        let next = flow(protocol, host(1), 8000, remote(1), 53);
        assert_eq!(lab.out(&next, opener(protocol)), Err(Refused::NeedsBlock(PortClass::High)));
        lab.wait(secs(120) + TICK);
        assert!(ended[6..].contains(&lab.open(&next).port));
    }
}

#[test]
fn req_8a_tcp_ports_may_be_used_again_at_once_where_the_operator_says_so() {
    let mut lab = Lab::with(|config| config.timers.tcp_port_rest = secs(0));
    lab.give_ports(host(1), 2048, 1);
    let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
    lab.open(&flow);
    lab.wait(mins(4) + TICK);
    assert_eq!(lab.count(), 0);
    lab.wait(TICK);
    assert_eq!(lab.open(&flow).port, 2048);
}

#[test]
fn req_8_a_block_comes_back_only_when_all_its_ports_have_rested() {
    let mut lab = Lab::with(|config| config.timers.block_idle = secs(0));
    let block = lab.give(host(1), 2048);
    lab.open(&udp(host(1), 5000));
    assert!(lab.nat.idle_blocks(lab.now, 10).is_empty());
    assert_eq!(lab.nat.take_back(block, lab.now), None, "in use");
    lab.wait(mins(5) + TICK);
    assert_eq!(lab.count(), 0);
    lab.ends_after(secs(120), "the rest", |lab| lab.nat.idle_blocks(lab.now, 10).is_empty());
    let lease = lab.nat.take_back(block, lab.now).unwrap();
    assert_eq!((lease.address, lease.first_port, lease.size), (POOL, 2048, BLOCK));
    assert_eq!(lease.host, host(1));
    assert_eq!(lab.nat.take_back(block, lab.now), None, "once");
    assert_eq!(lab.nat.usage(), NatUsage::default(), "nothing is left of the host");
}

#[test]
fn req_11_at_every_limit_the_new_flow_is_dropped_and_no_old_one_is_touched_and_then_it_heals() {
    type Limit = (&'static str, fn(&mut NatConfig), Refused);
    let limits: [Limit; 5] = [
        ("sessions", |config| config.max_sessions = 40, Refused::TableFull),
        ("bindings", |config| config.max_bindings = 40, Refused::TableFull),
        ("quota", |config| config.quota.sessions = 40, Refused::SessionQuota),
        (
            "rate",
            |config| {
                config.quota.new_sessions_per_second = 1;
                config.quota.burst = 40;
            },
            Refused::RateQuota,
        ),
        ("ports", |_| {}, Refused::NeedsBlock(PortClass::High)),
    ];
    for (name, limit, expected) in limits {
        for protocol in Protocol::ALL {
            let mut lab = Lab::with(limit);
            lab.give_ports(host(1), 2048, if name == "ports" { 40 } else { 128 });
            for n in 0..40 {
                lab.establish(&flow(protocol, host(1), 5000 + n, remote(1), 53));
            }
            let before = lab.snapshot();
            assert_eq!(before.len(), 40);
            for n in 0..40 {
                let next = flow(protocol, host(1), 7000 + n, remote(2), 53);
                assert_eq!(lab.out(&next, opener(protocol)), Err(expected), "{name}, {protocol}");
            }
            untouched(&lab, &before);
            // All that ends makes room again.
            lab.wait(mins(124) + TICK);
            lab.wait(mins(4) + TICK);
            assert_eq!((lab.count(), lab.nat.usage().bindings), (0, 0), "{name}, {protocol}");
            lab.wait(secs(120) + TICK);
            for n in 0..40 {
                lab.open(&flow(protocol, host(1), 7000 + n, remote(2), 53));
            }
            let next = flow(protocol, host(1), 8000, remote(2), 53);
            assert_eq!(
                lab.out(&next, opener(protocol)),
                Err(expected),
                "{name}, {protocol}: no more than before"
            );
        }
    }
}

#[test]
fn req_11_a_full_table_refuses_flows_from_outside_too_and_touches_none() {
    for protocol in Protocol::ALL {
        let lab = Lab::with(|config| config.max_sessions = 8);
        lab.give(host(1), 2048);
        let first = flow(protocol, host(1), 5000, remote(1), 53);
        let (mapped, _) = lab.establish(&first);
        for n in 0..7 {
            lab.establish(&flow(protocol, host(1), 5001 + n, remote(1), 53));
        }
        let before = lab.snapshot();
        let stranger = Inbound { remote: remote(2), ..answer(&first, &mapped) };
        let refused = lab.back(&stranger, opener(protocol));
        assert!(refused.is_err() || refused.is_ok_and(|reached| reached.session.is_none()), "{refused:?}");
        untouched(&lab, &before);
    }
}

#[test]
fn req_11_full_tables_of_hosts_and_blocks_refuse_new_hosts_alone() {
    let changes: [fn(&mut NatConfig); 2] = [|config| config.max_hosts = 4, |config| config.max_blocks = 4];
    for change in changes {
        let mut lab = Lab::with(change);
        let mut blocks = Vec::new();
        for n in 1..=4 {
            blocks.push(lab.give(host(n), 2048 + n * BLOCK));
            lab.establish(&udp(host(n), 5000));
        }
        let before = lab.snapshot();
        let block = Block { address: POOL, first_port: 8192, size: BLOCK, reserved: Vec::new() };
        assert_eq!(lab.nat.give_block(host(5), &block, lab.now), Err(GiveError::Full));
        untouched(&lab, &before);
        lab.wait(mins(5) + TICK);
        lab.wait(mins(2) + TICK);
        assert!(lab.nat.take_back(blocks[2], lab.now).is_some());
        lab.nat.give_block(host(5), &block, lab.now).unwrap();
        lab.open(&udp(host(5), 5000));
    }
}

#[test]
fn req_13_every_port_of_a_block_is_used_before_another_block_is_asked_for() {
    for protocol in Protocol::ALL {
        let lab = Lab::new();
        lab.give(host(1), 2048);
        for n in 0..BLOCK {
            // All of one parity.
            lab.open(&flow(protocol, host(1), 5000 + 2 * n, remote(1), 53));
        }
    }
}

#[test]
fn req_13_a_host_with_many_blocks_finds_its_only_free_port() {
    // Whichever of its blocks it is in.
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
        for which in [0, 1, 64, 99] {
            let mut lab = Lab::with(|config| {
                config.timers.udp = mins(5);
                config.timers.port_rest = secs(0);
                config.timers.tcp_port_rest = secs(0);
            });
            let mut flows = Vec::new();
            for block in 0..100 {
                lab.give_ports(host(1), 2048 + 16 * block, 16);
                for n in 0..16 {
                    flows.push(flow(protocol, host(1), 5000 + 16 * block + n, remote(1), 53));
                    lab.establish(&flows[usize::from(16 * block + n)]);
                }
            }
            let ended = &flows[16 * which];
            let session = lab.view(ended).unwrap().reference;
            assert!(lab.nat.end_session(session, lab.now));
            lab.pass(TICK);
            let next = flow(protocol, host(1), 9000, remote(1), 53);
            let mapped = lab.out(&next, opener(protocol));
            assert!(mapped.is_ok(), "{protocol}, a port of block {which}: {mapped:?}");
            assert_eq!(
                lab.out(&Outbound { port: 9001, ..next }, opener(protocol)).map(drop),
                Err(Refused::NeedsBlock(PortClass::High))
            );
        }
    }
}

#[test]
fn req_13_idle_blocks_come_back_however_many_their_host_has() {
    let mut lab = Lab::new();
    let blocks: Vec<_> = (0..128).map(|n| lab.give_ports(host(1), 2048 + 16 * n, 16)).collect();
    let block = Block { address: POOL, first_port: 8192, size: 16, reserved: Vec::new() };
    assert_eq!(lab.nat.give_block(host(1), &block, lab.now), Err(GiveError::TooMany));
    for n in 0..28 * 16 {
        lab.open(&udp(host(1), 5000 + n));
    }
    lab.wait(mins(2) + TICK);
    let idle = blocks.iter().filter(|block| lab.nat.take_back(**block, lab.now).is_some()).count();
    assert_eq!((idle, lab.nat.usage().blocks), (100, 28));
    lab.nat.give_block(host(1), &block, lab.now).unwrap();
}

#[test]
fn req_13_a_block_is_asked_for_ahead_once_when_few_ports_are_left() {
    let lab = Lab::new();
    lab.give(host(1), 2048);
    let wanted: Vec<_> = (0..BLOCK).map(|n| lab.open(&udp(host(1), 5000 + n)).wants_block).collect();
    let asked: Vec<_> = (0..BLOCK).filter(|n| wanted[usize::from(*n)].is_some()).collect();
    assert_eq!(asked.len(), 1, "{wanted:?}");
    assert!((BLOCK * 3 / 4 - 1..=BLOCK * 3 / 4 + 1).contains(&asked[0]), "{asked:?}");
    assert_eq!(wanted[usize::from(asked[0])], Some(PortClass::High));
}

#[test]
fn req_15_the_ports_of_a_block_are_given_in_no_order_that_can_be_guessed() {
    let order = || {
        let lab = Lab::new();
        lab.give_ports(host(1), 2048, 1024);
        (0..200).map(|n| lab.open(&udp(host(1), 5000 + 2 * n)).port).collect::<Vec<_>>()
    };
    let (one, other) = (order(), order());
    assert_ne!(one, other, "two routers, the same hosts, the same packets");
    let steps: HashSet<_> = one.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0])).collect();
    assert!(steps.len() > 100, "{} different steps", steps.len());
    // All parts of the block are used from the beginning.
    for part in 0..4 {
        let count = one.iter().filter(|port| (**port - 2048) / 256 == part).count();
        assert!((20..=80).contains(&count), "{count} of 200 ports in quarter {part}");
    }
}

#[test]
fn req_15_two_engines_differ_in_what_they_choose_unless_they_are_told_the_same_seed() {
    let ports = |seed| {
        let lab = Lab::with(|config| config.seed = seed);
        lab.give_ports(host(1), 2048, 1024);
        (0..50).map(|n| lab.open(&udp(host(1), 5000 + n)).port).collect::<Vec<_>>()
    };
    assert_eq!(NatConfig::default().seed, None);
    assert_ne!(ports(None), ports(None));
    assert_ne!(ports(Some(1)), ports(Some(2)));
    assert_eq!(ports(Some(7)), ports(Some(7)));
}

fn pool(nets: &[(&str, u16, u16)], ports_per_subscriber: u32) -> BlockPool {
    let net = |(net, first_port, last_port): &(&str, u16, u16)| PortNet {
        net: net.parse().unwrap(),
        first_port: *first_port,
        last_port: *last_port,
        reserved_ports: vec![5060],
    };
    BlockPool::new(&BlockPoolConfig {
        nets: nets.iter().map(net).collect(),
        block_size: BLOCK,
        max_ports_per_subscriber: ports_per_subscriber,
        reserved_addresses: Vec::new(),
        reserved_endpoints: vec![(POOL, 4097)],
        seed: None,
    })
    .unwrap()
}

#[test]
fn req_3_a_pool_of_scattered_addresses_and_port_ranges_gives_all_of_them_and_nothing_else() {
    let lab = Lab::with(|config| config.quota.sessions = u32::MAX);
    let mut pool = pool(&[("192.0.2.1/32", 4096, 4351), ("203.0.113.8/31", 5056, 5183)], 1 << 20);
    let mut given = HashSet::new();
    for n in 1..=8 {
        // Four blocks of the first address, then two of each of the others.
        let granted = pool.grant(&lab.nat, host(n), PortClass::High, lab.now).unwrap();
        assert!(matches!(granted, Granted::New { size: BLOCK, .. }), "{granted:?}");
        loop {
            let port = 5000 + u16::try_from(given.len()).unwrap();
            match lab.out(&udp(host(n), port), Signal::None) {
                Ok(mapped) => assert!(given.insert((mapped.address, mapped.port))),
                Err(refused) => break assert_eq!(refused, Refused::NeedsBlock(PortClass::High)),
            }
        }
    }
    let refused = pool.grant(&lab.nat, host(9), PortClass::High, lab.now);
    assert_eq!(refused, Err(BlockRefusal::PoolExhausted));
    let mut expected = HashSet::new();
    expected.extend((4096..4352).filter(|port| *port != 4097).map(|port| (POOL, port)));
    for address in ["203.0.113.8", "203.0.113.9"] {
        let ports = (5056..5184).filter(|port| *port != 5060);
        expected.extend(ports.map(|port| (address.parse().unwrap(), port)));
    }
    assert_eq!(given, expected);
}

#[test]
fn req_4_a_subscriber_gets_no_more_ports_than_it_may_have_however_many_hosts_it_has() {
    let lab = Lab::new();
    let mut pool = pool(&[("192.0.2.0/24", 1024, 65_535)], 4 * u32::from(BLOCK));
    for n in 1..=4 {
        pool.grant(&lab.nat, host_of(1, n), PortClass::High, lab.now).unwrap();
    }
    let refused = pool.grant(&lab.nat, host_of(1, 5), PortClass::High, lab.now);
    assert_eq!(refused, Err(BlockRefusal::PortQuota { ports: 256, limit: 256 }));
    assert!(lab.nat.blocks().all(|lease| lease.host != host_of(1, 5)));
    pool.grant(&lab.nat, host_of(2, 1), PortClass::High, lab.now).unwrap();
}

#[test]
fn req_4_ports_that_come_back_can_be_had_again() {
    let mut lab = Lab::new();
    let mut pool = pool(&[("192.0.2.1/32", 4096, 4351)], 1 << 20);
    for round in 0..3 {
        for n in 1..=4 {
            pool.grant(&lab.nat, host(10 * round + n), PortClass::High, lab.now).unwrap();
        }
        let refused = pool.grant(&lab.nat, host(999), PortClass::High, lab.now);
        assert_eq!(refused, Err(BlockRefusal::PoolExhausted));
        lab.wait(mins(2) + TICK);
        for block in lab.nat.idle_blocks(lab.now, 64) {
            assert!(pool.take_back(&lab.nat, block, lab.now).is_some());
        }
        assert_eq!(lab.nat.usage(), NatUsage::default());
    }
}

#[test]
fn req_2_a_host_whose_address_has_no_block_left_is_refused_though_others_have() {
    let lab = Lab::new();
    let mut pool = pool(&[("192.0.2.0/31", 4096, 4223)], 1 << 20);
    let mut used = 0;
    let refused = loop {
        // One host takes all of one address.
        match pool.grant(&lab.nat, host(1), PortClass::High, lab.now) {
            Ok(_) => {
                for n in 0..BLOCK {
                    if lab.out(&udp(host(1), 5000 + used * BLOCK + n), Signal::None).is_err() {
                        break;
                    }
                }
                used += 1;
                assert!(used < 10);
            }
            Err(refused) => break refused,
        }
    };
    assert_eq!(used, 2);
    let address = lab.nat.blocks().next().unwrap().address;
    assert_eq!(refused, BlockRefusal::AddressExhausted(address));
    assert!(lab.nat.blocks().all(|lease| lease.address == address));
    pool.grant(&lab.nat, host(2), PortClass::High, lab.now).unwrap();
}

#[test]
fn req_15_blocks_of_an_address_are_given_in_no_order_that_can_be_guessed() {
    let order = || {
        let lab = Lab::new();
        let mut pool = pool(&[("192.0.2.1/32", 1024, 65_535)], 1 << 20);
        for n in 1..=40 {
            pool.grant(&lab.nat, host(n), PortClass::High, lab.now).unwrap();
        }
        let mut blocks: Vec<_> = lab.nat.blocks().map(|lease| (lease.host, lease.first_port)).collect();
        blocks.sort_unstable();
        blocks
    };
    assert_ne!(order(), order());
}

#[test]
fn a_static_binding_is_there_without_a_session_and_takes_anybody_in() {
    let mut lab = Lab::new();
    lab.add_static(Protocol::Udp, 5353, host(1), 53);
    lab.wait(mins(24 * 60));
    let client =
        Inbound { protocol: Protocol::Udp, address: POOL, port: 5353, remote: remote(1), remote_port: 4000 };
    let reached = lab.back(&client, Signal::None).unwrap();
    assert_eq!((reached.host, reached.port, reached.created), (host(1), 53, true));
    let home = flow(Protocol::Udp, host(1), 53, remote(1), 4000);
    let returned = lab.out(&home, Signal::None).unwrap();
    assert_eq!((returned.address, returned.port, returned.created), (POOL, 5353, false));
    assert_eq!(lab.state(&home), Some(SessionState::Established));
    lab.ends_after(mins(5), "its session", |lab| lab.state(&home).is_some());
    assert_eq!(lab.nat.usage().bindings, 1, "the binding stays");
    lab.back(&client, Signal::None).unwrap();
}

#[test]
fn a_static_binding_can_be_removed_and_its_port_is_nobodys_again() {
    let lab = Lab::new();
    let forward = lab.add_static(Protocol::Udp, 2048, host(1), 53);
    // Its port is reserved in the block that it lies in.
    let block = Block { address: POOL, first_port: 2048, size: BLOCK, reserved: vec![2048] };
    lab.nat.give_block(host(2), &block, lab.now).unwrap();
    let ports: HashSet<_> = (0..BLOCK - 1).map(|n| lab.open(&udp(host(2), 5000 + n)).port).collect();
    assert!(!ports.contains(&2048));
    assert_eq!(lab.out(&udp(host(2), 9000), Signal::None), Err(Refused::NeedsBlock(PortClass::High)));
    assert!(lab.nat.remove_static(&forward, lab.now));
    assert!(!lab.nat.remove_static(&forward, lab.now));
    let client =
        Inbound { protocol: Protocol::Udp, address: POOL, port: 2048, remote: remote(1), remote_port: 4000 };
    assert_eq!(lab.back(&client, Signal::None), Err(Refused::NoBinding));
}

#[test]
fn two_static_bindings_cannot_have_the_same_port_outside_or_inside() {
    let lab = Lab::new();
    let forward = lab.add_static(Protocol::Udp, 5353, host(1), 53);
    let taken = StaticBinding { host: host(2), ..forward };
    assert_eq!(lab.nat.add_static(&taken, lab.now), Err(StaticError::Taken { host: host(1), port: 53 }));
    let bound = StaticBinding { port: 5354, ..forward };
    assert_eq!(lab.nat.add_static(&bound, lab.now), Err(StaticError::Bound { address: POOL, port: 5353 }));
    // Another protocol is another port.
    lab.add_static(Protocol::Tcp, 5353, host(2), 53);
}
