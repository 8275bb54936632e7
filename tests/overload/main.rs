//! More of everything than there is room for, all at once: packets, new flows, log lines, control requests, scrapes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the helpers of tests fail the test that calls them"
)]

#[path = "../common/mod.rs"]
mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv6Addr, TcpStream, UdpSocket};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::ctl::Connection;
use common::metrics::Metrics;
use common::process::Process;
use common::router::HTTP;
use common::{Lab, PATIENCE, eventually, pause, through};
use netlab::{Namespace, Topology, TopologyOptions, http_get};
use nix::sys::signal::Signal;

/// How long all of it lasts.
const STORM: Duration = Duration::from_secs(10);

/// Hosts, whose packets come from as many addresses.
const HOSTS: u16 = 64;

/// Sessions are the least that the router takes, and a host may have a few hundred: there are more flows than that.
const CONFIG: &str = "translation_prefix = \"64:ff9b:1::/96\"\n[[pool]]\nprefix = \"203.0.113.0/30\"\n\
                      [sessions]\nmax = 4096\n[quota]\nports = 1024\nsubscriber_prefix_len = 128\nsessions = 512\n\
                      new_sessions_per_second = 500\n";

/// The bound that docs/configuration.md gives for these settings, in bytes, beside what the router has after its start.
const BOUND: u64 =
    2 * HELD + FRAGMENTS + LOG + 2 * SESSIONS * MADE + 16 * SESSIONS * TEXT + 32 * PAGE + STATE;
/// Packets of new hosts that wait, for each worker.
const HELD: u64 = 8 << 20;
const FRAGMENTS: u64 = 8 << 20;
const LOG: u64 = 2200 << 10;
/// An entry of a list while it is made, which two are at a time, and as text, which each of 16 connections may have.
const MADE: u64 = 2300;
const TEXT: u64 = 320;
const SESSIONS: u64 = 4096;
/// A page of metrics.
const PAGE: u64 = 128 << 10;
/// What has changed within 250 ms, and 512 KiB.
const STATE: u64 = SESSIONS * 48 + (512 << 10);

