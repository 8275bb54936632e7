//! What may change while packets pass: timers, quotas, ports for static bindings, blocks that give no more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[allow(dead_code, reason = "each test program needs other parts of it")]
mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::{BLOCK, Lab, POOL, TICK, flow, host, packet, remote, secs};
use fast_nat::nat64::{
    Block, PortClass, Protocol, Quota, Refused, Signal, StaticBinding, StaticError, Timers,
};
use fast_nat::{LeaseKind, LeaseTable, Timestamp};

fn udp(n: u16, port: u16) -> fast_nat::nat64::Outbound {
    flow(Protocol::Udp, host(n), port, remote(1), 53)
}

fn send(lab: &Lab, flow: &fast_nat::nat64::Outbound) -> Result<fast_nat::nat64::Mapped, Refused> {
    lab.nat.outbound(flow, &packet(Signal::None), lab.now)
}

fn expire(lab: &Lab) {
    while lab.nat.expire(lab.now, 256) {}
}

fn forward(port: u16, host_port: u16) -> StaticBinding {
    StaticBinding { prefix: 0, protocol: Protocol::Udp, address: POOL, port, host: host(9), host_port }
}

#[test]
fn new_timers_hold_for_what_begins_and_a_longer_one_for_what_is_there() {
    let mut lab = Lab::new();
    lab.give(host(1), 1024);
    send(&lab, &udp(1, 4000)).unwrap();
    lab.nat.set_timers(&Timers { udp: secs(600), ..Timers::DEFAULT });
    lab.now = lab.now + secs(301);
    expire(&lab);
    assert_eq!(lab.nat.session_count(), 1, "the default is over, the new one is not");
    lab.nat.set_timers(&Timers { udp: secs(10), ..Timers::DEFAULT });
    send(&lab, &udp(1, 4001)).unwrap();
    lab.now = lab.now + secs(10) + TICK * 2;
    expire(&lab);
    let left: Vec<_> = lab.nat.sessions().map(|session| session.outbound.port).collect();
    assert_eq!(left, [4000], "it is looked at when the timers of before say so");
    lab.now = lab.now + secs(600);
    expire(&lab);
    assert_eq!(lab.nat.session_count(), 0);
}

#[test]
fn a_new_quota_takes_nothing_away_and_gives_nothing_beyond_it() {
    let lab = Lab::new();
    lab.give(host(1), 1024);
    for port in 4000..4010 {
        send(&lab, &udp(1, port)).unwrap();
    }
    let few = Quota { sessions: 5, new_sessions_per_second: 0, burst: 1 };
    lab.nat.set_quota(&few).unwrap();
    send(&lab, &udp(1, 4000)).unwrap();
    assert_eq!(send(&lab, &udp(1, 4010)), Err(Refused::SessionQuota));
    lab.nat.set_quota(&Quota { sessions: 11, ..few }).unwrap();
    send(&lab, &udp(1, 4010)).unwrap();
    assert!(lab.nat.set_quota(&Quota { burst: 0, ..few }).is_err());
}

#[test]
fn a_reserved_port_is_never_given_to_the_host_whose_block_it_lies_in() {
    let mut lab = Lab::new();
    lab.give(host(1), 1024);
    // One in use, one that rests, and one that was never used.
    let used = send(&lab, &udp(1, 4000)).unwrap().port;
    let rests = send(&lab, &udp(1, 4001)).unwrap().port;
    let session = lab.nat.sessions().find(|session| session.inbound.port == rests).unwrap();
    assert!(lab.nat.end_session(session.reference, lab.now));
    let fresh = (1024..1024 + BLOCK).find(|port| ![used, rests].contains(port)).unwrap();
    let wanted = [forward(used, 1), forward(rests, 2), forward(fresh, 3)];
    lab.nat.reserve(&wanted);
    let taken = StaticError::Taken { host: host(1), port: 4000 };
    assert_eq!(lab.nat.add_static(&wanted[0], lab.now), Err(taken));
    lab.nat.add_static(&wanted[1], lab.now).unwrap();
    lab.nat.add_static(&wanted[2], lab.now).unwrap();
    lab.now = lab.now + secs(3600);
    let others = (5000..).map_while(|port| send(&lab, &udp(1, port)).ok());
    let given: Vec<_> = others.map(|mapped| mapped.port).collect();
    assert_eq!(given.len(), usize::from(BLOCK) - 3);
    assert!(!given.contains(&rests) && !given.contains(&fresh) && !given.contains(&used), "{given:?}");
    // Other protocols have all of them, and the block comes back when it is idle.
    let icmp = flow(Protocol::Icmp, host(1), 1, remote(1), 0);
    send(&lab, &icmp).unwrap();
    lab.now = lab.now + secs(3600);
    expire(&lab);
    lab.now = lab.now + secs(3600);
    let idle = lab.nat.idle_blocks(lab.now, 10);
    assert_eq!(idle.len(), 1);
    lab.nat.take_back(idle[0], lab.now).unwrap();
    assert_eq!(lab.nat.standing(host(1), PortClass::High).subscriber_ports, 0);
}

