//! §3.5.2.2: the state machine of TCP, as RFC 7857 §2 has changed it.

use std::time::Duration;

use fast_nat::nat64::{Inbound, Mapped, Outbound, Output, Protocol, Refused, SessionState, Signal};

use crate::common::{Lab, POOL, TICK, answer, flow, host, mins, remote, secs};

use Side::{V4, V6};
use fast_nat::nat64::SessionState::{Established, Trans, V4FinRcv, V4FinV6FinRcv, V4Init, V6FinRcv, V6Init};

/// The defaults (RFC 6146 §4, RFC 5382 REQ-5).
const ESTABLISHED: Duration = mins(2 * 60 + 4);
const TRANSITORY: Duration = mins(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// A packet of the host.
    V6,
    /// A packet of the remote.
    V4,
}

/// What a packet does to the timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// It starts anew.
    Restarts,
    /// It runs on.
    RunsOn,
}
use Timer::{Restarts, RunsOn};

/// The connection at hand. The host's port has a second connection that stays open, so that the binding does.
struct Connection {
    lab: Lab,
    flow: Outbound,
    mapped: Mapped,
    answers: Inbound,
}

impl Connection {
    fn send(&self, side: Side, signal: Signal) -> Result<(), Refused> {
        match side {
            V6 => {
                let mapped = self.lab.out(&self.flow, signal)?;
                assert_eq!((mapped.address, mapped.port), (self.mapped.address, self.mapped.port));
                assert!(mapped.session.is_some() && !mapped.created);
            }
            V4 => {
                let reached = self.lab.back(&self.answers, signal)?;
                assert_eq!((reached.host, reached.port), (self.flow.host, self.flow.port));
                assert!(reached.session.is_some() && !reached.created);
            }
        }
        Ok(())
    }

    /// A connection in this state.
    fn in_state(state: SessionState) -> Self {
        let lab = Lab::new();
        let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
        lab.give(flow.host, 2048);
        let (other, _) = lab.establish(&Outbound { remote: remote(2), ..flow });
        let answers = answer(&flow, &other);
        if state == V4Init {
            let reached = lab.back(&answers, Signal::Syn).unwrap();
            assert!(reached.created);
        } else {
            let mapped = lab.open(&flow);
            assert_eq!((mapped.address, mapped.port), (other.address, other.port));
        }
        let connection = Self { lab, flow, mapped: other, answers };
        let way: &[(Side, Signal)] = match state {
            V4Init | V6Init => &[],
            Established => &[(V4, Signal::Syn)],
            V4FinRcv => &[(V4, Signal::Syn), (V4, Signal::Fin)],
            V6FinRcv => &[(V4, Signal::Syn), (V6, Signal::Fin)],
            V4FinV6FinRcv => &[(V4, Signal::Syn), (V6, Signal::Fin), (V4, Signal::Fin)],
            Trans => &[(V4, Signal::Syn), (V4, Signal::Rst)],
            SessionState::OneWay => unreachable!("no state of TCP"),
        };
        for (side, signal) in way {
            connection.send(*side, *signal).unwrap();
        }
        assert_eq!(connection.lab.state(&connection.flow), Some(state));
        connection
    }

    fn state(&self) -> Option<SessionState> {
        self.lab.state(&self.flow)
    }
}

/// How long a connection in this state may be silent.
fn lifetime(state: SessionState) -> Duration {
    match state {
        Established | V4FinRcv | V6FinRcv => ESTABLISHED,
        _ => TRANSITORY,
    }
}

