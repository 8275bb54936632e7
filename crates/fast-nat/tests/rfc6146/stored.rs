//! §3.5.2.2, CLOSED: an IPv4 SYN that is kept in case the host opens the same connection (RFC 5382 REQ-4).

use fast_nat::nat64::{Inbound, Outbound, Output, Passing, Protocol, Refused, SessionState, Signal};

use crate::common::{Lab, POOL, TICK, answer, flow, host, mins, remote, secs};

fn syn(port: u16, from: u8) -> Inbound {
    Inbound { protocol: Protocol::Tcp, address: POOL, port, remote: remote(from), remote_port: 4444 }
}

fn send(lab: &Lab, flow: &Inbound, packet: &[u8]) -> Result<fast_nat::nat64::Reached, Refused> {
    lab.nat.inbound(flow, &Passing { signal: Signal::Syn, segments: 1, bytes: 60, packet }, lab.now)
}

#[test]
fn a_syn_that_nobody_waits_for_is_stored_and_answered_after_six_seconds() {
    let mut lab = Lab::new();
    assert_eq!(send(&lab, &syn(2048, 1), b"the SYN"), Err(Refused::Stored));
    assert_eq!((lab.nat.usage().stored_syns, lab.count()), (1, 0), "neither binding nor session");
    lab.wait(secs(6));
    assert!(lab.outputs().is_empty(), "not before six seconds are over");
    lab.wait(TICK);
    assert_eq!(lab.outputs(), [Output::Unreachable(b"the SYN".as_slice().into())]);
    assert_eq!(lab.nat.usage().stored_syns, 0);
    lab.wait(mins(10));
    assert!(lab.outputs().is_empty(), "answered once");
}

#[test]
fn a_repeated_syn_replaces_the_stored_one_and_keeps_its_deadline() {
    let mut lab = Lab::new();
    assert_eq!(send(&lab, &syn(2048, 1), b"first"), Err(Refused::Stored));
    lab.wait(secs(3));
    assert_eq!(send(&lab, &syn(2048, 1), b"again"), Err(Refused::Stored));
    assert_eq!(lab.nat.usage().stored_syns, 1);
    lab.wait(secs(3));
    assert!(lab.outputs().is_empty());
    lab.wait(TICK);
    assert_eq!(lab.outputs(), [Output::Unreachable(b"again".as_slice().into())]);
}

#[test]
fn stored_syns_are_told_apart_by_both_ends_and_answered_in_their_order() {
    let mut lab = Lab::new();
    let flows = [
        syn(2048, 1),
        syn(2049, 1),
        syn(2048, 2),
        Inbound { remote_port: 4445, ..syn(2048, 1) },
        Inbound { address: remote(200), ..syn(2048, 1) },
    ];
    for (n, flow) in (0..).zip(&flows) {
        assert_eq!(send(&lab, flow, &[n]), Err(Refused::Stored), "{flow:?}");
        lab.pass(TICK);
    }
    assert_eq!(lab.nat.usage().stored_syns, 5);
    lab.wait(secs(7));
    let expected: Vec<_> = (0..5).map(|n| Output::Unreachable(Box::new([n]))).collect();
    assert_eq!(lab.outputs(), expected);
}

#[test]
fn no_more_syns_are_stored_than_there_is_room_for_and_the_room_comes_back() {
    for room in [0, 4] {
        let mut lab = Lab::with(|config| config.max_stored_syns = room);
        for n in 0..u8::try_from(room).unwrap() {
            assert_eq!(send(&lab, &syn(2048, n), b"SYN"), Err(Refused::Stored));
        }
        let refused = send(&lab, &syn(2048, 100), b"SYN");
        assert!(matches!(refused, Err(Refused::NoBinding)), "{refused:?}");
        assert_eq!(lab.nat.usage().stored_syns, room);
        if room > 0 {
            assert_eq!(send(&lab, &syn(2048, 1), b"SYN"), Err(Refused::Stored), "one that is there already");
        }
        lab.wait(secs(6) + TICK);
        assert_eq!(lab.outputs().len(), room as usize);
        let again = send(&lab, &syn(2048, 100), b"SYN");
        assert_eq!(again.unwrap_err(), if room > 0 { Refused::Stored } else { Refused::NoBinding });
    }
}

#[test]
fn the_hosts_syn_takes_up_the_stored_one_and_the_connection_is_established() {
    // The host has one port, so that its new binding can only be the one that the SYN was for.
    let mut lab = Lab::new();
    let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 4444);
    lab.give_ports(flow.host, 2048, 1);
    assert_eq!(send(&lab, &syn(2048, 1), b"SYN"), Err(Refused::Stored));
    lab.wait(secs(5));
    let mapped = lab.open(&flow);
    assert_eq!(mapped.port, 2048);
    assert_eq!(lab.state(&flow), Some(SessionState::Established));
    assert_eq!(lab.nat.usage().stored_syns, 0);
    lab.wait(secs(60));
    assert!(lab.outputs().is_empty(), "the SYN is dropped in silence (RFC 5382 REQ-4)");
    lab.ends_after(mins(123), "the connection", |lab| lab.state(&flow) == Some(SessionState::Established));
}

