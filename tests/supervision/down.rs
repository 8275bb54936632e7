//! No actor is decoration: each is held down, something named stops until it is back, and everything else goes on.

use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use netlab::Topology;
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use protomask::actors::sessions::DropLease;
use protomask::datapath::{Counters, DropReason, Refusal};
use protomask::supervision::Concern;
use protomask::supervision::faults::Inject;
use rtnl::{Change, Handle};

use crate::flows::Echoes;
use crate::lab::{Lab, PATIENCE, SHORT, Wanted, eventually, pause, through};

/// What everybody but `concern` is there for.
fn everything_else_goes_on(lab: &Lab, concern: Concern, echoes: &Echoes, stranger: usize) {
    lab.the_others_answer(concern);
    if concern != Concern::Tun {
        echoes.go_on();
        if concern != Concern::Pool {
            lab.ping(stranger);
        }
    }
    if concern != Concern::Metrics {
        assert!(lab.answers_http(PATIENCE), "while {concern} is down");
    }
    if concern != Concern::Control {
        assert!(lab.answers_control(PATIENCE), "while {concern} is down");
    }
}

#[test]
fn without_pool_a_stranger_waits_and_is_not_refused() {
    let Some(lab) = Lab::start(&Wanted::default()) else { return };
    let echoes = Echoes::start(&lab);
    lab.ping(1);
    lab.hold_down(Concern::Pool);
    let stranger = lab.ping_in_background(2);
    eventually("the stranger's packet is held", || (lab.held() == 3).then_some(()));
    pause(SHORT);
    assert!(!stranger.is_finished() && lab.lease(2).is_none(), "answered without a pool");
    lab.ping(1);
    everything_else_goes_on(&lab, Concern::Pool, &echoes, 3);
    lab.release(Concern::Pool);
    let outcome = stranger.join().unwrap();
    assert!(outcome.is_reply(), "{outcome:?}");
    assert_eq!(lab.shared.lease_counters.refused.load(Ordering::Relaxed), 0);
    assert_eq!(lab.drops(Refusal::HoldTimeout) + lab.drops(Refusal::HoldFull), 0);
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.end();
}

/// What a worker has in hand or parked when it is replaced is lost, and each packet of it is counted once on each side.
#[test]
fn what_is_lost_with_a_worker_was_received_and_is_dropped_by_name() {
    const SEGMENT: i32 = 100;
    let Some(lab) = Lab::start(&Wanted::default()) else { return };
    lab.ping(0);
    lab.hold_down(Concern::Pool);
    let stranger = lab.client().run(|| UdpSocket::bind((lab.host(1), 0)).unwrap());
    setsockopt(&stranger, UdpGsoSegment, &SEGMENT).unwrap();
    let held = lab.held();
    stranger.send_to(&[7; 250], (through(Topology::SERVER_V4), 7)).unwrap();
    stranger.send_to(&[7; 450], (through(Topology::SERVER_V4), 7)).unwrap();
    eventually("all segments are held", || (lab.held() == held + 8).then_some(()));
    assert_eq!(lab.inject(Concern::Tun, Inject::Stop, PATIENCE), Ok(()));
    lab.wait_for_generation(Concern::Tun, 2);
    eventually("the workers before have gone", || (lab.drops(Refusal::Superseded) == 8).then_some(()));
    lab.release(Concern::Pool);
    lab.ping(1);
    eventually("each packet has come to its end", || {
        let sum = |count: fn(&Counters) -> u64| -> u64 {
            lab.shared.desks.iter().map(|desk| count(&desk.counters)).sum()
        };
        let received = sum(|all| all.received_v6.packets.get() + all.received_v4.packets.get());
        let ended = sum(|all| {
            let dropped: u64 = DropReason::all().map(|reason| all.drops(reason)).sum();
            let forwarded = all.forwarded_6to4.packets.get() + all.forwarded_4to6.packets.get();
            forwarded + dropped + all.kernel_chatter.get()
        });
        println!("{received} received, {ended} forwarded, dropped or ignored");
        (received == ended).then_some(())
    });
    lab.end();
}

#[test]
fn without_sessions_no_lease_ends() {
    let lifetime = Duration::from_secs(2);
    let Some(lab) = Lab::start(&Wanted { reservation_timeout: lifetime, ..Wanted::default() }) else {
        return;
    };
    let echoes = Echoes::start(&lab);
    let busy = lab.lease(0).unwrap();
    lab.hold_down(Concern::Sessions);
    lab.ping(1);
    let silent = lab.lease(1).unwrap();
    pause(lifetime * 2);
    assert_eq!(lab.lease(1).map(|lease| lease.address), Some(silent.address), "ended without sessions");
    everything_else_goes_on(&lab, Concern::Sessions, &echoes, 2);
    assert_eq!(lab.shared.lease_counters.expired.load(Ordering::Relaxed), 0);
    lab.release(Concern::Sessions);
    eventually("the silent host's lease ends", || lab.lease(1).is_none().then_some(()));
    eventually("pool hears of it", || {
        (lab.shared.generation().gauges[0].resting.load(Ordering::Relaxed) > 0).then_some(())
    });
    assert_eq!(lab.lease(0).map(|lease| lease.address), Some(busy.address), "it was never silent");
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.end();
}

