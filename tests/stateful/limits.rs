//! What one subscriber may take, and that nobody else feels one who wants more.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipnet::Ipv6Net;
use netlab::{Client, PingOptions, PingOutcome, Server, ping, ping_series, tcp_connect, tcp_exchange};

use crate::common::packets::{datagram, in_fragments, syn};
use crate::common::wire::Injector;
use crate::common::{Lab, PATIENCE, Router, eventually, icmp_error, pause, through};
use crate::lab::{SERVER, addresses, clients, start};

/// RFC 4443 §3.1: administratively prohibited, for who wants more than a subscriber may have.
const PROHIBITED: (u8, u8) = (1, 1);
/// RFC 6146 §3.5.1.1: address unreachable, where nothing is left for anybody.
const UNREACHABLE: (u8, u8) = (1, 3);

fn ping_as(client: &Client, address: usize, identifier: u16) -> PingOutcome {
    let options = PingOptions {
        source: Some(client.addresses[address].into()),
        identifier: Some(identifier),
        ..PingOptions::default()
    };
    ping(&client.namespace, through(SERVER), &options).unwrap()
}

#[test]
fn a_subscriber_with_all_sessions_that_it_may_have_keeps_them_and_is_refused_more() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router) = start(&clients(2), "[quota]\nsessions = 3\n");
    for identifier in 1..=3 {
        assert!(ping_as(&lab.clients[0], 0, identifier).is_reply());
    }
    assert_eq!(icmp_error(&ping_as(&lab.clients[0], 0, 4)), PROHIBITED);
    router.wait_for_dropped("session_quota", 1);
    for identifier in 1..=3 {
        assert!(ping_as(&lab.clients[0], 0, identifier).is_reply(), "what it has goes on");
    }
    assert!(ping_as(&lab.clients[1], 0, 4).is_reply(), "another subscriber is not concerned");
    router.end();
}

#[test]
fn a_subscriber_that_makes_sessions_too_fast_has_to_wait() {
    const BURST: u16 = 5;
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router) = start(&clients(2), "[quota]\nnew_sessions_per_second = 1\nnew_sessions_burst = 5\n");
    let mut outcomes = (1..100).map(|identifier| ping_as(&lab.clients[0], 0, identifier));
    let granted = outcomes.by_ref().take_while(PingOutcome::is_reply).count();
    // `take_while` has taken the refusal, which is counted.
    assert!(granted >= usize::from(BURST) && granted < 50, "{granted}");
    router.wait_for_metrics("the refusal", |metrics| metrics.dropped("rate_quota") >= 1);
    assert!(ping_as(&lab.clients[1], 0, 1).is_reply(), "another subscriber is not concerned");
    assert!(ping_as(&lab.clients[0], 0, 1).is_reply(), "a session that is there goes on");
    eventually("it may again", PATIENCE, || {
        pause(Duration::from_millis(200));
        ping_as(&lab.clients[0], 0, 1000).is_reply().then_some(())
    });
    router.end();
}

#[test]
fn hosts_of_one_subscriber_share_its_ports_and_a_pool_without_ports_says_so() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    // Two blocks in all, one for each subscriber.
    let more = "ports = \"40000-40031\"\n[sessions]\nblock_size = 16\n[quota]\nports = 16\n";
    let options = netlab::TopologyOptions { clients: 3, ..addresses(2) };
    let (lab, router) = start(&options, more);
    assert!(ping_as(&lab.clients[0], 0, 1).is_reply());
    assert_eq!(icmp_error(&ping_as(&lab.clients[0], 1, 1)), PROHIBITED, "its neighbour has the block");
    router.wait_for_dropped("port_quota", 1);
    assert!(ping_as(&lab.clients[1], 0, 1).is_reply());
    assert_eq!(icmp_error(&ping_as(&lab.clients[2], 0, 1)), UNREACHABLE, "nothing is left");
    router.wait_for_dropped("pool_exhausted", 1);
    for client in &lab.clients[..2] {
        assert!(ping_as(client, 0, 2).is_reply(), "who has a block goes on");
    }
    router.end();
}

/// Where the sprayer's many addresses lie: behind its own, so that no kernel looks for each of them on the link.
const SPRAYED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0), 64);
const SPRAYER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 2);
/// Packets per second, where the machine has the time for so many.
const PER_SECOND: u32 = 3000;
const LEAST_PER_SECOND: u32 = 300;

/// Numbers without a pattern: Steele's splitmix64.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn port(&mut self) -> u16 {
        self.next() as u16 | 1
    }

    /// Somewhere where nobody answers.
    fn target(&mut self) -> SocketAddr {
        let nobody = Ipv4Addr::new(192, 0, 2, 128 | self.next() as u8);
        (through(nobody), self.port()).into()
    }

    fn source(&mut self) -> Ipv6Addr {
        Ipv6Addr::from_bits(SPRAYED.addr().to_bits() | u128::from(self.next()))
    }

    /// SYNs of one host to everybody.
    fn scan(&mut self) -> Vec<u8> {
        syn((SPRAYER, self.port()).into(), self.target())
    }

    /// SYNs of all hosts of a subscriber.
    fn spoof(&mut self) -> Vec<u8> {
        syn((self.source(), self.port()).into(), self.target())
    }

    /// Fragments whose other fragments never come: every second one the first of its datagram.
    fn fragment(&mut self) -> Vec<u8> {
        let packet = datagram((SPRAYER, self.port()).into(), self.target(), &[0x5a; 1500]);
        let which = self.next();
        in_fragments(&packet, (which >> 16) as u16, 1024).swap_remove((which & 1) as usize)
    }
}