/// Every state, every packet: the state after it and what it does to the timer.
const TABLE: [(SessionState, Side, Signal, SessionState, Timer); 56] = [
    // The remote has sent a SYN: the host's SYN opens the connection, nothing else counts.
    (V4Init, V6, Signal::None, V4Init, RunsOn),
    (V4Init, V6, Signal::Syn, Established, Restarts),
    (V4Init, V6, Signal::Fin, V4Init, RunsOn),
    (V4Init, V6, Signal::Rst, V4Init, RunsOn),
    (V4Init, V4, Signal::None, V4Init, RunsOn),
    (V4Init, V4, Signal::Syn, V4Init, RunsOn),
    (V4Init, V4, Signal::Fin, V4Init, RunsOn),
    (V4Init, V4, Signal::Rst, V4Init, RunsOn),
    // The host has sent a SYN: it may send it again, the remote's opens the connection.
    (V6Init, V6, Signal::None, V6Init, RunsOn),
    (V6Init, V6, Signal::Syn, V6Init, Restarts),
    (V6Init, V6, Signal::Fin, V6Init, RunsOn),
    (V6Init, V6, Signal::Rst, V6Init, RunsOn),
    (V6Init, V4, Signal::None, V6Init, RunsOn),
    (V6Init, V4, Signal::Syn, Established, Restarts),
    (V6Init, V4, Signal::Fin, V6Init, RunsOn),
    (V6Init, V4, Signal::Rst, V6Init, RunsOn),
    // Open: everything refreshes.
    (Established, V6, Signal::None, Established, Restarts),
    (Established, V6, Signal::Syn, Established, Restarts),
    (Established, V6, Signal::Fin, V6FinRcv, Restarts),
    (Established, V6, Signal::Rst, Trans, Restarts),
    (Established, V4, Signal::None, Established, Restarts),
    (Established, V4, Signal::Syn, Established, Restarts),
    (Established, V4, Signal::Fin, V4FinRcv, Restarts),
    (Established, V4, Signal::Rst, Trans, Restarts),
    // Half closed: it lives on as long as an open one. RST: RFC 7857 §2.2.
    (V4FinRcv, V6, Signal::None, V4FinRcv, Restarts),
    (V4FinRcv, V6, Signal::Syn, V4FinRcv, Restarts),
    (V4FinRcv, V6, Signal::Fin, V4FinV6FinRcv, Restarts),
    (V4FinRcv, V6, Signal::Rst, Trans, Restarts),
    (V4FinRcv, V4, Signal::None, V4FinRcv, Restarts),
    (V4FinRcv, V4, Signal::Syn, V4FinRcv, Restarts),
    (V4FinRcv, V4, Signal::Fin, V4FinRcv, Restarts),
    (V4FinRcv, V4, Signal::Rst, Trans, Restarts),
    (V6FinRcv, V6, Signal::None, V6FinRcv, Restarts),
    (V6FinRcv, V6, Signal::Syn, V6FinRcv, Restarts),
    (V6FinRcv, V6, Signal::Fin, V6FinRcv, Restarts),
    (V6FinRcv, V6, Signal::Rst, Trans, Restarts),
    (V6FinRcv, V4, Signal::None, V6FinRcv, Restarts),
    (V6FinRcv, V4, Signal::Syn, V6FinRcv, Restarts),
    (V6FinRcv, V4, Signal::Fin, V4FinV6FinRcv, Restarts),
    (V6FinRcv, V4, Signal::Rst, Trans, Restarts),
    // Closed by both: the last packets pass, and nothing but a new SYN counts.
    (V4FinV6FinRcv, V6, Signal::None, V4FinV6FinRcv, RunsOn),
    (V4FinV6FinRcv, V6, Signal::Syn, V6Init, Restarts),
    (V4FinV6FinRcv, V6, Signal::Fin, V4FinV6FinRcv, RunsOn),
    (V4FinV6FinRcv, V6, Signal::Rst, V4FinV6FinRcv, RunsOn),
    (V4FinV6FinRcv, V4, Signal::None, V4FinV6FinRcv, RunsOn),
    (V4FinV6FinRcv, V4, Signal::Syn, V4Init, Restarts),
    (V4FinV6FinRcv, V4, Signal::Fin, V4FinV6FinRcv, RunsOn),
    (V4FinV6FinRcv, V4, Signal::Rst, V4FinV6FinRcv, RunsOn),
    // After a RST, or while the host is being probed: whatever still comes shows that it is alive.
    (Trans, V6, Signal::None, Established, Restarts),
    (Trans, V6, Signal::Syn, Established, Restarts),
    (Trans, V6, Signal::Fin, Established, Restarts),
    (Trans, V6, Signal::Rst, Trans, RunsOn),
    (Trans, V4, Signal::None, Established, Restarts),
    (Trans, V4, Signal::Syn, Established, Restarts),
    (Trans, V4, Signal::Fin, Established, Restarts),
    (Trans, V4, Signal::Rst, Trans, RunsOn),
];

