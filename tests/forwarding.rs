//! The kernel has to forward, and the router says so, or turns it on without losing anything.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

mod common;

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use common::lab::snapshot;
use common::{Lab, PATIENCE, PLAIN, Router, eventually, plain_and, through};
use netlab::{Namespace, PingOptions, Topology, TopologyOptions, ping};
use socket2::{Domain, Protocol, Socket, Type};

fn without_forwarding() -> Lab {
    Lab::with(&TopologyOptions { forwarding: false, ..TopologyOptions::default() })
}

fn pings(lab: &Lab) -> bool {
    ping(lab.client(), through(Topology::SERVER_V4), &PingOptions::default()).unwrap().is_reply()
}

#[test]
fn without_forwarding_the_router_runs_and_is_not_ready_and_names_the_commands_that_help() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = without_forwarding();
    let mut router = Router::start_unready(&lab, &PLAIN);
    let commands = ["sysctl -w net.ipv6.conf.all.forwarding=1", "sysctl -w net.ipv4.ip_forward=1"];
    router.wait("readiness names forwarding, and nothing else", |router| {
        router.get("/readyz").is_some_and(|answer| {
            let text = answer.text();
            answer.status == 503
                && text.trim().lines().count() == 1
                && commands.iter().all(|command| text.contains(command))
        })
    });
    // Exactly those, as a person would run them.
    for command in commands {
        let (key, value) = command.strip_prefix("sysctl -w ").unwrap().split_once('=').unwrap();
        lab.router.sysctl(key, value).unwrap();
    }
    router.wait("it is ready", |router| router.get("/readyz").is_some_and(|answer| answer.status == 200));
    assert!(pings(&lab));
    router.end();
    assert_eq!(lab.router.read_sysctl("net.ipv4.ip_forward").unwrap(), "1", "what a person has set stays");
}

/// A router advertisement that offers a default route (RFC 4861 section 4.2). The checksum is the kernel's business.
fn advertise(provider: &Namespace) {
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(1800_u16.to_be_bytes());
    message.extend([0; 8]);
    let index = provider.index("eth0").unwrap();
    provider.run(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.set_multicast_hops_v6(255).unwrap();
        socket.set_multicast_if_v6(index).unwrap();
        let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, index);
        match socket.send_to(&message, &all_nodes.into()) {
            // The link-local address it is sent from is still on its way.
            Err(error)
                if matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable) => {}
            sent => assert_eq!(sent.unwrap(), message.len()),
        }
    });
}

fn has_advertised_default(lab: &Lab) -> bool {
    snapshot(&lab.router).routes.iter().any(|route| {
        route.is_default()
            && route.protocol == rtnl::protocol::RA
            && route.gateway().is_some_and(|gateway| gateway.is_ipv6())
    })
}

#[test]
fn a_host_that_turns_forwarding_on_keeps_its_advertised_default_route_and_gets_its_settings_back() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = without_forwarding();
    let provider = Namespace::new("provider").unwrap();
    provider.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    netlab::veth(&lab.router, "uplink", &provider, "eth0", 1500).unwrap();
    lab.router.sysctl("net.ipv6.conf.uplink.accept_ra", "1").unwrap();
    eventually("a default route by router advertisement", PATIENCE, || {
        advertise(&provider);
        common::pause(Duration::from_millis(50));
        has_advertised_default(&lab).then_some(())
    });

    let router = Router::start(&lab, &plain_and(&["--enable-forwarding"]));
    assert!(pings(&lab), "it forwards");
    assert!(has_advertised_default(&lab), "the route outlives the switch");
    let keys = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.uplink.accept_ra"];
    let values = || keys.map(|key| lab.router.read_sysctl(key).unwrap());
    assert_eq!(values(), ["1", "1", "2"]);
    router.end();
    assert_eq!(values(), ["0", "0", "1"], "as it was before");
    assert!(has_advertised_default(&lab), "and the route outlives the way back");
    assert_eq!(lab.records(), [""; 0]);
}

#[test]
fn after_a_kill_the_next_start_restores_the_settings_of_before_the_first() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = without_forwarding();
    let flags = plain_and(&["--enable-forwarding"]);
    let router = Router::start(&lab, &flags);
    router.kill();
    assert_eq!(lab.router.read_sysctl("net.ipv4.ip_forward").unwrap(), "1");
    let router = Router::start(&lab, &flags);
    assert!(pings(&lab));
    router.end();
    assert_eq!(lab.router.read_sysctl("net.ipv4.ip_forward").unwrap(), "0");
    assert_eq!(lab.router.read_sysctl("net.ipv6.conf.all.forwarding").unwrap(), "0");
}
