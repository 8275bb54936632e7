//! What a reload changes, and what it leaves.

use std::net::SocketAddr;
use std::time::Duration;

use netlab::{PingOptions, PingOutcome, Server, http_get, ping};

use crate::common::ctl::{ctl, list};
use crate::common::{Lab, PATIENCE, Router, eventually, icmp_error, pause, through};
use crate::lab::{Reloading, TOP, pool};

/// Pings the server through a prefix, by the first host.
fn ping_server(lab: &Lab, prefix: &str) -> PingOutcome {
    let target = format!("{prefix}198.51.100.2").parse::<std::net::Ipv6Addr>().unwrap();
    let source = Some(lab.clients[0].addresses[0].into());
    let options = PingOptions { timeout: Duration::from_secs(2), source, ..PingOptions::default() };
    ping(lab.client(), target, &options).unwrap()
}

#[test]
fn a_reload_adds_a_pool_a_prefix_a_denied_network_a_forward_and_a_static_pair() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let mut at = Reloading::start(3, &format!("{TOP}{}", pool("203.0.113.1/32")));
    let (first, second, third) = (at.host(0), at.host(1), at.host(2));
    assert_eq!(at.speaks_as(first).to_string(), "203.0.113.1");
    assert!(!ping_server(&at.lab, "64:ff9b:2::").is_reply());

    let text = format!(
        "translation_prefix = [\"64:ff9b:1::/96\", \"64:ff9b:2::/96\"]\ndeny_to = [\"198.51.100.3/32\"]\n\
         [[pool]]\nprefix = \"203.0.113.1/32\"\nhosts = [\"{first}/128\"]\n\
         [[pool]]\nprefix = \"203.0.113.9/32\"\nhosts = [\"{second}/128\"]\n\
         [[forward]]\nprotocol = \"tcp\"\naddress = \"203.0.113.1\"\nport = 80\nhost = \"{first}\"\nhost_port = 8080\n\
         [[static]]\naddress = \"203.0.113.77\"\nhost = \"{third}\"\n"
    );
    at.takes(&text);
    let page = Server::http(at.lab.client(), (first, 8080), "served").unwrap();
    assert_eq!(at.speaks_as(second).to_string(), "203.0.113.9");
    assert_eq!(at.speaks_as(first).to_string(), "203.0.113.1");
    assert_eq!(at.speaks_as(third).to_string(), "203.0.113.77");
    assert!(ping_server(&at.lab, "64:ff9b:2::").is_reply());
    let denied = ping(at.lab.client(), through("198.51.100.3".parse().unwrap()), &PingOptions::default());
    assert_eq!(icmp_error(&denied.unwrap()), (1, 1));
    let answer = http_get(&at.lab.server, SocketAddr::from(([203, 0, 113, 1], 80)), "/", PATIENCE).unwrap();
    assert_eq!(answer.text(), "served");
    drop(page);
    for route in ["203.0.113.9/32", "203.0.113.77/32", "64:ff9b:2::/96"] {
        assert!(at.routes().contains(&route.to_owned()), "{route}: {:?}", at.routes());
    }
    assert_eq!(at.readiness(), (200, "ready\n".to_owned()));
    let metrics = at.router.metrics();
    assert_eq!(metrics.sum("protomask_reloads_total", &["result=\"applied\""]), 1);
    assert_eq!(metrics.sum("protomask_settings_generation", &[]), 2);

    // And away with it, but for the pool of the first one.
    at.takes(&format!("{TOP}{}", pool("203.0.113.1/32")));
    eventually("the routes are gone", PATIENCE, || {
        let routes = at.routes();
        (!routes.contains(&"64:ff9b:2::/96".to_owned()) && !routes.contains(&"203.0.113.77/32".to_owned()))
            .then_some(())
    });
    assert!(!ping_server(&at.lab, "64:ff9b:2::").is_reply());
    assert_eq!(list(&ctl(&at.lab, &["list-mappings"]), "forwards").len(), 0);
    assert_eq!(at.speaks_as(third).to_string(), "203.0.113.1");
    at.router.end();
}

