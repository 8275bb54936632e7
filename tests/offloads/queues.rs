//! Several queues: both ways of a flow come to one worker, by a program in the kernel or by what the kernel remembers of flows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use fast_nat::Lanes;
use netlab::Topology;

use crate::common::{Lab, Router};
use crate::lab::{Ends, POOLS, Way, assert_arrive, datagram};

const QUEUES: usize = 4;
const FLOWS: u16 = 24;
const SERVER_PORT: u16 = 7000;

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

/// What the log says of who shares packets out.
const BY_KERNEL: &str = "the kernel shares packets out to workers by what it remembers of flows, which is dearer with many of them";
const BY_PROGRAM: &str = "both ways of a flow come to one worker, by a program in the kernel";

/// Lets datagrams pass each way of several flows, and tells which worker has read all of a flow's, by the client's port.
fn workers_of_flows(lab: &Lab, router: &Router) -> BTreeMap<u16, String> {
    let mut workers = BTreeMap::new();
    for number in 0..FLOWS {
        let ends = Ends::open(lab, 4000 + number, SERVER_PORT);
        let echo = |number| {
            for way in Way::BOTH {
                let datagram = [datagram(number, 1000)];
                ends.sender(way).send(&datagram[0]).unwrap();
                assert_arrive(ends.receiver(way), &datagram, &format!("{way:?}"));
            }
        };
        // The first datagrams may have waited at another worker for their lease, and this one is behind them.
        echo(0);
        let before = bytes_read(router);
        assert_eq!(before.len(), QUEUES);
        (1..=ECHOES).for_each(echo);
        let least = (2 * ECHOES * 1028) as u64;
        // A worker's read is counted when it ends, and the datagram may be there before.
        let grown = router_has_read(router, &before, least);
        let [(worker, _)] = &grown[..] else { panic!("flow {number}: several workers have read: {grown:?}") };
        workers.insert(4000 + number, worker.clone());
    }
    workers
}

/// The device is one that a router with another number of queues has left, with its program.
fn leave_a_program(lab: &Lab) {
    let router = Router::start(lab, &[&POOLS[0][..], &["--num-queues", "2"]].concat());
    assert_eq!(router.log().with_msg(BY_PROGRAM)[0].field("lanes"), "2");
    router.kill();
}

#[test]
fn both_ways_of_an_active_flow_are_one_workers_where_the_kernel_remembers_flows() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let asks = |lab: &Lab, steering| {
        let file = lab.file("router.toml", &format!("steering = {steering}\n"));
        (lab.protomask(), vec!["--config".to_owned(), file])
    };
    let may_not = |lab: &Lab| (lab.protomask_without_programs(), Vec::new());
    for pool in POOLS {
        for is_asked in [true, false] {
            if !is_asked && Lab::anybody_may_load_programs() {
                println!("SKIPPED: a router that may not load programs: here anybody may");
                continue;
            }
            let lab = Lab::new();
            leave_a_program(&lab);
            let (command, flags) = if is_asked { asks(&lab, false) } else { may_not(&lab) };
            let flags: Vec<_> = pool
                .into_iter()
                .chain(["--num-queues", "4"])
                .chain(flags.iter().map(String::as_str))
                .collect();
            let mut router = Router::spawn_as(command, &lab, &flags);
            router.wait_until_ready();
            let workers: BTreeSet<_> = workers_of_flows(&lab, &router).into_values().collect();
            // One of the first two for all of them is a matter of 10^-7.
            assert!(
                workers.iter().any(|worker| worker.as_str() > "worker-1"),
                "the program of two lanes is gone: {workers:?}"
            );
            let why = &router.log().with_msg(BY_KERNEL)[0].field("because");
            let wanted = if is_asked { "steering = false" } else { "give the process CAP_BPF" };
            assert!(why.contains(wanted), "{why}");
            assert!(router.log().with_msg(BY_PROGRAM).is_empty());
            router.end();
        }
    }
}

#[test]
fn both_ways_of_a_flow_are_its_lanes_worker_from_its_first_packet_on() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lanes = Lanes::new(QUEUES as u16).unwrap();
    for pool in POOLS {
        let lab = Lab::new();
        leave_a_program(&lab);
        let router = Router::start(&lab, &[&pool[..], &["--num-queues", "4"]].concat());
        let workers = workers_of_flows(&lab, &router);
        for (client, worker) in &workers {
            let lane = lanes.of_outbound(Topology::CLIENT_V6, *client, SERVER_PORT);
            assert_eq!(*worker, format!("worker-{lane}"), "from port {client}");
        }
        let workers: BTreeSet<_> = workers.into_values().collect();
        assert_eq!(workers.len(), QUEUES);
        let said = router.log().with_msg(BY_PROGRAM);
        assert_eq!((said[0].field("lanes"), said[0].field("queues")), ("4".to_owned(), "4".to_owned()));
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
