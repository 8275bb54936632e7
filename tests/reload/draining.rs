//! Pools that are taken out of the file.

use std::net::UdpSocket;
use std::time::Duration;

use netlab::Topology;

use crate::common::ctl::{ctl, list};
use crate::common::{PATIENCE, eventually, pause, through};
use crate::lab::{Reloading, TOP, pool};

/// Timers that let a test see the end of what it has begun.
const SHORT: &str = "[timers]\nudp = \"3s\"\nport_rest = \"0s\"\ntcp_port_rest = \"0s\"\nblock_idle = \"0s\"\nbelow_rfc = true\n";

fn exchange(socket: &UdpSocket) {
    socket.send_to(b"again", (through(Topology::SERVER_V4), 7)).unwrap();
    let mut buffer = [0; 16];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"again");
}

#[test]
fn a_drained_pool_gives_nothing_more_and_goes_when_what_it_gave_is_over() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let mut at = Reloading::start(2, &format!("{TOP}{}{SHORT}", pool("203.0.113.1/32")));
    let (first, second) = (at.host(0), at.host(1));
    let flow = at.lab.client().run(|| UdpSocket::bind((first, 0)).unwrap());
    flow.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(&flow);
    let before = at.echo.peers().last().copied().unwrap();
    assert_eq!(before.ip().to_string(), "203.0.113.1");

    at.takes(&format!("{TOP}{}{SHORT}", pool("203.0.113.9/32")));
    for _ in 0..20 {
        exchange(&flow);
        pause(Duration::from_millis(100));
    }
    assert_eq!(at.echo.peers().last().copied(), Some(before), "it goes on as it began");
    assert_eq!(at.speaks_as(second).to_string(), "203.0.113.9");
    assert_eq!(at.speaks_as(first).to_string(), "203.0.113.9", "what begins now begins elsewhere");
    exchange(&flow);
    assert_eq!(at.echo.peers().last().copied(), Some(before), "and what began before goes on");
    let status = ctl(&at.lab, &["status"]);
    let pools = list(&status, "pools");
    assert_eq!(
        (&pools[1]["pool"], &pools[1]["draining"]),
        (&"203.0.113.1/32".into(), &true.into()),
        "{status}"
    );
    assert!(at.routes().contains(&"203.0.113.1/32".to_owned()));

    // The flow ends, and the pool with it.
    drop(flow);
    at.router.wait_for_log("pool drained: nobody has anything of it any more", |record| {
        record.field("prefix") == "203.0.113.1/32"
    });
    eventually("its route is gone", PATIENCE, || {
        (!at.routes().contains(&"203.0.113.1/32".to_owned())).then_some(())
    });
    assert_eq!(list(&ctl(&at.lab, &["status"]), "pools").len(), 1);
    assert_eq!(at.speaks_as(first).to_string(), "203.0.113.9");
    assert_eq!(at.readiness(), (200, "ready\n".to_owned()));
    at.router.end();
}

#[test]
fn a_pool_that_comes_back_before_it_is_drained_is_as_it_was() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let own = |prefix: &str| {
        format!(
            "reservation_timeout = \"2h\"\n{TOP}[[pool]]\nprefix = \"{prefix}\"\nsharing = \"exclusive\"\n"
        )
    };
    let mut at = Reloading::start(2, &own("203.0.113.0/29"));
    let address = at.speaks_as(at.host(0));
    at.takes(&own("192.0.2.0/29"));
    assert_eq!(at.speaks_as(at.host(0)), address, "its lease lives on");
    assert!(at.speaks_as(at.host(1)).to_string().starts_with("192.0.2."));
    at.takes(&own("203.0.113.0/29"));
    assert_eq!(at.speaks_as(at.host(0)), address);
    let pools = list(&ctl(&at.lab, &["status"]), "pools");
    assert_eq!((&pools[0]["draining"], &pools[1]["draining"]), (&false.into(), &true.into()), "{pools:?}");
    eventually("the first pool counts its lease", PATIENCE, || {
        (list(&ctl(&at.lab, &["status"]), "pools")[0]["used"] == 1).then_some(())
    });
    at.router.end();
}

#[test]
fn a_mapping_of_a_leased_address_ends_the_lease_and_one_of_a_shared_address_is_refused() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let own =
        |more: &str| format!("{TOP}[[pool]]\nprefix = \"203.0.113.0/29\"\nsharing = \"exclusive\"\n{more}");
    let mut at = Reloading::start(2, &own(""));
    let (first, second) = (at.host(0), at.host(1));
    let leased = at.speaks_as(first);
    at.takes(&own(&format!("[[eam]]\nipv4 = \"{leased}\"\nipv6 = \"{second}\"\n")));
    assert_eq!(at.speaks_as(second), leased);
    assert_ne!(at.speaks_as(first), leased);
    at.router.end();

    let shared = |more: &str| format!("{TOP}{}{more}", pool("203.0.113.0/29"));
    let mut at = Reloading::start(2, &shared(""));
    let address = at.speaks_as(at.host(0));
    let eam = format!("[[eam]]\nipv4 = \"{address}\"\nipv6 = \"{}\"\n", at.host(1));
    assert_eq!(at.reload(&shared(&eam)), "refused");
    assert!(at.readiness().1.contains("it is shared"), "{}", at.readiness().1);
    assert_eq!(at.speaks_as(at.host(0)), address);
    at.router.end();
}

#[test]
fn the_masquerade_table_follows_the_pools() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let hidden =
        |prefix: &str, masquerade: bool| format!("{TOP}{}masquerade = {masquerade}\n{SHORT}", pool(prefix));
    let tables = |at: &Reloading| at.lab.marks().iter().filter(|mark| mark.starts_with("table ")).count();
    let mut at = Reloading::start(1, &hidden("10.9.0.0/24", true));
    let uplink = at.speaks_as(at.host(0)).to_string();
    assert_eq!((uplink.as_str(), tables(&at)), ("198.51.100.1", 1));
    at.takes(&hidden("203.0.113.0/24", false));
    assert!(at.speaks_as(at.host(0)).to_string().starts_with("203.0.113."));
    at.router.wait_for_log("pool drained: nobody has anything of it any more", |_| true);
    eventually("nothing is masqueraded any more", PATIENCE, || (tables(&at) == 0).then_some(()));
    at.takes(&hidden("203.0.113.0/24", true));
    assert_eq!((at.speaks_as(at.host(0)).to_string().as_str(), tables(&at)), ("198.51.100.1", 1));
    at.router.end();
}
