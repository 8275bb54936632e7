//! `protomask who-had`: the program, asked about files that a recorder has written and about configurations.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use protomask::clock;
use protomask::records::{Record, Recorder, RecordsConfig, Stamp, What};

use crate::common::PATIENCE;
use crate::common::files::Files;
use crate::common::process::Finished;
use crate::support::{give, given, settle, start, to_file};

const NOBODY: i32 = 1;
const USAGE: i32 = 2;

fn who_had(arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_protomask"));
    command.arg("who-had").args(arguments);
    Finished::wait_at_most(command, PATIENCE * 4)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// So long ago, by the router's own clock. The machine has been running for that long, or the answer is the start.
fn ago(seconds: u64) -> fast_nat::Timestamp {
    fast_nat::Timestamp::from_millis(clock::now().as_millis().saturating_sub(seconds * 1000))
}

/// The same moment as it is asked for: with milliseconds.
fn at(seconds: u64) -> String {
    let (utc, boot) = (Stamp::now(), clock::now());
    Stamp::of(ago(seconds), utc, boot).to_string()
}

/// Gives a block to a host for some seconds, a while ago.
fn tenure(recorder: &Recorder, host: u32, from: u64, to: u64) {
    recorder.record(Record { at: ago(from), ..given(host) }).unwrap();
    let what = What::BlockReturned { first_port: 1024, last_port: 1151, given: ago(from) };
    recorder.record(Record { at: ago(to), what, reason: "idle", ..given(host) }).unwrap();
}

fn compress(path: &Path, to: &Path) {
    let mut encoder = GzEncoder::new(fs::File::create(to).unwrap(), Compression::fast());
    encoder.write_all(&fs::read(path).unwrap()).unwrap();
    encoder.finish().unwrap();
    fs::remove_file(path).unwrap();
}

#[test]
fn records_in_plain_and_rotated_files_tell_who_it_was() {
    let files = Files::new();
    let path = files.path().join("allocations.jsonl");
    let (recorder, guard) = start(&to_file(&path));
    tenure(&recorder, 1, 50, 40);
    settle(&recorder);
    let oldest = files.path().join("allocations.jsonl.2");
    fs::rename(&path, &oldest).unwrap();
    compress(&oldest, &files.path().join("allocations.jsonl.2.gz"));
    tenure(&recorder, 2, 30, 20);
    settle(&recorder);
    fs::rename(&path, files.path().join("allocations.jsonl.1")).unwrap();
    recorder.record(Record { at: ago(10), ..given(3) }).unwrap();
    settle(&recorder);
    // Neither is a file of records.
    fs::create_dir(files.path().join("allocations.jsonl.d")).unwrap();
    files.write("allocations.jsonl2", "{\"time\":\"");
    let config = files.write("nat.toml", &format!("[records]\nfile = \"{}\"\n", text(&path)));

    let asked = |seconds: u64| {
        let finished = who_had(&["203.0.113.1:1100", "--config", &config, "--at", &at(seconds)]);
        (finished.code, finished.stdout, finished.stderr)
    };
    for (seconds, host) in [(45, "2001:db8::1"), (25, "2001:db8::2"), (5, "2001:db8::3")] {
        let (code, stdout, stderr) = asked(seconds);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.starts_with(&format!("host={host} subscriber=2001:db8::/64 from=20")), "{stdout}");
        assert_eq!((stdout.lines().count(), stderr.as_str()), (1, ""));
    }
    for seconds in [35, 15] {
        let (code, stdout, stderr) = asked(seconds);
        assert_eq!((code, stdout.as_str()), (Some(NOBODY), ""));
        assert!(stderr.contains("nobody had 203.0.113.1:1100 at 20"), "{stderr}");
    }
    let now = who_had(&["203.0.113.1:1100", "--config", &config, "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&now.stdout).unwrap();
    assert_eq!(answer["host"], "2001:db8::3");
    assert_eq!((answer["end"].as_str(), answer.get("until")), (Some("held"), None));
    assert_eq!((answer["basis"].as_str(), answer["router"].as_str()), (Some("records"), Some("test/nat64")));
    assert_eq!(answer["instance"], recorder.instance());
    assert_eq!((answer["first_port"].as_u64(), answer["last_port"].as_u64()), (Some(1024), Some(1151)));
    assert_eq!(guard.finish(PATIENCE), 0);

    // One of the files alone knows no more than is in it.
    let oldest = files.path().join("allocations.jsonl.2.gz");
    let alone = who_had(&["203.0.113.1:1100", "--at", &at(25), "--records", text(&oldest)]);
    assert_eq!(alone.code, Some(NOBODY), "{}", alone.stdout);
    let answer = who_had(&["203.0.113.1:1100", "--at", &at(45), "--json", "--records", text(&oldest)]);
    let answer: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((answer["end"].as_str(), answer["reason"].as_str()), (Some("returned"), Some("idle")));
    let (from, until): (Stamp, Stamp) = (
        answer["from"].as_str().unwrap().parse().unwrap(),
        answer["until"].as_str().unwrap().parse().unwrap(),
    );
    assert!((9500..=10_500).contains(&(until.as_millis() - from.as_millis())), "{from} {until}");
}

#[test]
fn a_damaged_or_missing_record_is_told_with_the_answer() {
    let files = Files::new();
    let path = files.path().join("allocations.jsonl");
    let (recorder, guard) = start(&to_file(&path));
    recorder.record(Record { at: ago(50), ..given(1) }).unwrap();
    give(&recorder, 100..105);
    assert_eq!(guard.finish(PATIENCE), 0);
    let whole = fs::read_to_string(&path).unwrap();
    // Other ports than those that are asked for, and one of these lines half written.
    let other =
        whole.replace("\"first_port\":1024,\"last_port\":1151", "\"first_port\":2048,\"last_port\":2175");
    let mut lines: Vec<&str> = other.lines().collect();
    lines[1] = whole.lines().nth(1).unwrap();
    lines[4] = &lines[4][..50];
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let finished = who_had(&["203.0.113.1:1100", "--at", &at(25), "--records", text(&path)]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains(" missing=1 "), "{}", finished.stdout);
    assert!(finished.stderr.contains("1 damaged lines were passed over"), "{}", finished.stderr);
    assert!(finished.stderr.contains("it may have been given back earlier"), "{}", finished.stderr);
}

#[test]
fn what_cannot_be_asked_or_read_has_another_exit_code_than_nobody() {
    let files = Files::new();
    let empty = files.write("empty.jsonl", "");
    for (arguments, code, sentence) in [
        (&["203.0.113.1:1100"][..], USAGE, "--records FILE"),
        (&["203.0.113.1"], USAGE, "ADDRESS:PORT"),
        (&["203.0.113.1:1100", "--at", "noon", "--records", &empty], USAGE, "--at"),
        (&["203.0.113.1:1100", "--records", "/no/such/file"], USAGE, "/no/such/file: No such file"),
        (&["203.0.113.1:1100", "--config", "/no/such/file"], USAGE, "/no/such/file"),
        (&["203.0.113.1:1100", "--protocol", "sctp", "--records", &empty], USAGE, "sctp"),
        (&["203.0.113.1:1100", "--records", &empty], NOBODY, "there is no record in the files"),
    ] {
        let finished = who_had(arguments);
        assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(sentence), "{arguments:?}: {}", finished.stderr);
        assert_eq!(finished.stdout, "", "{arguments:?}");
    }
}

const DETERMINISTIC: &str = "
[[pool]]
prefix = \"203.0.113.0/28\"
ports = \"1024-65535\"
reserved_ports = [\"5060\"]
[deterministic]
hosts = [\"2001:db8::/56\"]
ports_per_subscriber = 2048
";

#[test]
fn in_deterministic_mode_the_configuration_is_enough() {
    let files = Files::new();
    let config = files.write("nat.toml", DETERMINISTIC);
    // 31 subscribers on each address: 203.0.113.2 has those from number 62, and its third slot begins at 5120.
    let finished = who_had(&["203.0.113.2:6000", "--config", &config]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let expected = format!(
        "host=- subscriber=2001:db8:0:40::/64 from=- until=- address=203.0.113.2 ports=5120-7167 basis=deterministic \
         configuration={config}\n"
    );
    assert_eq!(finished.stdout, expected);
    let finished =
        who_had(&["203.0.113.2:6000", "--config", &config, "--json", "--at", "2026-01-01T00:00:00Z"]);
    let answer: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(answer["subscriber"], "2001:db8:0:40::/64");
    assert_eq!(answer["configuration"], config);
    assert_eq!(answer.get("host"), None);
    for nobodys in ["203.0.113.2:5060", "203.0.113.2:1000", "203.0.113.15:1100", "198.51.100.1:1100"] {
        let finished = who_had(&[nobodys, "--config", &config]);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(NOBODY), ""), "{nobodys}");
        assert!(finished.stderr.contains(&format!("nobody had {nobodys}")), "{}", finished.stderr);
        assert!(finished.stderr.contains(&format!("by {config}")), "{}", finished.stderr);
    }
}

#[test]
fn a_plan_that_was_not_the_one_of_that_time_gives_no_answer() {
    let files = Files::new();
    let config = files.write("nat.toml", DETERMINISTIC);
    let records = files.path().join("allocations.jsonl");
    let plan = "hosts 2001:db8::/56; a subscriber is a /64 and has 2048 ports in blocks of 128; pools \
                203.0.113.0/28:1024-65535 without 5060";
    let run = |configuration: Option<&str>| {
        let configuration = configuration.map(str::to_owned);
        let (_recorder, guard) = start(&RecordsConfig { configuration, ..to_file(&records) });
        assert_eq!(guard.finish(PATIENCE), 0);
        // The answer is about a later time than the start.
        std::thread::park_timeout(Duration::from_millis(20));
    };
    let ask = || who_had(&["203.0.113.2:6000", "--config", &config, "--records", text(&records)]);
    run(Some(plan));
    assert_eq!(ask().code, Some(0), "{}", ask().stderr);
    run(Some("hosts 2001:db8::/48; and so on"));
    let finished = ask();
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(USAGE), ""));
    assert!(finished.stderr.contains("is not what the router worked by"), "{}", finished.stderr);
    assert!(finished.stderr.contains("hosts 2001:db8::/48; and so on"), "{}", finished.stderr);
    run(None);
    assert!(ask().stderr.contains("no deterministic mode"), "{}", ask().stderr);
    run(Some(plan));
    assert_eq!(ask().code, Some(0), "{}", ask().stderr);
}

