//! A device whose kernel refuses calls, or knows less than this one: what is lost is counted, and packets go through all the same.
//!
//! Faults of the device are the whole process's, so these tests run one at a time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

#[allow(dead_code, reason = "each test program needs other parts of it")]
#[path = "../supervision/lab.rs"]
mod lab;
#[path = "../supervision/lull.rs"]
mod lull;

use std::net::UdpSocket;
use std::sync::{Mutex, MutexGuard, PoisonError};

use easy_tun::Offloads;
use easy_tun::faults::{HEADER, NOWAIT, Point, arm, forget, struck};
use netlab::{Direction, Server, Topology, bulk_transfer};
use protomask::actors::tun::MOST_FAILED_READS;
use protomask::datapath::{Counters, Refusal};
use protomask::supervision::Concern;

use crate::lab::{Lab, PATIENCE, SHORT, Wanted, eventually, pause, through};
use crate::lull::{Flow, LONG, dozes, lull};

/// While it lives, the device's faults are this test's. In the end none is left.
struct Alone(#[allow(dead_code, reason = "it is held")] MutexGuard<'static, ()>);

fn alone() -> Alone {
    static ONE: Mutex<()> = Mutex::new(());
    Alone(ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Drop for Alone {
    fn drop(&mut self) {
        forget(0);
        for point in Point::ALL {
            arm(*point, 0);
        }
    }
}

/// One worker, so that it is known who meets a fault.
fn start() -> Option<Lab> {
    Lab::start(&Wanted { queues: 1, ..Wanted::default() })
}

fn sum(lab: &Lab, count: fn(&Counters) -> u64) -> u64 {
    lab.shared.desks.iter().map(|desk| count(&desk.counters)).sum()
}

/// A read fails where the kernel cannot describe a packet, which is gone then: that is no reason to let all others wait.
#[test]
fn reads_that_fail_are_counted_and_only_many_in_a_row_end_the_worker() {
    let _alone = alone();
    let Some(lab) = start() else { return };
    let read_errors = |lab: &Lab| sum(lab, |all| all.read_errors.get());
    let mut flow = Flow::new(&lab);
    lull(&lab, &mut flow);
    for failures in [1, MOST_FAILED_READS - 1, MOST_FAILED_READS - 1] {
        let before = read_errors(&lab);
        arm(Point::Read, failures);
        eventually("all of them were met", || {
            flow.exchange(1);
            (read_errors(&lab) == before + u64::from(failures)).then_some(())
        });
        // A packet ends the row.
        flow.exchange(1);
    }
    assert_eq!(lab.status(Concern::Tun).generation, 1);
    lull(&lab, &mut flow);
    let before = read_errors(&lab);
    arm(Point::Read, MOST_FAILED_READS);
    // The first may be taken by a read that slept already. The next one meets them.
    let waits = [flow.send(), flow.send()];
    for number in waits {
        flow.comes(number);
    }
    lab.wait_for_generation(Concern::Tun, 2);
    assert_eq!(read_errors(&lab), before + u64::from(MOST_FAILED_READS));
    lull(&lab, &mut flow);
    lab.end();
}

/// Datagrams that wait in the device's queue while there is no worker, and are joined by the one that reads them.
#[test]
fn a_joined_frame_that_the_device_does_not_take_counts_as_the_packets_that_are_in_it() {
    const TRAIN: u64 = 10;

    let _alone = alone();
    let Some(lab) = start() else { return };
    let mut flow = Flow::new(&lab);
    for point in [Point::Write, Point::Full] {
        flow.exchange(1);
        lab.hold_down(Concern::Tun);
        let forwarded = |lab: &Lab| sum(lab, |all| all.forwarded_6to4.packets.get());
        let (lost_before, forwarded_before) = (lab.drops(Refusal::WriteFailed), forwarded(&lab));
        for _ in 0..TRAIN {
            flow.send();
        }
        arm(point, 1);
        let struck_before = struck(point);
        lab.release(Concern::Tun);
        eventually("all of them are lost", || {
            (lab.drops(Refusal::WriteFailed) == lost_before + TRAIN).then_some(())
        });
        assert_eq!(struck(point), struck_before + 1, "{point:?} struck one frame");
        assert_eq!(forwarded(&lab), forwarded_before, "{point:?}");
    }
    flow.exchange(LONG);
    lab.end();
}

/// Linux before 5.11.
#[test]
fn a_kernel_that_cannot_look_for_more_has_its_worker_wait_by_poll_and_packets_go_through() {
    let _alone = alone();
    let Some(lab) = start() else { return };
    let mut flow = Flow::new(&lab);
    lull(&lab, &mut flow);
    forget(NOWAIT);
    flow.exchange(LONG);
    eventually("the worker has found out", || {
        flow.exchange(1);
        (!dozes(&lab)).then_some(())
    });
    // It does not try again, whatever the kernel knows now.
    forget(0);
    flow.exchange(LONG);
    pause(SHORT);
    assert!(!dozes(&lab), "it sleeps in `read` again");
    let errors = sum(&lab, |all| all.read_errors.get());
    assert_eq!((errors, lab.status(Concern::Tun).generation), (0, 1), "it is no error");
    lab.end();
}

/// Each kernel gives what it knows: super-packets, partial checksums, or nothing but bare packets.
#[test]
fn whatever_of_the_offloads_the_kernel_does_not_know_packets_go_through() {
    let _alone = alone();
    let all = Offloads::all();
    for (unknown, granted) in [
        (Offloads::USO.bits(), all - Offloads::USO),
        (Offloads::TSO_ECN.bits(), all - Offloads::USO - Offloads::TSO_ECN),
        (Offloads::TSO4.bits(), Offloads::CHECKSUM),
        (Offloads::CHECKSUM.bits(), Offloads::empty()),
        (HEADER, Offloads::empty()),
    ] {
        forget(unknown);
        let Some(lab) = start() else { return };
        assert_eq!(lab.shared.offloads, granted, "without {unknown:#x}");
        let header = if unknown == HEADER { 0 } else { easy_tun::HEADER };
        assert_eq!(lab.shared.queues[0].header(), header);
        Flow::new(&lab).exchange(LONG);
        // A train each way, which is joined where the kernel takes that.
        let _server = Server::bulk(&lab.topology.server, (Topology::SERVER_V4, 5001)).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let target = (through(Topology::SERVER_V4), 5001).into();
            let transfer =
                bulk_transfer(lab.client(), target, direction, 2 << 20, PATIENCE * 4, |_| ()).unwrap();
            assert!(transfer.is_intact(), "{direction:?} without {unknown:#x}: {transfer:?}");
        }
        let stranger = lab.client().run(|| UdpSocket::bind((lab.host(1), 0)).unwrap());
        stranger.send_to(b"first", (through(Topology::SERVER_V4), 9)).unwrap();
        eventually("a stranger gets its lease", || lab.lease(1).map(drop));
        assert_eq!(lab.drops(Refusal::WriteFailed), 0);
        lab.end();
    }
}
