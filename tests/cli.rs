//! The command line: what it says, and the exit codes that tell its failures apart.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::files::Files;
use common::process::{Finished, Process};
use common::{Lab, PLAIN, Router, plain_and};
use ipnet::{Ipv4Net, Ipv6Net};
use netlab::Topology;
use nix::sys::signal::Signal;

const USAGE: i32 = 2;
const PRIVILEGE: i32 = 3;
const INTERFACE_TAKEN: i32 = 4;
const POOL: i32 = 5;
const PREFIX: i32 = 6;

/// The program on this host, for what touches no network.
fn protomask(arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_protomask"));
    command.args(arguments);
    Finished::wait_for(command)
}

/// A start that must fail, with this code, this sentence, and nothing left behind.
fn refused(lab: &Lab, flags: &[&str], code: i32, sentence: &str) {
    let marks = lab.marks();
    let finished = lab.run_to_end(flags);
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert!(finished.stderr.contains(sentence), "{sentence:?} is missing in:\n{}", finished.stderr);
    assert_eq!(lab.marks(), marks, "something was left behind");
}

#[test]
fn the_version_and_the_help_are_told_without_any_privilege() {
    for (flag, expected) in [("--version", "protomask 0."), ("--help", "--translation-prefix")] {
        let finished = protomask(&[flag]);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.stdout.contains(expected), "{}", finished.stdout);
    }
    let help = protomask(&["--help"]).stdout;
    for part in [
        "check-config",
        "cleanup",
        "demo",
        "--reservation-timeout",
        "--pool-prefix",
        "--num-queues",
        "Exit codes:",
    ] {
        assert!(help.contains(part), "{part:?} is missing in:\n{help}");
    }
}

#[test]
fn a_flag_that_is_unknown_or_has_a_wrong_value_ends_with_its_own_code() {
    for arguments in [
        &["--no-such-flag"][..],
        &["--pool-prefix", "203.0.113.0/33"],
        &["--num-queues", "0"],
        &["no-such-command"],
    ] {
        let finished = protomask(arguments);
        assert_eq!(finished.code, Some(USAGE), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(arguments[0]), "{arguments:?}: {}", finished.stderr);
    }
}

#[test]
fn without_root_it_says_what_is_missing() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    // A thread in the namespace and not `Namespace::command`, which enters it as the child's own user.
    let finished = lab.router.run(|| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]);
        command.arg(env!("CARGO_BIN_EXE_protomask")).args(PLAIN);
        Finished::wait_for(command)
    });
    assert_eq!(finished.code, Some(PRIVILEGE), "{finished:?}");
    assert!(finished.stderr.contains("run as root"), "{}", finished.stderr);
    assert_eq!(lab.marks(), [""; 0]);
}

#[test]
fn without_a_tun_node_it_says_what_is_missing() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let mut command = lab.command_after("mount -t tmpfs none /dev/net");
    command.args(PLAIN);
    let finished = Finished::wait_for(command);
    assert_eq!(finished.code, Some(PRIVILEGE), "{finished:?}");
    assert!(finished.stderr.contains("/dev/net/tun"), "{}", finished.stderr);
}

#[test]
fn a_taken_interface_name_is_refused_and_left_alone() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    refused(
        &lab,
        &plain_and(&["--interface", "server"]),
        INTERFACE_TAKEN,
        "the interface name server is taken",
    );
    assert!(lab.snapshot().link_by_name("server").is_some());

    // And one that another router of ours is using right now.
    let router = Router::start(&lab, &PLAIN);
    let second = plain_and(&["--prometheus", "off"]);
    refused(&lab, &second, INTERFACE_TAKEN, "nat64");
    assert_eq!(router.get("/readyz").unwrap().status, 200, "the first one is not disturbed");
    router.end();
}

#[test]
fn a_pool_that_overlaps_the_hosts_own_network_is_refused() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let flags = ["--pool-prefix", "198.51.100.0/24"];
    refused(
        &lab,
        &flags,
        POOL,
        "the pool 198.51.100.0/24 holds this host's own address 198.51.100.1 (server)",
    );
    let elsewhere = Ipv4Net::new_assert(std::net::Ipv4Addr::new(203, 0, 113, 128), 25);
    lab.router.add_route(elsewhere, Some(Topology::SERVER_V4.into()), "server").unwrap();
    refused(&lab, &PLAIN, POOL, "the pool 203.0.113.0/24 is already routed elsewhere: 203.0.113.128/25");
}

#[test]
fn a_prefix_that_is_routed_elsewhere_is_refused() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let prefix: Ipv6Net = PLAIN[1].parse().unwrap();
    lab.router.add_route(prefix, Some(Topology::CLIENT_V6.into()), "client0").unwrap();
    refused(&lab, &PLAIN, PREFIX, "the translation prefix 64:ff9b:1::/96 is already routed elsewhere");
}

#[test]
fn a_taken_metrics_address_is_refused_by_its_own_sentence() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let _taken = lab.router.run(|| std::net::TcpListener::bind("127.0.0.1:9464").unwrap());
    refused(&lab, &plain_and(&["--prometheus", "127.0.0.1:9464"]), 1, "cannot listen at 127.0.0.1:9464");
}

