//! Several queues: the kernel hands packets of a flow to the worker that wrote the flow's other way last.

use std::collections::BTreeMap;
use std::fs;

use crate::common::{Lab, Router};
use crate::lab::{Ends, POOLS, Way, assert_arrive, datagram};

const QUEUES: usize = 4;
const FLOWS: u16 = 16;

/// Datagrams each way that are looked at.
const ECHOES: usize = 20;

/// Bytes that each worker has read so far, by its thread's name. It reads from nothing but its queue and its own wake-ups.
fn bytes_read(router: &Router) -> BTreeMap<String, u64> {
    let tasks = format!("/proc/{}/task", router.process().pid());
    let workers = fs::read_dir(tasks).unwrap().filter_map(|task| {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap().trim().to_owned();
        let io = name.starts_with("worker-").then(|| fs::read_to_string(task.join("io")).unwrap())?;
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
        Some((name, read.parse().unwrap()))
    });
    workers.collect()
}

#[test]
fn both_ways_of_an_active_flow_are_one_workers() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for pool in POOLS {
        let lab = Lab::new();
        let router = Router::start(&lab, &[&pool[..], &["--num-queues", "4"]].concat());
        let mut busy = BTreeMap::new();
        for number in 0..FLOWS {
            let ends = Ends::open(&lab, 4000 + number, 7000 + number);
            let echo = |number| {
                for way in Way::BOTH {
                    let datagram = [datagram(number, 1000)];
                    ends.sender(way).send(&datagram[0]).unwrap();
                    assert_arrive(ends.receiver(way), &datagram, &format!("{way:?}"));
                }
            };
            // The first datagrams may have waited at another worker for their lease, and this one is behind them.
            echo(0);
            let before = bytes_read(&router);
            assert_eq!(before.len(), QUEUES);
            (1..=ECHOES).for_each(echo);
            let least = (2 * ECHOES * 1028) as u64;
            // A worker's read is counted when it ends, and the datagram may be there before.
            let grown = router_has_read(&router, &before, least);
            let [(worker, _)] = &grown[..] else {
                panic!("flow {number}: several workers have read: {grown:?}")
            };
            *busy.entry(worker.clone()).or_insert(0) += 1;
        }
        assert!(busy.len() > 1, "flows are spread over workers: {busy:?}");
        router.end();
    }
}

/// The workers that have read since, and how much, once it is so much in all.
fn router_has_read(router: &Router, before: &BTreeMap<String, u64>, least: u64) -> Vec<(String, u64)> {
    crate::common::eventually("all datagrams are read", crate::common::PATIENCE, || {
        let now = bytes_read(router);
        let grown = now.into_iter().map(|(name, read)| {
            let grown = read - before[&name];
            (name, grown)
        });
        // The kernel's own packets are shorter than one of these datagrams.
        let grown: Vec<_> = grown.filter(|(_, grown)| *grown >= 1000).collect();
        (grown.iter().map(|(_, grown)| grown).sum::<u64>() >= least).then_some(grown)
    })
}
