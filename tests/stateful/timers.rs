//! How long sessions live, as `[timers]` says: idle, half-open, reset and dead ones.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use netlab::{Server, TopologyOptions, tcp_connect};
use socket2::SockRef;

use crate::common::packets::{TCP, flow, syn};
use crate::common::wire::{Injector, Sniffer};
use crate::common::{Lab, PATIENCE, Router, eventually, pause, through};
use crate::lab::{CLIENT, POOL, SERVER, VOID, assert_talks, clients, connect, start};

fn timers(timers: &str) -> String {
    format!("[timers]\nbelow_rfc = true\n{timers}")
}

/// A connection of a client to the server, both ends of it.
fn pair(lab: &Lab, client: usize, port: u16) -> (TcpStream, TcpStream) {
    let listener = lab.server.run(|| TcpListener::bind((SERVER, port)).unwrap());
    let client = &lab.clients[client];
    let near = connect(&client.namespace, (client.addresses[0], 0), (through(SERVER), port));
    let (far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    (near, far)
}

fn wait_for_sessions(router: &Router, tcp: u64) {
    router.wait_for_metrics(&format!("{tcp} TCP sessions"), |metrics| metrics.sessions("tcp") == tcp);
}

#[test]
fn an_established_connection_that_is_idle_for_longer_than_a_half_open_one_may_goes_on() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router) = start(&TopologyOptions::default(), &timers("tcp_transitory = \"1s\"\n"));
    let (mut near, mut far) = pair(&lab, 0, 80);
    assert_talks(&mut near, &mut far);
    for _ in 0..2 {
        pause(Duration::from_millis(1500));
        // The outsider speaks first: it has nothing but the session to reach the host by.
        assert_talks(&mut far, &mut near);
    }
    wait_for_sessions(&router, 1);
    let metrics = router.metrics();
    assert_eq!(metrics.all_dropped(), 0, "{metrics:?}");
    assert_eq!(metrics.sum("protomask_session_probes_total", &[]), 0, "nobody had to ask for it");
    router.end();
}

#[test]
fn a_connection_that_nobody_answers_is_forgotten_after_the_transitory_timeout() {
    const TRANSITORY: Duration = Duration::from_millis(1500);
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router) = start(&TopologyOptions::default(), &timers("tcp_transitory = \"1500ms\"\n"));
    let nobody = through(VOID.hosts().next().unwrap());
    let sent = Instant::now();
    // One SYN: a kernel would repeat it, and keep the session alive.
    Injector::new(lab.client()).send(&syn((CLIENT, 4000).into(), (nobody, 80).into()));
    wait_for_sessions(&router, 1);
    wait_for_sessions(&router, 0);
    let took = sent.elapsed();
    assert!(took >= TRANSITORY, "{took:?}");
    router.end();
}

#[test]
fn a_reset_connection_ends_after_the_transitory_timeout_and_its_port_is_free_after_its_rest() {
    const PORTS: usize = 16;
    // One second as a transitory session, and two of rest.
    const BOTH: Duration = Duration::from_secs(3);
    if !netlab::kernel_tests_possible() {
        return;
    }
    let more = "ports = \"40000-40015\"\n[sessions]\nblock_size = 16\n".to_owned()
        + &timers("tcp_transitory = \"1s\"\ntcp_port_rest = \"2s\"\n");
    let (lab, router) = start(&TopologyOptions::default(), &more);
    let server = Server::tcp_echo(&lab.server, (SERVER, 7)).unwrap();
    let target = (through(SERVER), 7).into();
    let mut streams: Vec<_> = (0..PORTS).map(|_| connect(lab.client(), (CLIENT, 0), target)).collect();
    let ports = || server.peers().iter().map(|peer| (peer.ip(), peer.port())).collect::<Vec<_>>();
    let mut taken =
        eventually("all ports are in use", PATIENCE, || Some(ports()).filter(|ports| ports.len() == PORTS));
    // The server accepts in the order in which the connections were opened.
    let freed = taken[5];
    taken.sort_unstable();
    assert_eq!(taken, (40_000..40_016).map(|port| (POOL.into(), port)).collect::<Vec<_>>());
    let refused = tcp_connect(lab.client(), None, target, PATIENCE).unwrap_err();
    // RFC 6146 §3.5.1.1: address unreachable.
    assert_eq!(refused.raw_os_error(), Some(libc::EHOSTUNREACH), "{refused}");

    let victim = streams.remove(5);
    SockRef::from(&victim).set_linger(Some(Duration::ZERO)).unwrap();
    let reset = Instant::now();
    drop(victim);
    wait_for_sessions(&router, PORTS as u64 - 1);
    assert!(reset.elapsed() >= Duration::from_secs(1), "{:?}", reset.elapsed());
    let _again = eventually("a new connection", PATIENCE, || {
        tcp_connect(lab.client(), None, target, Duration::from_millis(300)).ok()
    });
    let took = reset.elapsed();
    assert!(took >= BOTH, "{took:?}");
    eventually("the server has accepted it", PATIENCE, || (ports().get(PORTS) == Some(&freed)).then_some(()));
    // Nobody else was disturbed.
    assert_eq!(router.metrics().sessions("tcp"), PORTS as u64);
    router.end();
}

#[test]
fn an_established_connection_is_probed_when_its_time_is_over_and_goes_on_if_its_host_lives() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router) =
        start(&clients(2), &timers("tcp_established = \"2s\"\ntcp_transitory = \"1500ms\"\n"));
    let (mut near, mut far) = pair(&lab, 0, 80);
    let _dead = pair(&lab, 1, 81);
    wait_for_sessions(&router, 2);
    // The second host is gone without a word, and its server has nothing to say to it.
    lab.clients[1].namespace.down("eth0").unwrap();
    let at_client = Sniffer::new(lab.client());
    let start = Instant::now();
    // RFC 6146 §3.5.2.2: a probe to the IPv6 end, which answers.
    let from = (through(SERVER), 80).into();
    let probe = at_client
        .within(PATIENCE, |packet| flow(packet).filter(|flow| flow.protocol == TCP && flow.source == from));
    assert_eq!(probe.map(|flow| flow.destination), Some(near.local_addr().unwrap()));
    wait_for_sessions(&router, 1);
    // As long as two lives of a session that nobody speaks for.
    pause(Duration::from_secs(7).saturating_sub(start.elapsed()));
    assert_talks(&mut far, &mut near);
    wait_for_sessions(&router, 1);
    router.end();
}
