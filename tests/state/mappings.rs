//! Mappings that were added and removed while a router ran, at the next start.

use std::net::SocketAddr;
use std::path::PathBuf;

use netlab::{Server, Topology, http_get};
use serde_json::Value;

use crate::common::ctl::{ctl, list, try_ctl};
use crate::common::{Lab, Router, SHORT};

const FILE: &str = "translation_prefix = \"64:ff9b:1::/96\"\n[[pool]]\nprefix = \"203.0.113.0/28\"\n\
                    [[forward]]\nprotocol = \"tcp\"\naddress = \"203.0.113.1\"\nport = 8000\nhost = \"2001:db8:1::1\"\nhost_port = 8080\n";

/// Where the file of the laboratory's router is.
fn kept(lab: &Lab) -> PathBuf {
    lab.lib_directory().join("protomask/nat64/mappings")
}

fn config(lab: &Lab) -> String {
    let text = FILE.replace("2001:db8:1::1", &Topology::CLIENT_V6.to_string());
    lab.file("router.toml", &text)
}

fn is_served(lab: &Lab, at: &str) -> bool {
    let at: SocketAddr = at.parse().unwrap();
    http_get(&lab.server, at, "/", SHORT * 4).is_ok_and(|answer| answer.text() == "served")
}

/// The ports that are forwarded, and the addresses of hosts, as the router lists them.
fn listed(lab: &Lab) -> (Vec<u64>, Vec<String>) {
    let mappings = ctl(lab, &["list-mappings"]);
    let port = |forward: &Value| forward["port"].as_u64().unwrap();
    let mut ports: Vec<_> = list(&mappings, "forwards").iter().map(port).collect();
    ports.sort_unstable();
    let address = |pair: &Value| pair["address"].as_str().unwrap().to_owned();
    (ports, list(&mappings, "static").iter().map(address).collect())
}

/// As long as a connection lasts, the port is one that the host uses.
fn drop_sessions(lab: &Lab) {
    for session in list(&ctl(lab, &["list-sessions"]), "sessions") {
        // One may have ended by itself meanwhile.
        let _ = try_ctl(lab, &["drop-session", session["session"].as_str().unwrap()]);
    }
}

fn add(lab: &Lab, port: &str, host_port: &str) -> Value {
    let host = Topology::CLIENT_V6.to_string();
    ctl(lab, &["add-forward", "tcp", "203.0.113.1", port, &host, "--host-port", host_port])
}

#[test]
fn mappings_that_were_added_and_removed_hold_after_kill_9_and_come_back_with_a_reload() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let flags = ["--config", &config(&lab)];
    let router = Router::start(&lab, &flags);
    let _page = Server::http(lab.client(), (Topology::CLIENT_V6, 8080), "served").unwrap();
    assert!(!kept(&lab).exists(), "there is nothing to be kept");
    let removed = ctl(&lab, &["remove-forward", "tcp", "203.0.113.1", "8000"]);
    assert!(removed["lasts"].as_str().unwrap().starts_with("also over a restart"), "{removed}");
    add(&lab, "81", "8080");
    add(&lab, "82", "8082");
    ctl(&lab, &["remove-forward", "tcp", "203.0.113.1", "82"]);
    ctl(&lab, &["add-static", "203.0.113.200", "2001:db8:1::99"]);
    // What was answered is on the disk: it is not waited for.
    router.kill();
    let expected = (vec![81], vec!["203.0.113.200".to_owned()]);
    for _ in 0..2 {
        let mut router = Router::start(&lab, &flags);
        let record = router.wait_for_log("mappings of run time restored", |_| true);
        assert_eq!((record.field("mappings"), record.field("dropped")), ("3".into(), "0".into()));
        assert_eq!(listed(&lab), expected);
        assert!(is_served(&lab, "203.0.113.1:81") && !is_served(&lab, "203.0.113.1:8000"));
        let restored = router.metrics().sum("protomask_state_restored", &["entry=\"mapping\""]);
        assert_eq!(restored, 3);
        router.kill();
    }
    // The file, when it is read anew, says so anew.
    let mut router = Router::start(&lab, &flags);
    router.process().signal(nix::sys::signal::Signal::SIGHUP);
    router.wait_for_log("reload refused; nothing was changed", |record| {
        record.field("because").contains("at another port already")
    });
    ctl(&lab, &["remove-forward", "tcp", "203.0.113.1", "81"]);
    drop_sessions(&lab);
    router.process().signal(nix::sys::signal::Signal::SIGHUP);
    router.wait_for_log("reloaded", |_| true);
    router.kill();
    let router = Router::start(&lab, &flags);
    assert_eq!(listed(&lab), (vec![8000], vec!["203.0.113.200".to_owned()]), "also over a restart");
    assert!(is_served(&lab, "203.0.113.1:8000"));
    router.end();
}

