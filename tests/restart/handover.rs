//! The next version is started over the one that runs.

use std::net::SocketAddr;

use netlab::{Direction, PingOptions, Topology, ping};
use serde_json::Value;

use crate::common::ctl::{Connection, ctl, list};
use crate::common::trickle::Trickle;
use crate::common::{Lab, PATIENCE, Router, eventually, through};
use crate::flows::Paced;
use crate::lab::{Mapping, WAYS, grow_old};

/// A packet that a worker has in hand when it is told to end, or a batch of them, may be lost.
const IN_HAND: u64 = 64;

fn pings(lab: &Lab) -> bool {
    ping(lab.client(), through(Topology::SERVER_V4), &PingOptions::default()).unwrap().is_reply()
}

fn pid(lab: &Lab) -> i32 {
    i32::try_from(ctl(lab, &["status"])["pid"].as_i64().unwrap()).unwrap()
}

/// Starts a router over the one that runs, and waits for its end and until the new one is ready.
fn replace(lab: &Lab, mut running: Router, flags: &[&str]) -> Router {
    let mut next = Router::spawn(lab, &[flags, &["--replace"]].concat());
    next.wait_for_log("ready", |_| true);
    assert_eq!(running.end_of_itself(), Some(0));
    running.last_record("ended: another process has taken over");
    let record = next.wait_for_log(
        "the device's queues were handed over by the router before: what came meanwhile is read now",
        |_| true,
    );
    assert_eq!(record.field("process"), running.process().pid().to_string());
    next
}

#[test]
fn downloads_datagrams_and_mappings_go_on_over_three_hand_overs() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for way in &WAYS[..2] {
        println!("--- {way:?}");
        let lab = Lab::new();
        let mut router = Router::start(&lab, way);
        let index = lab.router.index("nat64").unwrap();
        let (download, datagrams) = (Trickle::start(&lab, Direction::Download, 9001), Paced::start(&lab));
        let mapping = Mapping::open(&lab, Topology::CLIENT_V6, 5000);
        for _ in 0..3 {
            router = replace(&lab, router, way);
            assert_eq!(pid(&lab), router.process().pid().as_raw(), "the control socket is the new one's");
            download.moves();
            datagrams.moves();
            assert!(way.contains(&"--masquerade") || mapping.is_reached(), "{:?}", mapping.seen);
            assert_eq!(mapping.send(), mapping.seen, "no mapping moves");
            assert_eq!(router.get("/readyz").unwrap().text(), "ready\n");
            assert_eq!(router.metrics().sum("protomask_state_dropped", &[]), 0);
        }
        assert_eq!(lab.router.index("nat64").unwrap(), index, "the same device");
        download.end();
        let (sent, lost) = datagrams.end();
        assert!(lost <= 3 * IN_HAND && lost * 4 < sent, "{lost} of {sent} are lost");
        router.end();
        assert_eq!(lab.marks(), [""; 0], "the last one takes everything away");
    }
}

#[test]
fn mappings_of_run_time_and_the_number_of_queues_go_over() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let flags = |queues| [WAYS[0], &["--num-queues", queues]].concat();
    let mut router = Router::start(&lab, &flags("2"));
    let host = Topology::CLIENT_V6.to_string();
    ctl(&lab, &["add-forward", "tcp", "203.0.113.1", "80", &host]);
    for queues in ["3", "1", "2"] {
        let datagrams = Paced::start(&lab);
        router = replace(&lab, router, &flags(queues));
        datagrams.moves();
        let (sent, lost) = datagrams.end();
        // What waited in a queue that is too much is lost with it.
        assert!(queues == "1" || lost <= IN_HAND, "{queues} queues: {lost} of {sent} are lost");
        assert_eq!(list(&ctl(&lab, &["list-mappings"]), "forwards").len(), 1);
        assert_eq!(router.metrics().sum("protomask_workers", &[]).to_string(), queues);
    }
    router.end();
}

/// Asks the router to hand over, as a process does that takes over.
fn ask(lab: &Lab) -> Connection {
    let mut connection = Connection::open(lab);
    connection.send("{\"command\": \"hand-over\", \"handover\": 1}\n");
    connection
}

