//! Every fault against every concern, while traffic runs through the router.
//!
//! Each drill has one fault strike, waits until the router has recovered, and counts what became of the packets, connections and hosts
//! of that stretch of time. `PROTOMASK_DRILLS_RUNS` says how often each is run; the table that is printed has the worst counts and the
//! median times. A point of the lists that no drill names fails the suite, and so does one that is not met.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the helpers of tests fail the test that calls them"
)]

mod fragments;
#[allow(dead_code, reason = "each test program needs other parts of it")]
#[path = "../supervision/lab.rs"]
mod lab;
mod load;
mod memory;
mod run;
mod soak;
mod table;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use protomask::config::Sharing;
use protomask::supervision::faults::Point;

use crate::lab::{Lab, Wanted};
use crate::load::Load;
use crate::run::{audit, has_point, points_of, run};
use crate::table::{Cause, Drill, ELSEWHERE, Fault};

/// Hosts of the laboratory: so many that each is silent for longer than a lease or an idle block lasts, and so few that their ports together
/// stay below what a subscriber may have (16,384).
pub(crate) const HOSTS: u16 = 90;

/// One router at a time: faults are the process's. What is injected is not printed.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            if !text.is_some_and(|text| text.starts_with("injected fault")) {
                before(panic);
            }
        }));
    });
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that the environment sets.
pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|error| panic!("{name}: {error}")))
}

fn runs() -> u64 {
    number("PROTOMASK_DRILLS_RUNS", 1)
}

/// Where the state is kept. It goes with the value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("drills{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn shared_ports(folder: &Folder) -> Wanted {
    Wanted {
        pools: &["203.0.113.0/26", "203.0.113.64/26"],
        hosts: HOSTS,
        sharing: Sharing::Ports,
        short_timers: Some(Duration::from_secs(1)),
        state_dir: Some(folder.0.clone()),
        quiet: true,
        ..Wanted::default()
    }
}

pub(crate) fn exclusive_addresses() -> Wanted {
    Wanted {
        hosts: HOSTS,
        reservation_timeout: Duration::from_secs(2),
        short_timers: Some(Duration::from_secs(1)),
        quiet: true,
        ..Wanted::default()
    }
}

/// All of these against one router.
fn go_through(title: &str, wanted: &Wanted, drills: &[Drill], runs: u64) {
    let Some(lab) = Lab::start(wanted) else { return };
    let longest = Duration::from_mins(10) * runs as u32;
    let mut load = Load::start(&lab, longest, HOSTS, Duration::from_millis(40));
    let none = Drill { fault: Fault::None, cause: Cause::Traffic };
    let mut rows = vec![run(&lab, &mut load, none)];
    let only = std::env::var("PROTOMASK_DRILL").ok();
    for drill in drills {
        if only.as_ref().is_some_and(|only| !format!("{:?}", drill.fault).contains(only)) {
            continue;
        }
        for _ in 0..runs {
            let row = run(&lab, &mut load, *drill);
            println!("{:<24} {:<9} {:?} {:?}", row.fault, row.concern, row.recovery, row.happened);
            rows.push(row);
        }
    }
    let counts = load.stop();
    println!("{}{counts:?}", run::table(title, &rows));
    audit(&lab);
    lab.end();
}

#[test]
fn every_point_of_the_lists_is_drilled() {
    let drills: Vec<_> = [table::shared(), table::exclusive(), table::alone()].concat();
    let faults = points_of(&drills);
    for point in Point::ALL {
        assert!(has_point(&faults, *point), "{point:?} has no drill");
    }
    for point in protomask::faults::Point::ALL {
        assert!(faults.contains(&Fault::Changed(*point)), "{point:?} has no drill");
    }
    let (nat, tun, net) = ELSEWHERE;
    for point in fast_nat::faults::Point::ALL {
        assert_ne!(faults.contains(&Fault::Nat(*point)), nat.contains(point), "{point:?} has one drill");
    }
    for point in easy_tun::faults::Point::ALL {
        assert_ne!(faults.contains(&Fault::Tun(*point)), tun.contains(point), "{point:?} has one drill");
    }
    for point in rtnl::faults::Point::ALL {
        assert_ne!(faults.contains(&Fault::Net(*point)), net.contains(point), "{point:?} has one drill");
    }
}

#[test]
fn faults_where_hosts_share_addresses() {
    let _alone = alone();
    let folder = Folder::new();
    go_through("hosts share addresses", &shared_ports(&folder), &table::shared(), runs());
}

#[test]
fn faults_where_hosts_have_addresses_of_their_own() {
    let _alone = alone();
    go_through("hosts have addresses of their own", &exclusive_addresses(), &table::exclusive(), runs());
}

#[test]
fn faults_that_a_router_bears_once() {
    let _alone = alone();
    for drill in table::alone() {
        for _ in 0..runs() {
            let folder = Folder::new();
            // One queue: what hangs is the way of all that is forwarded.
            go_through("once", &Wanted { queues: 1, ..shared_ports(&folder) }, &[drill], 1);
        }
    }
}
