//! A disk that is full, and one that is slow.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use protomask::records::{RecordsConfig, SinkFull, WhenFull};

use crate::common::PATIENCE;
use crate::common::files::Files;
use crate::support::{give, given, lines, sequences, settle, start, to_file, wait_until};

#[test]
fn a_full_disk_makes_allocations_wait_and_loses_nothing() {
    let files = Files::new();
    let path = files.path().join("records.jsonl");
    symlink("/dev/full", &path).unwrap();
    let (recorder, guard) = start(&RecordsConfig { queue: 100, ..to_file(&path) });
    wait_until("the failure is seen", || recorder.counts().failing);
    give(&recorder, 0..99);
    assert_eq!(recorder.record(given(99)), Err(SinkFull));
    let counts = recorder.counts();
    assert_eq!((counts.written, counts.waiting, counts.lost), (0, 100, 0));
    // There is room again: another disk.
    let other = files.path().join("other.jsonl");
    fs::write(&other, "").unwrap();
    fs::remove_file(&path).unwrap();
    symlink(&other, &path).unwrap();
    give(&recorder, 99..200);
    settle(&recorder);
    wait_until("the failure is over", || !recorder.counts().failing);
    assert_eq!(guard.finish(PATIENCE), 0);
    assert_eq!(sequences(&lines(&other)), (1..=202).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_costs_records_where_allocations_go_on() {
    let files = Files::new();
    let path = files.path().join("records.jsonl");
    symlink("/dev/full", &path).unwrap();
    let (recorder, guard) = start(&RecordsConfig { queue: 100, when_full: WhenFull::GoOn, ..to_file(&path) });
    give(&recorder, 0..150);
    assert_eq!(recorder.counts().lost, 51);
    assert_eq!(guard.finish(Duration::from_millis(100)), 101, "no room for them to the end");
}

/// A file system of so many KiB, which is there for this thread and its children alone.
fn small_disk(at: &std::path::Path, kib: u32) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    fs::create_dir_all(at).unwrap();
    let mount = |arguments: &[&str]| {
        let done = Command::new("mount").args(arguments).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    mount(&["--make-rprivate", "/"]);
    mount(&["-t", "tmpfs", "-o", &format!("size={kib}k"), "protomask-test", at.to_str().unwrap()]);
}

#[test]
fn lines_that_a_full_disk_has_torn_are_completed_when_there_is_room() {
    if !netlab::kernel_tests_possible() {
        return;
    }
    let files = Files::new();
    let disk = files.path().join("disk");
    // The writer's thread is begun by this one, and sees the same file systems.
    small_disk(&disk, 64);
    let path = disk.join("records.jsonl");
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![0; 32 << 10]).unwrap();
    let (recorder, guard) = start(&RecordsConfig { queue: 2000, ..to_file(&path) });
    give(&recorder, 0..150);
    wait_until("the disk is full", || recorder.counts().failing);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.ends_with('\n'), "a page ends within a line: this test is about such a line");
    fs::remove_file(&ballast).unwrap();
    settle(&recorder);
    assert_eq!(sequences(&lines(&path)), (1..=151).collect::<Vec<_>>());
    // Full again, and then rotated, with the torn line in the old file.
    fs::write(&ballast, vec![0; 8 << 10]).unwrap();
    give(&recorder, 151..400);
    wait_until("the disk is full again", || recorder.counts().failing);
    let old = files.path().join("old.jsonl");
    fs::copy(&path, &old).unwrap();
    fs::remove_file(&path).unwrap();
    fs::remove_file(&ballast).unwrap();
    settle(&recorder);
    let old = fs::read_to_string(&old).unwrap();
    let (whole, torn) = old.rsplit_once('\n').unwrap();
    assert!(!torn.is_empty());
    let mut all: Vec<_> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    all.extend(lines(&path));
    assert_eq!(sequences(&all), (1..=400).collect::<Vec<_>>());
    // Cut to nothing within a torn line: what is there then begins with that line, whole.
    let cut = || fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    cut();
    fs::write(&ballast, vec![0; 40 << 10]).unwrap();
    give(&recorder, 399..600);
    wait_until("the disk is full for the third time", || recorder.counts().failing);
    let text = fs::read_to_string(&path).unwrap();
    let whole = text.lines().filter(|line| line.ends_with('}')).count() as u64;
    assert!(!text.ends_with('\n'), "the disk is full within a line");
    cut();
    settle(&recorder);
    assert_eq!(sequences(&lines(&path)), (401 + whole..=601).collect::<Vec<_>>());
    assert_eq!(guard.finish(PATIENCE), 0);
}

#[test]
fn a_slow_reader_slows_allocations_down_and_gets_every_record() {
    let files = Files::new();
    let path = files.path().join("pipe");
    mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
    let (recorder, guard) = start(&RecordsConfig { queue: 64, ..to_file(&path) });
    let pipe = path.clone();
    let reader = std::thread::spawn(move || {
        let mut read = Vec::new();
        for line in BufReader::with_capacity(512, fs::File::open(pipe).unwrap()).lines() {
            let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            read.push(line["sequence"].as_u64().unwrap());
            if line["event"] == "recording_ended" {
                break;
            }
            std::thread::park_timeout(Duration::from_micros(200));
        }
        read
    });
    give(&recorder, 0..3000);
    assert_eq!(guard.finish(PATIENCE), 0);
    assert_eq!(reader.join().unwrap(), (1..=3002).collect::<Vec<_>>());
    let counts = recorder.counts();
    assert!(counts.refused > 0, "the reader was slower than the queue is long");
    assert_eq!((counts.lost, counts.sink_errors), (0, 0));
}
