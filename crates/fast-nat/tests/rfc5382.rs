//! RFC 5382, behaviour of a NAT for TCP.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[allow(dead_code, reason = "each test program needs other parts of it")]
mod common;

use common::{Lab, TICK, answer, flow, host, mins, remote, secs};
use fast_nat::nat64::{
    Filtering, Inbound, Mapped, Outbound, Output, Protocol, Refused, SessionState, Signal,
};

const ANY_PORT: u16 = 4444;

fn connection() -> Outbound {
    flow(Protocol::Tcp, host(1), 5000, remote(1), ANY_PORT)
}

/// Data of both sides passes.
fn is_open(lab: &Lab, flow: &Outbound, mapped: &Mapped) {
    for _ in 0..3 {
        let out = lab.out(flow, Signal::None).unwrap();
        assert_eq!((out.address, out.port), (mapped.address, mapped.port));
        let back = lab.back(&answer(flow, mapped), Signal::None).unwrap();
        assert_eq!((back.host, back.port), (flow.host, flow.port));
    }
    assert_eq!(lab.state(flow), Some(SessionState::Established));
}

#[test]
fn req_1_one_mapping_for_all_connections_of_a_port() {
    let lab = Lab::new();
    lab.give(host(1), 2048);
    let mapped = lab.open(&connection());
    for n in 2..50 {
        let other = Outbound { remote: remote(n), ..connection() };
        let (also, _) = lab.establish(&other);
        assert_eq!((also.address, also.port), (mapped.address, mapped.port));
    }
}

#[test]
fn req_2_a_connection_opened_from_inside() {
    for lab in [Lab::new(), Lab::address_dependent()] {
        lab.give(host(1), 2048);
        let (mapped, _) = lab.establish(&connection());
        is_open(&lab, &connection(), &mapped);
    }
}

#[test]
fn req_2_a_connection_opened_from_outside_where_filtering_permits_it() {
    let lab = Lab::new();
    lab.give(host(1), 2048);
    let (mapped, _) = lab.establish(&Outbound { remote: remote(9), ..connection() });
    assert!(lab.back(&answer(&connection(), &mapped), Signal::Syn).unwrap().created);
    lab.out(&connection(), Signal::Syn).unwrap();
    is_open(&lab, &connection(), &mapped);
}

#[test]
fn req_2_a_connection_opened_from_outside_to_a_forwarded_port_whatever_the_filter() {
    for lab in [Lab::new(), Lab::address_dependent()] {
        lab.give(host(1), 2048);
        lab.add_static(Protocol::Tcp, 8080, host(1), 5000);
        let mapped =
            Mapped { address: common::POOL, port: 8080, session: None, created: false, wants_block: None };
        let reached = lab.back(&answer(&connection(), &mapped), Signal::Syn).unwrap();
        assert_eq!((reached.host, reached.port, reached.created), (host(1), 5000, true));
        assert_eq!(lab.out(&connection(), Signal::Syn).unwrap().port, 8080);
        is_open(&lab, &connection(), &mapped);
    }
}

#[test]
fn req_2a_simultaneous_open_with_the_hosts_syn_first() {
    for lab in [Lab::new(), Lab::address_dependent()] {
        lab.give(host(1), 2048);
        let mapped = lab.open(&connection());
        // Both SYNs cross; each side answers with SYN and ACK.
        assert!(!lab.back(&answer(&connection(), &mapped), Signal::Syn).unwrap().created);
        lab.out(&connection(), Signal::Syn).unwrap();
        lab.back(&answer(&connection(), &mapped), Signal::Syn).unwrap();
        is_open(&lab, &connection(), &mapped);
    }
}

#[test]
fn req_2a_simultaneous_open_with_the_remotes_syn_first() {
    for lab in [Lab::new(), Lab::address_dependent()] {
        lab.give(host(1), 2048);
        // The host has found out its mapping from another server.
        let (mapped, _) = lab.establish(&Outbound { remote: remote(9), ..connection() });
        let answers = answer(&connection(), &mapped);
        match lab.nat.config().filtering {
            Filtering::EndpointIndependent => assert!(lab.back(&answers, Signal::Syn).unwrap().created),
            Filtering::AddressDependent => assert_eq!(lab.back(&answers, Signal::Syn), Err(Refused::Stored)),
        }
        assert_eq!(lab.out(&connection(), Signal::Syn).unwrap().port, mapped.port);
        assert_eq!(lab.state(&connection()), Some(SessionState::Established));
        // What the filter kept is sent again.
        lab.back(&answers, Signal::Syn).unwrap();
        lab.out(&connection(), Signal::Syn).unwrap();
        is_open(&lab, &connection(), &mapped);
        assert_eq!(lab.nat.usage().stored_syns, 0);
    }
}

