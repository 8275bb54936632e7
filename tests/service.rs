//! What a service manager hears, and what the process may do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the helpers of tests fail the test that calls them"
)]

mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use common::{Lab, PATIENCE, PLAIN, Router, eventually};
use nix::sys::signal::Signal;

/// Told four times as often as this.
const WATCHDOG: Duration = Duration::from_secs(4);

/// A service manager's end of `NOTIFY_SOCKET`.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message, if one comes in time.
    fn next(&self, patience: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Waits for one that has this line. Says how many others came before.
    fn wait_for(&self, line: &str) -> usize {
        let start = Instant::now();
        let mut before = 0;
        while start.elapsed() < PATIENCE {
            if let Some(text) = self.next(PATIENCE) {
                if text.lines().any(|this| this.starts_with(line)) {
                    return before;
                }
                before += 1;
                assert!(before < 1000, "too many messages");
            }
        }
        panic!("nobody said {line}");
    }
}

#[test]
fn a_service_manager_hears_when_the_router_runs_lives_and_ends() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let socket = lab.file("notify", "");
    fs::remove_file(&socket).unwrap();
    let manager = Manager(UnixDatagram::bind(&socket).unwrap());
    let mut command = lab.protomask();
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let router = Router::spawn_as(command, &lab, &PLAIN);
    manager.wait_for("READY=1");
    assert_eq!(router.get("/healthz").unwrap().status, 200);
    manager.wait_for("STATUS=ready");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    // A process that stands still says nothing.
    router.process().signal(Signal::SIGSTOP);
    eventually("what was said before is heard", PATIENCE, || {
        manager.next(Duration::from_millis(10)).is_none().then_some(())
    });
    assert_eq!(manager.next(WATCHDOG), None);
    router.process().signal(Signal::SIGCONT);
    manager.wait_for("WATCHDOG=1");
    router.process().signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    router.end();
}

/// The bit of `CAP_NET_ADMIN` (linux/capability.h).
const NET_ADMIN: u64 = 1 << 12;

/// A line of `/proc/PID/task/TID/status`.
fn line(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(value.trim(), 16).unwrap()
}

#[test]
fn the_process_keeps_one_capability_and_its_workers_none() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &[&PLAIN[..], &["--num-queues", "2"]].concat());
    // A thread that was made a moment ago may not have come to it yet.
    let (without, others) =
        eventually("the threads have no more rights than they need", PATIENCE, || rights(&router));
    assert_eq!(without.iter().filter(|name| name.starts_with("worker-")).count(), 2, "{without:?}");
    assert_eq!(without.len(), 3, "the workers, and the one that writes the state: {without:?}");
    assert!(others.len() >= 3, "{others:?}");
    router.end();
}

/// The names of its threads that have no rights, and of those that have the one; `None`: one of them has others.
fn rights(router: &Router) -> Option<(Vec<String>, Vec<String>)> {
    let (mut without, mut others) = (Vec::new(), Vec::new());
    for task in fs::read_dir(format!("/proc/{}/task", router.process().pid())).unwrap() {
        let task = task.unwrap().path();
        // A thread may end meanwhile.
        let (Ok(status), Ok(name)) =
            (fs::read_to_string(task.join("status")), fs::read_to_string(task.join("comm")))
        else {
            continue;
        };
        let name = name.trim().to_owned();
        let (effective, permitted) = (line(&status, "CapEff:"), line(&status, "CapPrm:"));
        let none = ["CapInh:", "CapAmb:"].iter().all(|set| line(&status, set) == 0);
        let bounded = line(&status, "CapBnd:") == NET_ADMIN && line(&status, "NoNewPrivs:") == 1;
        match (effective, permitted) {
            (0, 0) if none && bounded => without.push(name),
            (NET_ADMIN, NET_ADMIN) if none && bounded && !name.starts_with("worker-") => others.push(name),
            _ => {
                println!("{name}: {effective:x}, {permitted:x}, {none}, {bounded}");
                return None;
            }
        }
    }
    (without.len() >= 3).then_some((without, others))
}
