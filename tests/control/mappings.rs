//! Mappings that are added and removed while the router runs.

use std::net::SocketAddr;

use netlab::{PingOptions, Server, Topology, http_get, ping};

use crate::common::ctl::{ctl, list, try_ctl};
use crate::common::{Lab, PATIENCE, Router, SHORT, eventually, through};

const CLIENT: &str = "2001:db8:1::2";
const SHARED: &str = "translation_prefix = \"64:ff9b:1::/96\"\n[[pool]]\nprefix = \"203.0.113.0/28\"\n\
                      [[forward]]\nprotocol = \"tcp\"\naddress = \"203.0.113.1\"\nport = 8000\n";

/// A laboratory, its router, and a page that one of the hosts serves at port 8080.
fn start() -> (Lab, Router, Server) {
    let lab = Lab::new();
    let config = format!("{SHARED}host = \"{}\"\nhost_port = 8080\n", Topology::CLIENT_V6);
    let router = Router::start(&lab, &["--config", &lab.file("shared.toml", &config)]);
    let page = Server::http(lab.client(), (Topology::CLIENT_V6, 8080), "served").unwrap();
    (lab, router, page)
}

fn is_served(lab: &Lab, at: &str) -> bool {
    let at: SocketAddr = at.parse().unwrap();
    http_get(&lab.server, at, "/", SHORT * 4).is_ok_and(|answer| answer.text() == "served")
}

fn drop_sessions(lab: &Lab) {
    for session in list(&ctl(lab, &["list-sessions"]), "sessions") {
        // One may have ended by itself meanwhile.
        let _ = try_ctl(lab, &["drop-session", session["session"].as_str().unwrap()]);
    }
}

#[test]
fn a_forward_that_is_added_leads_to_its_host_and_one_that_is_removed_does_not() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router, _page) = start();
    let host = Topology::CLIENT_V6.to_string();
    assert!(is_served(&lab, "203.0.113.1:8000") && !is_served(&lab, "203.0.113.1:80"));
    // What the host sends from that port has one source, which is taken: that is said as for a file.
    let error = try_ctl(&lab, &["add-forward", "tcp", "203.0.113.1", "80", &host, "--host-port", "8080"]);
    assert!(error.as_ref().is_err_and(|error| error.contains("is at another port already")), "{error:?}");

    let removed = ctl(&lab, &["remove-forward", "tcp", "203.0.113.1", "8000"]);
    assert!(removed["note"].as_str().unwrap().contains("comes back"), "{removed}");
    // As long as a connection lasts, the port is one that the host uses.
    drop_sessions(&lab);
    assert!(!is_served(&lab, "203.0.113.1:8000"));
    let added = ctl(&lab, &["add-forward", "tcp", "203.0.113.1", "80", &host, "--host-port", "8080"]);
    assert!(added["lasts"].as_str().unwrap().starts_with("also over a restart"), "{added}");
    assert!(is_served(&lab, "203.0.113.1:80"));
    let mappings = list(&ctl(&lab, &["list-mappings"]), "forwards");
    assert_eq!((mappings.len(), &mappings[0]["from"]), (1, &"control socket".into()), "{mappings:?}");

    for (arguments, words) in [
        (&["add-forward", "tcp", "203.0.113.1", "80", CLIENT][..], "is forwarded already"),
        (&["add-forward", "tcp", "192.0.2.1", "80", CLIENT], "is in none of the pools"),
        (&["add-forward", "tcp", "203.0.113.1", "0", CLIENT], "0 is no port"),
        (&["add-forward", "udp", "203.0.113.1", "53", "fe80::1"], "cannot be the address of a host"),
        (
            &["add-forward", "udp", "203.0.113.1", "53", CLIENT, "--prefix", "64:ff9b:9::/96"],
            "none of the translation prefixes",
        ),
        (&["remove-forward", "udp", "203.0.113.1", "80"], "there is no forward udp 203.0.113.1 port 80"),
    ] {
        let error = try_ctl(&lab, arguments).unwrap_err();
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    assert!(is_served(&lab, "203.0.113.1:80"), "what is refused changes nothing");
    assert_eq!(ctl(&lab, &["status"])["settings_generation"], 3);
    ctl(&lab, &["remove-forward", "tcp", "203.0.113.1", "80"]);
    drop_sessions(&lab);
    assert!(!is_served(&lab, "203.0.113.1:80"));
    router.end();
}