#[test]
fn ports_and_addresses_that_are_configured_for_a_host_are_that_hosts() {
    let files = Files::new();
    let config = files.write(
        "nat.toml",
        &format!(
            "[[pool]]
prefix = \"198.51.100.0/28\"
sharing = \"exclusive\"
hosts = [\"fd00::/8\"]
{DETERMINISTIC}
[[forward]]
protocol = \"tcp\"
address = \"203.0.113.2\"
port = 6000
host = \"2001:db8:1::80\"
[[static]]
address = \"203.0.113.1\"
host = \"2001:db8:1::53\"
[[eam]]
ipv4 = \"192.0.2.0/28\"
ipv6 = \"2001:db8:aaaa::/124\"
"
        ),
    );
    let who = |endpoint: &str, protocol: &str| {
        let finished = who_had(&[endpoint, "--protocol", protocol, "--json", "--config", &config]);
        let answer: serde_json::Value = serde_json::from_str(&finished.stdout).expect(&finished.stderr);
        let who = answer.get("host").unwrap_or(&answer["subscriber"]).as_str().unwrap().to_owned();
        (who, answer["basis"].as_str().unwrap().to_owned())
    };
    let pair = |who: &str, basis: &str| (who.to_owned(), basis.to_owned());
    assert_eq!(who("203.0.113.2:6000", "tcp"), pair("2001:db8:1::80", "fixed"));
    // The address of the static pair is left out of the plan: number 33 is the third slot of 203.0.113.2 now.
    assert_eq!(who("203.0.113.2:6000", "udp"), pair("2001:db8:0:21::/64", "deterministic"));
    assert_eq!(who("203.0.113.2:6000", "icmp"), pair("2001:db8:0:21::/64", "deterministic"));
    assert_eq!(who("203.0.113.2:6001", "tcp"), pair("2001:db8:0:21::/64", "deterministic"));
    assert_eq!(who("203.0.113.3:6000", "tcp"), pair("2001:db8:0:40::/64", "deterministic"));
    assert_eq!(who("203.0.113.1:6000", "udp"), pair("2001:db8:1::53", "fixed"));
    assert_eq!(who("192.0.2.5:1", "icmp"), pair("2001:db8:aaaa::5", "fixed"));
}

#[test]
fn a_file_is_read_in_less_memory_than_it_is_long() {
    const LINES: u32 = 300_000;
    let files = Files::new();
    let path = files.path().join("allocations.jsonl");
    let mut file = BufWriter::new(fs::File::create(&path).unwrap());
    // A line without an end, as long as all that follow.
    for _ in 0..60 {
        file.write_all(&vec![b'x'; 1_000_000]).unwrap();
    }
    file.write_all(b"\n").unwrap();
    for n in 1..=LINES {
        let (host, port) = (given(n).host, if n == LINES / 2 { 1024 } else { 2048 });
        writeln!(
            file,
            "{{\"time\":\"2026-01-01T00:00:00.000Z\",\"event\":\"block_given\",\"router\":\"r\",\"instance\":\"i\",\
             \"sequence\":{n},\"host\":\"{host}\",\"subscriber\":\"2001:db8::/64\",\"address\":\"203.0.113.1\",\
             \"first_port\":{port},\"last_port\":{}}}",
            port + 127
        )
        .unwrap();
    }
    drop(file);
    let length = fs::metadata(&path).unwrap().len();
    assert!(length > 120_000_000, "{length}");
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_protomask");
    command.args([
        "-c",
        "ulimit -v 50000; exec \"$0\" \"$@\"",
        program,
        "who-had",
        "203.0.113.1:1100",
        "--records",
    ]);
    command.arg(&path);
    let finished = Finished::wait_at_most(command, PATIENCE * 4);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.starts_with(&format!("host={} ", given(LINES / 2).host)), "{}", finished.stdout);
}
