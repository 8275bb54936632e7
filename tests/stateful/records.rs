//! What is written down about who had which ports, and found again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netlab::{PingOptions, Server, ping, udp_exchange};
use serde_json::Value;

use crate::common::{Lab, PATIENCE, eventually, pause, through};
use crate::lab::{POOL, SERVER, addresses, prepare, shared};

const HOSTS: u16 = 5;

/// A block that was given, or returned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    host: Ipv6Addr,
    address: Ipv4Addr,
    first: u64,
    last: u64,
}

/// The blocks of all records of this kind, and the whole records.
fn recorded(file: &str, event: &str) -> Vec<(Block, Value)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let records =
        whole.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    let of_kind = records.filter(|record: &Value| record["event"] == event);
    of_kind
        .map(|record| {
            let text = |key: &str| record[key].as_str().unwrap_or_else(|| panic!("{key} of {record}"));
            let port = |key: &str| record[key].as_u64().unwrap_or_else(|| panic!("{key} of {record}"));
            let block = Block {
                host: text("host").parse().unwrap(),
                address: text("address").parse().unwrap(),
                first: port("first_port"),
                last: port("last_port"),
            };
            (block, record)
        })
        .collect()
}

/// What `who-had` says, if it found somebody.
fn who_had(lab: &Lab, file: &str, port: u16, more: &[&str]) -> Option<String> {
    let at = format!("{POOL}:{port}");
    let finished = lab.run_to_end(&[&["who-had", &at, "--records", file], more].concat());
    match finished.code {
        Some(0) => Some(finished.stdout),
        Some(1) => None,
        other => panic!("exit code {other:?}: {}", finished.stderr),
    }
}

#[test]
fn each_block_is_recorded_once_when_given_and_once_when_returned_and_its_host_is_found() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let lab = prepare(&addresses(HOSTS));
    let file = lab.run_directory().with_file_name("allocations.jsonl");
    let file = file.to_str().unwrap();
    let config = shared(&format!(
        "[records]\nfile = \"{file}\"\n\
         [timers]\nbelow_rfc = true\nudp = \"4s\"\nicmp = \"4s\"\nport_rest = \"0s\"\ntcp_port_rest = \"0s\"\nblock_idle = \"1s\"\n"
    ));
    let router = crate::common::Router::start(&lab, &["--config", &lab.file("records.toml", &config)]);
    let echo = Server::udp_echo(&lab.server, (SERVER, 7)).unwrap();
    let hosts = &lab.clients[0].addresses;
    // Several ports and protocols of each host, all of one block.
    for port in [4000, 5000, 6000] {
        for host in hosts {
            let target = (through(SERVER), 7).into();
            udp_exchange(lab.client(), Some((*host, port).into()), target, b"hello", PATIENCE).unwrap();
            let options = PingOptions { source: Some((*host).into()), ..PingOptions::default() };
            assert!(ping(lab.client(), through(SERVER), &options).unwrap().is_reply());
        }
    }
    let given = eventually("all blocks are on record", PATIENCE, || {
        Some(recorded(file, "block_given")).filter(|given| given.len() >= hosts.len())
    });
    let mut owners: Vec<_> = given.iter().map(|(block, _)| block.host).collect();
    owners.sort_unstable();
    assert_eq!(owners, *hosts, "one block each");
    for (number, peer) in echo.peers().into_iter().enumerate() {
        let host = hosts[number % hosts.len()];
        let (block, _) = given.iter().find(|(block, _)| block.host == host).unwrap();
        assert_eq!((peer.ip(), block.address), (IpAddr::V4(POOL), POOL));
        assert!((block.first..=block.last).contains(&peer.port().into()), "{peer} of {host}: {block:?}");
        if number < hosts.len() {
            let found = who_had(&lab, file, peer.port(), &[]).expect("the block is in use");
            assert!(found.contains(&host.to_string()), "{host}: {found}");
        }
    }
    let is_given =
        |port: u16| given.iter().any(|(block, _)| (block.first..=block.last).contains(&port.into()));
    let nobodys = (1024..=u16::MAX).find(|port| !is_given(*port)).unwrap();
    assert_eq!(who_had(&lab, file, nobodys, &[]), None);

    let returned = eventually("all blocks are back", PATIENCE, || {
        pause(Duration::from_millis(100));
        Some(recorded(file, "block_returned")).filter(|returned| returned.len() >= hosts.len())
    });
    let sorted = |records: &[(Block, Value)]| {
        let mut blocks: Vec<_> = records.iter().map(|(block, _)| block.clone()).collect();
        blocks.sort_unstable_by_key(|block| block.host);
        blocks
    };
    assert_eq!(sorted(&returned), sorted(&given));
    // Nobody has them now; at the time of the first record somebody had.
    let (block, record) = &given[0];
    let port = block.first as u16;
    assert_eq!(who_had(&lab, file, port, &[]), None);
    let then = record["time"].as_str().unwrap();
    let found = who_had(&lab, file, port, &["--at", then]).expect("at that time somebody had it");
    assert!(found.contains(&block.host.to_string()), "{found}");
    router.end();
    assert_eq!(recorded(file, "block_given").len(), hosts.len());
    assert_eq!(recorded(file, "block_returned").len(), hosts.len());
}
