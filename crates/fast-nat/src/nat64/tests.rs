use std::time::Duration;

use super::*;
use crate::{BlockPool, BlockPoolConfig, Granted, PortNet};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + seconds * 1000)
}

fn host(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, 1)
}

const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

fn flow(protocol: Protocol, n: u16, port: u16) -> Outbound {
    let remote_port = if protocol == Protocol::Icmp { 0 } else { 443 };
    Outbound { prefix: 0, protocol, host: host(n), port, remote: REMOTE, remote_port }
}

fn back(flow: &Outbound, mapped: &Mapped) -> Inbound {
    Inbound {
        protocol: flow.protocol,
        address: mapped.address,
        port: mapped.port,
        remote: flow.remote,
        remote_port: flow.remote_port,
    }
}

fn with(signal: Signal) -> Passing<'static> {
    Passing { signal, ..Passing::plain(60) }
}

fn pool() -> BlockPool {
    let net = PortNet {
        net: "203.0.113.0/28".parse().unwrap(),
        first_port: 1024,
        last_port: 65_535,
        reserved_ports: vec![],
    };
    BlockPool::new(&BlockPoolConfig {
        nets: vec![net],
        block_size: 128,
        max_ports_per_subscriber: 1024,
        reserved_addresses: vec![],
        reserved_endpoints: vec![],
        seed: None,
    })
    .unwrap()
}

/// As a router does it: where a block is needed it is leased, and the packet tried again.
fn send(nat: &Nat64, pool: &mut BlockPool, flow: &Outbound, signal: Signal, now: Timestamp) -> Mapped {
    match nat.outbound(flow, &with(signal), now) {
        Err(Refused::NeedsBlock(class)) => {
            assert!(matches!(pool.grant(nat, flow.host, class, now), Ok(Granted::New { .. })));
            nat.outbound(flow, &with(signal), now).unwrap()
        }
        mapped => mapped.unwrap(),
    }
}

fn expire(nat: &Nat64, now: Timestamp) {
    for _ in 0..1_000_000 {
        if !nat.expire(now, 64) {
            return;
        }
    }
    panic!("expiry does not come to an end");
}

#[test]
fn a_connection_lives_from_its_syn_to_the_end_of_its_timer_and_leaves_nothing_behind() {
    let nat = Nat64::new(NatConfig { events: 64, ..NatConfig::default() }).unwrap();
    let mut pool = pool();
    let out = flow(Protocol::Tcp, 1, 40_000);
    let mapped = send(&nat, &mut pool, &out, Signal::Syn, at(0));
    assert!(mapped.created && mapped.port >= 1024 && mapped.port.is_multiple_of(2));
    let reached = nat.inbound(&back(&out, &mapped), &with(Signal::Syn), at(0)).unwrap();
    assert_eq!((reached.host, reached.port, reached.session), (out.host, out.port, mapped.session));
    let view = nat.session(mapped.session.unwrap()).unwrap();
    assert_eq!((view.state, view.packets, view.outbound), (SessionState::Established, [1, 1], out));
    assert!(matches!(nat.poll_event(), Some(Event::Started(_))));
    assert!(matches!(nat.poll_event(), Some(Event::Established(_))));

    // Silent for two hours and four minutes: its host is asked, and does not answer.
    expire(&nat, at(7440));
    assert!(nat.session(view.reference).is_some() && nat.poll_output(at(7440)).is_none());
    expire(&nat, at(7441));
    assert_eq!(nat.poll_output(at(7441)), Some(Output::Probe(out)));
    assert_eq!(nat.session(view.reference).unwrap().state, SessionState::Trans);
    expire(&nat, at(7441 + 240));
    assert!(nat.session(view.reference).is_some());
    expire(&nat, at(7441 + 241));
    assert_eq!(nat.session(view.reference), None);
    let block = nat.blocks().next().unwrap();
    assert_eq!((nat.usage().bindings, block.used), (0, [0; 3]));
    assert_eq!(nat.idle_blocks(at(7441 + 241 + 120), 10), []);
    let idle = nat.idle_blocks(at(7441 + 241 + 121), 10);
    assert_eq!(idle, [block.reference]);
    assert!(pool.take_back(&nat, idle[0], at(7441 + 241 + 121)).is_some());
    assert_eq!(nat.usage(), NatUsage::default());
    assert_eq!(pool.usage()[0].used, 0);
}

#[test]
fn one_port_has_one_mapping_for_all_remotes_and_a_host_has_one_address() {
    let nat = Nat64::new(NatConfig::default()).unwrap();
    let mut pool = pool();
    let first = send(&nat, &mut pool, &flow(Protocol::Udp, 1, 5000), Signal::None, at(0));
    let other = Outbound { remote: Ipv4Addr::new(198, 51, 100, 1), ..flow(Protocol::Udp, 1, 5000) };
    let second = send(&nat, &mut pool, &other, Signal::None, at(0));
    assert_eq!((first.address, first.port), (second.address, second.port));
    assert_ne!(first.session, second.session);
    for port in 0..500 {
        let mapped = send(&nat, &mut pool, &flow(Protocol::Udp, 1, 10_000 + port), Signal::None, at(0));
        assert_eq!(mapped.address, first.address);
        // Later on a block may be out of ports of one parity before the next is asked for.
        assert!(port > 100 || mapped.port % 2 == port % 2);
    }
    assert_eq!(nat.usage().blocks, 4);
}