#[test]
fn the_room_of_a_syn_that_was_taken_up_is_free_at_once() {
    let lab = Lab::with(|config| config.max_stored_syns = 1);
    lab.give_ports(host(1), 2048, 1);
    assert_eq!(send(&lab, &syn(2048, 1), b"SYN"), Err(Refused::Stored));
    assert_eq!(send(&lab, &syn(2049, 2), b"SYN"), Err(Refused::NoBinding));
    lab.open(&flow(Protocol::Tcp, host(1), 5000, remote(1), 4444));
    assert_eq!(send(&lab, &syn(2049, 2), b"SYN"), Err(Refused::Stored));
}

#[test]
fn a_long_syn_is_kept_as_far_as_an_error_can_quote_it() {
    let mut lab = Lab::new();
    let long: Vec<u8> = (0..1500_u16).map(|n| n as u8).collect();
    assert_eq!(send(&lab, &syn(2048, 1), &long), Err(Refused::Stored));
    lab.wait(secs(6) + TICK);
    let [Output::Unreachable(kept)] = &lab.outputs()[..] else { panic!("one error") };
    assert!((28..=548).contains(&kept.len()) && **kept == long[..kept.len()], "{} bytes", kept.len());
}

#[test]
fn a_new_binding_prefers_the_port_that_a_stored_syn_of_its_remote_is_for() {
    for port in 2048..2048 + crate::common::BLOCK {
        let lab = Lab::new();
        let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 4444);
        lab.give(flow.host, 2048);
        assert_eq!(send(&lab, &syn(port, 1), b"SYN"), Err(Refused::Stored));
        let mapped = lab.open(&flow);
        assert_eq!((mapped.port, lab.state(&flow)), (port, Some(SessionState::Established)));
        assert_eq!(lab.nat.usage().stored_syns, 0);
    }
}

#[test]
fn where_the_wanted_port_is_not_to_be_had_another_one_of_the_right_parity_is() {
    let lab = Lab::new();
    let opened = flow(Protocol::Tcp, host(1), 5000, remote(1), 4444);
    lab.give(opened.host, 2048);
    // The port is another binding's, which the stranger's SYN could not get in by its filter.
    let lab_of_filter = Lab::address_dependent();
    for lab in [&lab, &lab_of_filter] {
        if lab.nat.usage().blocks == 0 {
            lab.give(opened.host, 2048);
        }
        let other = Outbound { port: 6000, remote: remote(2), ..opened };
        let taken = lab.open(&other);
        let early = send(lab, &syn(taken.port, 1), b"SYN");
        let mapped = lab.out(&opened, Signal::Syn).unwrap();
        assert_ne!(mapped.port, taken.port);
        assert_eq!(mapped.port % 2, 0);
        assert_eq!(lab.state(&opened), Some(SessionState::V6Init), "{early:?}");
    }
}

#[test]
fn a_stored_syn_of_another_remote_or_for_another_hosts_port_is_not_taken_up() {
    let lab = Lab::new();
    let opened = flow(Protocol::Tcp, host(1), 5000, remote(1), 4444);
    lab.give(opened.host, 2048);
    lab.give(host(2), 4096);
    for other in [syn(2048, 2), Inbound { remote_port: 4445, ..syn(2050, 1) }, syn(4096, 1)] {
        assert_eq!(send(&lab, &other, b"SYN"), Err(Refused::Stored));
    }
    lab.open(&opened);
    assert_eq!(lab.state(&opened), Some(SessionState::V6Init));
    assert_eq!(lab.nat.usage().stored_syns, 3);
}

#[test]
fn a_filtered_syn_to_a_binding_is_stored_too_and_opened_by_the_hosts_syn() {
    let mut lab = Lab::address_dependent();
    let first = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
    lab.give(first.host, 2048);
    let (mapped, _) = lab.establish(&first);
    let second = Outbound { remote: remote(2), remote_port: 4444, ..first };
    let from_second = answer(&second, &mapped);
    assert_eq!(send(&lab, &from_second, b"early"), Err(Refused::Stored));
    assert_eq!(lab.count(), 1, "no session");
    lab.pass(secs(2));
    assert_eq!(lab.open(&second).port, mapped.port);
    assert_eq!(lab.state(&second), Some(SessionState::Established));
    lab.wait(secs(10));
    assert!(lab.outputs().is_empty());

    let third = Outbound { remote: remote(3), ..second };
    assert_eq!(send(&lab, &answer(&third, &mapped), b"never"), Err(Refused::Stored));
    lab.wait(secs(6) + TICK);
    assert_eq!(lab.outputs(), [Output::Unreachable(b"never".as_slice().into())]);
}

#[test]
fn packets_behind_a_stored_syn_that_are_no_syn_pass_nothing() {
    let lab = Lab::new();
    assert_eq!(send(&lab, &syn(2048, 1), b"SYN"), Err(Refused::Stored));
    for signal in [Signal::None, Signal::Fin, Signal::Rst] {
        assert_eq!(lab.back(&syn(2048, 1), signal), Err(Refused::NoSession), "{signal:?}");
    }
    assert_eq!((lab.nat.usage().stored_syns, lab.count()), (1, 0));
}

#[test]
fn the_hosts_packets_that_are_no_syn_do_not_take_up_a_stored_one() {
    let lab = Lab::new();
    let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 4444);
    lab.give_ports(flow.host, 2048, 1);
    assert_eq!(send(&lab, &syn(2048, 1), b"SYN"), Err(Refused::Stored));
    for signal in [Signal::None, Signal::Fin, Signal::Rst] {
        assert_eq!(lab.out(&flow, signal), Err(Refused::NoSession), "{signal:?}");
    }
    assert_eq!((lab.nat.usage().stored_syns, lab.count()), (1, 0));
}
