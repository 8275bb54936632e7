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
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Lab, PATIENCE, PLAIN, Router, eventually};
use nix::sys::signal::Signal;

/// Told four times as often as this.
const WATCHDOG: Duration = Duration::from_secs(4);

/// A service manager's end of `NOTIFY_SOCKET`.
struct Manager(UnixDatagram, String);

impl Manager {
    fn at(lab: &Lab) -> Self {
        let path = lab.file("notify", "");
        fs::remove_file(&path).unwrap();
        Self(UnixDatagram::bind(&path).unwrap(), path)
    }

    /// The router, which it starts.
    fn watches(&self, lab: &Lab) -> Command {
        let mut command = lab.protomask();
        command.env("NOTIFY_SOCKET", &self.1);
        command
    }

    /// The next message, if one comes in time.
    fn next(&self, patience: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Waits for one that has this line.
    fn wait_for(&self, line: &str) {
        self.wait_for_text(line);
    }

    /// The same; the answer is the whole message.
    fn wait_for_text(&self, line: &str) -> String {
        let start = Instant::now();
        let mut before = Vec::new();
        while start.elapsed() < PATIENCE {
            if let Some(text) = self.next(PATIENCE) {
                if text.lines().any(|this| this.starts_with(line)) {
                    return text;
                }
                before.push(text);
                assert!(before.len() < 1000, "too many messages");
            }
        }
        panic!("nobody said {line}, but {before:?}");
    }
}

#[test]
fn a_service_manager_hears_when_the_router_runs_lives_and_ends() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let manager = Manager::at(&lab);
    let mut command = manager.watches(&lab);
    command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
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

#[test]
fn a_service_manager_hears_of_a_reload_and_of_its_end_whatever_comes_of_it() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let manager = Manager::at(&lab);
    let good = "translation_prefix = \"64:ff9b:1::/96\"\n[[pool]]\nprefix = \"203.0.113.0/24\"\n";
    let file = lab.file("router.toml", good);
    let mut router = Router::spawn_as(manager.watches(&lab), &lab, &["--config", &file]);
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=ready");
    for (text, message, status) in [
        (format!("deny_to = [\"192.0.2.0/24\"]\n{good}"), "reloaded", None),
        (
            "deny_to = 1\n".to_owned(),
            "reload refused; nothing was changed",
            Some("STATUS=ready; the last reload was refused: "),
        ),
        (good.to_owned(), "reloaded", Some("STATUS=ready")),
    ] {
        lab.file("router.toml", &text);
        let before = router.log().with_msg(message).len();
        router.process().signal(Signal::SIGHUP);
        let told = manager.wait_for_text("RELOADING=1");
        // By this a service manager of the type notify-reload knows which request it is the answer to.
        let at = told.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("a time");
        assert!(at.parse::<u64>().is_ok_and(|at| at > 0), "{told}");
        manager.wait_for("READY=1");
        router.wait("the log says what came of it", |router| router.log().with_msg(message).len() > before);
        if let Some(status) = status {
            manager.wait_for(status);
        }
    }
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
