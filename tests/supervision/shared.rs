//! The same with hosts that share an address: what a concern that is down stops, and what it does not.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use netlab::{Topology, udp_exchange};
use protomask::config::Sharing;
use protomask::supervision::Concern;
use protomask::supervision::faults::Inject;

use crate::flows::Echoes;
use crate::lab::{Lab, PATIENCE, SHORT, Wanted, eventually, pause, through};

fn wanted() -> Wanted {
    Wanted { pools: &["203.0.113.1/32"], sharing: Sharing::Ports, ..Wanted::default() }
}

/// A datagram of a host from a port of the kernel's choice, and its echo: a session of its own.
fn say(lab: &Lab, host: usize) {
    let source = Some((lab.host(host), 0).into());
    let target = (through(Topology::SERVER_V4), 7).into();
    assert_eq!(udp_exchange(lab.client(), source, target, b"hello", PATIENCE).unwrap(), b"hello");
}

fn sessions(lab: &Lab) -> u32 {
    lab.shared.tables.nat.usage().sessions.iter().sum()
}

fn granted(lab: &Lab) -> u64 {
    lab.shared.lease_counters.granted.load(Ordering::Relaxed)
}

#[test]
fn without_pool_a_known_host_opens_new_sessions_and_a_stranger_waits() {
    let Some(lab) = Lab::start(&wanted()) else { return };
    let echoes = Echoes::start(&lab);
    say(&lab, 1);
    let (before, blocks) = (sessions(&lab), granted(&lab));
    lab.hold_down(Concern::Pool);
    for _ in 0..20 {
        say(&lab, 1);
    }
    assert_eq!((sessions(&lab), granted(&lab)), (before + 20, blocks), "no message was needed");
    let held = lab.held();
    let stranger = lab.ping_in_background(2);
    eventually("the stranger's packet is held", || (lab.held() > held).then_some(()));
    pause(SHORT);
    assert!(!stranger.is_finished(), "answered without a pool");
    echoes.go_on();
    lab.release(Concern::Pool);
    assert!(stranger.join().unwrap().is_reply());
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.end();
}

#[test]
fn a_host_that_needs_more_ports_has_them_before_it_waits() {
    let Some(lab) = Lab::start(&wanted()) else { return };
    let echoes = Echoes::start(&lab);
    say(&lab, 1);
    let held = lab.held();
    for _ in 0..300 {
        say(&lab, 1);
    }
    // Three blocks for 301 ports, and perhaps a fourth ahead; one for the flow of the other host.
    assert!((4..=5).contains(&granted(&lab)), "{}", granted(&lab));
    assert_eq!(lab.held(), held, "no packet had to wait for a block");
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.end();
}

#[test]
fn a_pool_that_was_restarted_gives_no_block_twice() {
    let Some(lab) = Lab::start(&wanted()) else { return };
    let echoes = Echoes::start(&lab);
    for host in 1..8 {
        say(&lab, host);
        let died = lab.status(Concern::Pool).generation;
        let _ = lab.inject(Concern::Pool, Inject::Panic, PATIENCE);
        eventually("pool has a successor", || (lab.status(Concern::Pool).generation > died).then_some(()));
    }
    let blocks: Vec<_> = lab.shared.tables.nat.blocks().map(|block| block.first_port).collect();
    let different: HashSet<_> = blocks.iter().collect();
    assert_eq!((blocks.len(), different.len()), (8, 8), "{blocks:?}");
    eventually("its gauges are those of the engine", || {
        (lab.shared.generation().gauges[0].used.load(Ordering::Relaxed) == 8).then_some(())
    });
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.end();
}

#[test]
fn without_sessions_no_session_ends_and_no_block_comes_back() {
    let timer = Duration::from_secs(1);
    let Some(lab) = Lab::start(&Wanted { short_timers: Some(timer), ..wanted() }) else { return };
    let echoes = Echoes::start(&lab);
    let returned = || lab.shared.lease_counters.returned.load(Ordering::Relaxed);
    lab.hold_down(Concern::Sessions);
    say(&lab, 1);
    pause(timer * 4);
    assert_eq!((sessions(&lab), returned()), (2, 0), "ended without sessions");
    echoes.go_on();
    lab.release(Concern::Sessions);
    eventually("the silent session ends", || (sessions(&lab) == 1).then_some(()));
    eventually("its host's block comes back", || (returned() == 1).then_some(()));
    assert_eq!(lab.shared.tables.nat.blocks().count(), 1, "that of the busy host");
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.end();
}