#[test]
fn the_wheel_finds_every_deadline_however_time_goes() {
    let timers = Timers { udp: Duration::from_millis(700), ..Timers::DEFAULT };
    let nat = Nat64::new(NatConfig { timers, ..NatConfig::default() }).unwrap();
    let mut pool = pool();
    let ms = Timestamp::from_millis;
    for (n, start) in [0_u64, 1050, 2199, 3300, 4950, 3_600_000, 90_000_000].into_iter().enumerate() {
        let out = flow(Protocol::Udp, n as u16, 7);
        let session = send(&nat, &mut pool, &out, Signal::None, ms(start)).session.unwrap();
        let floor = start / 100 * 100;
        expire(&nat, ms(floor + 799));
        assert!(nat.session(session).is_some(), "{start}: too early");
        expire(&nat, ms(floor + 800));
        assert!(nat.session(session).is_none(), "{start}: too late");
    }
}

#[test]
fn no_call_touches_more_than_256_entries() {
    let nat = Nat64::new(NatConfig {
        quota: Quota { new_sessions_per_second: 0, ..Quota::default() },
        ..NatConfig::default()
    })
    .unwrap();
    let mut pool = pool();
    for port in 0..1000 {
        send(&nat, &mut pool, &flow(Protocol::Udp, 1, 10_000 + port), Signal::None, at(0));
    }
    expire(&nat, at(100_000));
    assert_eq!(nat.usage().sessions, [0; 3]);
    assert!((1..=256).contains(&nat.most_touched()), "{}", nat.most_touched());
}

#[test]
fn outsiders_alone_cannot_fill_the_table() {
    let nat = Nat64::new(NatConfig { max_sessions: 64, max_bindings: 64, ..NatConfig::default() }).unwrap();
    let mut pool = pool();
    let out = flow(Protocol::Udp, 1, 5000);
    let mapped = send(&nat, &mut pool, &out, Signal::None, at(0));
    let from = |n: u16| Inbound { remote_port: 1000 + n, ..back(&out, &mapped) };
    let let_in = (0..100).take_while(|n| nat.inbound(&from(*n), &with(Signal::None), at(0)).is_ok()).count();
    assert_eq!(let_in, 64 - 8 - 1);
    assert_eq!(nat.inbound(&from(100), &with(Signal::None), at(0)), Err(Refused::TableFull));
    for port in 0..8 {
        send(&nat, &mut pool, &flow(Protocol::Udp, 1, 6000 + port), Signal::None, at(0));
    }
    let last = nat.outbound(&flow(Protocol::Udp, 1, 7000), &with(Signal::None), at(0));
    assert_eq!(last, Err(Refused::TableFull));
}

#[test]
fn a_lock_that_is_not_given_back_is_seen() {
    let nat = Nat64::new(NatConfig::default()).unwrap();
    let patience = Duration::from_millis(20);
    assert!(!nat.is_stuck(patience));
    let (hold, held) = std::sync::mpsc::sync_channel(1);
    let (go, gone) = std::sync::mpsc::sync_channel::<()>(1);
    std::thread::scope(|scope| {
        let nat = &nat;
        scope.spawn(move || {
            let shard = nat.hold(SHARDS as u32 - 1);
            hold.send(()).unwrap();
            gone.recv().unwrap();
            drop(shard);
        });
        held.recv().unwrap();
        assert!(nat.is_stuck(patience));
        go.send(()).unwrap();
    });
    assert!(!nat.is_stuck(patience));
}

/// Each shard costs a lock: without any session they are left alone, but for a look now and then, so that the wheels keep up.
#[test]
fn expiry_leaves_shards_alone_while_there_is_no_session_and_is_in_time_for_one_that_begins_then() {
    // Shorter than the quiet.
    let udp = Duration::from_secs(2);
    let timers = Timers { udp, ..Timers::DEFAULT };
    let nat = Nat64::new(NatConfig { timers, ..NatConfig::default() }).unwrap();
    let mut pool = pool();
    let swept = |nat: &Nat64| -> Vec<u32> {
        let mut ticks: Vec<_> = nat.shards.iter().map(|cell| cell.swept.load(Ordering::Relaxed)).collect();
        ticks.dedup();
        ticks
    };
    let (first, quiet) = (at(100), Duration::from_secs(5));
    expire(&nat, first);
    assert_eq!(swept(&nat), [tick(first)], "all were looked at once");
    expire(&nat, first + Duration::from_millis(4900));
    assert_eq!(swept(&nat), [tick(first)], "none is looked at again");
    expire(&nat, first + quiet);
    assert_eq!(swept(&nat), [tick(first + quiet)], "but for now and then");

    // A session that begins in the quiet time.
    let begun = first + quiet + Duration::from_secs(1);
    let mapped = send(&nat, &mut pool, &flow(Protocol::Udp, 1, 40_000), Signal::None, begun);
    let lasts = |after: Duration| {
        expire(&nat, begun + after);
        nat.session(mapped.session.unwrap()).is_some()
    };
    assert!(lasts(Duration::from_millis(100)) && lasts(udp));
    assert!(!lasts(udp + Duration::from_secs(1)), "it ends in its time");
    assert_eq!(nat.session_count(), 0);
    // With the last one the quiet begins again.
    let then = begun + udp + Duration::from_secs(1);
    expire(&nat, then + quiet);
    let looked = swept(&nat);
    expire(&nat, then + quiet + Duration::from_secs(1));
    assert_eq!(swept(&nat), looked);
}
