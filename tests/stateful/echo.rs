//! ICMP echo: identifiers are shared like ports, messages may come in fragments, and the pool's address answers itself.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netlab::{Namespace, PingOptions, PingOutcome, TopologyOptions, ping, ping_series};

use crate::common::packets::{ICMP, flow};
use crate::common::through;
use crate::common::wire::Sniffer;
use crate::lab::{CLIENT, POOL, SERVER, addresses, start};

#[test]
fn echo_requests_of_many_hosts_with_one_identifier_get_their_own_replies() {
    const HOSTS: u16 = 25;
    const EACH: u16 = 4;
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router) = start(&addresses(HOSTS), "");
    let at_server = Sniffer::new(&lab.server);
    std::thread::scope(|scope| {
        for host in &lab.clients[0].addresses {
            let options = PingOptions {
                source: Some((*host).into()),
                identifier: Some(0x1234),
                payload: format!("this is {host}").into_bytes(),
                ..PingOptions::default()
            };
            let client = lab.client();
            scope.spawn(move || {
                let pace = Duration::from_millis(20);
                let outcomes = ping_series(client, through(SERVER), &options, EACH, pace).unwrap();
                for outcome in outcomes {
                    let PingOutcome::Reply { from, payload, .. } = outcome else { panic!("{outcome:?}") };
                    assert_eq!(from, IpAddr::V6(through(SERVER)));
                    assert_eq!(payload, options.payload, "another host's reply");
                }
            });
        }
    });
    let requests = at_server.so_far(|packet| {
        flow(packet).filter(|flow| flow.protocol == ICMP && flow.destination.ip() == IpAddr::V4(SERVER))
    });
    assert_eq!(requests.len(), usize::from(HOSTS * EACH));
    assert!(requests.iter().all(|request| request.source.ip() == IpAddr::V4(POOL)), "{requests:?}");
    let identifiers: HashSet<u16> = requests.iter().map(|request| request.source.port()).collect();
    assert_eq!(identifiers.len(), usize::from(HOSTS), "an identifier for each host: {identifiers:?}");
    let metrics =
        router.wait_for_metrics("a session each", |metrics| metrics.sessions("icmp") == u64::from(HOSTS));
    assert_eq!(metrics.all_dropped(), 0, "{metrics:?}");
    router.end();
}

/// Whether all bytes of a long ping come back.
fn assert_echoes(from: &Namespace, to: impl Into<IpAddr>, length: usize) {
    let to = to.into();
    let payload: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
    let options = PingOptions { payload: payload.clone(), ..PingOptions::default() };
    let outcome = ping(from, to, &options).unwrap();
    let PingOutcome::Reply { payload: echoed, from, .. } = outcome else { panic!("{length}: {outcome:?}") };
    assert_eq!(from, to);
    assert!(echoed == payload, "{length} bytes to {to}: other bytes came back");
}

#[test]
fn pings_in_fragments_come_back_whole_from_both_sides() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    // One host that IPv4 reaches by a static pair, and a network of hosts by an explicit mapping (RFC 7757).
    let pairs = "[[static]]\naddress = \"203.0.113.9\"\nhost = \"2001:db8:1::3\"\n\
                 [[eam]]\nipv4 = \"192.0.2.0/28\"\nipv6 = \"2001:db8:1::10/124\"\n";
    let (lab, router) = start(&addresses(20), pairs);
    for length in [4000, 60_000] {
        assert_echoes(lab.client(), through(SERVER), length);
        assert_echoes(&lab.server, Ipv4Addr::new(203, 0, 113, 9), length);
        assert_echoes(&lab.server, Ipv4Addr::new(192, 0, 2, 2), length);
    }
    let metrics = router.metrics();
    assert_eq!(metrics.all_dropped(), 0, "{metrics:?}");
    router.end();
}

#[test]
fn the_shared_address_answers_echo_requests_from_both_sides() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router) = start(&TopologyOptions::default(), "");
    let options = PingOptions { payload: vec![0xa5; 1000], ..PingOptions::default() };
    // Before any host has a mapping, and after.
    for _ in 0..2 {
        for (from, to) in [(&lab.server, IpAddr::V4(POOL)), (lab.client(), IpAddr::V6(through(POOL)))] {
            let outcome = ping(from, to, &options).unwrap();
            let PingOutcome::Reply { from, payload, .. } = outcome else { panic!("{to}: {outcome:?}") };
            assert_eq!((from, payload), (to, options.payload.clone()));
        }
        let own = PingOptions { source: Some(CLIENT.into()), ..PingOptions::default() };
        assert!(ping(lab.client(), through(SERVER), &own).unwrap().is_reply());
    }
    router.end();
}
