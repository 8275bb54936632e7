//! Many sessions, while more begin and transfers run, over `kill -9`.
//!
//! A million, by the program as it is delivered: `PROTOMASK_SESSIONS=1000000 cargo test --release --test state crowd -- --nocapture`.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netlab::{Direction, Topology};

use crate::common::trickle::Trickle;
use crate::common::wire::Injector;
use crate::common::{Lab, Router, packets, pause, through};
use crate::lab::{Mapping, OLD_ENOUGH};

/// Sessions of one host: each with a port of its own, so that each is a binding too.
const OF_ONE: u32 = 1000;
/// The server's socket that takes all of it and never reads.
const SINK: u16 = 7000;
/// How many sessions begin per second while the router is killed.
const NEWCOMERS: u32 = 500;

/// The `n`th flow: that of host `n / 1000`, which is a subscriber by itself.
fn flow(n: u32) -> SocketAddr {
    let host = 0x2001_0db8_00c0_u128 << 80 | u128::from(n / OF_ONE) << 64 | 1;
    (Ipv6Addr::from_bits(host), (10_000 + n % OF_ONE) as u16).into()
}

struct Crowd {
    injector: Injector,
    _sink: UdpSocket,
}

impl Crowd {
    fn new(lab: &Lab) -> Self {
        let sink = lab.server.run(|| UdpSocket::bind((Topology::SERVER_V4, SINK)).unwrap());
        Self { injector: Injector::new(lab.client()), _sink: sink }
    }

    fn send(&self, n: u32) {
        let to = (through(Topology::SERVER_V4), SINK).into();
        self.injector.send(&packets::datagram(flow(n), to, b"crowd"));
    }

    /// Sends until so many sessions are there: what comes faster than the router reads is lost on the way.
    fn gather(&self, router: &Router, wanted: u32) {
        for _ in 0..100 {
            for n in 0..wanted {
                self.send(n);
                if n % 64 == 0 {
                    pause(Duration::from_millis(1));
                }
            }
            if sessions(router) >= wanted.into() {
                return;
            }
        }
        panic!("no {wanted} sessions: {:?}", router.metrics());
    }
}

fn sessions(router: &Router) -> u64 {
    router.metrics().sum("protomask_sessions", &[])
}

#[test]
fn all_that_is_older_than_a_second_survives_kill_9_under_load() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let wanted: u32 = std::env::var("PROTOMASK_SESSIONS").map_or(20_000, |number| number.parse().unwrap());
    let lab = Lab::new();
    let most = format!("[sessions]\nmax = {}\n", wanted + wanted / 4 + 50_000);
    let file = lab.file("crowd.toml", &most);
    let flags = ["-c", &file, "--translation-prefix", "64:ff9b:1::/96", "--pool-prefix", "203.0.113.0/24"];
    let router = Router::start(&lab, &flags);
    let crowd = Crowd::new(&lab);
    crowd.gather(&router, wanted);
    let mapping = Mapping::open(&lab, lab.clients[0].addresses[0], 5000);
    let transfers = [(Direction::Download, 9000), (Direction::Upload, 9001)]
        .map(|(way, port)| Trickle::start(&lab, way, port));

    let come = Arc::new(AtomicBool::new(true));
    let newcomers = std::thread::spawn({
        let come = Arc::clone(&come);
        move || {
            let mut next = wanted;
            while come.load(Ordering::SeqCst) {
                for _ in 0..NEWCOMERS / 50 {
                    crowd.send(next);
                    next += 1;
                }
                pause(Duration::from_millis(20));
            }
            crowd
        }
    });
    // How many there were, and when.
    let mut history = vec![(Instant::now(), sessions(&router))];
    while history[0].0.elapsed() < OLD_ENOUGH + Duration::from_secs(1) {
        pause(Duration::from_millis(50));
        history.push((Instant::now(), sessions(&router)));
    }
    let killed = Instant::now();
    router.kill();
    let started = Instant::now();
    let mut router = Router::start(&lab, &flags);
    let ready = started.elapsed();
    let record = router.wait_for_log("state restored", |_| true);
    let number = |field: &str| record.field(field).parse::<u64>().unwrap();
    let (restored, took) = (number("sessions"), number("took_ms"));
    let old = history.iter().rev().find(|(at, _)| killed.duration_since(*at) >= OLD_ENOUGH).unwrap().1;
    let newest = history.iter().rev().find(|(_, count)| *count <= restored);
    println!(
        "{} sessions when it was killed, {restored} of them restored within {took} ms, ready after {ready:?}; lost is what was \
         younger than {:?}",
        history.last().unwrap().1,
        newest.map(|(at, _)| killed.duration_since(*at)),
    );
    assert!(old >= wanted.into() && restored >= old, "{old} were old enough, and {restored} are back");
    assert_eq!(number("dropped"), 0);
    assert!(mapping.is_reached());
    assert_eq!(mapping.send(), mapping.seen, "no mapping moves");
    for transfer in transfers {
        transfer.end();
    }
    come.store(false, Ordering::SeqCst);
    drop(newcomers.join().unwrap());
    router.end();
}
