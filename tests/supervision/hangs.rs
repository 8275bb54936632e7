//! A thread that never comes back: it is abandoned, its successor works on a fresh one, and a second is too many.

use std::time::Duration;

use protomask::datapath::Refusal;
use protomask::supervision::faults::{Inject, Point};
use protomask::supervision::{Concern, Exit, Outcome, State, Unavailable};

use crate::flows::{Echoes, Upload};
use crate::lab::{Lab, PATIENCE, SHORT, Wanted, eventually};

/// Which thread hangs.
#[derive(Debug, Clone, Copy)]
enum Thread {
    /// That of an actor.
    Of(Concern),
    /// A packet worker's.
    Worker,
}

impl Thread {
    fn concern(self) -> Concern {
        match self {
            Self::Of(concern) => concern,
            Self::Worker => Concern::Tun,
        }
    }

    /// Makes it hang.
    fn hang(self, lab: &Lab) {
        match self {
            Self::Of(concern) => {
                let answer = lab.inject(concern, Inject::Hang, SHORT);
                // The overseer may have taken it out already.
                assert!(
                    matches!(answer, Err(Unavailable::Late | Unavailable::Ended)),
                    "{self:?}: {answer:?}"
                );
            }
            Self::Worker => {
                let struck = lab.faults(Concern::Tun).struck(Point::WorkerHang);
                lab.faults(Concern::Tun).arm(Point::WorkerHang, 1);
                // A packet strikes it, which is lost.
                let _ = lab.ping_once(0, SHORT);
                assert_eq!(lab.faults(Concern::Tun).struck(Point::WorkerHang), struck + 1);
            }
        }
    }

    fn says(self) -> &'static str {
        match self {
            Self::Of(_) => "hung: busy with one message for",
            Self::Worker => "busy with one batch for",
        }
    }
}

fn hung_exits(lab: &Lab, concern: Concern) -> u64 {
    lab.status(concern).exits[Exit::Hung(String::new()).kind()]
}

#[test]
fn a_hung_concern_has_a_successor_and_the_others_do_not_wait() {
    for thread in Concern::ALL.map(Thread::Of).into_iter().chain([Thread::Worker]) {
        println!("--- {thread:?}");
        let Some(lab) = Lab::start(&Wanted::default()) else { return };
        let (echoes, upload) = (Echoes::start(&lab), Upload::start(&lab));
        lab.ping(1);
        let (concern, leases) = (thread.concern(), lab.leases());
        thread.hang(&lab);
        if concern != Concern::Tun {
            echoes.go_on();
        }
        lab.the_others_answer(concern);
        lab.wait_for_generation(concern, 2);

        let status = lab.status(concern);
        assert_eq!((hung_exits(&lab, concern), status.exits.iter().sum()), (1, 1), "{thread:?}: {status:?}");
        let says = status.last_failure.unwrap();
        assert!(says.contains(thread.says()), "{thread:?}: {says}");
        for other in Concern::ALL.into_iter().filter(|other| *other != concern) {
            assert_eq!(lab.status(other).generation, 1, "{other} while {thread:?} hung");
        }
        assert_eq!(lab.leases(), leases, "{thread:?}");
        // The successor does the work, also that of an address for a stranger.
        echoes.go_on();
        lab.ping(2);
        assert!(lab.answers_http(PATIENCE), "{thread:?}");
        upload.end();
        let (sent, lost) = echoes.end();
        let in_hand =
            u64::from(lab.faults(Concern::Tun).struck(Point::WorkerHang)) + lab.drops(Refusal::Superseded);
        assert!(lost.len() as u64 <= in_hand, "{thread:?}: {lost:?} of {sent}, and {in_hand} were in hand");
        // A thread that hangs does not keep the router from ending.
        lab.end();
    }
}

#[test]
fn a_second_hanging_thread_ends_the_router() {
    for [first, second] in [
        [Thread::Of(Concern::Pool), Thread::Of(Concern::Sessions)],
        [Thread::Of(Concern::Routes), Thread::Of(Concern::Routes)],
        [Thread::Worker, Thread::Of(Concern::Pool)],
        [Thread::Worker, Thread::Worker],
    ] {
        println!("--- {first:?}, then {second:?}");
        let Some(mut lab) = Lab::start(&Wanted::default()) else { return };
        first.hang(&lab);
        lab.wait_for_generation(first.concern(), 2);
        second.hang(&lab);
        let outcome = lab.outcome();
        let Outcome::Escalated(reason) = outcome else { panic!("{first:?}, {second:?}: {outcome:?}") };
        for part in [second.concern().as_str(), "hung", "while another thread was still hanging"] {
            assert!(reason.contains(part), "{first:?}, {second:?}: {reason}");
        }
    }
}

#[test]
fn metrics_may_hang_as_often_as_it_likes() {
    let Some(lab) = Lab::start(&Wanted::default()) else { return };
    let echoes = Echoes::start(&lab);
    let metrics = Thread::Of(Concern::Metrics);
    metrics.hang(&lab);
    lab.wait_for_generation(Concern::Metrics, 2);
    metrics.hang(&lab);
    eventually("the second hang is noticed", || (hung_exits(&lab, Concern::Metrics) == 2).then_some(()));
    // A third thread must not be lost to it, and nobody else pays for the two.
    let later = std::time::Instant::now() + Duration::from_secs(1);
    while std::time::Instant::now() < later {
        echoes.go_on();
        assert_eq!(lab.status(Concern::Metrics).state, State::Waiting);
    }
    let pool = Thread::Of(Concern::Pool);
    pool.hang(&lab);
    lab.wait_for_generation(Concern::Pool, 2);
    lab.ping(1);
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.end();
}