#[test]
fn a_retired_block_gives_no_port_and_its_host_may_have_another_address() {
    let elsewhere = Ipv4Addr::new(192, 0, 2, 99);
    let mut lab = Lab::new();
    let block = lab.give(host(1), 1024);
    let before = send(&lab, &udp(1, 4000)).unwrap();
    lab.nat.retire(block);
    lab.nat.retire(block);
    assert_eq!(send(&lab, &udp(1, 4000)).unwrap().port, before.port, "what is there goes on");
    assert_eq!(send(&lab, &udp(1, 4001)), Err(Refused::NeedsBlock(PortClass::High)));
    let standing = lab.nat.standing(host(1), PortClass::High);
    assert_eq!((standing.address, standing.needs_block), (None, true));
    let block = Block { address: elsewhere, first_port: 2048, size: BLOCK, reserved: vec![] };
    lab.nat.give_block(host(1), &block, lab.now).unwrap();
    assert_eq!(send(&lab, &udp(1, 4001)).unwrap().address, elsewhere);
    assert_eq!(send(&lab, &udp(1, 4000)).unwrap().address, POOL);
    // It comes back when nothing is left in it; the other one stays.
    lab.now = lab.now + secs(301);
    send(&lab, &udp(1, 4002)).unwrap();
    expire(&lab);
    lab.now = lab.now + secs(130);
    let idle = lab.nat.idle_blocks(lab.now, 10);
    assert_eq!(idle.len(), 1);
    assert_eq!(lab.nat.take_back(idle[0], lab.now).unwrap().address, POOL);
    assert_eq!(lab.nat.standing(host(1), PortClass::High).address, Some(elsewhere));
    let ports = (5000..).map_while(|port| send(&lab, &udp(1, port)).ok()).count();
    assert!(ports >= usize::from(BLOCK) - 3, "all ports of the other one: {ports}");
}

#[test]
fn sessions_are_read_in_steps_and_each_is_read_once() {
    let lab = Lab::new();
    for n in 1..=5 {
        lab.give(host(n), 1024 + n * BLOCK);
        for port in 0..10 {
            send(&lab, &udp(n, 4000 + port)).unwrap();
        }
    }
    let (mut from, mut seen, mut steps) = (Some(0), Vec::new(), 0);
    while let Some(at) = from {
        let (views, next) = lab.nat.sessions_from(at, 7);
        assert!(views.len() <= 7 && next.is_none_or(|next| next > at));
        seen.extend(views.iter().map(|view| view.reference));
        (from, steps) = (next, steps + 1);
    }
    let all: Vec<_> = lab.nat.sessions().map(|view| view.reference).collect();
    assert_eq!((seen, steps), (all, 50_usize.div_ceil(7)));
    let empty = Lab::new();
    assert_eq!(empty.nat.sessions_from(0, 7), (vec![], None));
}

#[test]
fn a_lease_table_may_hold_more_or_fewer_than_it_was_made_for() {
    let at = Timestamp::from_millis(1000);
    let leases = LeaseTable::new(1, Duration::from_secs(1));
    let insert = |n: u8| leases.insert(host(n.into()), Ipv4Addr::new(203, 0, 113, n), LeaseKind::Dynamic, at);
    insert(1).unwrap();
    assert!(insert(2).is_err());
    leases.set_bounds(2, Duration::from_secs(1));
    insert(2).unwrap();
    leases.set_bounds(0, Duration::from_secs(1));
    assert!(insert(3).is_err());
    assert_eq!((leases.len(), leases.capacity()), (2, 0), "what is held stays");
    // Ending works without any room.
    assert!(leases.remove(Ipv4Addr::new(203, 0, 113, 1), at).is_some());
}
