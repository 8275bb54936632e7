//! Whom the socket serves, and for how long.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use serde_json::Value;

use crate::common::ctl::{Connection, ctl};
use crate::common::process::Finished;
use crate::common::{Lab, PLAIN, Router, SHORT, plain_and};

const PROTOMASK: &str = env!("CARGO_BIN_EXE_protomask");

#[test]
fn requests_on_one_connection_are_answered_in_order_and_bad_ones_do_not_end_it() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &PLAIN);
    let mut connection = Connection::open(&lab);
    connection
        .send("{\"id\": 1, \"command\": \"status\"}\n\n{\"id\": \"two\", \"command\": \"fly\"}\nwhat?\n");
    let answers = [(); 3].map(|()| connection.next().unwrap());
    assert!(answers.iter().all(|answer| answer["version"] == 1));
    assert_eq!((&answers[0]["id"], &answers[0]["ok"]["ready"]), (&1.into(), &true.into()));
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["kind"]), (&"two".into(), &"bad_request".into()));
    assert_eq!((&answers[2]["id"], &answers[2]["error"]["kind"]), (&Value::Null, &"bad_request".into()));
    // Too long, and then one that is right.
    let long = connection.ask(&"x".repeat(100_000));
    assert!(long["error"]["message"].as_str().unwrap().contains("at most 65536 bytes"), "{long}");
    assert_eq!(connection.ask("{\"id\": 3, \"command\": \"list-actors\"}")["id"], 3);
    router.end();
}

#[test]
fn there_are_so_many_seats_and_a_client_that_goes_gives_its_own_to_the_next() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &PLAIN);
    let mut seated: Vec<_> = (0..16).map(|_| Connection::open(&lab)).collect();
    for connection in &mut seated {
        assert_eq!(connection.ask("{\"command\": \"status\"}")["ok"]["ready"], true);
    }
    let mut waiting = Connection::open(&lab);
    waiting.send("{\"command\": \"status\"}\n");
    assert!(waiting.is_silent(SHORT), "a seventeenth was served");
    drop(seated.pop());
    assert_eq!(waiting.next().unwrap()["ok"]["ready"], true);
    router.end();
}

#[test]
fn only_root_and_the_routers_own_user_may_ask() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    // Below /tmp, where another user can get to at all.
    let directory = std::env::temp_dir().join(format!("protomask-ctl-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let everybody = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    everybody(&directory, 0o755);
    let socket = directory.join("c.sock");
    let program = directory.join("protomask");
    std::fs::copy(PROTOMASK, &program).unwrap();
    everybody(&program, 0o755);
    let path = socket.to_str().unwrap().to_owned();
    let router = Router::start(&lab, &[&PLAIN[..], &["--control-socket", &path]].concat());
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let ask_as = |user: u32| {
        let mut command = Command::new(&program);
        command.args(["ctl", "--socket", &path, "status"]).uid(user).gid(user);
        Finished::wait_for(command)
    };
    assert_eq!(ask_as(0).code, Some(0));
    let kept_out = ask_as(65_534);
    assert!(kept_out.code == Some(1) && kept_out.stderr.contains("try as root"), "{kept_out:?}");
    // Even if somebody opens the file.
    everybody(&socket, 0o666);
    let refused = ask_as(65_534);
    assert!(refused.code == Some(1) && refused.stderr.contains("user 65534 may not control"), "{refused:?}");
    router.end();
    assert!(!socket.exists(), "a clean end removes it");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_socket_of_a_killed_router_is_taken_over_and_that_of_a_living_one_is_not() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &PLAIN);
    assert_eq!(ctl(&lab, &["status"])["ready"], true);
    router.kill();
    assert!(lab.run_directory().join("protomask/nat64.sock").exists());
    let router = Router::start(&lab, &PLAIN);
    assert_eq!(ctl(&lab, &["status"])["ready"], true);

    let socket = "/run/protomask/nat64.sock";
    let second = plain_and(&["--interface", "other", "--control-socket", socket, "--prometheus", "off"]);
    let refused = lab.run_to_end(&[&second[..2], &["--pool-prefix", "192.0.2.0/28"], &second[6..]].concat());
    assert_eq!(refused.code, Some(6), "its prefix is in use: {}", refused.stderr);
    let second = ["--translation-prefix", "64:ff9b:7::/96", "--pool-prefix", "192.0.2.0/28"];
    let refused = lab.run_to_end(
        &[&second, &["-i", "other", "--control-socket", socket, "--prometheus", "off"][..]].concat(),
    );
    assert!(refused.code == Some(1) && refused.stderr.contains("another router answers"), "{refused:?}");
    assert_eq!(ctl(&lab, &["status"])["ready"], true, "the first one's still");
    router.end();
}

#[test]
fn without_control_there_is_no_socket_and_the_command_says_so() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = Lab::new();
    let router = Router::start(&lab, &plain_and(&["--no-control"]));
    let ended = lab.run_to_end(&["ctl", "status"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("no router answers at /run/protomask/nat64.sock"));
    router.end();
}
