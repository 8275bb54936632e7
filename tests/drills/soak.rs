//! Random faults for a long time, with random pauses and paces.
//!
//! ```text
//! PROTOMASK_SOAK_MINUTES=20 PROTOMASK_SEED=1 cargo test -p protomask --test drills soak -- --ignored --nocapture
//! ```
//!
//! The same seed makes the same faults in the same order, with the same pauses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protomask::supervision::Concern;

use crate::lab::{Lab, pause};
use crate::load::Load;
use crate::memory::Has;
use crate::run::{audit, run};
use crate::table::{Cause, Drill, exclusive, shared};
use crate::{Folder, HOSTS, alone, exclusive_addresses, number, shared_ports};

/// How long one router lives: then comes the next, with hosts that share addresses and hosts that have their own in turn.
const ROUTER_LIVES: Duration = Duration::from_mins(4);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}

#[test]
#[ignore = "takes twenty minutes"]
fn soak() {
    let minutes = number("PROTOMASK_SOAK_MINUTES", 20);
    let now = || std::time::UNIX_EPOCH.elapsed().map_or(1, |elapsed| elapsed.as_secs());
    let seed = std::env::var("PROTOMASK_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
    println!("PROTOMASK_SEED={seed} PROTOMASK_SOAK_MINUTES={minutes}");
    let _alone = alone();
    let start = Instant::now();
    let end = Duration::from_mins(minutes);
    let mut random = Random(seed);
    let mut faults: BTreeMap<(String, &str), u64> = BTreeMap::new();
    let (mut drills, mut sent, mut lost, mut reordered, mut opened, mut restarts) = (0, 0, 0, 0, 0, 0);
    let mut has: Option<Has> = None;
    let mut turn = 0;
    while start.elapsed() < end {
        let folder = Folder::new();
        let (wanted, of): (_, Vec<Drill>) = if turn % 2 == 0 {
            (shared_ports(&folder), shared())
        } else {
            (exclusive_addresses(), exclusive())
        };
        turn += 1;
        let Some(lab) = Lab::start(&wanted) else { return };
        let pace = Duration::from_millis(30 + random.below(50));
        let mut load = Load::start(&lab, ROUTER_LIVES * 4, HOSTS, pace);
        let (begun, mut quarrels) = (Instant::now(), 0);
        while begun.elapsed() < ROUTER_LIVES && start.elapsed() < end {
            let drill = of[random.below(of.len() as u64) as usize];
            if drill.cause == Cause::RouteGone {
                // What somebody undoes again and again is repaired ever more rarely.
                quarrels += 1;
                if quarrels > 3 {
                    continue;
                }
            }
            let row = run(&lab, &mut load, drill);
            drills += 1;
            sent += row.happened.sent;
            lost += row.happened.lost;
            reordered += row.happened.reordered;
            opened += row.happened.opened;
            println!(
                "{:>6.1} s {:<24} {:<9} {:?}",
                start.elapsed().as_secs_f64(),
                row.fault,
                row.concern,
                row.recovery
            );
            *faults.entry((row.fault, row.concern)).or_insert(0) += 1;
            pause(Duration::from_millis(random.below(300)));
        }
        restarts += Concern::ALL.iter().map(|concern| lab.status(*concern).generation - 1).sum::<u64>();
        load.stop();
        audit(&lab);
        lab.end();
        // After the first router: what is made once is there then.
        let now = Has::now();
        let first = *has.get_or_insert(now);
        println!("after router {turn}: {now:?}");
        assert!(now.threads <= first.threads && now.descriptors <= first.descriptors, "{first:?}, {now:?}");
    }
    println!(
        "\nPROTOMASK_SEED={seed}: {drills} faults in {:?}, {turn} routers, {restarts} restarts",
        start.elapsed()
    );
    println!(
        "{sent} paced datagrams: {lost} lost, {reordered} reordered; {opened} new flows; 0 sessions lost"
    );
    for ((fault, concern), times) in faults {
        println!("{times:>5} {fault:<24} {concern}");
    }
    println!("memory after the first router {has:?}\nand in the end {:?}", Has::now());
}