#[test]
fn every_packet_in_every_state_is_forwarded_and_leads_to_the_next_state_with_its_lifetime() {
    for (state, side, signal, next, timer) in TABLE {
        let mut connection = Connection::in_state(state);
        let began = connection.lab.now;
        // Long enough to tell one timer from the other, and short enough for the shortest of them.
        connection.lab.wait(secs(100));
        connection.send(side, signal).unwrap();
        let what = format!("{side:?} {signal:?} in {state:?}");
        assert_eq!(connection.state(), Some(next), "{what}");

        let left = match timer {
            Restarts => lifetime(next),
            RunsOn => {
                assert_eq!(state, next, "a new state starts its timer");
                lifetime(next).saturating_sub(connection.lab.now.since(began))
            }
        };
        let flow = connection.flow;
        // The other connection of this port must not be over before this one is.
        connection.lab.ends_after(left, &what, |lab| lab.state(&flow) == Some(next));
        // An open connection is not ended but probed.
        assert_eq!(connection.state(), (next == Established).then_some(Trans), "{what}");
    }
}

#[test]
fn the_table_has_every_state_and_every_packet_once() {
    let states = [V4Init, V6Init, Established, V4FinRcv, V6FinRcv, V4FinV6FinRcv, Trans];
    let signals = [Signal::None, Signal::Syn, Signal::Fin, Signal::Rst];
    for state in states {
        for side in [V6, V4] {
            for signal in signals {
                let rows = TABLE.iter().filter(|row| (row.0, row.1, row.2) == (state, side, signal)).count();
                assert_eq!(rows, 1, "{state:?} {side:?} {signal:?}");
            }
        }
    }
}

#[test]
fn closed_a_syn_of_the_host_makes_binding_and_session() {
    let lab = Lab::new();
    let flow = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
    lab.give(flow.host, 2048);
    let mapped = lab.open(&flow);
    assert_eq!(mapped.address, POOL);
    assert_eq!(lab.state(&flow), Some(V6Init));
    assert_eq!((lab.nat.usage().bindings, lab.count()), (1, 1));
}

#[test]
fn closed_a_syn_of_the_remote_to_a_binding_makes_a_session_that_the_hosts_syn_opens() {
    let lab = Lab::new();
    let first = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
    lab.give(first.host, 2048);
    let (mapped, _) = lab.establish(&first);
    let second = Outbound { remote: remote(2), remote_port: 4444, ..first };
    let reached = lab.back(&answer(&second, &mapped), Signal::Syn).unwrap();
    assert!(reached.created);
    assert_eq!((reached.host, reached.port), (first.host, first.port));
    assert_eq!(lab.state(&second), Some(V4Init));
    assert!(!lab.out(&second, Signal::Syn).unwrap().created);
    assert_eq!(lab.state(&second), Some(Established));
    assert_eq!(lab.nat.usage().bindings, 1);
}

#[test]
fn closed_other_packets_of_the_host_need_a_binding_and_make_no_session() {
    for signal in [Signal::None, Signal::Fin, Signal::Rst] {
        let lab = Lab::new();
        let first = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
        lab.give(first.host, 2048);
        assert_eq!(lab.out(&first, signal), Err(Refused::NoSession), "{signal:?} without a binding");
        assert_eq!((lab.nat.usage().bindings, lab.count()), (0, 0));

        let (mapped, _) = lab.establish(&first);
        let before = lab.snapshot();
        let other = Outbound { remote: remote(2), ..first };
        let passed = lab.out(&other, signal).unwrap();
        assert_eq!((passed.address, passed.port), (mapped.address, mapped.port), "{signal:?}");
        assert_eq!((passed.session, passed.created), (None, false), "{signal:?}");
        assert_eq!(lab.snapshot(), before, "{signal:?} changes nothing");
    }
}

#[test]
fn closed_other_packets_of_the_remote_need_a_binding_and_make_no_session() {
    for signal in [Signal::None, Signal::Fin, Signal::Rst] {
        let lab = Lab::new();
        let first = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
        lab.give(first.host, 2048);
        let (mapped, _) = lab.establish(&first);
        let before = lab.snapshot();
        let unbound = Inbound { port: mapped.port ^ 1, ..answer(&first, &mapped) };
        assert_eq!(lab.back(&unbound, signal), Err(Refused::NoSession), "{signal:?} without a binding");

        let other = Inbound { remote: remote(2), ..answer(&first, &mapped) };
        let reached = lab.back(&other, signal).unwrap();
        assert_eq!((reached.host, reached.port), (first.host, first.port), "{signal:?}");
        assert_eq!((reached.session, reached.created), (None, false), "{signal:?}");
        assert_eq!(lab.snapshot(), before, "{signal:?} changes nothing");
    }
}

