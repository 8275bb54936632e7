//! What the engine tells about sessions: each once, in the order in which it happened.

use fast_nat::nat64::{Event, Inbound, Outbound, Protocol, Refused, Seen, SessionState, Signal};

use crate::common::{Lab, POOL, TICK, answer, flow, host, mins, remote, secs};

/// The event's name, and where its session stands.
fn told(events: &[Event]) -> Vec<(&'static str, Outbound, SessionState)> {
    events
        .iter()
        .map(|event| match event {
            Event::Started(view) => ("started", view.outbound, view.state),
            Event::Established(view) => ("established", view.outbound, view.state),
            Event::Changed(view) => ("changed", view.outbound, view.state),
            Event::Ended(view) => ("ended", view.outbound, view.state),
        })
        .collect()
}

#[test]
fn a_connection_tells_its_life_in_order() {
    let mut lab = Lab::new();
    let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
    lab.give(flow.host, 2048);
    let (_, answers) = lab.establish(&flow);
    lab.out(&flow, Signal::None).unwrap();
    lab.out(&flow, Signal::Fin).unwrap();
    lab.out(&flow, Signal::Fin).unwrap();
    lab.back(&answers, Signal::Fin).unwrap();
    lab.out(&flow, Signal::None).unwrap();
    lab.wait(mins(4) + TICK);
    let events = lab.events();
    assert_eq!(
        told(&events),
        [
            ("started", flow, SessionState::V6Init),
            ("established", flow, SessionState::Established),
            ("changed", flow, SessionState::V6FinRcv),
            ("changed", flow, SessionState::V4FinV6FinRcv),
            ("ended", flow, SessionState::V4FinV6FinRcv),
        ]
    );
    let Event::Ended(view) = events[4] else { unreachable!() };
    assert_eq!((view.packets, view.bytes), ([5, 2], [500, 200]), "with all that it has carried");
    assert_eq!(view.inbound, answers);
    assert_eq!(lab.nat.events_lost(), 0);
}

#[test]
fn a_connection_that_takes_up_a_stored_syn_is_told_as_begun_and_as_established() {
    let lab = Lab::new();
    let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
    lab.give_ports(flow.host, 2048, 1);
    let early =
        Inbound { protocol: Protocol::Tcp, address: POOL, port: 2048, remote: remote(1), remote_port: 80 };
    assert_eq!(lab.back(&early, Signal::Syn), Err(Refused::Stored));
    assert_eq!(told(&lab.events()), [], "what is stored is no session");
    lab.open(&flow);
    let established = SessionState::Established;
    assert_eq!(told(&lab.events()), [("started", flow, established), ("established", flow, established)]);
}

#[test]
fn udp_and_icmp_are_established_by_the_first_packet_of_the_other_side() {
    for protocol in [Protocol::Udp, Protocol::Icmp] {
        let mut lab = Lab::new();
        let flow = flow(protocol, host(1), 5000, remote(1), 53);
        lab.give(flow.host, 2048);
        let mapped = lab.open(&flow);
        lab.out(&flow, Signal::None).unwrap();
        for _ in 0..3 {
            lab.back(&answer(&flow, &mapped), Signal::None).unwrap();
        }
        lab.wait(mins(5) + TICK);
        assert_eq!(
            told(&lab.events()),
            [
                ("started", flow, SessionState::OneWay),
                ("established", flow, SessionState::Established),
                ("ended", flow, SessionState::Established),
            ]
        );
    }
}

#[test]
fn what_does_not_change_a_session_is_no_event() {
    let mut lab = Lab::new();
    let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
    lab.give(flow.host, 2048);
    let (mapped, answers) = lab.establish(&flow);
    lab.events();
    for _ in 0..10 {
        lab.wait(secs(10));
        lab.out(&flow, Signal::None).unwrap();
        lab.back(&answers, Signal::Syn).unwrap();
        lab.nat.find_outbound(&flow);
        lab.out(&Outbound { remote: remote(9), ..flow }, Signal::None).unwrap();
        lab.nat.report(mapped.session.unwrap(), &Seen { last_seen: lab.now, packets: [1, 1], bytes: [1, 1] });
    }
    assert_eq!(told(&lab.events()), []);
}