#[test]
fn without_routes_nothing_is_repaired() {
    const SPARE: &str = "192.0.2.0/24";
    /// The wait between two comparisons without a reason.
    const COMPARE_EVERY: Duration = Duration::from_secs(10);
    let Some(lab) = Lab::start(&Wanted { pools: &["203.0.113.0/24", SPARE], ..Wanted::default() }) else {
        return;
    };
    let echoes = Echoes::start(&lab);
    let spare = SPARE.parse().unwrap();
    let is_there = || {
        let snapshot =
            lab.topology.router.block_on(async { Handle::open().unwrap().snapshot().await.unwrap() });
        snapshot.routes.iter().any(|route| route.destination == spare)
    };
    assert!(is_there());
    lab.hold_down(Concern::Routes);
    let removal = Change::RemoveRoute { link: lab.shared.device_index, destination: spare };
    lab.topology.router.block_on(async { Handle::open().unwrap().make(&removal).await.unwrap() });
    pause(SHORT);
    assert!(!is_there(), "repaired without routes");
    everything_else_goes_on(&lab, Concern::Routes, &echoes, 1);
    assert_eq!(lab.shared.kernel_repairs.load(Ordering::Relaxed), 0);
    lab.release(Concern::Routes);
    let back = Instant::now();
    eventually("the route is there again", || is_there().then_some(()));
    assert!(back.elapsed() < COMPARE_EVERY / 2, "found by chance, not by the comparison at the start");
    eventually("the repair is counted", || {
        (lab.shared.kernel_repairs.load(Ordering::Relaxed) == 1).then_some(())
    });
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.end();
}

#[test]
fn without_metrics_nothing_can_be_scraped() {
    let Some(lab) = Lab::start(&Wanted::default()) else { return };
    let echoes = Echoes::start(&lab);
    assert!(lab.answers_http(PATIENCE));
    lab.hold_down(Concern::Metrics);
    assert!(!lab.answers_http(SHORT), "answered without metrics");
    // A connection waits for the successor, in the backlog of the listener that outlives the actor.
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| lab.answers_http(PATIENCE));
        everything_else_goes_on(&lab, Concern::Metrics, &echoes, 1);
        assert!(!patient.is_finished(), "answered without metrics");
        lab.release(Concern::Metrics);
        assert!(patient.join().unwrap(), "not answered by the successor");
    });
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.end();
}

#[test]
fn without_control_nobody_can_ask() {
    let Some(lab) = Lab::start(&Wanted::default()) else { return };
    let echoes = Echoes::start(&lab);
    assert!(lab.answers_control(PATIENCE));
    lab.hold_down(Concern::Control);
    assert!(!lab.answers_control(SHORT), "answered without control");
    // A connection waits for the successor, in the backlog of the listener that outlives the actor.
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| lab.answers_control(PATIENCE));
        everything_else_goes_on(&lab, Concern::Control, &echoes, 1);
        assert!(!patient.is_finished(), "answered without control");
        lab.release(Concern::Control);
        assert!(patient.join().unwrap(), "not answered by the successor");
    });
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    lab.end();
}

#[test]
fn without_tun_packets_wait() {
    let Some(lab) = Lab::start(&Wanted::default()) else { return };
    let echoes = Echoes::start(&lab);
    lab.ping(1);
    lab.hold_down(Concern::Tun);
    let (known, stranger) = (lab.ping_in_background(1), lab.ping_in_background(2));
    pause(SHORT);
    assert!(!known.is_finished() && !stranger.is_finished(), "forwarded without tun");
    everything_else_goes_on(&lab, Concern::Tun, &echoes, 3);
    lab.release(Concern::Tun);
    for ping in [known, stranger] {
        let outcome = ping.join().unwrap();
        assert!(outcome.is_reply(), "{outcome:?}");
    }
    // The queue of the device holds 500 packets, and 100 came each second.
    let (sent, lost) = echoes.end();
    assert!(lost.len() as u64 <= lab.drops(Refusal::Superseded), "{lost:?} of {sent}");
    lab.end();
}

#[test]
fn a_restarted_pool_gives_no_address_twice() {
    const HOSTS: u16 = 13;
    let Some(lab) = Lab::start(&Wanted { pools: &["203.0.113.0/28"], hosts: HOSTS, ..Wanted::default() })
    else {
        return;
    };
    let restart = |fault| {
        let generation = lab.status(Concern::Pool).generation;
        let _ = lab.inject(Concern::Pool, fault, SHORT);
        lab.wait_for_generation(Concern::Pool, generation + 1);
    };
    for host in 0..usize::from(HOSTS) - 1 {
        if host % 2 == 1 {
            restart(if host == 7 { Inject::Hang } else { Inject::Panic });
        }
        lab.ping(host);
    }
    let leases = lab.leases();
    assert_eq!(leases.len(), usize::from(HOSTS) - 1);
    assert!(leases.windows(2).all(|pair| pair[0].0 != pair[1].0), "{leases:?}");
    // The last host may have its answer before the pool has published that.
    eventually("the pool counts them", || {
        let used = lab.shared.generation().gauges[0].used.load(Ordering::Relaxed);
        (used == leases.len() as u64).then_some(())
    });

    // An address rests after its lease, whatever happens to the pool meanwhile.
    let dropped = lab.lease(3).unwrap();
    let sessions = &lab.shared.directory.sessions;
    let message = DropLease { address: dropped.address };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    assert!(runtime.block_on(sessions.ask(message, PATIENCE)).unwrap().is_some());
    restart(Inject::Stop);
    lab.ping(usize::from(HOSTS) - 1);
    assert_ne!(lab.lease(usize::from(HOSTS) - 1).unwrap().address, dropped.address, "it rests");
    lab.ping(3);
    assert_eq!(lab.lease(3).unwrap().address, dropped.address, "its last host may have it at once");
    lab.end();
}