#[test]
fn what_no_longer_fits_the_file_is_dropped_with_its_reason_and_counted_and_is_not_tried_again() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let flags = ["--config", &config(&lab)];
    let router = Router::start(&lab, &flags);
    add(&lab, "81", "8081");
    add(&lab, "82", "8082");
    router.kill();
    let host = Topology::CLIENT_V6;
    let also = format!(
        "{FILE}[[forward]]\nprotocol = \"tcp\"\naddress = \"203.0.113.1\"\nport = 81\nhost = \"{host}\"\nhost_port = 90\n"
    );
    lab.file("router.toml", &also);
    let mut router = Router::start(&lab, &flags);
    let record = router.wait_for_log("a mapping of run time no longer fits and was dropped", |_| true);
    assert!(
        record.field("mapping").contains("port 81") && record.field("because").contains("forwarded already")
    );
    assert_eq!(listed(&lab).0, [81, 82, 8000]);
    let metrics = router.metrics();
    let count = |name, reason: &[&str]| metrics.sum(name, &[&["entry=\"mapping\""], reason].concat());
    assert_eq!(count("protomask_state_restored", &[]), 1);
    assert_eq!(count("protomask_state_dropped", &["reason=\"conflict\""]), 1);
    assert!(kept(&lab).with_file_name("set-aside").join("mappings").exists(), "for a person to look at");
    router.kill();
    let router = Router::start(&lab, &flags);
    assert_eq!(router.metrics().sum("protomask_state_dropped", &["entry=\"mapping\""]), 0);
    router.end();
}

#[test]
fn a_damaged_file_of_mappings_is_set_aside_and_the_router_starts_with_those_of_the_settings() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let flags = ["--config", &config(&lab)];
    let router = Router::start(&lab, &flags);
    add(&lab, "81", "8081");
    router.kill();
    let mut bytes = std::fs::read(kept(&lab)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(kept(&lab), &bytes).unwrap();
    let mut router = Router::start(&lab, &flags);
    let message = "the mappings of run time that were found cannot be trusted and are not used; those of the settings hold";
    let record = router.wait_for_log(message, |_| true);
    assert_eq!(record.field("because"), "its checksum is wrong");
    assert_eq!(listed(&lab).0, [8000]);
    assert_eq!(std::fs::read(kept(&lab).with_file_name("set-aside").join("mappings")).unwrap(), bytes);
    assert_eq!(router.metrics().sum("protomask_state_set_aside", &[]), 1);
    add(&lab, "82", "8082");
    router.kill();
    let router = Router::start(&lab, &flags);
    assert_eq!(listed(&lab).0, [82, 8000]);
    assert_eq!(router.metrics().sum("protomask_state_set_aside", &[]), 0);
    router.end();
}

#[test]
fn an_answer_says_so_where_a_mapping_cannot_be_kept_and_the_mapping_holds_for_this_run() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let flags = ["--config", &config(&lab)];
    let router = Router::start(&lab, &[&flags[..], &["--no-state"]].concat());
    let lasts = |answer: &Value| answer["lasts"].as_str().unwrap().to_owned();
    let said = lasts(&add(&lab, "81", "8081"));
    assert!(said.starts_with("until the router ends (no state is kept); write it into"), "{said}");
    router.end();

    let router = Router::start(&lab, &flags);
    assert_eq!(listed(&lab).0, [8000]);
    // A folder is in the way of the file that takes its place.
    let in_the_way = kept(&lab).with_file_name("mappings.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let said = lasts(&add(&lab, "81", "8081"));
    assert!(
        said.starts_with("until the router ends (") && said.contains("nat64/mappings cannot be written"),
        "{said}"
    );
    assert_eq!(listed(&lab).0, [81, 8000]);
    let ready = router.get("/readyz").unwrap();
    assert!(ready.status == 200 && ready.text().contains("note: mappings of run time are not kept just now"));
    std::fs::remove_dir(&in_the_way).unwrap();
    // A clean end tries once more.
    router.end();
    let router = Router::start(&lab, &flags);
    assert_eq!(listed(&lab).0, [81, 8000]);
    let said = lasts(&add(&lab, "82", "8082"));
    assert!(said.starts_with("also over a restart"), "{said}");
    assert_eq!(router.get("/readyz").unwrap().text(), "ready\n");
    router.kill();
    let router = Router::start(&lab, &flags);
    assert_eq!(listed(&lab).0, [81, 82, 8000], "both: the whole is written each time");
    router.end();
}