#[test]
fn a_port_that_a_host_uses_cannot_be_forwarded_and_one_that_its_block_has_can() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, router, _page) = start();
    ctl(&lab, &["remove-forward", "tcp", "203.0.113.1", "8000"]);
    let echo = Server::tcp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let target = SocketAddr::from((through(Topology::SERVER_V4), 7));
    let _flow = netlab::tcp_connect(lab.client(), None, target, PATIENCE).unwrap();
    let SocketAddr::V4(used) = eventually("the server has seen it", PATIENCE, || echo.peers().pop()) else {
        panic!("an IPv4 peer")
    };
    let (address, host) = (used.ip().to_string(), Topology::CLIENT_V6.to_string());
    let forward = |port: u16| {
        try_ctl(&lab, &["add-forward", "tcp", &address, &port.to_string(), &host, "--host-port", "8080"])
    };
    let error = forward(used.port()).unwrap_err();
    assert!(error.contains("cannot be placed") && error.contains("in use by"), "{error}");
    // Another port of the very block.
    let free = used.port() ^ 1;
    forward(free).unwrap();
    assert!(is_served(&lab, &format!("{address}:{free}")));
    router.end();
}

#[test]
fn a_static_pair_gives_a_host_an_address_until_it_is_removed() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let (lab, mut router, page) = start();
    drop(page);
    ctl(&lab, &["remove-forward", "tcp", "203.0.113.1", "8000"]);
    let host = Topology::CLIENT_V6.to_string();
    let reach = |address: &str| {
        let options = PingOptions { timeout: SHORT * 4, ..PingOptions::default() };
        let address: std::net::Ipv4Addr = address.parse().unwrap();
        ping(&lab.server, address, &options).unwrap().is_reply()
    };
    let echo = Server::udp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let speaks_as = || {
        let target = SocketAddr::from((through(Topology::SERVER_V4), 7));
        netlab::udp_exchange(lab.client(), None, target, b"who", PATIENCE).unwrap();
        echo.peers().last().unwrap().ip().to_string()
    };
    let shared = speaks_as();
    let error = try_ctl(&lab, &["add-static", &shared, "2001:db8:1::99"]).unwrap_err();
    assert!(error.contains("it is shared") && error.contains(&host), "{error}");
    assert_eq!(speaks_as(), shared);
    // Outside the pools: the kernel needs a route for it.
    ctl(&lab, &["add-static", "203.0.113.200", &host]);
    assert_eq!(speaks_as(), "203.0.113.200");
    let error = try_ctl(&lab, &["add-static", "203.0.113.201", &host]).unwrap_err();
    assert!(error.contains("has an address already"), "{error}");
    let error = try_ctl(&lab, &["add-static", "198.51.100.1", "2001:db8:1::99"]).unwrap_err();
    assert!(error.contains("198.51.100.1"), "the router's own address: {error}");
    let error = try_ctl(&lab, &["drop-lease", "203.0.113.200"]).unwrap_err();
    assert!(error.contains("remove-static"), "{error}");
    assert_eq!(list(&ctl(&lab, &["list-leases"]), "leases")[0]["kind"], "static");
    assert!(reach("203.0.113.200"));

    ctl(&lab, &["remove-static", "203.0.113.200"]);
    assert_ne!(speaks_as(), "203.0.113.200", "it shares an address again");
    assert!(!reach("203.0.113.200"));
    eventually("the route is gone", PATIENCE, || {
        let routes = lab.snapshot().routes;
        (!routes.iter().any(|route| route.destination.to_string() == "203.0.113.200/32")).then_some(())
    });
    router.wait("it is ready", |router| router.get("/readyz").is_some_and(|answer| answer.status == 200));
    router.end();
}
