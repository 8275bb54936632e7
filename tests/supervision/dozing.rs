//! Workers that sleep in `read` itself, which is where they wait once packets have come one by one for long.

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use fast_nat::nat64::PortClass;
use protomask::datapath::{Ask, Refusal};
use protomask::shared::LeaseAnswer;
use protomask::supervision::faults::{Inject, Point};
use protomask::supervision::{Concern, Exit, Unavailable};

use crate::lab::{Lab, PATIENCE, SHORT, Wanted, eventually, pause};
use crate::lull::{Flow, LONG, dozes, lull};

/// A router with one worker, so that nobody else gets the packets.
fn start() -> Option<Lab> {
    Lab::start(&Wanted { queues: 1, ..Wanted::default() })
}

#[test]
fn a_worker_that_sleeps_in_read_is_replaced_and_takes_no_packet_of_its_successor() {
    for fault in [Inject::Stop, Inject::Panic, Inject::Hang] {
        println!("--- {fault:?}");
        let Some(lab) = start() else { return };
        let mut flow = Flow::new(&lab);
        lull(&lab, &mut flow);
        lab.faults(Concern::Tun).arm(Point::Build, u32::MAX);
        let answer = lab.inject(Concern::Tun, fault, SHORT);
        assert!(matches!(answer, Ok(()) | Err(Unavailable::Late | Unavailable::Ended)), "{answer:?}");
        let refused = Exit::CannotStart(String::new()).kind();
        eventually("it refuses to start", || (lab.status(Concern::Tun).exits[refused] > 0).then_some(()));
        // Nobody works for `tun` now, and whoever was asleep has been woken.
        eventually("nobody sleeps", || (!dozes(&lab)).then_some(()));
        pause(SHORT);
        let waiting = [flow.send(), flow.send(), flow.send()];
        pause(SHORT);
        lab.release(Concern::Tun);
        for number in waiting {
            flow.comes(number);
        }
        assert_eq!(lab.drops(Refusal::Superseded), 0, "{fault:?}");
        // The successor's turn to sleep, if its predecessor has gone.
        lull(&lab, &mut flow);
        assert_eq!(lab.drops(Refusal::Superseded), 0, "{fault:?}");
        lab.end();
    }
}

#[test]
fn a_worker_that_hangs_with_its_place_in_read_costs_the_packet_in_hand_and_its_successor_waits_elsewhere() {
    let Some(lab) = start() else { return };
    let mut flow = Flow::new(&lab);
    lull(&lab, &mut flow);
    lab.faults(Concern::Tun).arm(Point::WorkerHang, 1);
    let lost = flow.send();
    lab.wait_for_generation(Concern::Tun, 2);
    assert_eq!(lab.faults(Concern::Tun).struck(Point::WorkerHang), 1);
    let next = flow.send();
    assert_eq!(next, lost + 1);
    flow.comes(next);
    flow.exchange(LONG);
    // Packets come one by one again. But when the predecessor comes back, it must not find a queue that lets it sleep.
    assert!(!dozes(&lab), "the successor sleeps in its predecessor's place");
    lab.end();
}

#[test]
fn an_answer_reaches_a_worker_that_sleeps_in_read_whenever_it_comes() {
    const ANSWERS: usize = 5_000;

    let Some(lab) = start() else { return };
    let mut flow = Flow::new(&lab);
    lull(&lab, &mut flow);
    // Of a host that never asked: it is read, and nothing else.
    let ask = Ask { host: Ipv6Addr::LOCALHOST, class: PortClass::High };
    let desk = &lab.shared.desks[0];
    let ring = |number: usize| {
        desk.answer(LeaseAnswer { ask, result: Ok(()) });
        lab.shared.ring(0);
        eventually_soon(&format!("answer {number} is read"), || desk.inbox.is_empty());
    };
    // First while nothing else wakes it, and then with packets at the same time.
    (0..ANSWERS).for_each(ring);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let packets = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                flow.exchange(10);
            }
        });
        let answers = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (0..ANSWERS).for_each(ring)));
        done.store(true, Ordering::SeqCst);
        packets.join().unwrap();
        answers.unwrap();
    });
    assert_eq!(desk.inbox_overflows.load(Ordering::Relaxed), 0);
    lull(&lab, &mut flow);
    lab.end();
}

#[test]
fn a_worker_with_a_packet_that_waits_for_a_lease_does_not_sleep_until_another_one_comes() {
    let Some(lab) = start() else { return };
    let mut flow = Flow::new(&lab);
    lull(&lab, &mut flow);
    lab.hold_down(Concern::Pool);
    let stranger = lab.ping_in_background(1);
    eventually("the stranger's packet is held", || (lab.held() == 2).then_some(()));
    eventually("the worker has a deadline", || (!dozes(&lab)).then_some(()));
    pause(SHORT);
    // From here on no packet comes, and `pool` says nothing before it is asked again.
    lab.release(Concern::Pool);
    let outcome = stranger.join().unwrap();
    assert!(outcome.is_reply(), "{outcome:?}");
    lull(&lab, &mut flow);
    lab.end();
}

/// Like [`eventually`], for what takes microseconds.
fn eventually_soon(what: &str, is_so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}
