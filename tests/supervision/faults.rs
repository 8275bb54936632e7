//! Every concern, every way to fail: it comes back in a new generation, and what it is not there for goes on.

use protomask::datapath::Refusal;
use protomask::supervision::faults::{Inject, Point};
use protomask::supervision::{Concern, Exit, State, Unavailable};

use crate::flows::{Echoes, Upload};
use crate::lab::{Lab, PATIENCE, Wanted, eventually};

/// How a concern is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    PanicInAHandler,
    PanicInStarted,
    PanicInStopped,
    Stop,
    RefuseToStart,
    PanicInAWorker,
}

/// What is to be seen of it.
struct Expected {
    /// Exits, by the label of their kind, one for each new generation.
    exits: &'static [&'static str],
    /// What the last failure says.
    says: &'static str,
}

impl Fault {
    /// Those that every concern can have.
    const ALL: [Self; 5] =
        [Self::PanicInAHandler, Self::PanicInStarted, Self::PanicInStopped, Self::Stop, Self::RefuseToStart];

    /// Where it strikes, and how often; the message alone does for the others.
    fn point(self) -> Option<(Point, u32)> {
        match self {
            Self::PanicInAHandler | Self::Stop => None,
            Self::PanicInStarted => Some((Point::Started, 1)),
            Self::PanicInStopped => Some((Point::Stopped, 1)),
            Self::RefuseToStart => Some((Point::Build, 3)),
            Self::PanicInAWorker => Some((Point::Worker, 1)),
        }
    }

    fn expected(self) -> Expected {
        let (exits, says): (&[_], _) = match self {
            Self::PanicInAHandler => (&["panicked"], "panicked: injected fault: panic in a handler"),
            Self::PanicInStarted => (&["stopped", "panicked"], "panicked: injected fault: Started"),
            Self::PanicInStopped => (&["panicked"], "panicked: injected fault: Stopped"),
            Self::Stop => (&["stopped"], "stopped unasked"),
            Self::RefuseToStart => {
                (&["stopped", "cannot_start", "cannot_start", "cannot_start"], "cannot start: injected fault")
            }
            Self::PanicInAWorker => (&["failed"], "panicked: injected fault: Worker"),
        };
        Expected { exits, says }
    }
}

/// One concern fails once, in one way, while traffic flows.
fn fail(lab: &Lab, concern: Concern, fault: Fault, echoes: &Echoes) {
    let case = format!("{fault:?} of {concern}");
    let before = lab.status(concern);
    let others: Vec<_> = Concern::ALL.into_iter().filter(|other| *other != concern).collect();
    let generations =
        |lab: &Lab| others.iter().map(|other| lab.status(*other).generation).collect::<Vec<_>>();
    let (leases, generations_before) = (lab.leases(), generations(lab));
    let struck = fault.point().map(|(point, times)| {
        let struck = lab.faults(concern).struck(point) + times;
        lab.faults(concern).arm(point, times);
        (point, struck)
    });

    match fault {
        Fault::PanicInAHandler => {
            let answer = lab.inject(concern, Inject::Panic, PATIENCE);
            assert_eq!(answer, Err(Unavailable::Ended), "{case}");
        }
        // Its own packets strike it.
        Fault::PanicInAWorker => {}
        _ => assert_eq!(lab.inject(concern, Inject::Stop, PATIENCE), Ok(()), "{case}"),
    }
    eventually(&format!("{case} is noticed"), || {
        let status = lab.status(concern);
        (status.generation > before.generation || status.state == State::Waiting).then_some(())
    });
    lab.the_others_answer(concern);

    let expected = fault.expected();
    lab.wait_for_generation(concern, before.generation + expected.exits.len() as u64);
    let after = lab.status(concern);
    for (kind, label) in Exit::KINDS.into_iter().enumerate() {
        let so_many = expected.exits.iter().filter(|exit| **exit == label).count() as u64;
        assert_eq!(after.exits[kind] - before.exits[kind], so_many, "{case}: {label} exits; {after:?}");
    }
    let says = after.last_failure.expect("a failure");
    assert!(says.contains(expected.says), "{case}: {says}");
    if let Some((point, times)) = struck {
        assert_eq!(lab.faults(concern).struck(point), times, "{case}: the fault did not strike as it was to");
    }
    echoes.go_on();
    assert_eq!(generations(lab), generations_before, "{case}: nobody else was restarted");
    assert_eq!(lab.leases(), leases, "{case}: leases outlive the actors");
}

#[test]
fn whatever_happens_to_another_concern_the_packets_flow() {
    let Some(lab) = Lab::start(&Wanted::default()) else { return };
    let (echoes, upload) = (Echoes::start(&lab), Upload::start(&lab));
    for concern in Concern::ALL.into_iter().filter(|concern| *concern != Concern::Tun) {
        for fault in Fault::ALL {
            println!("--- {fault:?} of {concern}");
            fail(&lab, concern, fault, &echoes);
        }
    }
    upload.end();
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.ping(1);
    lab.end();
}

#[test]
fn a_fault_of_the_workers_costs_the_packets_in_their_hands_at_most() {
    let Some(lab) = Lab::start(&Wanted::default()) else { return };
    let (echoes, upload) = (Echoes::start(&lab), Upload::start(&lab));
    for fault in Fault::ALL.into_iter().chain([Fault::PanicInAWorker; 3]) {
        println!("--- {fault:?}");
        fail(&lab, Concern::Tun, fault, &echoes);
    }
    upload.end();
    let (sent, lost) = echoes.end();
    let in_hand = u64::from(lab.faults(Concern::Tun).struck(Point::Worker)) + lab.drops(Refusal::Superseded);
    assert!(lost.len() as u64 <= in_hand, "{lost:?} of {sent}, and {in_hand} were in hand");
    lab.ping(1);
    lab.end();
}
