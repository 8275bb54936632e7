use super::*;
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_mins(1);

fn host(n: u64) -> Ipv6Addr {
    // A /64 of its own for every thousand hosts.
    Ipv6Addr::from((0x2001_0db8_u128 << 96) | (u128::from(n / 1000) << 64) | u128::from(n % 1000 + 1))
}

fn config(net: &str) -> PoolConfig {
    PoolConfig {
        pools: vec![net.parse().unwrap()],
        reserved: vec![],
        max_leases_per_subnet: 1000,
        rest: MINUTE,
        lanes: Lanes::ONE,
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn table() -> LeaseTable {
    LeaseTable::new(100_000, MINUTE)
}

fn end(table: &LeaseTable, pool: &mut LeasePool, address: Ipv4Addr, now: Timestamp) {
    table.remove(address, now).unwrap();
    pool.free(table, address, now);
}

#[test]
fn a_host_that_asks_again_gets_the_same_lease() {
    let (table, mut pool) = (table(), LeasePool::new(&config("198.51.100.0/24")).unwrap());
    let first = pool.grant(&table, host(1), at(0)).unwrap();
    assert_eq!(pool.grant(&table, host(1), at(5)).unwrap().address, first.address);
    assert_eq!(pool.usage(at(5))[0].used, 1);
}

#[test]
fn network_broadcast_and_reserved_addresses_are_never_leased() {
    let mut config = config("198.51.100.0/29");
    config.reserved.push("198.51.100.1".parse().unwrap());
    let (table, mut pool) = (table(), LeasePool::new(&config).unwrap());
    assert_eq!(pool.usage(at(0))[0].free, 5);
    let leased: Vec<_> =
        (0..5).map(|n| pool.grant(&table, host(n), at(0)).unwrap().address.octets()[3]).collect();
    assert_eq!(leased, [2, 3, 4, 5, 6]);
    assert_eq!(pool.grant(&table, host(9), at(0)), Err(Refusal::PoolExhausted { used: 5, resting: 0 }));
    assert_eq!(pool.usage(at(0))[0].free, 0);
}

#[test]
fn slash_31_and_32_are_leased_whole() {
    for (net, size) in [("198.51.100.0/31", 2), ("198.51.100.7/32", 1)] {
        let (table, mut pool) = (table(), LeasePool::new(&config(net)).unwrap());
        assert!((0..size).all(|n| pool.grant(&table, host(n), at(0)).is_ok()), "{net}");
        assert!(pool.grant(&table, host(size), at(0)).is_err(), "{net}");
    }
}

#[test]
fn a_freed_address_rests_for_others_but_not_for_its_last_host() {
    let (table, mut pool) = (table(), LeasePool::new(&config("198.51.100.7/32")).unwrap());
    let lease = pool.grant(&table, host(1), at(0)).unwrap();
    end(&table, &mut pool, lease.address, at(10));
    assert_eq!(pool.grant(&table, host(2), at(11)), Err(Refusal::PoolExhausted { used: 0, resting: 1 }));
    assert_eq!(pool.next_available(), Some(at(70)));
    assert_eq!(pool.grant(&table, host(1), at(12)).unwrap().address, lease.address);
    end(&table, &mut pool, lease.address, at(20));
    assert!(pool.grant(&table, host(2), at(79)).is_err());
    assert_eq!(
        pool.grant(&table, host(2), at(80)).unwrap().address,
        lease.address,
        "the exhausted pool has healed"
    );
}

#[test]
fn a_subnet_holds_no_more_than_its_bound() {
    let mut config = config("198.51.100.0/24");
    config.max_leases_per_subnet = 2;
    let (table, mut pool) = (table(), LeasePool::new(&config).unwrap());
    let first = pool.grant(&table, host(0), at(0)).unwrap();
    pool.grant(&table, host(1), at(0)).unwrap();
    assert_eq!(pool.grant(&table, host(2), at(0)), Err(Refusal::SubnetLimit { limit: 2 }));
    assert!(pool.grant(&table, host(1000), at(0)).is_ok(), "another /64 is not touched by it");
    end(&table, &mut pool, first.address, at(1));
    assert!(pool.grant(&table, host(2), at(1)).is_ok());
}

#[test]
fn word_of_an_end_may_come_late_twice_or_never() {
    let (table, mut pool) = (table(), LeasePool::new(&config("198.51.100.7/32")).unwrap());
    let lease = pool.grant(&table, host(1), at(0)).unwrap();
    table.remove(lease.address, at(1));
    // Before the word arrives, its host asks again.
    let again = pool.grant(&table, host(1), at(2)).unwrap();
    assert_eq!(again.address, lease.address);
    pool.free(&table, lease.address, at(3));
    pool.free(&table, lease.address, at(3));
    assert_eq!(pool.usage(at(3))[0].used, 1, "the address is held again: late word must not free it");
}

#[test]
fn a_rebuilt_pool_knows_what_is_held_and_what_rests() {
    let (table, mut pool) = (table(), LeasePool::new(&config("198.51.100.0/30")).unwrap());
    pool.grant(&table, host(1), at(0)).unwrap();
    let second = pool.grant(&table, host(2), at(0)).unwrap();
    end(&table, &mut pool, second.address, at(10));
    let mut rebuilt = LeasePool::new(&config("198.51.100.0/30")).unwrap();
    rebuilt.rebuild(&table, at(11));
    assert_eq!(
        rebuilt.usage(at(11)),
        [Usage { net: "198.51.100.0/30".parse().unwrap(), used: 1, free: 0, resting: 1, high_water: 2 }]
    );
    assert_eq!(rebuilt.grant(&table, host(3), at(11)), Err(Refusal::PoolExhausted { used: 1, resting: 1 }));
    assert_eq!(rebuilt.grant(&table, host(3), at(70)).unwrap().address, second.address);
}

#[test]
fn an_address_that_somebody_else_holds_is_passed_over() {
    let (table, mut pool) = (table(), LeasePool::new(&config("198.51.100.0/30")).unwrap());
    table.insert(host(7), "198.51.100.1".parse().unwrap(), LeaseKind::Static, at(0)).unwrap();
    assert_eq!(pool.grant(&table, host(1), at(0)).unwrap().address.octets()[3], 2);
    assert!(pool.grant(&table, host(2), at(0)).is_err());
}

#[test]
fn an_ineligible_source_takes_nothing() {
    let (table, mut pool) = (table(), LeasePool::new(&config("198.51.100.0/24")).unwrap());
    let source = "fe80::1".parse().unwrap();
    assert_eq!(pool.grant(&table, source, at(0)), Err(Refusal::NotEligible { host: source }));
    assert!(table.is_empty());
}

#[test]
fn overlapping_pools_are_refused_by_name() {
    let mut config = config("198.51.100.0/24");
    config.pools.push("198.51.100.128/25".parse().unwrap());
    let error = LeasePool::new(&config).unwrap_err();
    assert_eq!(error.to_string(), "the pools 198.51.100.0/24 and 198.51.100.128/25 overlap");
}

/// Counted, not timed: taking and freeing look at as many places in a /12 as in a /24.
#[test]
fn a_lease_costs_the_same_at_any_size_of_the_pool() {
    let cost = |net: &str| {
        let (table, mut pool) = (table(), LeasePool::new(&config(net)).unwrap());
        for n in 0..250 {
            pool.grant(&table, host(n), at(0)).unwrap();
        }
        let before = pool.visited();
        for round in 0..100 {
            let lease = table.peek_host(host(round)).unwrap();
            end(&table, &mut pool, lease.address, at(1));
            pool.grant(&table, host(round), at(2)).unwrap();
        }
        pool.visited() - before
    };
    assert_eq!(cost("10.0.0.0/24"), cost("10.0.0.0/12"));
    assert!(cost("10.0.0.0/12") <= 300, "a handful of places per lease");
}

#[derive(Debug, Clone)]
enum Step {
    Ask(u64),
    End(u64),
    Wait(u64),
    Rebuild,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_u64).prop_map(Step::Ask),
        3 => (0..6_u64).prop_map(Step::End),
        2 => (0..90_u64).prop_map(Step::Wait),
        1 => Just(Step::Rebuild),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// Random operations against a model of plain lists: who holds what, and which address rests since when.
    #[test]
    fn the_pool_agrees_with_a_model_of_plain_lists(steps in steps(), lanes in 0..6_u32) {
        let mut config = config("198.51.100.0/29");
        config.reserved.push("198.51.100.1".parse().unwrap());
        config.max_leases_per_subnet = 4;
        config.lanes = Lanes::new(1 << lanes).unwrap();
        let table = table();
        let mut pool = LeasePool::new(&config).unwrap();
        let mut held = Vec::<(u64, Ipv4Addr)>::new();
        let mut resting = Vec::<(Ipv4Addr, u64, u64)>::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Ask(n) => {
                    let got = pool.grant(&table, host(n), at(now));
                    if let Some((_, address)) = held.iter().find(|(h, _)| *h == n) {
                        prop_assert_eq!(got.unwrap().address, *address);
                    } else if held.len() >= 4 {
                        prop_assert_eq!(got, Err(Refusal::SubnetLimit { limit: 4 }));
                    } else {
                        let blocked = resting.iter().filter(|(_, last, since)| *last != n && since + 60 > now).count();
                        if held.len() + blocked == 5 {
                            let exhausted = matches!(got, Err(Refusal::PoolExhausted { .. }));
                            prop_assert!(exhausted, "{:?}", got);
                        } else {
                            let address = got.unwrap().address;
                            prop_assert!(held.iter().all(|(_, other)| *other != address), "held twice");
                            let rests = resting.iter().any(|(a, last, since)| *a == address && *last != n && since + 60 > now);
                            prop_assert!(!rests, "leased while it rests");
                            resting.retain(|(a, ..)| *a != address);
                            held.push((n, address));
                        }
                    }
                }
                Step::End(n) => {
                    if let Some(place) = held.iter().position(|(h, _)| *h == n) {
                        let (_, address) = held.swap_remove(place);
                        end(&table, &mut pool, address, at(now));
                        resting.push((address, n, now));
                    }
                }
                Step::Wait(seconds) => now += seconds,
                Step::Rebuild => pool.rebuild(&table, at(now)),
            }
            let usage = pool.usage(at(now))[0];
            let still = resting.iter().filter(|(_, _, since)| since + 60 > now).count() as u64;
            prop_assert_eq!((usage.used, usage.resting), (held.len() as u64, still));
            prop_assert_eq!(usage.used + usage.resting + usage.free, 5);
            prop_assert_eq!(table.len(), held.len());
        }
    }
}

#[test]
fn an_address_that_is_reserved_while_it_is_leased_or_rests_is_leased_to_nobody_again() {
    let (table, mut config) = (table(), config("198.51.100.0/29"));
    let mut pool = LeasePool::new(&config).unwrap();
    let [ended, held] = [1, 2].map(|n| pool.grant(&table, host(n), at(0)).unwrap().address);
    end(&table, &mut pool, ended, at(1));
    config.reserved = vec![ended, held];
    let mut pool = LeasePool::new(&config).unwrap();
    pool.rebuild(&table, at(2));
    assert_ne!(pool.grant(&table, host(1), at(3)).unwrap().address, ended, "not even to its last host");
    end(&table, &mut pool, held, at(4));
    assert_ne!(pool.grant(&table, host(2), at(5)).unwrap().address, held);
    let others = (3..).map_while(|n| pool.grant(&table, host(n), at(1000)).ok()).count();
    let usage = pool.usage(at(2000))[0];
    assert_eq!((others, usage.used, usage.free, usage.resting), (2, 4, 0, 0));
}
