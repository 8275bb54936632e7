//! Both ways of a flow are in one lane while there are ports and addresses for it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[allow(dead_code, reason = "each test program needs other parts of it")]
mod common;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use common::{BLOCK, Lab, POOL, TICK, flow, host, remote};
use fast_nat::nat64::{Block, Outbound, Protocol};
use fast_nat::{Lanes, LeasePool, LeaseTable, PoolConfig, Timestamp};

fn lanes(count: u16) -> Lanes {
    Lanes::new(count).unwrap()
}

/// The lanes of a new flow's packets from its host and to it.
fn both_ways(lab: &Lab, lanes: Lanes, flow: &Outbound) -> (u16, u16) {
    let mapped = lab.open(flow);
    assert_eq!(mapped.port % 2, flow.port % 2);
    let out = lanes.of_outbound(flow.host, flow.port, flow.remote_port);
    (out, lanes.of_inbound(mapped.address, mapped.port, flow.remote_port))
}

#[test]
fn as_many_flows_as_a_block_has_ports_of_their_lane_are_of_one_lane_and_the_others_too_get_a_port() {
    for count in [2, 4, 16] {
        let lanes = lanes(count);
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            let lab = Lab::with(|config| config.lanes = lanes);
            for n in 1..=3 {
                lab.give(host(n), 2048 + BLOCK * n);
                let of_lane = BLOCK / 2 / count;
                // All of one lane and one parity.
                let from = |nth: u16| flow(protocol, host(n), 5001 + 2 * count * nth, remote(1), 0);
                for nth in 0..of_lane {
                    let (out, back) = both_ways(&lab, lanes, &from(nth));
                    assert_eq!(out, back, "the {nth}th flow of {n}, {count} lanes");
                }
                let others = (of_lane..BLOCK / 2).filter(|nth| {
                    let (out, back) = both_ways(&lab, lanes, &from(*nth));
                    out != back
                });
                assert_eq!(others.count(), usize::from(BLOCK / 2 - of_lane));
            }
        }
    }
}

#[test]
fn a_lane_is_whole_with_another_remote_of_the_same_mapping_too() {
    let lanes = lanes(8);
    let lab = Lab::with(|config| config.lanes = lanes);
    lab.give(host(1), 2048);
    for remote_port in [53, 443, 444, 4500, 65_535] {
        let flow = flow(Protocol::Udp, host(1), 5000, remote(1), remote_port);
        let (out, back) = both_ways(&lab, lanes, &flow);
        assert_eq!(out, back);
    }
}

/// How often each place of a block was a host's first port, in so many connections from these ports.
fn first_ports(lanes: Lanes, size: u16, draws: u16, port: impl Fn(u16) -> u16) -> Vec<u16> {
    let mut lab = Lab::with(|config| {
        config.lanes = lanes;
        config.timers.tcp_port_rest = Duration::ZERO;
        config.timers.port_rest = Duration::ZERO;
        config.timers.block_idle = Duration::ZERO;
    });
    let mut counts = vec![0; usize::from(size)];
    for n in 0..draws {
        let block = Block { address: POOL, first_port: 4096, size, reserved: Vec::new() };
        let given = lab.nat.give_block(host(1), &block, lab.now).unwrap();
        let mapped = lab.open(&flow(Protocol::Tcp, host(1), port(n), remote(1), 80));
        counts[usize::from(mapped.port - 4096)] += 1;
        assert!(lab.nat.end_session(mapped.session.unwrap(), lab.now));
        lab.pass(TICK);
        assert!(lab.nat.take_back(given, lab.now).is_some());
    }
    counts
}

#[test]
fn whoever_knows_the_hosts_port_has_to_guess_among_those_of_its_lane() {
    for (count, size) in [(2, 64), (4, 128), (16, 128)] {
        let choice = size / 2 / count;
        let counts = first_ports(lanes(count), size, choice * 40, |_| 5001);
        let taken: Vec<_> = counts.iter().filter(|count| **count > 0).collect();
        assert_eq!(taken.len(), usize::from(choice), "{counts:?}");
        // 40 on average, with a deviation of 6.3.
        assert!(taken.iter().all(|count| (5..=110).contains(*count)), "{counts:?}");
    }
}