#[test]
fn a_bad_file_changes_nothing_and_says_why_and_the_next_one_is_taken() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let good = format!("{TOP}{}", pool("203.0.113.1/32"));
    let mut at = Reloading::start(1, &good);
    let routes = at.routes();
    let route_in_the_way = "198.51.100.0/28";
    for (bad, words) in [
        (format!("{good}colour = 1\n"), "protomask.toml:4:1: unknown key colour"),
        ("[[pool\n".to_owned(), "protomask.toml:1:"),
        (
            format!("deny_to = [\"192.0.2.0/24\"]\n{}", pool("203.0.113.1/24")),
            "the network is 203.0.113.0/24",
        ),
        (" \n".to_owned(), "is empty"),
        // What stands against the kernel's state is as wrong as what stands against itself.
        (format!("{good}{}", pool(route_in_the_way)), "198.51.100."),
    ] {
        assert_eq!(at.reload(&bad), "refused", "{bad}");
        let told = at.router.wait_for_log("reload refused; nothing was changed", |record| {
            record.field("because").contains(words)
        });
        assert_eq!(told.field("because_of"), "SIGHUP");
        let (status, text) = at.readiness();
        assert_eq!(status, 200);
        assert!(
            text.starts_with("ready\nnote: the last reload was refused: ") && text.contains(words),
            "{text}"
        );
        assert_eq!(at.routes(), routes);
        assert_eq!(ctl(&at.lab, &["status"])["settings_generation"], 1);
        assert_eq!(at.speaks_as(at.host(0)).to_string(), "203.0.113.1");
    }
    assert_eq!(at.router.metrics().sum("protomask_reloads_total", &["result=\"refused\""]), 5);
    at.takes(&format!("deny_to = [\"192.0.2.0/24\"]\n{good}"));
    assert_eq!(at.readiness(), (200, "ready\n".to_owned()));
    at.router.end();
}

#[test]
fn what_needs_a_restart_waits_is_named_and_does_not_keep_the_rest_from_holding() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let good = format!("{TOP}{}", pool("203.0.113.1/32"));
    let mut at = Reloading::start(1, &good);
    at.takes(&format!("mtu = 2000\nnum_queues = 1\ndeny_to = [\"198.51.100.2/32\"]\n{good}"));
    assert_eq!(icmp_error(&ping_server(&at.lab, "64:ff9b:1::")), (1, 1), "the denied network holds");
    let waits = at.router.wait_for_log("settings of the file wait for a restart", |_| true);
    assert_eq!(waits.field("settings"), "num_queues, mtu");
    let metrics = at.router.metrics();
    for setting in ["setting=\"mtu\"", "setting=\"num_queues\""] {
        assert_eq!(metrics.sum("protomask_reload_pending", &[setting]), 1);
    }
    let (status, text) = at.readiness();
    assert_eq!(
        (status, text.as_str()),
        (200, "ready\nnote: settings that wait for a restart: num_queues, mtu\n")
    );
    assert_eq!(ctl(&at.lab, &["status"])["pending_restart"], serde_json::json!(["num_queues", "mtu"]));
    assert_eq!(at.lab.snapshot().link_by_name("nat64").unwrap().mtu, 9216);
    // Taken back, it waits no more.
    at.takes(&good);
    assert_eq!(at.readiness(), (200, "ready\n".to_owned()));
    assert!(!at.router.metrics().names().contains(&"protomask_reload_pending"));
    assert_eq!(at.reload(&good), "unchanged");
    at.router.end();
}

#[test]
fn metrics_move_and_the_log_says_more_when_the_file_says_so() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let good = format!("{TOP}{}", pool("203.0.113.1/32"));
    let path = lab.file("protomask.toml", &format!("prometheus = \"127.0.0.1:9464\"\n{good}"));
    let mut command = lab.protomask();
    // Without the flags of other tests, which would go before the file.
    command.args(["--config", &path, "--log-format", "json"]).stderr(std::process::Stdio::piped());
    let mut process = crate::common::process::Process::spawn(command);
    let log = crate::common::log::Log::read(process.child().stderr.take().unwrap());
    let answers = |port: u16| {
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        http_get(&lab.router, at, "/readyz", Duration::from_secs(5)).is_ok_and(|answer| answer.status == 200)
    };
    eventually("it is ready", PATIENCE, || answers(9464).then_some(()));
    lab.file("protomask.toml", &format!("prometheus = \"127.0.0.1:9999\"\n{good}[log]\nlevel = \"debug\"\n"));
    process.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("metrics are served elsewhere", PATIENCE, || answers(9999).then_some(()));
    eventually("and no longer where they were", PATIENCE, || (!answers(9464)).then_some(()));
    eventually("the log says more", PATIENCE, || {
        log.records().iter().any(|record| record.field("level") == "debug").then_some(())
    });
    lab.file("protomask.toml", &format!("prometheus = \"192.0.2.55:9\"\n{good}"));
    process.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("an address that cannot be had is refused", PATIENCE, || {
        let refused = log.with_msg("reload refused; nothing was changed").pop()?;
        refused.field("because").contains("cannot listen at 192.0.2.55:9").then_some(())
    });
    assert!(answers(9999));
    lab.file("protomask.toml", &format!("prometheus = \"off\"\n{good}"));
    process.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("nothing is served", PATIENCE, || (!answers(9999)).then_some(()));
    process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(process.end(PATIENCE).unwrap().code(), Some(0));
}