#[test]
fn every_mistake_of_a_file_is_named_with_its_line_and_column() {
    let files = Files::new();
    let file = files.write(
        "bad.toml",
        "interface = \"a-name-that-is-much-too-long\"\n\
         translation_prefix = \"64:ff9b::/95\"\n\
         num_queus = 2\n\
         num_queues = 0\n\
         \n\
         [[pool]]\n\
         prefix = \"203.0.113.7/24\"\n\
         \n\
         [log]\n  format = \"xml\"\n",
    );
    let finished = protomask(&["check-config", &file]);
    assert_eq!(finished.code, Some(USAGE), "{finished:?}");
    for (line, column, part) in [
        (1, 13, "interface"),
        (2, 22, "/95"),
        (3, 1, "unknown key num_queus"),
        (4, 14, "num_queues"),
        (7, 10, "203.0.113.0/24"),
        (10, 12, "format"),
    ] {
        let place = format!("{file}:{line}:{column}: ");
        let named = finished.stderr.lines().any(|text| text.starts_with(&place) && text.contains(part));
        assert!(named, "{place}...{part} is missing in:\n{}", finished.stderr);
    }
    // The router refuses it as well, with the same words.
    let run = protomask(&["--config", &file]);
    assert_eq!((run.code, run.stderr), (Some(USAGE), finished.stderr));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let finished = protomask(&["check-config", "/nowhere/protomask.toml"]);
    assert_eq!(finished.code, Some(USAGE), "{finished:?}");
    assert!(finished.stderr.contains("/nowhere/protomask.toml"), "{}", finished.stderr);
}

#[test]
fn the_shipped_configuration_is_right() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/protomask.toml");
    let finished = protomask(&["check-config", file]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

#[test]
fn a_flag_goes_before_the_file_and_what_only_the_file_says_holds() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let file = lab.file(
        "both.toml",
        "interface = \"fromfile\"\ntranslation_prefix = \"64:ff9b:1:1::/96\"\n\n[[pool]]\nprefix = \"203.0.113.0/24\"\n",
    );
    let router = Router::start(&lab, &["--config", &file, "--interface", "fromflag"]);
    assert_eq!(lab.marks(), ["link fromflag", "route 203.0.113.0/24", "route 64:ff9b:1:1::/96"]);
    router.end();
}

#[test]
fn each_line_of_the_log_is_one_json_object_with_the_fields_that_a_collector_needs() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let mut router = Router::start(&lab, &plain_and(&["-vv"]));
    router.wait_for_log("ready", |_| true);
    let ended = router.end_by(Signal::SIGTERM);
    assert!(ended.log.len() >= 10, "{:?}", ended.log);
    for record in &ended.log {
        let json = record.json.as_ref().unwrap_or_else(|| panic!("no JSON: {}", record.line));
        assert!(json.is_object(), "{}", record.line);
        for field in ["ts", "level", "msg"] {
            assert!(!record.field(field).is_empty(), "no {field}: {}", record.line);
        }
    }
    for concern in ["pool", "sessions", "tun", "routes", "metrics"] {
        let started =
            |record: &&common::log::Record| record.msg() == "started" && record.field("concern") == concern;
        assert_eq!(ended.log.iter().filter(started).count(), 1, "{concern} says that it started");
    }
    for once in ["ready", "ending", "ended"] {
        assert_eq!(ended.log.iter().filter(|record| record.msg() == once).count(), 1, "{once}");
    }
}

#[test]
fn the_demonstration_works_and_leaves_nothing_behind() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    // In a namespace of its own, so that a trace of it would be seen.
    let lab = Lab::new();
    let before = lab.holdings();
    let mut command = lab.protomask();
    command.arg("demo");
    let finished = Finished::wait_at_most(command, Duration::from_mins(2));
    println!("{}", finished.stdout);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for part in ["64:ff9b:1::c633:6402", "100000000 bytes", "SHA-256", "All of it worked."] {
        assert!(finished.stdout.contains(part), "{part:?} is missing in:\n{}", finished.stdout);
    }
    assert_eq!(lab.marks(), [""; 0]);
    assert_eq!(lab.holdings(), before);
}

#[test]
fn a_demonstration_that_is_interrupted_takes_its_router_with_it() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let lab = Lab::new();
        let mut command = lab.protomask();
        command.arg("demo").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut demo = Process::spawn(command);
        let stdout = demo.child().stdout.take().unwrap();
        let lines = BufReader::new(stdout).lines().map(Result::unwrap);
        let line = lines.into_iter().find(|line| line.contains("The router (process ")).unwrap();
        let (_, rest) = line.split_once("(process ").unwrap();
        let router = format!("/proc/{}/stat", rest.split_once(')').unwrap().0);
        assert!(std::fs::read_to_string(&router).is_ok(), "{router}");
        demo.signal(signal);
        assert!(demo.end(common::PATIENCE).is_some(), "no end by {signal}");
        common::eventually("its router ends", common::PATIENCE, || {
            // Gone, or dead and not waited for yet by the machine's init.
            std::fs::read_to_string(&router).map_or(true, |stat| stat.contains(") Z ")).then_some(())
        });
    }
}

#[test]
fn the_demonstration_says_that_it_needs_root() {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]);
    command.arg(env!("CARGO_BIN_EXE_protomask")).arg("demo").stdin(Stdio::null());
    if !nix::unistd::Uid::effective().is_root() {
        command = Command::new(env!("CARGO_BIN_EXE_protomask"));
        command.arg("demo");
    }
    let finished = Finished::wait_for(command);
    assert_eq!(finished.code, Some(PRIVILEGE), "{finished:?}");
    assert!(finished.stderr.contains("root"), "{}", finished.stderr);
}
