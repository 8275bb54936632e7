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
use std::thread;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use common::router::stat_field;
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

/// What the log says about them.
const GIVEN_UP: &str = "capabilities that this process does not need are given up";

/// The bits of `CAP_NET_ADMIN` and `CAP_SYS_NICE` (linux/capability.h).
const NET_ADMIN: u64 = 1 << 12;
const SYS_NICE: u64 = 1 << 23;

/// A line of `/proc/PID/task/TID/status`.
fn line(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(value.trim(), 16).unwrap()
}

#[test]
fn the_process_keeps_the_capability_that_it_needs_and_its_workers_none() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    // What the router needs depends on what it is started with.
    rustix::process::setpriority_process(None, 0).unwrap();
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

/// The nice values of its workers, and of its other threads.
fn nice_values(router: &Router) -> (Vec<i32>, Vec<i32>) {
    let nice = router.by_thread(|read| stat_field(&read("stat")?, 19));
    let of = |workers| {
        let them = nice.iter().filter(move |(name, _)| name.starts_with("worker-") == workers);
        them.map(|(_, nice)| *nice).collect()
    };
    (of(true), of(false))
}

/// Whether this process may raise its limits; root of a container often may not.
fn may_raise_limits() -> bool {
    caps::has_cap(None, CapSet::Bounding, Capability::CAP_SYS_RESOURCE).unwrap()
}

/// In a thread of its own, whose rights and nice value are its own, and whose children begin with them. They end with it.
fn in_a_thread(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(test).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn workers_have_more_of_a_processor_than_other_threads_as_far_as_the_rights_go() {
    use Capability::{CAP_SYS_NICE, CAP_SYS_RESOURCE};
    if !netlab::kernel_tests_possible() {
        return;
    }
    let by_limit = may_raise_limits();
    if !by_limit {
        println!("SKIPPED: the limit of nice values cannot be raised here: needs CAP_SYS_RESOURCE");
    }
    let complaint = "workers are due no more of a processor than whom they wake there, which costs throughput; grant CAP_SYS_NICE, or raise the \
                     limit (RLIMIT_NICE)";
    // Of root's rights, those that the starter has not; what comes of it.
    let cases = [
        by_limit.then_some((&[CAP_SYS_NICE][..], -5, "CAP_NET_ADMIN", 0)),
        Some((&[CAP_SYS_RESOURCE][..], -5, "CAP_NET_ADMIN, CAP_SYS_NICE", 0)),
        Some((&[CAP_SYS_RESOURCE, CAP_SYS_NICE][..], 0, "CAP_NET_ADMIN", 1)),
    ];
    for (missing, nice, kept, complaints) in cases.into_iter().flatten() {
        in_a_thread(|| {
            rustix::process::setpriority_process(None, 0).unwrap();
            // The bounding set limits what root gets when it starts a program.
            for right in missing {
                caps::drop(None, CapSet::Bounding, *right).unwrap();
            }
            let lab = Lab::new();
            let router = Router::start(&lab, &[&PLAIN[..], &["--num-queues", "2"]].concat());
            eventually("both workers have their nice value", PATIENCE, || {
                let (workers, others) = nice_values(&router);
                assert!(others.iter().all(|nice| *nice == 0), "{others:?}");
                (workers == [nice; 2]).then_some(())
            });
            assert_eq!(router.log().with_msg(GIVEN_UP)[0].field("kept"), kept, "without {missing:?}");
            assert_eq!(router.log().with_msg(complaint).len(), complaints, "without {missing:?}");
            router.end();
        });
    }
}

#[test]
fn a_nice_value_can_be_set_and_whoever_starts_the_router_can_choose_one() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let pool = "translation_prefix = \"64:ff9b:1::/96\"\n[[pool]]\nprefix = \"203.0.113.0/24\"\n";
    // What the starter has; what the file says; what the workers and the others have then.
    for (own, file, workers, others) in
        [(0, "worker_nice = 0\n", 0, 0), (0, "worker_nice = -7\n", -7, 0), (3, "", 3, 3)]
    {
        in_a_thread(|| {
            rustix::process::setpriority_process(None, own).unwrap();
            let lab = Lab::new();
            let file = lab.file("router.toml", &format!("{file}{pool}"));
            let router = Router::start(&lab, &["--config", &file]);
            eventually("all threads have their nice value", PATIENCE, || {
                let (of_workers, of_others) = nice_values(&router);
                let have =
                    |values: &[i32], nice| !values.is_empty() && values.iter().all(|found| *found == nice);
                (have(&of_workers, workers) && have(&of_others, others)).then_some(())
            });
            let kept = router.log().with_msg(GIVEN_UP)[0].field("kept");
            let by_right = workers < own && !may_raise_limits();
            assert_eq!(kept, if by_right { "CAP_NET_ADMIN, CAP_SYS_NICE" } else { "CAP_NET_ADMIN" });
            router.end();
        });
    }
}

/// The names of its threads that have no rights, and of those that have what is needed; `None`: one of them has others.
fn rights(router: &Router) -> Option<(Vec<String>, Vec<String>)> {
    let needed = if may_raise_limits() { NET_ADMIN } else { NET_ADMIN | SYS_NICE };
    let (mut without, mut others) = (Vec::new(), Vec::new());
    for (name, status) in router.by_thread(|read| read("status")) {
        let (effective, permitted) = (line(&status, "CapEff:"), line(&status, "CapPrm:"));
        let no_others = ["CapInh:", "CapAmb:"].iter().all(|set| line(&status, set) == 0)
            && line(&status, "CapBnd:") == needed
            && line(&status, "NoNewPrivs:") == 1;
        if no_others && (effective, permitted) == (0, 0) {
            without.push(name);
        } else if no_others && (effective, permitted) == (needed, needed) && !name.starts_with("worker-") {
            others.push(name);
        } else {
            println!("{name}: {effective:x}, {permitted:x}, {no_others}");
            return None;
        }
    }
    (without.len() >= 3).then_some((without, others))
}
