//! What the router tells, and what it ends.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use netlab::{PingOptions, Server, Topology, TopologyOptions, ping, tcp_connect};
use serde_json::Value;

use crate::common::ctl::{ctl, list, try_ctl};
use crate::common::{Lab, PATIENCE, Router, eventually, through};

const SHARED: &str = "translation_prefix = \"64:ff9b:1::/96\"\n[[pool]]\nprefix = \"203.0.113.1/32\"\n";
const OWN: &str = "translation_prefix = \"64:ff9b:1::/96\"\n[[pool]]\nprefix = \"203.0.113.0/28\"\n\
                   sharing = \"exclusive\"\n";

fn lab(hosts: u16) -> Lab {
    Lab::with(&TopologyOptions { addresses_per_client: hosts, ..TopologyOptions::default() })
}

fn field<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name} in {value}"))
}

#[test]
fn status_and_actors_say_how_the_router_does() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = lab(1);
    let router = Router::start(&lab, &["--config", &lab.file("shared.toml", SHARED)]);
    let status = ctl(&lab, &["status"]);
    assert_eq!((&status["ready"], &status["interface"]), (&true.into(), &"nat64".into()), "{status}");
    assert_eq!(status["settings_generation"], 1);
    assert_eq!(list(&status, "pools")[0]["pool"], "203.0.113.1/32");
    let actors = list(&ctl(&lab, &["list-actors"]), "actors");
    let names: Vec<_> = actors.iter().map(|actor| field(actor, "actor")).collect();
    assert_eq!(names, ["pool", "sessions", "tun", "routes", "metrics", "control"]);
    for actor in &actors {
        assert_eq!((&actor["generation"], &actor["state"]), (&1.into(), &"running".into()), "{actor}");
        assert_eq!(actor["last_failure"], Value::Null);
    }
    assert_eq!(router.metrics().sum("protomask_actor_up", &["concern=\"control\""]), 1);
    // For people.
    let printed = lab.run_to_end(&["ctl", "list-actors"]);
    assert!(printed.stdout.starts_with("ACTOR     STATE    GENERATION"), "{}", printed.stdout);
    router.end();
}

#[test]
fn sessions_are_listed_by_what_they_are_and_one_that_is_dropped_is_over() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = lab(2);
    let _echo = Server::tcp_echo(&lab.server, (Topology::SERVER_V4, 7)).unwrap();
    let router = Router::start(&lab, &["--config", &lab.file("shared.toml", SHARED)]);
    let [first, second] = lab.clients[0].addresses[..] else { panic!("two addresses") };
    let target = SocketAddr::from((through(Topology::SERVER_V4), 7));
    let connect = |host: Ipv6Addr| {
        let mut stream = tcp_connect(lab.client(), Some((host, 0).into()), target, PATIENCE).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream
    };
    let mut streams = [connect(first), connect(first), connect(second)];
    assert!(ping(lab.client(), through(Topology::SERVER_V4), &PingOptions::default()).unwrap().is_reply());

    let sessions = |filter: &[&str]| list(&ctl(&lab, &[&["list-sessions"], filter].concat()), "sessions");
    assert_eq!(sessions(&[]).len(), 4);
    let tcp = sessions(&["--protocol", "tcp"]);
    assert_eq!(tcp.len(), 3, "{tcp:?}");
    assert!(tcp.iter().all(|session| session["state"] == "established" && session["remote_port"] == 7));
    assert_eq!(sessions(&["--host", &first.to_string(), "--protocol", "tcp"]).len(), 2);
    assert_eq!(sessions(&["--host", "2001:db8:ffff::/48"]).len(), 0);
    assert_eq!(sessions(&["--address", "203.0.113.0/24"]).len(), 4);
    assert_eq!(sessions(&["--address", "203.0.113.2"]).len(), 0);
    assert_eq!(sessions(&["--remote", "198.51.100.0/24", "--remote-port", "7"]).len(), 3);
    assert_eq!(sessions(&["--state", "trans"]).len(), 0);
    let of_second = sessions(&["--host", &second.to_string(), "--protocol", "tcp"]).pop().unwrap();
    let by_port = sessions(&["--protocol", "tcp", "--port", &of_second["port"].to_string()]);
    assert_eq!(
        by_port.iter().map(|session| field(session, "session")).collect::<Vec<_>>(),
        [field(&of_second, "session")]
    );
    let some = ctl(&lab, &["list-sessions", "--limit", "2"]);
    assert_eq!((list(&some, "sessions").len(), &some["truncated"]), (2, &true.into()));

    let name = field(&of_second, "session");
    ctl(&lab, &["drop-session", name]);
    assert_eq!(sessions(&["--host", &second.to_string(), "--protocol", "tcp"]).len(), 0);
    let error = try_ctl(&lab, &["drop-session", name]).unwrap_err();
    assert!(error.contains("no session") && error.contains("over already"), "{error}");
    // The others go on; of the dropped one nothing comes back.
    streams[0].write_all(b"still").unwrap();
    streams[0].read_exact(&mut [0; 5]).unwrap();
    streams[2].set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    streams[2].write_all(b"lost?").unwrap();
    assert!(streams[2].read_exact(&mut [0; 5]).is_err());

    let blocks = list(&ctl(&lab, &["list-blocks"]), "blocks");
    assert_eq!(blocks.len(), 2, "{blocks:?}");
    let first_blocks = list(&ctl(&lab, &["list-blocks", "--host", &first.to_string()]), "blocks");
    assert_eq!((first_blocks.len(), &first_blocks[0]["tcp"]), (1, &2.into()), "{first_blocks:?}");
    router.end();
}

#[test]
fn a_lease_that_is_dropped_is_over_and_bad_requests_are_named() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = lab(2);
    let mut router = Router::start(&lab, &["--config", &lab.file("own.toml", OWN)]);
    for source in &lab.clients[0].addresses {
        let options = PingOptions { source: Some((*source).into()), ..PingOptions::default() };
        assert!(ping(lab.client(), through(Topology::SERVER_V4), &options).unwrap().is_reply());
    }
    let leases = || list(&ctl(&lab, &["list-leases"]), "leases");
    assert_eq!(leases().len(), 2);
    let host = lab.clients[0].addresses[1].to_string();
    let of_host = list(&ctl(&lab, &["list-leases", "--host", &host]), "leases");
    assert_eq!(of_host.len(), 1);
    let address = field(&of_host[0], "address");
    assert_eq!(ctl(&lab, &["drop-lease", address])["host"], host.as_str());
    assert_eq!(leases().len(), 1);
    router.wait_for_log("lease ended", |record| record.field("because") == "dropped");
    eventually("the pool knows", PATIENCE, || {
        (router.metrics().sum("protomask_pool_addresses", &["state=\"used\""]) == 1).then_some(())
    });
    for (arguments, words) in [
        (&["drop-lease", address][..], "nobody has a lease"),
        (&["drop-session", "x"], "list-sessions names them"),
        (&["list-leases", "--limit", "0"], "between 1 and 10000"),
        (&["list-leases", "--limit", "10001"], "between 1 and 10000"),
    ] {
        let error = try_ctl(&lab, arguments).unwrap_err();
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    router.end();
}
