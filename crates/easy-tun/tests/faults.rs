//! Each call of the kernel is refused once: the error names what was refused, nothing is left half open, and the next try works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::AsFd as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use easy_tun::faults::{HEADER, NOWAIT, Point, arm, forget, struck};
use easy_tun::{Device, DeviceBuilder, Error, Instruction, Offloads, Steering, Written};
use netlab::{Namespace, kernel_tests_possible};

fn build() -> Result<Device, Error> {
    DeviceBuilder::new("tun0").queues(2).offloads(Offloads::all()).persist(true).build()
}

/// The error and its causes.
fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What is refused where a device is made, and what the error says.
const MAKING: [(Point, &str); 5] = [
    (Point::Open, "opening /dev/net/tun"),
    (Point::Attach, "attaching queue 1 to tun0"),
    (Point::SetHeader, "setting the offloads of tun0"),
    (Point::SetOffload, "setting the offloads of tun0"),
    (Point::Persist, "setting the persistence of tun0"),
];

/// And where one is adopted.
const ADOPTING: (Point, &str) = (Point::SetSendBuffer, "setting the send buffer of tun0");

/// And where packets are to be steered.
const STEERING: [(Point, &str); 2] = [
    (Point::LoadSteering, "loading the steering program zero"),
    (Point::SetSteering, "setting the steering program of tun0"),
];

/// And where it is used.
const USING: [Point; 3] = [Point::Wait, Point::Read, Point::Write];

/// What is no error.
const FULL: Point = Point::Full;

/// Faults are the whole process's.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_refused_call_of_the_kernel_is_named_and_the_next_one_works() {
    let points = MAKING.len() + 1 + STEERING.len() + USING.len() + 1;
    assert_eq!(Point::ALL.len(), points, "each point has its case here");
    let _alone = alone();
    if !kernel_tests_possible() {
        return;
    }
    Namespace::new("refused").unwrap().run(|| {
        for (point, words) in MAKING {
            arm(point, 1);
            let error = build().expect_err("it was refused");
            assert_eq!(struck(point), 1, "{point:?}");
            let text = text(&error);
            assert!(text.contains(words) && text.contains("os error 5"), "{point:?}: {text}");
            let device = build().unwrap_or_else(|error| panic!("after {point:?}: {error}"));
            assert!(!device.adopted(), "{point:?} has left a device behind");
            device.set_persist(false).unwrap();
        }
        let (point, words) = ADOPTING;
        drop(build().unwrap());
        arm(point, 1);
        let text = text(&build().expect_err("it was refused"));
        assert!(text.contains(words) && text.contains("os error 5"), "{text}");
        let device = build().unwrap();
        assert!(device.adopted() && struck(point) == 1);
        // 0 into the register of the answer, and the end.
        let program = [Instruction::new(0xb7, (0, 0), 0, 0), Instruction::new(0x95, (0, 0), 0, 0)];
        let steer = || device.steer(Some(&Steering::load("zero", &program)?));
        for (point, words) in STEERING {
            arm(point, 1);
            let text = self::text(&steer().expect_err("it was refused"));
            assert!(text.contains(words) && text.contains("os error 5"), "{point:?}: {text}");
        }
        steer().unwrap();
        let queue = device.queue(0).unwrap();
        let mut buffer = vec![0; 70_000];
        let is_eio = |error: std::io::Error| error.raw_os_error() == Some(5);
        for point in USING {
            arm(point, 1);
        }
        assert!(queue.try_read(&mut buffer).is_err_and(is_eio));
        assert!(queue.try_write(&[0; 60]).is_err_and(is_eio));
        assert!(queue.doze(|| false).map(drop).is_err_and(is_eio));
        // The place to sleep is free again, and reads do not wait.
        assert!(queue.try_read(&mut buffer).is_ok());
        assert!(queue.doze(|| false).unwrap().is_some());
        assert!(queue.as_fd().try_clone_to_owned().is_ok());
        for point in USING {
            assert_eq!(struck(point), 1, "{point:?}");
        }
        arm(FULL, 1);
        assert_eq!(queue.try_write(&[0; 60]).unwrap(), Written::WouldBlock);
        assert_eq!(struck(FULL), 1);
        device.set_persist(false).unwrap();
    });
}

/// The kernel says of a set of offloads only that something in it is unknown, so what came to Linux last is given up first.
#[test]
fn of_the_offloads_a_kernel_gets_those_that_it_knows() {
    let _alone = alone();
    if !kernel_tests_possible() {
        return;
    }
    let usable = Offloads::all() - Offloads::USO;
    let (uso4, tso) = (0x20, Offloads::TSO4 | Offloads::TSO6);
    assert_eq!(Offloads::USO.bits(), uso4 | 0x40);
    for (unknown, wanted, granted) in [
        (0, Offloads::all(), Offloads::all()),
        (Offloads::USO.bits(), Offloads::all(), usable),
        (uso4, Offloads::all(), usable),
        (Offloads::TSO_ECN.bits(), Offloads::all(), usable - Offloads::TSO_ECN),
        ((Offloads::USO | Offloads::TSO_ECN).bits(), Offloads::all(), usable - Offloads::TSO_ECN),
        (Offloads::TSO4.bits(), Offloads::all(), Offloads::CHECKSUM),
        (tso.bits(), Offloads::TSO6, Offloads::CHECKSUM),
        (Offloads::USO.bits(), Offloads::TSO6, Offloads::TSO6 | Offloads::CHECKSUM),
        (Offloads::CHECKSUM.bits(), Offloads::all(), Offloads::empty()),
    ] {
        Namespace::new("unknown").unwrap().run(|| {
            forget(unknown);
            let device = DeviceBuilder::new("tun0").offloads(wanted).build().unwrap();
            forget(0);
            assert_eq!(device.offloads(), granted, "{wanted} of a kernel without {unknown:#x}");
            assert_eq!(device.queues()[0].header(), easy_tun::HEADER, "the header has nothing to do with it");
        });
    }
}

#[test]
fn a_kernel_that_knows_no_header_gives_bare_packets_and_no_offloads() {
    let _alone = alone();
    if !kernel_tests_possible() {
        return;
    }
    Namespace::new("bare").unwrap().run(|| {
        forget(HEADER);
        let device = build().unwrap();
        assert_eq!((device.offloads(), device.queues()[0].header()), (Offloads::empty(), 0));
        drop(device);
        // One that was left with both has neither when it is adopted.
        forget(0);
        assert_eq!(build().unwrap().offloads(), Offloads::all());
        forget(HEADER);
        let device = build().unwrap();
        forget(0);
        assert!(device.adopted());
        assert_eq!((device.offloads(), device.queues()[0].header()), (Offloads::empty(), 0));
        device.set_persist(false).unwrap();
    });
}

#[test]
fn a_kernel_that_cannot_look_for_more_without_waiting_says_so_once_and_for_all() {
    let _alone = alone();
    if !kernel_tests_possible() {
        return;
    }
    Namespace::new("nowait").unwrap().run(|| {
        let device = DeviceBuilder::new("tun0").build().unwrap();
        let queue = device.queue(0).unwrap();
        let mut buffer = vec![0; 2000];
        let doze = queue.doze(|| false).unwrap().unwrap();
        assert_eq!(doze.read_more(&mut buffer).unwrap(), None);
        forget(NOWAIT);
        let refused = doze.read_more(&mut buffer).unwrap_err();
        forget(0);
        assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
    });
}
