//! From start to end, clean or not: what is set up, what is left, and what the next start makes of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use common::router::{HTTP, stat_field};
use common::{Lab, PATIENCE, PLAIN, Router, plain_and, through, well_known};
use ipnet::{Ipv4Net, Ipv6Net};
use netlab::{PingOptions, Server, Topology, http_get, ping, tcp_exchange, udp_exchange};
use nix::sys::signal::Signal;

const NET_OF_POOL: &str = "route 203.0.113.0/24";
const NET_OF_PREFIX: &str = "route 64:ff9b:1::/96";

/// A clean end is asked for within a second; the rest is for a machine that is busy with other tests.
const CLEAN_END: Duration = Duration::from_secs(5);

fn pings(lab: &Lab) -> bool {
    ping(lab.client(), through(Topology::SERVER_V4), &PingOptions::default()).unwrap().is_reply()
}

fn device(lab: &Lab) -> u32 {
    lab.snapshot().link_by_name("nat64").unwrap().index
}

#[test]
fn a_clean_end_by_either_signal_is_quick_and_leaves_nothing_behind() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let lab = Lab::new();
        let before = lab.holdings();
        let router = Router::start(&lab, &plain_and(&["--masquerade"]));
        assert_eq!(
            lab.marks(),
            ["link nat64", NET_OF_POOL, NET_OF_PREFIX, "table protomask_nat64"],
            "what a router makes"
        );
        assert!(pings(&lab));
        // A connection that says nothing must not hold up the end.
        let idle = lab.router.run(|| TcpStream::connect(HTTP).unwrap());
        let ended = router.end_by(signal);
        println!("{signal}: ended after {:?}", ended.took);
        assert_eq!(ended.code, Some(0), "{:?}", ended.log);
        assert!(ended.took < CLEAN_END, "{signal}: {:?}", ended.took);
        drop(idle);
        assert_eq!(lab.marks(), [""; 0], "after {signal}");
        assert_eq!(lab.records(), [""; 0]);
        assert_eq!(lab.holdings(), before);
    }
}

#[test]
fn a_router_that_keeps_its_state_is_adopted_by_the_next_one() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &plain_and(&["--masquerade", "--on-exit", "keep"]));
    let (made, marks) = (device(&lab), lab.marks());
    assert!(pings(&lab));
    router.end();
    assert_eq!(lab.marks(), marks, "all of it stays");

    // The next one wants other routes and no masquerade: what it does not want goes.
    let prefix = [
        "--translation-prefix",
        "64:ff9b:1:1::/96",
        "--pool-prefix",
        "203.0.113.0/24",
        "--sharing",
        "exclusive",
    ];
    let router = Router::start(&lab, &prefix);
    assert_eq!(device(&lab), made, "the same device, not a new one of the same name");
    assert_eq!(lab.marks(), ["link nat64", NET_OF_POOL, "route 64:ff9b:1:1::/96"]);
    router.end();
    assert_eq!(lab.marks(), [""; 0], "it cleans up what it has adopted");
}

#[test]
fn after_a_kill_the_next_router_adopts_the_device_and_goes_on() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &PLAIN);
    let made = device(&lab);
    assert!(pings(&lab));
    router.kill();
    assert_eq!(device(&lab), made, "the device outlives the process");
    let router = Router::start(&lab, &PLAIN);
    assert_eq!(device(&lab), made);
    assert!(pings(&lab));
    router.end();
    assert_eq!(lab.marks(), [""; 0]);
}

#[test]
fn a_connection_behind_masquerade_survives_a_kill_and_the_next_start() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let echo = Server::tcp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let flags = plain_and(&["--masquerade"]);
    let router = Router::start(&lab, &flags);
    let target = SocketAddr::from((through(Topology::SERVER_V4), 7));
    let mut connection = lab.client().run(|| TcpStream::connect_timeout(&target, PATIENCE).unwrap());
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut say = |words: &[u8]| {
        connection.write_all(words).unwrap();
        let mut echoed = vec![0; words.len()];
        connection.read_exact(&mut echoed).unwrap();
        assert_eq!(echoed, words);
    };
    say(b"before");
    assert_eq!(echo.peers()[0].ip(), IpAddr::V4(Topology::ROUTER_V4), "it is masqueraded");
    router.kill();
    assert!(lab.marks().contains(&"table protomask_nat64".to_owned()), "{:?}", lab.marks());
    let router = Router::start(&lab, &flags);
    say(b"after");
    assert_eq!(echo.peers().len(), 1, "it was one connection");
    router.end();
}