#[test]
fn closed_other_packets_of_the_remote_are_filtered_by_address() {
    for signal in [Signal::None, Signal::Fin, Signal::Rst] {
        let lab = Lab::address_dependent();
        let first = flow(Protocol::Tcp, host(1), 5000, remote(1), 80);
        lab.give(first.host, 2048);
        let (mapped, answers) = lab.establish(&first);
        let before = lab.snapshot();
        let stranger = Inbound { remote: remote(2), ..answers };
        assert_eq!(lab.back(&stranger, signal), Err(Refused::Filtered), "{signal:?}");
        let other_port = Inbound { remote_port: 81, ..answer(&first, &mapped) };
        assert_eq!(lab.back(&other_port, signal).unwrap().session, None, "{signal:?}");
        assert_eq!(lab.snapshot(), before, "{signal:?} changes nothing");
    }
}

#[test]
fn an_established_connection_that_was_silent_for_too_long_is_probed_and_ends_if_the_probe_is_not_answered() {
    let mut connection = Connection::in_state(Established);
    let flow = connection.flow;
    connection.lab.wait(ESTABLISHED);
    assert_eq!((connection.state(), connection.lab.outputs().len()), (Some(Established), 0));
    connection.lab.wait(TICK);
    assert_eq!(connection.state(), Some(Trans));
    let probes = connection.lab.outputs();
    assert!(probes.contains(&Output::Probe(flow)), "{probes:?}");
    assert_eq!(probes.len(), 2, "one for each connection: {probes:?}");
    assert!(connection.lab.outputs().is_empty(), "a probe is sent once");
    connection.lab.ends_after(TRANSITORY, "the probed connection", |lab| lab.state(&flow) == Some(Trans));
    assert_eq!((connection.state(), connection.lab.count()), (None, 0));
    assert!(connection.lab.outputs().is_empty(), "what is not answered is not probed again");
}

#[test]
fn the_answer_to_a_probe_makes_the_connection_an_established_one_again() {
    for side in [V6, V4] {
        let mut connection = Connection::in_state(Established);
        let flow = connection.flow;
        connection.lab.wait(ESTABLISHED + TICK);
        assert_eq!(connection.state(), Some(Trans));
        connection.lab.outputs();
        connection.lab.wait(TRANSITORY);
        connection.send(side, Signal::None).unwrap();
        let lives = |lab: &Lab| lab.state(&flow) == Some(Established);
        connection.lab.ends_after(ESTABLISHED, "the answered connection", lives);
        assert_eq!(connection.lab.outputs(), [Output::Probe(flow)], "it is probed again in its time");
    }
}

#[test]
fn a_connection_that_one_side_has_closed_ends_without_a_probe() {
    for state in [V4FinRcv, V6FinRcv] {
        let mut connection = Connection::in_state(state);
        let flow = connection.flow;
        connection.lab.wait(ESTABLISHED + TICK);
        assert_eq!(connection.state(), None, "{state:?}");
        let outputs = connection.lab.outputs();
        assert!(!outputs.contains(&Output::Probe(flow)), "{state:?}: {outputs:?}");
    }
}

#[test]
fn a_closed_connection_is_opened_again_by_the_same_host_and_ports() {
    let mut connection = Connection::in_state(V4FinV6FinRcv);
    connection.lab.wait(secs(30));
    connection.send(V6, Signal::Syn).unwrap();
    assert_eq!(connection.state(), Some(V6Init));
    connection.send(V4, Signal::Syn).unwrap();
    assert_eq!(connection.state(), Some(Established));
    let flow = connection.flow;
    connection.lab.ends_after(ESTABLISHED, "the connection", |lab| lab.state(&flow) == Some(Established));
}

#[test]
fn nothing_is_due_before_a_refresh_has_run_out_however_often_it_is_looked_for() {
    let mut connection = Connection::in_state(Established);
    for _ in 0..200 {
        connection.lab.wait(mins(100));
        connection.send(V4, Signal::None).unwrap();
        assert_eq!(connection.state(), Some(Established));
    }
}
