//! §3.1, §3.5.1, §3.5.1.1, §3.5.3: bindings and sessions of UDP and ICMP, and what is chosen for a new binding.

use std::collections::{HashMap, HashSet};

use fast_nat::nat64::{
    Inbound, Nat64, NatConfig, Outbound, PortClass, Protocol, Refused, SessionState, Signal,
};

use crate::common::{BLOCK, Lab, POOL, TICK, answer, flow, host, mins, opener, remote, secs};

#[test]
fn a_packet_of_the_host_makes_a_binding_and_a_session_and_the_answer_finds_both() {
    for protocol in Protocol::ALL {
        let lab = Lab::new();
        let flow = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(flow.host, 2048);
        let mapped = lab.open(&flow);
        assert_eq!(mapped.address, POOL);
        assert!((2048..2048 + BLOCK).contains(&mapped.port));
        let reached = lab.back(&answer(&flow, &mapped), opener(protocol)).unwrap();
        assert_eq!((reached.prefix, reached.host, reached.port), (0, flow.host, 5000));
        assert_eq!((reached.session, reached.created), (mapped.session, false));
        assert_eq!((lab.nat.usage().bindings, lab.count()), (1, 1));
    }
}

#[test]
fn no_two_bindings_of_a_protocol_have_the_same_address_and_port() {
    let lab = Lab::new();
    let mut taken = HashSet::new();
    for n in 1..=8 {
        lab.give(host(n), 2048 + n * BLOCK);
        for port in 0..BLOCK {
            for protocol in Protocol::ALL {
                let mapped = lab.open(&flow(protocol, host(n), 5000 + port, remote(1), 53));
                assert!(taken.insert((protocol, mapped.address, mapped.port)), "{mapped:?} is given twice");
            }
        }
    }
}

#[test]
fn the_same_port_can_be_used_by_each_protocol_at_once() {
    let lab = Lab::new();
    lab.give_ports(host(1), 2048, 1);
    for protocol in Protocol::ALL {
        let flow = flow(protocol, host(1), 5000, remote(1), 53);
        let mapped = lab.open(&flow);
        assert_eq!(mapped.port, 2048, "{protocol}");
        let other = Outbound { port: 5002, ..flow };
        assert_eq!(
            lab.out(&other, opener(protocol)),
            Err(Refused::NeedsBlock(PortClass::High)),
            "{protocol}"
        );
    }
    // The answers find their own protocol.
    for protocol in Protocol::ALL {
        let flow = flow(protocol, host(1), 5000, remote(1), 53);
        let mapped = lab.nat.find_outbound(&flow).unwrap();
        assert_eq!(lab.back(&answer(&flow, &mapped), Signal::None).unwrap().session, mapped.session);
    }
}

#[test]
fn all_ports_of_a_host_can_be_bound_and_then_it_needs_a_block() {
    for protocol in Protocol::ALL {
        let lab = Lab::new();
        lab.give(host(1), 2048);
        let ports: HashSet<_> =
            (0..BLOCK).map(|n| lab.open(&flow(protocol, host(1), 5000 + n, remote(1), 53)).port).collect();
        assert_eq!(ports, (2048..2048 + BLOCK).collect());
        let next = flow(protocol, host(1), 9000, remote(1), 53);
        assert_eq!(lab.out(&next, opener(protocol)), Err(Refused::NeedsBlock(PortClass::High)));
        lab.give(host(1), 4096);
        assert!((4096..4096 + BLOCK).contains(&lab.open(&next).port));
    }
}

#[test]
fn reserved_ports_are_never_used() {
    let lab = Lab::new();
    let reserved = vec![2049, 2050, 2063];
    let block =
        fast_nat::nat64::Block { address: POOL, first_port: 2048, size: 16, reserved: reserved.clone() };
    lab.nat.give_block(host(1), &block, lab.now).unwrap();
    let ports: HashSet<_> =
        (0..13).map(|n| lab.open(&flow(Protocol::Udp, host(1), 5000 + n, remote(1), 53)).port).collect();
    assert_eq!(ports, (2048..2064).filter(|port| !reserved.contains(port)).collect());
    let next = flow(Protocol::Udp, host(1), 9000, remote(1), 53);
    assert_eq!(lab.out(&next, Signal::None), Err(Refused::NeedsBlock(PortClass::High)));
}