#[test]
fn without_any_flag_connected_networks_reach_the_ipv4_internet_behind_the_routers_own_address() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    // An address that is global, as far as anybody in here can tell.
    let global = std::net::Ipv4Addr::new(9, 9, 9, 9);
    lab.server.add_address("eth0", Ipv4Net::new_assert(global, 32)).unwrap();
    lab.router
        .add_route(Ipv4Net::new_assert(global, 32), Some(Topology::SERVER_V4.into()), "server")
        .unwrap();
    let udp = Server::udp_echo(&lab.server, (global, 7)).unwrap();
    let tcp = Server::tcp_echo(&lab.server, (global, 7)).unwrap();
    // The harness names the address for metrics; it is the one without any flag.
    let router = Router::start(&lab, &[]);
    assert_eq!(
        lab.marks(),
        ["link nat64", "route 192.168.255.0/24", "route 64:ff9b::/96", "table protomask_nat64"]
    );
    let target = SocketAddr::from((well_known(global), 7));
    assert_eq!(udp_exchange(lab.client(), None, target, b"hello", PATIENCE).unwrap(), b"hello");
    assert_eq!(tcp_exchange(lab.client(), None, target, b"hello", PATIENCE).unwrap(), b"hello");
    for peer in [udp.peers()[0], tcp.peers()[0]] {
        assert_eq!(peer.ip(), IpAddr::V4(Topology::ROUTER_V4));
    }
    assert!(ping(lab.client(), well_known(global), &PingOptions::default()).unwrap().is_reply());

    // A host that is not of a connected network is not served.
    let stranger = "2001:db8:ffff::1".parse::<std::net::Ipv6Addr>().unwrap();
    lab.client().add_address("eth0", Ipv6Net::new_assert(stranger, 128)).unwrap();
    let back = Some(IpAddr::V6(Topology::CLIENT_V6));
    lab.router.add_route(Ipv6Net::new_assert(stranger, 128), back, "client0").unwrap();
    let options = PingOptions { source: Some(stranger.into()), ..PingOptions::default() };
    let outcome = ping(lab.client(), well_known(global), &options).unwrap();
    assert_eq!(common::icmp_error(&outcome), (1, 1), "{outcome:?}");
    router.end();
}

#[test]
fn cleanup_removes_what_a_killed_router_left_and_says_what() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::with(&netlab::TopologyOptions { forwarding: false, ..netlab::TopologyOptions::default() });
    let before = lab.holdings();
    let router = Router::start(&lab, &plain_and(&["--masquerade", "--enable-forwarding"]));
    assert_eq!(lab.records().len(), 1, "{:?}", lab.records());
    assert!(pings(&lab));
    router.kill();
    assert_eq!(lab.marks().len(), 4);

    let done = lab.run_to_end(&["cleanup"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for part in
        ["nat64", "203.0.113.0/24", "64:ff9b:1::/96", "protomask_nat64", "net.ipv4.ip_forward: 1 -> 0"]
    {
        assert!(done.stdout.contains(part), "{part:?} is missing in:\n{}", done.stdout);
    }
    assert_eq!(lab.marks(), [""; 0]);
    assert_eq!(lab.records(), [""; 0]);
    assert_eq!(lab.holdings(), before);
    assert_eq!(lab.router.read_sysctl("net.ipv4.ip_forward").unwrap(), "0");
    assert_eq!(lab.router.read_sysctl("net.ipv6.conf.all.forwarding").unwrap(), "0");

    let again = lab.run_to_end(&["cleanup"]);
    let kept =
        "kept the state of nat64, for the next start; to forget it, remove its folder in /var/lib/protomask";
    assert_eq!(again.code, Some(0));
    assert_eq!(again.stdout.trim().lines().collect::<Vec<_>>(), ["nothing of protomask was found", kept]);
}

#[test]
fn health_readiness_and_metrics_are_served_and_other_paths_are_not() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &PLAIN);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(router.get(path).unwrap().status, 200, "{path}");
    }
    assert_eq!(router.get("/nothing").unwrap().status, 404);
    // Loopback only: the world does not see it.
    let outside = http_get(lab.client(), (Topology::ROUTER_V6, HTTP.port()).into(), "/metrics", PATIENCE);
    assert_eq!(outside.unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
}