#[test]
fn whoever_does_not_know_it_has_to_guess_among_all() {
    // The host's own ports are of all lanes and parities.
    let counts = first_ports(lanes(16), 128, 128 * 40, |n| 32_768 + n);
    assert!(counts.iter().all(|count| (5..=110).contains(count)), "{counts:?}");
}

#[test]
fn a_host_gets_an_address_of_its_lane_first_a_fresh_one_and_then_a_rested_one() {
    let lanes = lanes(4);
    let at = Timestamp::from_millis;
    let table = LeaseTable::new(1000, Duration::ZERO);
    let mut pool = LeasePool::new(&PoolConfig {
        pools: vec!["198.51.100.0/26".parse().unwrap()],
        reserved: vec![],
        max_leases_per_subnet: 1000,
        rest: Duration::ZERO,
        lanes,
    })
    .unwrap();
    let lane = |host: Ipv6Addr| lanes.of_outbound(host, 0, 0);
    let of_address = |address: Ipv4Addr| lanes.of_inbound(address, 0, 0);
    let of_lane = |wanted: u16| (1_u16..).map(host).filter(move |host| lane(*host) == wanted);
    // Without the first and the last address, 15, 16, 16 and 15 of each lane.
    for (wanted, most) in [(2, 16), (0, 15), (3, 15), (1, 16)] {
        let mut hosts = of_lane(wanted);
        for nth in 0..most {
            let lease = pool.grant(&table, hosts.next().unwrap(), at(0)).unwrap();
            assert_eq!(of_address(lease.address), wanted, "the {nth}th");
        }
    }
    assert_eq!(pool.usage(at(0))[0].free, 0);
    let leased: Vec<_> = table.leases().map(|lease| lease.address).collect();
    for address in leased {
        table.remove(address, at(1)).unwrap();
        pool.free(&table, address, at(1));
    }
    assert_eq!(pool.usage(at(2))[0].free, 62);
    // Not those who had them: they get their own again.
    let mut hosts = of_lane(3).skip(15);
    let lanes: Vec<_> = (0..62)
        .map(|_| of_address(pool.grant(&table, hosts.next().unwrap(), at(2)).unwrap().address))
        .collect();
    assert_eq!(lanes[..15], [3; 15]);
    assert!(!lanes[15..].contains(&3), "and then the other ones");
    assert_eq!(pool.usage(at(2))[0].free, 0);
}

#[test]
fn where_no_address_of_its_lane_is_left_a_host_gets_the_one_that_has_rested_longest() {
    let at = Timestamp::from_millis;
    let table = LeaseTable::new(1000, Duration::ZERO);
    let mut pool = LeasePool::new(&PoolConfig {
        pools: vec!["198.51.100.0/28".parse().unwrap()],
        reserved: vec![],
        max_leases_per_subnet: 1000,
        rest: Duration::ZERO,
        lanes: lanes(8),
    })
    .unwrap();
    let leased: Vec<_> = (1..=14).map(|n| pool.grant(&table, host(n), at(0)).unwrap().address).collect();
    // In another order than that of their lanes.
    let ended: Vec<_> = [9, 2, 12, 5].into_iter().map(|n| leased[n]).collect();
    for (n, address) in ended.iter().enumerate() {
        table.remove(*address, at(1 + n as u64)).unwrap();
        pool.free(&table, *address, at(1 + n as u64));
    }
    let own = ended.iter().map(|address| lanes(8).of_inbound(*address, 0, 0)).collect::<Vec<_>>();
    let mut others = (100_u16..).map(host).filter(|host| !own.contains(&lanes(8).of_outbound(*host, 0, 0)));
    for address in ended {
        assert_eq!(pool.grant(&table, others.next().unwrap(), at(9)).unwrap().address, address);
    }
}
