use super::*;
use std::sync::atomic::AtomicBool;

const HOUR: Duration = Duration::from_hours(1);

fn host(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, n)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

#[test]
fn both_sides_find_the_lease_and_only_the_host_refreshes_it() {
    let table = LeaseTable::new(10, HOUR);
    table.insert(host(1), address(1), LeaseKind::Dynamic, at(0)).unwrap();
    assert_eq!(table.by_address(address(1)).unwrap().last_seen, at(0));
    assert_eq!(table.by_host(host(1), at(5)).unwrap().last_seen, at(5));
    assert_eq!(table.by_address(address(1)).unwrap().last_seen, at(5));
    assert_eq!(table.by_host(host(1), at(3)).unwrap().last_seen, at(5), "time does not run backwards");
}

#[test]
fn a_side_that_is_taken_is_refused_and_nothing_changes() {
    let table = LeaseTable::new(10, HOUR);
    let first = table.insert(host(1), address(1), LeaseKind::Dynamic, at(0)).unwrap();
    assert_eq!(table.insert(host(1), address(1), LeaseKind::Dynamic, at(1)), Ok(first));
    assert_eq!(
        table.insert(host(2), address(1), LeaseKind::Dynamic, at(1)),
        Err(InsertError::AddressTaken(first))
    );
    assert_eq!(
        table.insert(host(1), address(2), LeaseKind::Dynamic, at(1)),
        Err(InsertError::HostHasLease(first))
    );
    assert_eq!(table.by_address(address(2)), None, "the failed insert left no trace");
    assert_eq!(table.len(), 1);
}

#[test]
fn the_table_is_bounded() {
    let table = LeaseTable::new(1, HOUR);
    table.insert(host(1), address(1), LeaseKind::Dynamic, at(0)).unwrap();
    assert_eq!(table.insert(host(2), address(2), LeaseKind::Dynamic, at(0)), Err(InsertError::Full(1)));
    table.remove(address(1), at(1)).unwrap();
    assert!(table.insert(host(2), address(2), LeaseKind::Dynamic, at(1)).is_ok());
}

#[test]
fn a_silent_host_loses_its_lease_and_an_active_one_keeps_it() {
    let table = LeaseTable::new(10, HOUR);
    for n in 1..=2 {
        table.insert(host(n), address(n as u8), LeaseKind::Dynamic, at(0)).unwrap();
    }
    table.insert(host(3), address(3), LeaseKind::Static, at(0)).unwrap();
    assert_eq!(table.expire(at(1), HOUR, 256), (vec![], false));
    table.by_host(host(2), at(3000));
    assert_eq!(table.expire(at(3599), HOUR, 256).0, []);
    let (expired, _) = table.expire(at(3600), HOUR, 256);
    assert_eq!(expired.iter().map(|lease| lease.host).collect::<Vec<_>>(), [host(1)]);
    assert_eq!((table.peek_host(host(1)), table.by_address(address(1))), (None, None));
    assert_eq!(table.expire(at(6600), HOUR, 256).0.len(), 1, "host 2, from when it was last seen");
    assert!(table.peek_host(host(3)).is_some(), "a static pair never ends by itself");
}

#[test]
fn no_call_visits_more_than_its_budget_and_it_says_when_more_is_due() {
    let table = LeaseTable::new(1000, HOUR);
    for n in 0..100 {
        table.insert(host(n), address(n as u8), LeaseKind::Dynamic, at(0)).unwrap();
    }
    let mut rounds = 0;
    let mut ended = 0;
    loop {
        let (expired, more) = table.expire(at(7200), HOUR, 30);
        assert!(expired.len() <= 30);
        ended += expired.len();
        rounds += 1;
        if !more {
            break;
        }
    }
    assert_eq!((ended, rounds), (100, 4));
}

#[test]
fn an_outdated_timer_does_not_end_a_later_lease() {
    let table = LeaseTable::new(10, HOUR);
    table.insert(host(1), address(1), LeaseKind::Dynamic, at(0)).unwrap();
    table.remove(address(1), at(1)).unwrap();
    table.insert(host(1), address(1), LeaseKind::Dynamic, at(3599)).unwrap();
    assert_eq!(table.expire(at(3600), HOUR, 256).0, []);
    assert!(table.peek_host(host(1)).is_some());
    assert_eq!(table.expire(at(7200), HOUR, 256).0.len(), 1, "its own timer is there");
}

#[test]
fn ended_leases_are_remembered_for_a_while_and_boundedly() {
    let table = LeaseTable::new(2, Duration::from_secs(10));
    for n in 1..=3 {
        table.insert(host(n), address(n as u8), LeaseKind::Dynamic, at(n.into())).unwrap();
        table.remove(address(n as u8), at(n.into())).unwrap();
    }
    let kept: Vec<_> = table.ended().iter().map(|ended| ended.lease.host).collect();
    assert_eq!(kept, [host(2), host(3)], "no more than the capacity");
    table.insert(host(4), address(4), LeaseKind::Dynamic, at(100)).unwrap();
    table.remove(address(4), at(100)).unwrap();
    assert_eq!(table.ended().len(), 1, "the others were too old");
}

/// Threads look up and refresh, one grants, one expires: at the end both indexes agree.
#[test]
fn the_indexes_agree_under_concurrency() {
    let table = LeaseTable::new(10_000, HOUR);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for n in (0..200_u16).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                    if let Some(lease) = table.by_host(host(n), at(0)) {
                        assert_eq!(lease.host, host(n));
                    }
                    if let Some(lease) = table.by_address(address(n as u8)) {
                        assert_eq!(lease.address, address(n as u8));
                    }
                }
            });
        }
        scope.spawn(|| {
            for round in 0..200_u64 {
                table.expire(at(round + 3600), HOUR, 64);
            }
        });
        for round in 0..200_u16 {
            for n in 0..200_u16 {
                let _ = table.insert(host(n), address(((n + round) % 200) as u8), LeaseKind::Dynamic, at(0));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let leases: Vec<_> = table.leases().collect();
    assert_eq!(leases.len(), table.len());
    for lease in leases {
        assert_eq!(table.by_address(lease.address).map(|found| found.host), Some(lease.host));
    }
    let reachable = (0..200).filter(|n| table.by_address(address(*n)).is_some()).count();
    assert_eq!(reachable, table.len());
}