/// What a thread has used of a processor, in nanoseconds, and how often it went to sleep.
fn threads(router: &Router) -> BTreeMap<String, (u64, u64)> {
    router.by_thread(|read| {
        let (status, schedule) = (read("status")?, read("schedstat")?);
        let slept = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        let busy = schedule.split(' ').next()?;
        Some((busy.parse().ok()?, slept.trim().parse().ok()?))
    })
}

/// How long an idle router is looked at.
const IDLE: Duration = Duration::from_secs(2);

/// The kernel has something to say on a new device now and then: a stretch without that comes soon.
const STRETCHES: usize = 30;

/// What all threads of an idle router may do together in a second of that time. Measured: less than 40 times asleep. Who were to poll
/// without pause would do so many thousand times.
const MOST_SLEEPS: u64 = 400;

#[test]
fn workers_without_packets_use_no_processor_and_nobody_else_uses_much() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let mut router = Router::start(&lab, &PLAIN);
    // They have had something to do: what is left of that is to be seen too.
    assert!(pings(&lab));
    let mut seen = Vec::new();
    let quiet = (0..STRETCHES).find_map(|_| {
        let before = threads(&router);
        common::pause(IDLE);
        let after = threads(&router);
        let worked = after.iter().filter(|(name, _)| name.starts_with("worker-"));
        let worked: Vec<_> =
            worked.map(|(name, used)| (name.clone(), before.get(name) == Some(used))).collect();
        assert!(!worked.is_empty(), "no worker in {after:?}");
        seen.push(worked.clone());
        worked.iter().all(|(_, idle)| *idle).then_some((before, after))
    });
    let Some((before, after)) = quiet else { panic!("workers are never idle for {IDLE:?}: {seen:?}") };
    let slept =
        |threads: &BTreeMap<String, (u64, u64)>| threads.values().map(|(_, slept)| slept).sum::<u64>();
    // What a thread has done goes with it.
    let sleeps = slept(&after).saturating_sub(slept(&before));
    let busy = |threads: &BTreeMap<String, (u64, u64)>| threads.values().map(|(busy, _)| busy).sum::<u64>();
    let busy = busy(&after).saturating_sub(busy(&before));
    let status = fs::read_to_string(format!("/proc/{}/status", router.process().pid())).unwrap();
    let memory = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    println!("idle for {IDLE:?}: {sleeps} times asleep, {busy} ns busy, {} threads; {memory}", after.len());
    assert!(sleeps < MOST_SLEEPS * IDLE.as_secs(), "{sleeps} times asleep: {before:?}, {after:?}");
    router.wait("it goes on", |_| pings(&lab));
    router.end();
}

/// The scheduling policies of a router's threads.
fn policies(router: &Router) -> BTreeMap<String, i32> {
    router.by_thread(|read| stat_field(&read("stat")?, 41))
}

#[test]
fn workers_let_others_finish_and_no_other_thread_does() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let mut router = Router::start(&lab, &PLAIN);
    // Beside a program that computes a worker is like any other for a while; where tests run side by side there are such.
    router.wait("all workers let others finish", |router| {
        let policies = policies(router);
        let (workers, others): (Vec<_>, Vec<_>) =
            policies.iter().partition(|(name, _)| name.starts_with("worker-"));
        assert!(others.iter().all(|(_, policy)| **policy == libc::SCHED_OTHER), "{policies:?}");
        !workers.is_empty() && workers.iter().all(|(_, policy)| **policy == libc::SCHED_BATCH)
    });
    assert!(pings(&lab));
    router.end();
}
