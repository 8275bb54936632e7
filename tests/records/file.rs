//! A file: appended to, and followed through every way of rotating it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fast_nat::Timestamp;
use protomask::records::Stamp;

use crate::common::PATIENCE;
use crate::common::files::Files;
use crate::support::{give, given, lines, sequences, settle, start, to_file, wait_until};

#[test]
fn each_record_is_a_line_that_only_owner_and_group_may_read() {
    let files = Files::new();
    let path = files.path().join("records.jsonl");
    let before = Stamp::now();
    let (recorder, guard) = start(&to_file(&path));
    recorder.record(given(5)).unwrap();
    assert_eq!(guard.finish(PATIENCE), 0);
    let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
    assert_eq!(mode & !0o640, 0, "{mode:o}");
    assert_eq!(mode & 0o600, 0o600, "{mode:o}");
    let lines = lines(&path);
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["recording_started", "block_given", "recording_ended"]);
    let line = &lines[1];
    assert_eq!(line["host"], "2001:db8::5");
    assert_eq!(line["subscriber"], "2001:db8::/64");
    assert_eq!(line["address"], "203.0.113.1");
    assert_eq!((line["first_port"].as_u64(), line["last_port"].as_u64()), (Some(1024), Some(1151)));
    assert_eq!(line["router"], "test/nat64");
    assert_eq!(line["instance"], recorder.instance());
    let time: Stamp = line["time"].as_str().unwrap().parse().unwrap();
    // The moment is of another clock, and both are cut to milliseconds: it may seem to lie a bit before.
    let [earlier, boot] = [0, 1000].map(Timestamp::from_millis);
    let earliest = Stamp::of(earlier, before, boot);
    assert!(earliest <= time && time <= Stamp::now(), "{before} {time}");
}

#[test]
fn another_run_appends_and_has_a_name_and_numbers_of_its_own() {
    let files = Files::new();
    let path = files.path().join("records.jsonl");
    for _ in 0..2 {
        let (recorder, guard) = start(&to_file(&path));
        give(&recorder, 0..3);
        drop(guard);
    }
    let lines = lines(&path);
    assert_eq!(sequences(&lines), [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]);
    assert_eq!(lines[0]["instance"], lines[4]["instance"]);
    assert_ne!(lines[0]["instance"], lines[5]["instance"]);
}

#[test]
fn a_file_that_cannot_be_written_is_told_at_the_start() {
    let files = Files::new();
    let path = files.path().join("no such directory/records.jsonl");
    let error = protomask::records::start(&to_file(&path), &slog::Logger::root(slog::Discard, slog::o!()));
    let error = protomask::error::chain(&error.unwrap_err());
    assert!(error.contains("records.jsonl") && error.contains("No such file or directory"), "{error}");
}

#[test]
fn a_renamed_file_is_left_and_a_new_one_begun_without_a_signal() {
    let files = Files::new();
    let path = files.path().join("records.jsonl");
    let (recorder, guard) = start(&to_file(&path));
    give(&recorder, 0..10);
    settle(&recorder);
    fs::rename(&path, files.path().join("records.jsonl.1")).unwrap();
    give(&recorder, 10..20);
    settle(&recorder);
    // With a new file put in its place, as `create` of logrotate does.
    fs::rename(&path, files.path().join("records.jsonl.0")).unwrap();
    fs::write(&path, "").unwrap();
    give(&recorder, 20..30);
    assert_eq!(guard.finish(PATIENCE), 0);
    let parts = ["records.jsonl.1", "records.jsonl.0", "records.jsonl"].map(|name| files.path().join(name));
    let [first, second, third] = parts.map(|path| sequences(&lines(&path)));
    assert_eq!(first, (1..=11).collect::<Vec<_>>());
    assert_eq!(second, (12..=21).collect::<Vec<_>>());
    assert_eq!(third, (22..=32).collect::<Vec<_>>());
}