#[test]
fn a_binding_lives_as_long_as_one_of_its_sessions() {
    let mut lab = Lab::new();
    let first = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    let second = Outbound { remote: remote(2), ..first };
    lab.give(first.host, 2048);
    let mapped = lab.open(&first);
    lab.wait(mins(3));
    assert_eq!(lab.open(&second).port, mapped.port);
    lab.wait(mins(2) + TICK);
    assert_eq!((lab.state(&first), lab.count(), lab.nat.usage().bindings), (None, 1, 1));
    assert_eq!(lab.open(&first).port, mapped.port, "the binding is the same one");
    lab.wait(mins(5) + TICK);
    assert_eq!((lab.count(), lab.nat.usage().bindings), (0, 0));
    assert_eq!(lab.back(&answer(&first, &mapped), Signal::None), Err(Refused::NoBinding));
}

#[test]
fn udp_or_icmp_from_outside_without_a_binding_reaches_nobody() {
    for protocol in [Protocol::Udp, Protocol::Icmp] {
        let lab = Lab::new();
        let flow = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(flow.host, 2048);
        let mapped = lab.open(&flow);
        let answers = answer(&flow, &mapped);
        for wrong in [
            Inbound { port: mapped.port ^ 1, ..answers },
            Inbound { address: remote(99), ..answers },
            Inbound {
                protocol: if protocol == Protocol::Udp { Protocol::Icmp } else { Protocol::Udp },
                ..answers
            },
        ] {
            assert_eq!(lab.back(&wrong, Signal::None), Err(Refused::NoBinding), "{wrong:?}");
            assert_eq!(lab.nat.find_inbound(&wrong), None);
        }
        assert_eq!(lab.count(), 1);
    }
}

#[test]
fn a_session_is_established_when_both_sides_have_sent() {
    for protocol in [Protocol::Udp, Protocol::Icmp] {
        let lab = Lab::new();
        let first = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(first.host, 2048);
        let mapped = lab.open(&first);
        assert_eq!(lab.state(&first), Some(SessionState::OneWay));
        lab.out(&first, Signal::None).unwrap();
        assert_eq!(lab.state(&first), Some(SessionState::OneWay));
        lab.back(&answer(&first, &mapped), Signal::None).unwrap();
        assert_eq!(lab.state(&first), Some(SessionState::Established));

        let from_outside = Outbound { remote: remote(2), ..first };
        lab.back(&answer(&from_outside, &mapped), Signal::None).unwrap();
        lab.back(&answer(&from_outside, &mapped), Signal::None).unwrap();
        assert_eq!(lab.state(&from_outside), Some(SessionState::OneWay));
        lab.out(&from_outside, Signal::None).unwrap();
        assert_eq!(lab.state(&from_outside), Some(SessionState::Established));
    }
}

#[test]
fn sessions_are_told_apart_by_remote_address_and_port_and_icmp_by_address_alone() {
    let lab = Lab::new();
    lab.give(host(1), 2048);
    let udp = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    let sessions: HashSet<_> =
        [udp, Outbound { remote_port: 54, ..udp }, Outbound { remote: remote(2), ..udp }]
            .iter()
            .map(|flow| lab.open(flow).session.unwrap())
            .collect();
    assert_eq!((sessions.len(), lab.nat.usage().bindings), (3, 1));
    let icmp = flow(Protocol::Icmp, host(1), 5000, remote(1), 0);
    lab.open(&icmp);
    assert!(!lab.out(&icmp, Signal::None).unwrap().created);
    assert_eq!(lab.nat.usage().sessions, [0, 3, 1]);
}

#[test]
fn each_translation_prefix_is_a_nat64_of_its_own_on_the_same_address() {
    let lab = Lab::new();
    lab.give(host(1), 2048);
    let first = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    let second = Outbound { prefix: 1, ..first };
    let (one, other) = (lab.open(&first), lab.open(&second));
    assert_eq!(one.address, other.address);
    assert_ne!(one.port, other.port);
    for (flow, mapped) in [(first, one), (second, other)] {
        let reached = lab.back(&answer(&flow, &mapped), Signal::None).unwrap();
        assert_eq!((reached.prefix, reached.session), (flow.prefix, mapped.session));
    }
}

#[test]
fn a_refused_packet_leaves_nothing_behind() {
    let lab = Lab::new();
    for protocol in Protocol::ALL {
        let flow = flow(protocol, host(1), 5000, remote(1), 53);
        assert_eq!(lab.out(&flow, opener(protocol)), Err(Refused::NeedsBlock(PortClass::High)));
    }
    assert_eq!(lab.nat.usage(), fast_nat::nat64::NatUsage::default());
    assert!(lab.events().is_empty());
}