#[test]
fn req_2_a_half_closed_connection_carries_data_for_as_long_as_an_open_one() {
    for host_closes in [true, false] {
        let mut lab = Lab::new();
        lab.give(host(1), 2048);
        let (_, answers) = lab.establish(&connection());
        if host_closes {
            lab.out(&connection(), Signal::Fin).unwrap();
        } else {
            lab.back(&answers, Signal::Fin).unwrap();
        }
        for turn in 0..10 {
            lab.wait(mins(124));
            if turn % 2 == 0 {
                lab.out(&connection(), Signal::None).unwrap();
            } else {
                lab.back(&answers, Signal::None).unwrap();
            }
        }
        if host_closes {
            lab.back(&answers, Signal::Fin).unwrap();
        } else {
            lab.out(&connection(), Signal::Fin).unwrap();
        }
        assert_eq!(lab.state(&connection()), Some(SessionState::V4FinV6FinRcv));
        // The last ACK, and FINs that are sent again.
        for _ in 0..3 {
            lab.out(&connection(), Signal::Fin).unwrap();
            lab.back(&answers, Signal::None).unwrap();
        }
        lab.ends_after(mins(4), "the closed connection", |lab| lab.state(&connection()).is_some());
    }
}

#[test]
fn req_3_filtering_of_tcp_is_endpoint_independent_or_by_address_as_configured() {
    let lab = Lab::new();
    lab.give(host(1), 2048);
    let (mapped, _) = lab.establish(&connection());
    let stranger = Inbound { remote: remote(2), ..answer(&connection(), &mapped) };
    assert!(lab.back(&stranger, Signal::Syn).unwrap().created);

    let lab = Lab::address_dependent();
    lab.give(host(1), 2048);
    let (mapped, answers) = lab.establish(&connection());
    let stranger = Inbound { remote: remote(2), ..answer(&connection(), &mapped) };
    assert_eq!(lab.back(&stranger, Signal::Syn), Err(Refused::Stored));
    let other_port = Inbound { remote_port: ANY_PORT + 1, ..answers };
    assert!(lab.back(&other_port, Signal::Syn).unwrap().created);
}

#[test]
fn req_4_an_unsolicited_syn_has_no_answer_for_six_seconds_and_none_at_all_when_the_host_opens_the_connection()
{
    let mut lab = Lab::new();
    lab.give_ports(host(1), 2048, 1);
    let mapped =
        Mapped { address: common::POOL, port: 2048, session: None, created: false, wants_block: None };
    let answers = answer(&connection(), &mapped);
    assert_eq!(lab.back(&answers, Signal::Syn), Err(Refused::Stored));
    for _ in 0..60 {
        lab.wait(TICK);
        assert!(lab.outputs().is_empty());
    }
    lab.wait(TICK);
    assert_eq!(lab.outputs(), [Output::Unreachable(common::packet(Signal::Syn).packet.into())]);

    assert_eq!(lab.back(&answers, Signal::Syn), Err(Refused::Stored));
    lab.wait(secs(5));
    assert_eq!(lab.open(&connection()).port, 2048);
    for _ in 0..100 {
        lab.wait(TICK);
        assert!(lab.outputs().is_empty());
    }
}

#[test]
fn req_4_a_syn_that_cannot_be_stored_is_refused_by_a_name_that_nobody_answers_at_once() {
    // The router answers no refusal of an inbound SYN; what the engine wants answered it says itself, and late.
    for room in [0, 1] {
        let mut lab = Lab::with(|config| config.max_stored_syns = room);
        for n in 0..5 {
            let syn = Inbound {
                protocol: Protocol::Tcp,
                address: common::POOL,
                port: 2048,
                remote: remote(n),
                remote_port: ANY_PORT,
            };
            let refused = lab.back(&syn, Signal::Syn);
            assert!(matches!(refused, Err(Refused::Stored | Refused::NoBinding)), "{refused:?}");
        }
        assert!(lab.outputs().is_empty());
        lab.wait(secs(6) + TICK);
        assert_eq!(lab.outputs().len(), room as usize);
    }
}