/// Sends at an even pace until it is told to stop, and tells how many.
fn spray(injector: &Injector, stop: &AtomicBool, per_second: u32, mut make: impl FnMut() -> Vec<u8>) -> u32 {
    let start = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) && start.elapsed() < PATIENCE {
        let due = start.elapsed().as_millis() as u32 * per_second / 1000;
        while sent < due {
            injector.send(&make());
            sent += 1;
        }
        pause(Duration::from_millis(3));
    }
    sent
}

/// What a good host of another subscriber does meanwhile: every connection has to succeed, and the pings that got no reply
/// are told.
fn live(good: &Client) -> Vec<PingOutcome> {
    const PINGS: u16 = 100;
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let pace = Duration::from_millis(10);
            ping_series(&good.namespace, through(SERVER), &PingOptions::default(), PINGS, pace).unwrap()
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            let sent = [0xa5; 3000];
            let target = (through(SERVER), 7).into();
            let echoed = tcp_exchange(&good.namespace, None, target, &sent, PATIENCE).unwrap();
            assert_eq!(echoed, sent);
            // Not more than it may have.
            pause(Duration::from_millis(10));
        }
        let mut outcomes = pings.join().unwrap();
        outcomes.retain(|outcome| !outcome.is_reply());
        outcomes
    })
}

/// What it is, a packet of it, and for which reasons such packets are dropped.
type Attack = (&'static str, fn(&mut Noise) -> Vec<u8>, &'static [&'static str]);

fn drops(router: &Router, reasons: &[&str]) -> u64 {
    let metrics = router.metrics();
    reasons.iter().map(|reason| metrics.dropped(reason)).sum()
}

/// What the device's queue had no room for, since the router had no time to read it.
fn overflows(lab: &Lab) -> u64 {
    lab.snapshot().link_by_name("nat64").unwrap().stats.tx_dropped
}

#[test]
fn a_subscriber_that_sprays_packets_disturbs_nobody_and_heals_afterwards() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let more = "[quota]\nports = 2048\nsessions = 600\nnew_sessions_per_second = 300\nnew_sessions_burst = 600\n\
                [fragments]\nmemory = 262144\n\
                [timers]\nbelow_rfc = true\ntcp_transitory = \"2s\"\nudp = \"2s\"\ntcp_port_rest = \"1s\"\nport_rest = \"1s\"\nblock_idle = \"1s\"\n";
    let (lab, router) = start(&clients(2), more);
    let _echo = Server::tcp_echo(&lab.server, (SERVER, 7)).unwrap();
    let (bad, good) = (&lab.clients[0], &lab.clients[1]);
    bad.namespace.add_address("eth0", Ipv6Net::new_assert(SPRAYER, 128)).unwrap();
    lab.router.add_route(SPRAYED, Some(bad.addresses[0].into()), &bad.router_link).unwrap();
    let open_as_sprayer =
        |limit| tcp_connect(&bad.namespace, Some((SPRAYER, 0).into()), (through(SERVER), 7).into(), limit);
    drop(open_as_sprayer(PATIENCE).unwrap());

    let injector = Injector::new(&bad.namespace);
    let mut noise = Noise(1);
    let attacks: [Attack; 3] = [
        ("SYNs to everybody", Noise::scan, &["session_quota", "rate_quota"]),
        ("SYNs of everybody", Noise::spoof, &["session_quota", "rate_quota", "port_quota"]),
        (
            "fragments",
            Noise::fragment,
            &["fragment_source_share", "fragment_buffer_full", "fragment_timeout"],
        ),
    ];
    for (what, make, reasons) in attacks {
        let mut rate = PER_SECOND;
        loop {
            let before = (drops(&router, reasons), overflows(&lab));
            let stop = AtomicBool::new(false);
            let (sent, lost) = std::thread::scope(|scope| {
                let (noise, injector, stop) = (&mut noise, &injector, &stop);
                let sprayer = scope.spawn(move || spray(injector, stop, rate, || make(noise)));
                // A moment in which all that it may have is used up.
                pause(Duration::from_millis(300));
                let lost = live(good);
                stop.store(true, Ordering::Relaxed);
                (sprayer.join().unwrap(), lost)
            });
            let (counted, overflowed) = (drops(&router, reasons) - before.0, overflows(&lab) - before.1);
            println!(
                "{what}: {sent} were sprayed, {counted} dropped as {reasons:?}, {overflowed} never read"
            );
            if overflowed > 0 && rate / 2 >= LEAST_PER_SECOND {
                // What the router had no time to read says nothing about it.
                rate /= 2;
                continue;
            }
            assert!(sent >= rate, "{what}: {sent}");
            assert!(counted > 0, "{what}: none of {sent} was dropped as {reasons:?}");
            assert!(lost.is_empty(), "{what}: {lost:?}");
            break;
        }
    }
    let healed = Instant::now();
    let stream = eventually("the sprayer may connect again", PATIENCE, || {
        open_as_sprayer(Duration::from_millis(500)).ok()
    });
    println!("the sprayer had to wait for {:?}", healed.elapsed());
    drop(stream);
    router.wait_for_metrics("its sessions are over", |metrics| {
        metrics.sessions("tcp") == 0 && metrics.sessions("udp") == 0
    });
    router.end();
}