#[test]
fn looking_up_changes_nothing_and_refreshes_nothing() {
    for protocol in Protocol::ALL {
        let mut lab = Lab::new();
        let first = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(first.host, 2048);
        let mapped = lab.open(&first);
        let answers = answer(&first, &mapped);
        lab.events();
        lab.wait(secs(50));
        let before = lab.snapshot();
        for _ in 0..3 {
            let found = lab.nat.find_outbound(&first).unwrap();
            assert_eq!(
                (found.address, found.port, found.session),
                (mapped.address, mapped.port, mapped.session)
            );
            assert!(!found.created);
            let found = lab.nat.find_inbound(&answers).unwrap();
            assert_eq!((found.host, found.port, found.session), (first.host, first.port, mapped.session));
            lab.nat.warm_outbound(&[first], lab.now);
            lab.nat.warm_inbound(&[answers]);
        }
        assert_eq!(lab.snapshot(), before);
        assert!(lab.events().is_empty());
        for unknown in [Outbound { port: 5001, ..first }, Outbound { host: host(2), ..first }] {
            assert_eq!(lab.nat.find_outbound(&unknown), None);
        }
        let timer = match protocol {
            Protocol::Tcp => mins(4),
            Protocol::Udp => mins(5),
            Protocol::Icmp => secs(60),
        };
        lab.ends_after(timer.saturating_sub(secs(50)), protocol.as_str(), |lab| {
            lab.nat.find_inbound(&answers);
            lab.nat.find_outbound(&first).is_some()
        });
    }
}

#[test]
fn a_packet_of_one_host_never_goes_to_another_one() {
    let lab = Lab::new();
    let mut owners = HashMap::new();
    for n in 1..=20 {
        lab.give(host(n), 2048 + n * BLOCK);
        for port in 0..20 {
            // All hosts use the same ports, identifiers and remotes.
            for protocol in Protocol::ALL {
                let flow = flow(protocol, host(n), 7000 + port, remote(1), 53);
                let mapped = lab.open(&flow);
                owners.insert(answer(&flow, &mapped), flow);
            }
        }
    }
    assert_eq!(owners.len(), 20 * 20 * 3);
    for (inbound, owner) in owners {
        let reached = lab.back(&inbound, opener(inbound.protocol)).unwrap();
        assert_eq!((reached.host, reached.port), (owner.host, owner.port));
    }
}

#[test]
fn hosts_that_share_blocks_still_have_bindings_of_their_own() {
    let lab = Lab::with(|config| config.lease_prefix_len = 64);
    let [one, other] = [1, 2].map(|n| crate::common::host_of(7, n));
    lab.give(one, 2048);
    let first = flow(Protocol::Udp, one, 5000, remote(1), 53);
    let second = Outbound { host: other, ..first };
    let (mapped, also) = (lab.open(&first), lab.open(&second));
    assert_eq!(mapped.address, also.address);
    assert_ne!(mapped.port, also.port);
    assert_eq!(lab.back(&answer(&second, &also), Signal::None).unwrap().host, other);
    assert_eq!(lab.back(&answer(&first, &mapped), Signal::None).unwrap().host, one);
}

#[test]
fn an_engine_of_no_size_or_with_impossible_limits_is_refused() {
    let changes: [fn(&mut NatConfig); 10] = [
        |config| config.max_sessions = 0,
        |config| config.max_bindings = 0,
        |config| config.max_hosts = 0,
        |config| config.max_blocks = 0,
        |config| config.max_sessions = u32::MAX,
        |config| config.max_stored_syns = 65_537,
        |config| config.subscriber_prefix_len = 129,
        |config| config.lease_prefix_len = 96,
        |config| config.quota.burst = 0,
        |config| config.quota.new_sessions_per_second = 1_000_001,
    ];
    assert!(Nat64::new(NatConfig { max_sessions: 64, max_bindings: 64, ..NatConfig::default() }).is_ok());
    for (n, change) in changes.iter().enumerate() {
        let mut config = NatConfig { max_sessions: 64, max_bindings: 64, ..NatConfig::default() };
        change(&mut config);
        assert!(Nat64::new(config).is_err(), "change {n}");
    }
}