#[test]
fn req_4_a_syn_to_a_binding_that_nobody_inside_takes_part_in_waits_like_one_without_a_binding() {
    let mut lab = Lab::new();
    lab.give(host(1), 2048);
    let mapped = lab.open(&connection());
    lab.wait(mins(3));
    let stranger = |n| Inbound { remote: remote(n), ..answer(&connection(), &mapped) };
    lab.back(&stranger(2), Signal::Syn).unwrap();
    lab.wait(mins(1) + TICK);
    assert_eq!(lab.nat.usage().bindings, 1, "the stranger's session is there");
    assert_eq!(lab.back(&stranger(3), Signal::Syn), Err(Refused::Stored));
    assert!(lab.outputs().is_empty());
    lab.wait(secs(6) + TICK);
    assert_eq!(lab.outputs().len(), 1);
}

#[test]
fn req_4_a_stored_syn_is_dropped_in_silence_when_its_repetition_was_let_in() {
    // By the filter, which lets the remote in by now; and where there was no binding before.
    for filtered in [true, false] {
        let mut lab = if filtered { Lab::address_dependent() } else { Lab::new() };
        lab.give_ports(host(1), 2048, 1);
        let other = Outbound { remote: remote(9), ..connection() };
        if filtered {
            lab.open(&other);
        }
        let mapped =
            Mapped { address: common::POOL, port: 2048, session: None, created: false, wants_block: None };
        let answers = answer(&connection(), &mapped);
        assert_eq!(lab.back(&answers, Signal::Syn), Err(Refused::Stored));
        lab.wait(secs(1));
        lab.open(&Outbound { remote_port: ANY_PORT + 1, ..connection() });
        assert!(lab.back(&answers, Signal::Syn).unwrap().created, "let in");
        lab.out(&connection(), Signal::Syn).unwrap();
        is_open(&lab, &connection(), &mapped);
        assert_eq!(lab.nat.usage().stored_syns, 0);
        lab.wait(secs(10));
        assert!(lab.outputs().is_empty(), "filtered: {filtered}");
    }
}

#[test]
fn req_5_an_established_connection_may_be_idle_for_two_hours_and_four_minutes() {
    let mut lab = Lab::new();
    lab.give(host(1), 2048);
    lab.establish(&connection());
    lab.ends_after(mins(124), "the connection", |lab| {
        lab.state(&connection()) == Some(SessionState::Established)
    });
}

#[test]
fn req_5_a_connection_that_is_opening_or_closing_may_be_idle_for_four_minutes() {
    for closing in [false, true] {
        let mut lab = Lab::new();
        lab.give(host(1), 2048);
        if closing {
            let (_, answers) = lab.establish(&connection());
            lab.back(&answers, Signal::Fin).unwrap();
            lab.out(&connection(), Signal::Fin).unwrap();
        } else {
            lab.open(&connection());
        }
        lab.ends_after(mins(4), "the connection", |lab| lab.state(&connection()).is_some());
    }
}

#[test]
fn req_8_a_connection_between_two_hosts_behind_the_nat() {
    for lab in [Lab::new(), Lab::address_dependent()] {
        let (a, b) = (host(1), host(2));
        lab.give(a, 2048);
        lab.give(b, 4096);
        lab.add_static(Protocol::Tcp, 8080, b, 80);
        // A connects to the outside port of B.
        let there = flow(Protocol::Tcp, a, 5000, common::POOL, 8080);
        let left = lab.open(&there);
        let arriving = Inbound {
            protocol: Protocol::Tcp,
            address: common::POOL,
            port: 8080,
            remote: left.address,
            remote_port: left.port,
        };
        let reached = lab.back(&arriving, Signal::Syn).unwrap();
        assert_eq!((reached.host, reached.port), (b, 80));
        // SYN and ACK of B, to the outside address and port of A.
        let home = flow(Protocol::Tcp, b, 80, left.address, left.port);
        let returned = lab.out(&home, Signal::Syn).unwrap();
        assert_eq!((returned.address, returned.port), (common::POOL, 8080));
        let reached = lab.back(&answer(&there, &left), Signal::Syn).unwrap();
        assert_eq!((reached.host, reached.port), (a, 5000));
        for flow in [there, home] {
            assert_eq!(lab.state(&flow), Some(SessionState::Established));
        }
    }
}

#[test]
fn req_10_an_icmp_error_about_a_connection_ends_neither_it_nor_its_mapping() {
    let mut lab = Lab::new();
    lab.give(host(1), 2048);
    let (mapped, answers) = lab.establish(&connection());
    let before = lab.snapshot();
    assert_eq!(lab.nat.find_inbound(&answers).unwrap().session, mapped.session);
    assert_eq!(lab.nat.find_outbound(&connection()).unwrap().session, mapped.session);
    assert_eq!(lab.snapshot(), before);
    lab.wait(mins(124));
    lab.nat.find_inbound(&answers);
    is_open(&lab, &connection(), &mapped);
}
