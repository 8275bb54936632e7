//! REQ-2 to REQ-4: the pool, and the ports of a subscriber.

use std::collections::HashSet;

use fast_nat::nat64::{Block, GiveError, NatUsage, Outbound, PortClass, Protocol, Refused, Signal};
use fast_nat::{BlockPool, BlockPoolConfig, BlockRefusal, Granted, PortNet};

use crate::common::{BLOCK, Lab, POOL, TICK, flow, host, host_of, mins, opener, remote};
use crate::udp;

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
fn a_pool_that_has_forgotten_everything_gives_nobody_what_others_have() {
    let lab = Lab::new();
    let nets = [("192.0.2.1/32", 4096, 5119), ("203.0.113.8/31", 4096, 4607)];
    let mut before = pool(&nets, 1 << 20);
    for n in 1..=20 {
        before.grant(&lab.nat, host(n), PortClass::High, lab.now).unwrap();
    }
    let mut after = pool(&nets, 1 << 20);
    after.rebuild(&lab.nat);
    assert_eq!(after.usage().iter().map(|net| net.used).sum::<u64>(), 20);
    for n in 21..=32 {
        after.grant(&lab.nat, host(n), PortClass::High, lab.now).unwrap();
    }
    assert_eq!(after.grant(&lab.nat, host(33), PortClass::High, lab.now), Err(BlockRefusal::PoolExhausted));
    let blocks: HashSet<_> = lab.nat.blocks().map(|lease| (lease.address, lease.first_port)).collect();
    assert_eq!(blocks.len(), 32);
}

#[test]
fn a_request_that_comes_twice_is_answered_with_one_block() {
    let lab = Lab::new();
    let mut pool = pool(&[("192.0.2.1/32", 4096, 4607)], 1 << 20);
    pool.grant(&lab.nat, host(1), PortClass::High, lab.now).unwrap();
    for _ in 0..3 {
        assert_eq!(pool.grant(&lab.nat, host(1), PortClass::High, lab.now), Ok(Granted::Already));
    }
    assert_eq!(lab.nat.usage().blocks, 1);
}