#[test]
fn a_file_that_kubernetes_changes_is_taken_without_a_signal() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    // As a ConfigMap is mounted: file -> ..data/file, ..data -> a directory with a name of its own.
    let mount = lab.run_directory().join("mount");
    let version = |name: &str, text: &str| {
        let directory = mount.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("protomask.toml"), text).unwrap();
        std::os::unix::fs::symlink(name, mount.join("..data_tmp")).unwrap();
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    let good = format!("{TOP}{}", pool("203.0.113.1/32"));
    version("..1", &good);
    std::os::unix::fs::symlink("..data/protomask.toml", mount.join("protomask.toml")).unwrap();
    let mut router = Router::start(&lab, &["--config", "/run/mount/protomask.toml"]);
    assert!(ping_server(&lab, "64:ff9b:1::").is_reply());

    version("..2", &format!("deny_to = [\"198.51.100.2/32\"]\n{good}"));
    let taken = router.wait_for_log("reloaded", |_| true);
    assert_eq!(taken.field("because_of"), "the file has changed");
    assert_eq!(icmp_error(&ping_server(&lab, "64:ff9b:1::")), (1, 1));
    version("..3", "colour = 1\n");
    router.wait_for_log("reload refused; nothing was changed", |_| true);
    // It is said once, not every second.
    pause(Duration::from_secs(4));
    assert_eq!(router.log().with_msg("reload refused; nothing was changed").len(), 1);
    assert_eq!(icmp_error(&ping_server(&lab, "64:ff9b:1::")), (1, 1));
    router.end();
}

#[test]
fn what_was_added_at_run_time_outlives_a_reload_unless_the_file_leaves_no_room_for_it() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let good = format!("{TOP}{}", pool("203.0.113.1/32"));
    let mut at = Reloading::start(2, &good);
    let (host, other) = (at.host(0).to_string(), at.host(1).to_string());
    ctl(&at.lab, &["add-forward", "tcp", "203.0.113.1", "80", &host]);
    at.takes(&format!("deny_to = [\"192.0.2.0/24\"]\n{good}"));
    let forwards = |at: &Reloading| {
        let forwards = list(&ctl(&at.lab, &["list-mappings"]), "forwards");
        forwards.iter().map(|one| (one["host"].clone(), one["from"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(forwards(&at), [(host.as_str().into(), "control socket".into())]);
    let forward = format!(
        "[[forward]]\nprotocol = \"tcp\"\naddress = \"203.0.113.1\"\nport = 80\nhost = \"{other}\"\n"
    );
    at.takes(&format!("{good}{forward}"));
    at.router.wait_for_log(
        "mappings that were added at run time are gone: the file leaves no room for them",
        |record| record.field("because").contains("is forwarded already"),
    );
    assert_eq!(forwards(&at), [(other.as_str().into(), "settings".into())]);
    // One of the file that is removed at run time comes back with it.
    ctl(&at.lab, &["remove-forward", "tcp", "203.0.113.1", "80"]);
    assert_eq!(forwards(&at), []);
    at.takes(&format!("{good}{forward}"));
    assert_eq!(forwards(&at), [(other.as_str().into(), "settings".into())]);
    at.router.end();
}

#[test]
fn a_forward_that_cannot_be_placed_leaves_those_that_were_there() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let forward = |port: u16, host_port: u16| {
        format!(
            "[[forward]]\nprotocol = \"udp\"\naddress = \"203.0.113.1\"\nport = {port}\nhost = \"{}\"\nhost_port = {host_port}\n",
            netlab::Topology::CLIENT_V6
        )
    };
    let good = format!("{TOP}{}", pool("203.0.113.1/32"));
    let mut at = Reloading::start(1, &format!("{good}{}", forward(53, 5353)));
    at.speaks_as(at.host(0));
    let used = at.echo.peers().last().unwrap().port();
    // One that is new, one that cannot be, and the old one gone.
    let wanted = format!("{good}{}{}", forward(54, 5354), forward(used, 5355));
    assert_eq!(at.reload(&wanted), "refused");
    assert!(at.readiness().1.contains("cannot be placed"), "{}", at.readiness().1);
    let service = Server::udp_echo(at.lab.client(), (netlab::Topology::CLIENT_V6, 5353)).unwrap();
    let target = SocketAddr::from(([203, 0, 113, 1], 53));
    assert_eq!(netlab::udp_exchange(&at.lab.server, None, target, b"there", PATIENCE).unwrap(), b"there");
    drop(service);
    let forwards = list(&ctl(&at.lab, &["list-mappings"]), "forwards");
    assert_eq!((forwards.len(), &forwards[0]["port"]), (1, &53.into()));
    let bindings = at.router.metrics().sum("protomask_bindings", &[]);
    assert_eq!(bindings, 2, "the old forward and the host's own port; nothing is left of the new one");
    at.router.end();
}
