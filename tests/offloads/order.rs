//! Datagrams of a flow stay in their order, whatever of it is joined and whatever flows come between.

use crate::common::{Lab, Router};
use crate::lab::{
    Ends, POOLS, SHARED, Way, assert_arrive, assert_silent, datagram, send_as_one, send_each, start,
    while_held,
};

const FLOWS: usize = 8;

/// Datagrams of a flow in one round. All flows together must fit the device's queue of 500 packets.
const EACH: usize = 32;

const ROUNDS: usize = 2;

/// The same where both ways go at a time: all of it fits one queue.
const MIXED: usize = 24;

/// A length that is often that of the datagram before it, and often not (a linear congruential generator).
fn lengths(flow: usize) -> impl Iterator<Item = usize> {
    let mut state = flow as u32 + 1;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        [1000, 1000, 1000, 1000, 400, 400, 17, 1452][state as usize >> 29]
    })
}

#[test]
fn eight_flows_of_mixed_sizes_arrive_whole_and_each_in_its_order() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for pool in POOLS {
        let lab = Lab::new();
        let router = start(&lab, &pool);
        let flows: Vec<Ends> =
            (0..FLOWS as u16).map(|flow| Ends::open(&lab, 4000 + flow, 7000 + flow)).collect();
        for way in Way::BOTH {
            let mut lengths: Vec<_> = (0..FLOWS).map(lengths).collect();
            for round in 0..ROUNDS {
                let sent: Vec<Vec<Vec<u8>>> = lengths
                    .iter_mut()
                    .map(|lengths| {
                        let numbers = round * EACH..(round + 1) * EACH;
                        numbers.zip(lengths).map(|(number, length)| datagram(number, length)).collect()
                    })
                    .collect();
                let forwarded = way.forwarded(&router);
                while_held(&lab, &router, way, (FLOWS * EACH) as u64, || {
                    for number in 0..EACH {
                        for (flow, datagrams) in flows.iter().zip(&sent) {
                            flow.sender(way).send(&datagrams[number]).unwrap();
                        }
                    }
                });
                for (number, (flow, datagrams)) in flows.iter().zip(&sent).enumerate() {
                    let what = format!("{way:?}, round {round}, flow {number}");
                    assert_arrive(flow.receiver(way), datagrams, &what);
                    assert_silent(flow.receiver(way), &what);
                }
                way.wait_for_forwarded(&router, forwarded + (FLOWS * EACH) as u64);
            }
        }
        let metrics = router.metrics();
        assert_eq!(metrics.all_dropped(), 0, "{metrics:?}");
        router.end();
    }
}

/// A super-packet, single datagrams before and behind it, and one in fragments, which nobody can join: all of one flow.
#[test]
fn what_came_whole_what_is_joined_and_what_is_in_fragments_keep_their_order() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for pool in POOLS {
        let lab = Lab::new();
        let router = start(&lab, &pool);
        let ends = Ends::open(&lab, 4000, 7777);
        for way in Way::BOTH {
            let train = |first: usize, count: usize| -> Vec<Vec<u8>> {
                (first..first + count).map(|number| datagram(number, 1000)).collect()
            };
            let single = |number, length| vec![datagram(number, length)];
            let sender = ends.sender(way);
            // Three singles, five as one, two singles, one in fragments, two singles. A packet is one for the kernel, and a datagram
            // in fragments is as many as its fragments.
            while_held(&lab, &router, way, 3 + 1 + 2 + 2 + 2, || {
                send_each(sender, &train(0, 3));
                send_as_one(sender, &train(3, 5)).unwrap();
                send_each(sender, &train(8, 2));
                sender.send(&datagram(10, 2000)).unwrap();
                send_each(sender, &train(11, 2));
            });
            let expected = [train(0, 10), single(10, 2000), train(11, 2)].concat();
            assert_arrive(ends.receiver(way), &expected, &format!("{way:?}"));
            assert_silent(ends.receiver(way), &format!("{way:?}"));
        }
        router.end();
    }
}

/// Where nobody says how many queues, and where there are more than processors.
#[test]
fn steady_flows_keep_their_order_with_several_workers_too() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for queues in [&[][..], &["--num-queues", "4"]] {
        let lab = Lab::new();
        let router = Router::start(&lab, &[&SHARED[..], queues].concat());
        let flows: Vec<Ends> =
            (0..FLOWS as u16).map(|flow| Ends::open(&lab, 4000 + flow, 7000 + flow)).collect();
        for round in 0..ROUNDS * 4 {
            // Both ways of each flow belong to one worker then, for three seconds.
            for flow in &flows {
                for way in Way::BOTH {
                    let one = [datagram(round, 500)];
                    send_each(flow.sender(way), &one);
                    assert_arrive(flow.receiver(way), &one, "before");
                }
            }
            let sent: Vec<Vec<Vec<u8>>> = (0..FLOWS)
                .map(|flow| (0..MIXED).zip(lengths(flow)).map(|(at, length)| datagram(at, length)).collect())
                .collect();
            for number in 0..MIXED {
                for (flow, datagrams) in flows.iter().zip(&sent) {
                    for way in Way::BOTH {
                        flow.sender(way).send(&datagrams[number]).unwrap();
                    }
                }
            }
            for (number, (flow, datagrams)) in flows.iter().zip(&sent).enumerate() {
                for way in Way::BOTH {
                    let what = format!("{queues:?}, {way:?}, round {round}, flow {number}");
                    assert_arrive(flow.receiver(way), datagrams, &what);
                    assert_silent(flow.receiver(way), &what);
                }
            }
        }
        let metrics = router.metrics();
        assert_eq!(metrics.all_dropped(), 0, "{metrics:?}");
        router.end();
    }
}
