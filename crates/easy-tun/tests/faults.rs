//! Each call of the kernel is refused once: the error names what was refused, nothing is left half open, and the next try works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::AsFd as _;

use easy_tun::faults::{Point, arm, struck};
use easy_tun::{Device, DeviceBuilder, Error, Offloads};
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

/// And where it is used.
const USING: [Point; 3] = [Point::Wait, Point::Read, Point::Write];

#[test]
fn a_refused_call_of_the_kernel_is_named_and_the_next_one_works() {
    assert_eq!(Point::ALL.len(), MAKING.len() + USING.len(), "each point has its case here");
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
        let device = build().unwrap();
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
        device.set_persist(false).unwrap();
    });
}