/// Does something again and again in threads of its own until it is told to stop.
struct Crowd {
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn new(stop: &Arc<AtomicBool>, members: usize, act: impl Fn(usize) + Send + Sync + 'static) -> Self {
        let act = Arc::new(act);
        let threads = (0..members).map(|member| {
            let (stop, act) = (Arc::clone(stop), Arc::clone(&act));
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    act(member);
                }
            })
        });
        Self { threads: threads.collect() }
    }

    fn end(self) {
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn host(n: u16) -> Ipv6Addr {
    Ipv6Addr::from_bits(Topology::CLIENT_V6.to_bits() + u128::from(n))
}

fn sockets(namespace: &Namespace, per_host: usize) -> Vec<UdpSocket> {
    let bind = |n| namespace.run(|| UdpSocket::bind((host(n), 0)).unwrap());
    (0..HOSTS).flat_map(|n| (0..per_host).map(move |_| n)).map(bind).collect()
}

/// A line of `/proc/PID/status`, in KiB.
fn memory(process: &Process, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

fn metrics(lab: &Lab) -> Metrics {
    let page = eventually("the metrics", PATIENCE, || {
        http_get(&lab.router, HTTP, "/metrics", Duration::from_secs(5)).ok().filter(|page| page.status == 200)
    });
    Metrics::parse(&page.text())
}

#[test]
fn under_more_of_everything_than_there_is_room_for_the_router_is_bounded_answers_and_counts_what_it_sheds() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab =
        Arc::new(Lab::with(&TopologyOptions { addresses_per_client: HOSTS, ..TopologyOptions::default() }));
    let mut command = lab.protomask();
    let config = lab.file("router.toml", CONFIG);
    command.args([
        "--config",
        &config,
        "--prometheus",
        &HTTP.to_string(),
        "--log-format",
        "json",
        "-vv",
        "--num-queues",
        "2",
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut router = Process::spawn(command);
    // Nobody reads its log until the storm is over.
    let stderr = router.child().stderr.take().unwrap();
    eventually("it is ready", PATIENCE, || {
        http_get(&lab.router, HTTP, "/readyz", Duration::from_secs(5)).ok().filter(|page| page.status == 200)
    });
    let at_rest = memory(&router, "VmRSS:");

    let stop = Arc::new(AtomicBool::new(false));
    let mut crowds = Vec::new();
    // Packets of flows that are there, and of more flows than there is room for.
    let flood = sockets(lab.client(), 1);
    crowds.push(Crowd::new(&stop, 1, move |_| {
        for socket in &flood {
            let _ = socket.send_to(&[0; 200], (through(Topology::SERVER_V4), 9));
        }
    }));
    let opening = sockets(lab.client(), 4);
    let next = AtomicU64::new(0);
    crowds.push(Crowd::new(&stop, 1, move |_| {
        for socket in &opening {
            let port = 10_000 + u16::try_from(next.fetch_add(1, Ordering::Relaxed) % 50_000).unwrap();
            let _ = socket.send_to(b"new", (through(Topology::SERVER_V4), port));
        }
        pause(Duration::from_millis(1));
    }));
    // Requests: many at a time, wrong ones, too long ones, and clients that do not read what they have asked for.
    let answers = Arc::new(AtomicU64::new(0));
    crowds.push(Crowd::new(&stop, 8, {
        let (lab, answers) = (Arc::clone(&lab), Arc::clone(&answers));
        move |member| {
            let mut connection = Connection::open(&lab);
            let request = match member % 4 {
                0 | 1 => "{\"command\": \"list-sessions\", \"limit\": 10000}".to_owned(),
                2 => format!("{{\"command\": \"{}\"}}", "x".repeat(70_000)),
                _ => "{\"command\": \"status\", \"colour\": 1}".to_owned(),
            };
            for _ in 0..20 {
                let _ = connection.ask(&request);
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    let silent: Vec<_> = (0..6)
        .map(|_| {
            let mut connection = Connection::open(&lab);
            (0..200).for_each(|_| connection.send("{\"command\": \"list-sessions\", \"limit\": 10000}\n"));
            connection
        })
        .collect();
    // Scrapes: some that are read at once, some that are begun and left.
    let pages = Arc::new(AtomicU64::new(0));
    crowds.push(Crowd::new(&stop, 4, {
        let (lab, pages) = (Arc::clone(&lab), Arc::clone(&pages));
        move |_| {
            let page = http_get(&lab.router, HTTP, "/metrics", Duration::from_secs(5));
            pages.fetch_add(u64::from(page.is_ok()), Ordering::Relaxed);
        }
    }));
    crowds.push(Crowd::new(&stop, 2, {
        let lab = Arc::clone(&lab);
        move |_| {
            let Ok(mut stream) = lab.router.run(|| TcpStream::connect_timeout(&HTTP, Duration::from_secs(1)))
            else {
                return;
            };
            let _ = stream.write_all(b"GET /metrics HTT");
            pause(Duration::from_millis(300));
        }
    }));

    let start = Instant::now();
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while start.elapsed() < STORM {
        let begun = Instant::now();
        let answer = Connection::open(&lab).ask("{\"command\": \"status\"}");
        slowest = slowest.max(begun.elapsed());
        assert_eq!(answer["ok"]["interface"], "nat64", "{answer}");
        asked += 1;
        pause(Duration::from_millis(200));
    }
    stop.store(true, Ordering::SeqCst);
    crowds.into_iter().for_each(Crowd::end);
    drop(silent);
    let highest = memory(&router, "VmHWM:");
    let seen = metrics(&lab);
    println!(
        "{asked} answers, the slowest after {slowest:?}; {} other answers, {} pages; {at_rest} KiB at rest, {highest} at most; {seen:?}",
        answers.load(Ordering::Relaxed),
        pages.load(Ordering::Relaxed)
    );
    // Each kind of load has been there, and what of it was too much is counted.
    assert!(asked >= 1 && answers.load(Ordering::Relaxed) > 10 && pages.load(Ordering::Relaxed) > 3);
    let allowed = at_rest + (BOUND >> 10);
    assert!(highest < allowed, "{at_rest} KiB at rest, {highest} KiB at most, {allowed} are allowed");
    let forwarded = seen.sum("protomask_forwarded_packets_total", &["direction=\"6to4\""]);
    let to_router = seen.sum("protomask_device_packets_total", &["direction=\"to_router\""]);
    assert!(forwarded > 1000, "what is there goes on: {forwarded}");
    let refused =
        ["session_quota", "rate_quota", "table_full", "hold_full"].map(|reason| seen.dropped(reason));
    assert!(refused.iter().sum::<u64>() > 0, "new flows are shed by reason");
    assert!(seen.sum("protomask_sessions", &[]) <= SESSIONS);
    assert!(
        seen.sum("protomask_log_records_dropped_total", &[]) > 0,
        "so are log records, while nobody reads them"
    );
    // What the device handed over was forwarded or has a reason, and what it did not hand over it has counted itself.
    let uncounted = |now: &Metrics| {
        let counted = now.sum("protomask_forwarded_packets_total", &[])
            + now.all_dropped()
            + now.sum("protomask_kernel_chatter_packets_total", &[])
            + now.sum("protomask_echo_replies_total", &[]);
        to_router.saturating_sub(counted)
    };
    eventually("every packet is accounted for", PATIENCE, || {
        let left = uncounted(&metrics(&lab));
        println!("{left} packets are not accounted for");
        (left == 0).then_some(())
    });

    // Afterwards it is as it was.
    let reading = std::thread::spawn(move || {
        BufReader::new(stderr)
            .lines()
            .map_while(Result::ok)
            .filter(|line| line.contains("records were lost"))
            .count()
    });
    eventually("it is ready", PATIENCE, || {
        http_get(&lab.router, HTTP, "/readyz", Duration::from_secs(5))
            .ok()
            .filter(|page| page.text() == "ready\n")
    });
    let exits = metrics(&lab).sum("protomask_actor_exits_total", &[]);
    assert_eq!(exits, 0, "nobody was taken for hung");
    router.signal(Signal::SIGTERM);
    assert_eq!(router.end(PATIENCE).expect("an end in time").code(), Some(0));
    assert!(reading.join().unwrap() > 0, "the log says how many records it lost");
}