#[test]
fn a_probe_and_the_answer_to_it_are_told() {
    let mut lab = Lab::new();
    let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
    lab.give(flow.host, 2048);
    lab.establish(&flow);
    lab.events();
    lab.wait(mins(124) + TICK);
    assert_eq!(told(&lab.events()), [("changed", flow, SessionState::Trans)]);
    lab.out(&flow, Signal::None).unwrap();
    // It became established once, at its beginning.
    assert_eq!(told(&lab.events()), [("changed", flow, SessionState::Established)]);
}

#[test]
fn without_a_queue_there_are_no_events_and_a_full_one_counts_what_is_lost() {
    for (room, told) in [(0, 0), (4, 4)] {
        let lab = Lab::with(|config| config.events = room);
        lab.give(host(1), 2048);
        for n in 0..10 {
            lab.open(&flow(Protocol::Udp, host(1), 5000 + n, remote(1), 53));
        }
        assert_eq!(lab.events().len(), told);
        assert_eq!(lab.nat.events_lost(), if room == 0 { 0 } else { 6 });
        assert_eq!(lab.count(), 10, "nothing waits for events");
        // There is room again.
        lab.open(&flow(Protocol::Udp, host(1), 6000, remote(1), 53));
        assert_eq!(lab.events().len(), usize::from(room > 0));
    }
}

#[test]
fn a_report_of_a_faster_path_refreshes_and_counts() {
    let mut lab = Lab::new();
    let flow = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    lab.give(flow.host, 2048);
    let session = lab.open(&flow).session.unwrap();
    lab.wait(mins(4));
    let seen = Seen { last_seen: lab.now, packets: [70, 30], bytes: [7000, 3000] };
    lab.nat.report(session, &seen);
    let view = lab.nat.session(session).unwrap();
    assert_eq!((view.packets, view.bytes), ([71, 30], [7100, 3000]));
    lab.ends_after(mins(5), "the session", |lab| lab.state(&flow).is_some());
}

#[test]
fn a_report_that_comes_late_refreshes_to_when_the_packet_was_seen() {
    let mut lab = Lab::new();
    let flow = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    lab.give(flow.host, 2048);
    let session = lab.open(&flow).session.unwrap();
    lab.wait(mins(1));
    let seen = Seen { last_seen: lab.now, packets: [1, 0], ..Seen::default() };
    lab.wait(mins(2));
    lab.nat.report(session, &seen);
    lab.ends_after(mins(3), "the session", |lab| lab.state(&flow).is_some());

    // An older report takes nothing back.
    let session = lab.open(&flow).session.unwrap();
    let old = Seen { last_seen: fast_nat::Timestamp::from_millis(0), ..seen };
    lab.nat.report(session, &old);
    lab.ends_after(mins(5), "the session", |lab| lab.state(&flow).is_some());
}

#[test]
fn a_report_about_a_session_that_is_over_is_about_nobody_else() {
    let mut lab = Lab::new();
    let first = flow(Protocol::Udp, host(1), 5000, remote(1), 53);
    lab.give(first.host, 2048);
    let old = lab.open(&first).session.unwrap();
    lab.wait(mins(5) + TICK);
    assert_eq!(lab.nat.session(old), None);
    let new = lab.open(&first).session.unwrap();
    assert_ne!(old, new);
    lab.wait(mins(1));
    lab.nat.report(old, &Seen { last_seen: lab.now, packets: [9, 9], bytes: [9, 9] });
    assert_eq!(lab.nat.session(new).unwrap().packets, [1, 0]);
    lab.ends_after(mins(4), "the new session", |lab| lab.state(&first).is_some());
}

#[test]
fn a_super_packet_counts_as_its_segments() {
    let lab = Lab::new();
    let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
    lab.give(flow.host, 2048);
    let (mapped, answers) = lab.establish(&flow);
    let many = fast_nat::nat64::Passing { segments: 40, bytes: 60_000, ..fast_nat::nat64::Passing::plain(0) };
    lab.nat.outbound(&flow, &many, lab.now).unwrap();
    lab.nat.inbound(&answers, &many, lab.now).unwrap();
    let view = lab.nat.session(mapped.session.unwrap()).unwrap();
    assert_eq!((view.packets, view.bytes), ([41, 41], [60_100, 60_100]));
}
