//! `protomask keep`.

use netlab::{Direction, Topology};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::ctl::{ctl, try_ctl};
use crate::common::trickle::Trickle;
use crate::common::{Lab, PATIENCE, Router, eventually};
use crate::flows::Paced;
use crate::lab::{Mapping, WAYS, grow_old};

fn keep(lab: &Lab, flags: &[&str]) -> Router {
    let mut command = lab.protomask();
    command.arg("keep");
    Router::spawn_as(command, lab, flags)
}

/// The process that routes; none while there is none.
fn child(lab: &Lab) -> Option<Pid> {
    let status = try_ctl(lab, &["status"]).ok()?;
    (status["ready"] == true).then(|| Pid::from_raw(i32::try_from(status["pid"].as_i64().unwrap()).unwrap()))
}

#[test]
fn packets_wait_while_a_killed_router_is_started_again_and_everything_goes_on() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    // Shared and masqueraded; what one process hands to the next is the same for the other ways.
    for way in &WAYS[1..2] {
        let lab = Lab::new();
        let mut keeper = keep(&lab, way);
        let mut pid = eventually("it routes", PATIENCE, || child(&lab));
        assert_ne!(pid, keeper.process().pid());
        let (download, datagrams) = (Trickle::start(&lab, Direction::Download, 9001), Paced::start(&lab));
        let mapping = Mapping::open(&lab, Topology::CLIENT_V6, 5000);
        let kept = "the device's queues were kept by the service manager: what came meanwhile is read now";
        for (times, signal) in [Signal::SIGKILL, Signal::SIGUSR2, Signal::SIGKILL].into_iter().enumerate() {
            grow_old();
            // The one is the router's, the other the keeper's.
            let target = if signal == Signal::SIGKILL { pid } else { keeper.process().pid() };
            kill(target, signal).unwrap();
            pid = eventually("another one routes", PATIENCE, || child(&lab).filter(|other| *other != pid));
            download.moves();
            datagrams.moves();
            assert!(way.contains(&"--masquerade") || mapping.is_reached());
            assert_eq!(mapping.send(), mapping.seen, "no mapping moves");
            keeper.wait("it says who had the queues", |keeper| keeper.log().with_msg(kept).len() > times);
        }
        download.end();
        let (sent, lost) = datagrams.end();
        assert!(lost <= 3 * 64 && lost * 4 < sent, "{lost} of {sent} are lost");
        assert_eq!(keeper.log().with_msg("the router ended and is started again").len(), 2);
        keeper.end();
        assert_eq!(lab.marks(), [""; 0], "a clean end takes everything away");
    }
}

#[test]
fn a_router_that_cannot_start_is_given_up_with_its_exit_code() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    // At once: the same next time.
    let ended = lab.run_to_end(&["keep", "--num-queues", "0"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    // This host's own addresses are no pool.
    let flags = ["--translation-prefix", "64:ff9b:1::/96", "--pool-prefix", "198.51.100.0/24"];
    let mut keeper = keep(&lab, &flags);
    assert_eq!(keeper.end_of_itself(), Some(5));
    assert_eq!(keeper.last_record("the router cannot be kept alive").field("starts_in_a_row"), "5");
}

#[test]
fn signals_are_handed_on() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let good = "translation_prefix = \"64:ff9b:1::/96\"\n[[pool]]\nprefix = \"203.0.113.0/24\"\n";
    let mut keeper = keep(&lab, &["--config", &lab.file("router.toml", good)]);
    eventually("it routes", PATIENCE, || child(&lab));
    keeper.process().signal(Signal::SIGHUP);
    keeper.wait_for_log("reload: nothing has changed", |_| true);
    assert_eq!(ctl(&lab, &["status"])["settings_generation"], 1);
    keeper.end();
}
