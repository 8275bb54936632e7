//! REQ-7, REQ-8, REQ-13 and REQ-15: what becomes of ports.

use std::collections::HashSet;

use fast_nat::nat64::{
    Block, Filtering, GiveError, NatConfig, NatUsage, Outbound, PortClass, Protocol, Refused, Signal,
};

use crate::common::{BLOCK, Lab, POOL, TICK, flow, host, mins, opener, remote, secs};
use crate::udp;

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