#[test]
fn a_router_goes_on_whatever_becomes_of_the_one_that_wanted_to_take_over() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let mut router = Router::start(&lab, WAYS[0]);
    let mapping = Mapping::open(&lab, Topology::CLIENT_V6, 5000);
    let goes_on = "another process wanted to take over and did not come to it; this one goes on";
    for (times, step) in ["gone at once", "gone with the descriptors", "says nonsense"].iter().enumerate() {
        println!("--- {step}");
        let mut connection = ask(&lab);
        if times > 0 {
            let answer = connection.next().expect("what it hands over");
            assert_eq!(answer["ok"]["handing_over"]["pid"], router.process().pid().as_raw());
        }
        if times > 1 {
            connection.send("whatever\n");
        }
        drop(connection);
        router.wait("it goes on", |router| router.log().with_msg(goes_on).len() > times);
        assert!(pings(&lab) && mapping.is_reached());
        assert_eq!(mapping.send(), mapping.seen);
        eventually("it is ready", PATIENCE, || {
            router.get("/readyz").filter(|ready| ready.text() == "ready\n").map(drop)
        });
        assert_eq!(pid(&lab), router.process().pid().as_raw());
        let host = Topology::CLIENT_V6.to_string();
        ctl(&lab, &["add-forward", "udp", "203.0.113.1", &(7000 + times).to_string(), &host]);
    }
    // One that cannot start: early, since its pool is this host's own network, and late, when the state is back already.
    let pool =
        ["--translation-prefix", "64:ff9b:1::/96", "--pool-prefix", "198.51.100.0/24", "--prometheus", "off"];
    let elsewhere = [WAYS[0], &["--prometheus", "203.0.113.99:9464"]].concat();
    for (flags, code) in [(&pool[..], 5), (&elsewhere, 1)] {
        let before = router.log().with_msg(goes_on).len();
        let refused = lab.run_to_end(&[flags, &["--replace"]].concat());
        assert_eq!(refused.code, Some(code), "{refused:?}");
        router.wait("it goes on", |router| router.log().with_msg(goes_on).len() > before);
        assert!(pings(&lab) && mapping.is_reached());
        assert_eq!(pid(&lab), router.process().pid().as_raw());
    }
    // And its state is kept as before: also what is new.
    let new = Mapping::open(&lab, Topology::CLIENT_V6, 5001);
    grow_old();
    router.kill();
    let router = Router::start(&lab, WAYS[0]);
    assert!(mapping.is_reached() && new.is_reached());
    assert_eq!(list(&ctl(&lab, &["list-mappings"]), "forwards").len(), 3);
    router.end();
}

#[test]
fn who_cannot_hand_over_says_why_and_where_nobody_runs_a_router_starts_as_ever() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let flags = [WAYS[0], &["--replace"]].concat();
    let mut router = Router::start(&lab, &flags);
    router.wait_for_log("no router is there to be replaced; this one starts as ever", |_| true);
    let answer = Connection::open(&lab).ask("{\"command\": \"hand-over\", \"handover\": 2}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("hands over in version 1 and not 2"), "{message}");
    let answer = Connection::open(&lab).ask("{\"command\": \"hand-over\", \"handover\": 1}\n{}");
    assert!(matches!(&answer["error"]["kind"], Value::String(kind) if kind == "bad_request"), "{answer}");
    router.end();

    // Whom a service manager would start again.
    let mut command = lab.protomask();
    command.env("NOTIFY_SOCKET", lab.file("nobody", ""));
    let mut router = Router::spawn_as(command, &lab, WAYS[0]);
    router.wait_for_log("ready", |_| true);
    let refused = lab.run_to_end(&[&flags[..], &["--prometheus", "off"]].concat());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("restart it by that (systemctl restart)"), "{}", refused.stderr);
    assert!(pings(&lab));
    router.end();
}

/// Fewer than a queue holds.
const PACKETS: u64 = 150;

#[test]
fn what_a_device_that_nobody_has_open_drops_is_said_at_the_next_start() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, WAYS[0]);
    let mapping = Mapping::open(&lab, Topology::CLIENT_V6, 5000);
    grow_old();
    router.kill();
    let socket = lab.client().run(|| std::net::UdpSocket::bind("[::]:0").unwrap());
    for _ in 0..PACKETS {
        socket.send_to(b"lost", SocketAddr::from((through(Topology::SERVER_V4), 9))).unwrap();
    }
    let mut router = Router::start(&lab, WAYS[0]);
    let record = router.wait_for_log(
        "nobody had the device's queues open while there was no router: what came was dropped",
        |_| true,
    );
    let dropped: u64 = record.field("dropped_by_device").parse().unwrap();
    assert!((PACKETS..PACKETS + 20).contains(&dropped), "{}", record.line);
    assert_ne!(record.field("counted_within"), "its whole life", "what was noted before is left out");
    assert!(mapping.is_reached());
    router.end();
}
