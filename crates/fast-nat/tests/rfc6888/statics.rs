//! Static bindings: port forwards.

use std::collections::HashSet;

use fast_nat::nat64::{
    Block, Inbound, NatUsage, PortClass, Protocol, Refused, SessionState, Signal, StaticBinding, StaticError,
};

use crate::common::{BLOCK, Lab, POOL, TICK, flow, host, mins, remote};
use crate::udp;

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
    for wrong in [
        StaticBinding { port: 2049, ..forward },
        StaticBinding { host_port: 54, ..forward },
        StaticBinding { host: host(3), ..forward },
        StaticBinding { protocol: Protocol::Tcp, ..forward },
    ] {
        assert!(!lab.nat.remove_static(&wrong, lab.now), "{wrong:?}");
    }
    assert!(lab.nat.remove_static(&forward, lab.now));
    assert!(!lab.nat.remove_static(&forward, lab.now));
    let client =
        Inbound { protocol: Protocol::Udp, address: POOL, port: 2048, remote: remote(1), remote_port: 4000 };
    assert_eq!(lab.back(&client, Signal::None), Err(Refused::NoBinding));
}

/// A client of the port that [`Lab::add_static`] was asked for.
fn client(n: u8) -> Inbound {
    Inbound { protocol: Protocol::Udp, address: POOL, port: 5353, remote: remote(n), remote_port: 4000 }
}

#[test]
fn a_static_binding_that_is_removed_in_use_lets_its_sessions_end_and_nobody_new_in() {
    let mut lab = Lab::new();
    let forward = lab.add_static(Protocol::Udp, 5353, host(1), 53);
    assert!(lab.back(&client(1), Signal::None).unwrap().created);
    assert!(lab.nat.remove_static(&forward, lab.now));
    assert!(!lab.back(&client(1), Signal::None).unwrap().created, "the session goes on");
    assert_eq!(lab.back(&client(2), Signal::None), Err(Refused::NoBinding));
    let home = flow(Protocol::Udp, host(1), 53, remote(1), 4000);
    lab.ends_after(mins(5), "its session", |lab| lab.state(&home).is_some());
    assert_eq!(lab.nat.usage(), NatUsage::default());
    // What it was can be somebody else's.
    let other = StaticBinding { host: host(2), ..forward };
    lab.nat.add_static(&other, lab.now).unwrap();
    assert_eq!(lab.back(&client(1), Signal::None).unwrap().host, host(2));
}

#[test]
fn a_static_binding_can_be_placed_twice_and_again_while_its_sessions_go_on() {
    let mut lab = Lab::new();
    let forward = lab.add_static(Protocol::Udp, 5353, host(1), 53);
    lab.nat.add_static(&forward, lab.now).unwrap();
    assert_eq!(lab.nat.usage().bindings, 1);
    lab.back(&client(1), Signal::None).unwrap();
    assert!(lab.nat.remove_static(&forward, lab.now));
    lab.nat.add_static(&forward, lab.now).unwrap();
    assert!(lab.back(&client(2), Signal::None).unwrap().created);
    lab.wait(mins(5) + TICK);
    assert_eq!((lab.count(), lab.nat.usage().bindings), (0, 1), "it is a static one again");
    lab.back(&client(3), Signal::None).unwrap();
}

#[test]
fn the_host_of_a_static_binding_needs_no_block_to_use_it() {
    let lab = Lab::new();
    lab.add_static(Protocol::Udp, 5353, host(1), 53);
    let mapped = lab.open(&flow(Protocol::Udp, host(1), 53, remote(1), 4000));
    assert_eq!((mapped.address, mapped.port), (POOL, 5353));
    let refused = lab.out(&udp(host(1), 54), Signal::None);
    assert_eq!(refused, Err(Refused::NeedsBlock(PortClass::High)), "another port of it does");
}

#[test]
fn a_host_without_a_block_is_not_forgotten_as_long_as_it_has_a_static_binding() {
    let mut lab = Lab::new();
    let forward = lab.add_static(Protocol::Udp, 5353, host(1), 53);
    let block = lab.give(host(1), 2048);
    lab.wait(mins(2) + TICK);
    assert!(lab.nat.take_back(block, lab.now).is_some());
    assert_eq!((lab.nat.usage().hosts, lab.nat.usage().subscribers), (1, 1));
    lab.back(&client(1), Signal::None).unwrap();
    lab.wait(mins(5) + TICK);
    assert!(lab.nat.remove_static(&forward, lab.now));
    assert_eq!(lab.nat.usage(), NatUsage::default());
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
