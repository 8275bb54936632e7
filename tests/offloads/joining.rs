//! Packets of one flow that the router finds together leave by one write, and arrive as what they were.

use crate::common::{Lab, PLAIN, Router, plain_and};
use crate::lab::{
    Ends, Handled, POOLS, Way, assert_arrive, assert_silent, datagram, datagrams, start, while_held,
};

/// Sends these while the router is held up, and sees them arrive. The answer is how many packets the router wrote.
fn writes(lab: &Lab, router: &Router, flows: &[(&Ends, Vec<Vec<u8>>)], way: Way) -> u64 {
    let most = flows.iter().map(|(_, datagrams)| datagrams.len()).max().unwrap();
    let all: usize = flows.iter().map(|(_, datagrams)| datagrams.len()).sum();
    let (forwarded, before) = (way.forwarded(router), Handled::so_far(lab, router));
    while_held(lab, router, way, all as u64, || {
        // The flows take turns.
        for number in 0..most {
            for (ends, datagrams) in flows {
                if let Some(datagram) = datagrams.get(number) {
                    ends.sender(way).send(datagram).unwrap();
                }
            }
        }
    });
    for (number, (ends, datagrams)) in flows.iter().enumerate() {
        let what = format!("{way:?}, flow {number}");
        assert_arrive(ends.receiver(way), datagrams, &what);
        assert_silent(ends.receiver(way), &what);
    }
    way.wait_for_forwarded(router, forwarded + all as u64);
    let handled = Handled::so_far(lab, router).since(&before);
    assert_eq!(handled.read, all as u64, "{way:?}: each was read by itself");
    handled.written
}

#[test]
fn eight_equal_datagrams_leave_by_one_write_and_arrive_one_by_one() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for pool in POOLS {
        let lab = Lab::new();
        let router = start(&lab, &pool);
        let ends = Ends::open(&lab, 4000, 7777);
        for way in Way::BOTH {
            // With and without DF behind the router (RFC 7915 §5.1): up to 1260 bytes it is clear.
            for length in [1, 2, 999, 1000, 1452] {
                let equal = datagrams([length; 8]);
                assert_eq!(writes(&lab, &router, &[(&ends, equal)], way), 1, "{way:?}, {length} bytes");
            }
        }
        let metrics = router.metrics();
        assert_eq!(metrics.all_dropped(), 0, "{metrics:?}");
        router.end();
    }
}

#[test]
fn packets_that_wait_are_joined_also_where_they_came_one_by_one_for_long() {
    /// One batch's, which is what leaves by one write.
    const WAITING: usize = 64;
    /// Behind every sixteenth packet, at the latest, the worker looks for more.
    const ALONE: u64 = 15;

    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = start(&lab, &PLAIN);
    let ends = Ends::open(&lab, 4000, 7777);
    for way in Way::BOTH {
        // Long enough for the worker to look for one packet at a time.
        for number in 0..200 {
            let one = [datagram(number, 100)];
            ends.sender(way).send(&one[0]).unwrap();
            assert_arrive(ends.receiver(way), &one, &format!("{way:?}, number {number}"));
        }
        let written = writes(&lab, &router, &[(&ends, datagrams([100; WAITING]))], way);
        assert!(
            written <= ALONE + 1,
            "{way:?}: {ALONE} leave alone at most, and there were {written} writes"
        );
    }
    router.end();
}

#[test]
fn a_shorter_datagram_is_the_last_of_its_write_and_a_longer_one_the_first_of_the_next() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = start(&lab, &PLAIN);
    let ends = Ends::open(&lab, 4000, 7777);
    for way in Way::BOTH {
        for (lengths, expected) in [
            (vec![1000, 1000, 1000, 500], 1),
            (vec![1000, 1000, 500, 500, 500], 2),
            (vec![500, 500, 1000, 1000], 2),
            (vec![100, 200, 300, 400], 4),
            (vec![1000, 0, 1000], 3),
            (vec![100; 64], 1),
            (vec![100; 65], 2),
            // A batch is 64 packets, or 32 KiB: 25 of these.
            (vec![1200; 64], 3),
        ] {
            let written = writes(&lab, &router, &[(&ends, datagrams(lengths.clone()))], way);
            assert_eq!(written, expected, "{way:?}, {lengths:?}");
        }
    }
    router.end();
}

#[test]
fn flows_that_take_turns_are_joined_each_for_itself() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = start(&lab, &PLAIN);
    let ends = [4000, 4001, 4002].map(|port| Ends::open(&lab, port, port));
    for way in Way::BOTH {
        let flows: Vec<_> =
            ends.iter().zip([400, 500, 600]).map(|(ends, l)| (ends, datagrams([l; 6]))).collect();
        assert_eq!(writes(&lab, &router, &flows, way), 3, "{way:?}");
    }
    router.end();
}

#[test]
fn nothing_is_joined_where_that_is_off_or_the_device_takes_no_super_packets() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let file = lab.file("apart.toml", "join = false\n");
    let apart = [&PLAIN[..], &["--config", &file]].concat();
    for flags in [apart, plain_and(&["--offloads", "off"]), plain_and(&["--offloads", "checksum,tso4,tso6"])]
    {
        let router = start(&lab, &flags);
        let ends = Ends::open(&lab, 4000, 7777);
        for way in Way::BOTH {
            let written = writes(&lab, &router, &[(&ends, datagrams([1000; 8]))], way);
            assert_eq!(written, 8, "{way:?}, {flags:?}");
        }
        router.end();
    }
}