#[test]
fn a_router_that_is_told_lets_go_of_a_renamed_file_at_once() {
    let files = Files::new();
    let path = files.path().join("records.jsonl");
    let (recorder, guard) = start(&to_file(&path));
    give(&recorder, 0..3);
    settle(&recorder);
    fs::rename(&path, files.path().join("records.jsonl.1")).unwrap();
    assert!(!path.exists());
    recorder.reopen();
    wait_until("there is a new file though nothing was written", || path.exists());
    assert_eq!(guard.finish(PATIENCE), 0);
    assert_eq!(sequences(&lines(&path)), [5], "the last line of the instance");
}

#[test]
fn a_file_that_is_copied_and_cut_is_written_on_from_its_beginning() {
    let files = Files::new();
    let path = files.path().join("records.jsonl");
    let (recorder, guard) = start(&to_file(&path));
    give(&recorder, 0..10);
    settle(&recorder);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(0).unwrap();
    give(&recorder, 10..12);
    assert_eq!(guard.finish(PATIENCE), 0);
    assert_eq!(sequences(&lines(&path)), [12, 13, 14]);
}

#[test]
fn nothing_is_lost_or_written_twice_while_a_busy_file_is_rotated() {
    let files = Files::new();
    let path = files.path().join("records.jsonl");
    let (recorder, guard) = start(&to_file(&path));
    let done = AtomicBool::new(false);
    let rotations = std::thread::scope(|scope| {
        let rotating = scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Acquire) && n < 10_000 {
                if fs::rename(&path, files.path().join(format!("old.{n}"))).is_ok() {
                    n += 1;
                }
                std::thread::park_timeout(std::time::Duration::from_millis(3));
            }
            n
        });
        give(&recorder, 0..60_000);
        settle(&recorder);
        done.store(true, Ordering::Release);
        rotating.join().unwrap()
    });
    assert_eq!(guard.finish(PATIENCE), 0);
    assert!(rotations > 3, "{rotations}");
    let mut all = Vec::new();
    for n in 0..rotations {
        all.extend(sequences(&lines(&files.path().join(format!("old.{n}")))));
    }
    all.extend(sequences(&lines(&path)));
    assert_eq!(all, (1..=60_002).collect::<Vec<_>>(), "over {rotations} rotations");
}

#[test]
fn a_line_that_a_killed_process_left_half_written_is_ended_first() {
    let files = Files::new();
    let path = files.path().join("records.jsonl");
    fs::write(&path, "{\"time\":\"2026-01-01T00:00:00.000Z\",\"event\":\"bloc").unwrap();
    let (recorder, guard) = start(&to_file(&path));
    give(&recorder, 0..1);
    assert_eq!(guard.finish(PATIENCE), 0);
    let text = fs::read_to_string(&path).unwrap();
    let (torn, rest) = text.split_once('\n').unwrap();
    assert!(torn.ends_with("bloc"), "{torn}");
    assert_eq!(rest.lines().count(), 3);
    assert!(rest.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{rest}");
}

#[test]
fn a_million_records_are_all_written_in_order_while_the_allocations_wait() {
    const COUNT: u32 = 1_000_000;
    let files = Files::new();
    let path = files.path().join("records.jsonl");
    let (recorder, guard) = start(&to_file(&path));
    let began = Instant::now();
    give(&recorder, 0..COUNT);
    assert_eq!(guard.finish(PATIENCE * 4), 0);
    let took = began.elapsed();
    let counts = recorder.counts();
    let mut expected = 0;
    for line in BufReader::new(fs::File::open(&path).unwrap()).lines() {
        let line = line.unwrap();
        expected += 1;
        let number = format!("\"sequence\":{expected}");
        assert!(line.contains(&format!("{number},")) || line.ends_with(&format!("{number}}}")), "{line}");
        if (2..u64::from(COUNT) + 2).contains(&expected) {
            let host = given(expected as u32 - 2).host;
            assert!(line.contains(&format!("\"host\":\"{host}\"")) && line.ends_with('}'), "{line}");
        }
    }
    assert_eq!(expected, u64::from(COUNT) + 2);
    assert_eq!((counts.written, counts.lost), (u64::from(COUNT) + 2, 0));
    let _ = writeln!(
        std::io::stderr(),
        "{COUNT} records in {took:?}, {} bytes, {} times no room",
        fs::metadata(&path).unwrap().len(),
        counts.refused
    );
}
