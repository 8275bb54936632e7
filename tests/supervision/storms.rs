//! Restarts without end: the process gives up and says why. `metrics` is not worth that.

use std::time::Duration;

use protomask::supervision::faults::{Inject, Point};
use protomask::supervision::{Concern, Exit, Limits, Outcome};

use crate::flows::Echoes;
use crate::lab::{LENIENT, Lab, PATIENCE, Wanted, eventually};

const MAX_RESTARTS: u32 = 5;

const STRICT: Limits = Limits {
    max_restarts: MAX_RESTARTS,
    first_delay: Duration::from_millis(1),
    longest_delay: Duration::from_millis(5),
    ..LENIENT
};

#[test]
fn a_storm_of_restarts_ends_the_router_with_the_reason() {
    for concern in Concern::ALL.into_iter().filter(|concern| concern.is_essential()) {
        for (point, says) in [
            (Point::Build, "cannot start: injected fault"),
            (Point::Started, "panicked: injected fault: Started"),
        ] {
            println!("--- {point:?} of {concern}");
            let Some(mut lab) = Lab::start(&Wanted { limits: STRICT, ..Wanted::default() }) else { return };
            lab.faults(concern).arm(point, u32::MAX);
            assert_eq!(lab.inject(concern, Inject::Stop, PATIENCE), Ok(()));
            let outcome = lab.outcome();
            let Outcome::Escalated(reason) = outcome else { panic!("{concern}: {outcome:?}") };
            let expected = format!(
                "{concern} was restarted {MAX_RESTARTS} times within {:?} and ended again: {says}",
                STRICT.restart_window
            );
            assert_eq!(reason, expected);
            assert_eq!(lab.faults(concern).struck(point), MAX_RESTARTS);
            assert_eq!(lab.status(concern).generation, u64::from(MAX_RESTARTS) + 1);
            for other in Concern::ALL.into_iter().filter(|other| *other != concern) {
                assert_eq!(lab.status(other).generation, 1, "{other}");
            }
        }
    }
}

#[test]
fn no_number_of_restarts_of_metrics_ends_the_router() {
    let Some(lab) = Lab::start(&Wanted { limits: STRICT, ..Wanted::default() }) else { return };
    let echoes = Echoes::start(&lab);
    lab.hold_down(Concern::Metrics);
    let refused = Exit::CannotStart(String::new()).kind();
    eventually("many more restarts than another concern may have", || {
        (lab.status(Concern::Metrics).exits[refused] > u64::from(MAX_RESTARTS) * 10).then_some(())
    });
    lab.release(Concern::Metrics);
    lab.the_others_answer(Concern::Metrics);
    assert!(lab.answers_http(PATIENCE));
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.end();
}
