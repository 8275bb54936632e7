//! Records to write, and what was written.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Instant;

use protomask::clock;
use protomask::records::{
    self, Guard, Record, RecordSink, Recorder, RecordsConfig, SyslogTarget, What, WhenFull,
};
use slog::{Logger, o};

use crate::common::PATIENCE;

pub(crate) fn config(sink: RecordSink) -> RecordsConfig {
    RecordsConfig {
        sink,
        when_full: WhenFull::Wait,
        sessions: false,
        queue: records::DEFAULT_QUEUE,
        subscriber_prefix_len: 64,
        router: "test/nat64".to_owned(),
        configuration: None,
    }
}

pub(crate) fn to_file(path: &Path) -> RecordsConfig {
    config(RecordSink::File(path.to_owned()))
}

pub(crate) fn to_syslog(target: SyslogTarget) -> RecordsConfig {
    config(RecordSink::Syslog(target))
}

pub(crate) fn start(config: &RecordsConfig) -> (Recorder, Guard) {
    records::start(config, &Logger::root(slog::Discard, o!())).unwrap()
}

/// The record of a block: another host for each number.
pub(crate) fn given(n: u32) -> Record {
    Record {
        at: clock::now(),
        host: Ipv6Addr::from((0x2001_0db8_u128 << 96) | u128::from(n)),
        address: Ipv4Addr::new(203, 0, 113, 1),
        what: What::BlockGiven { first_port: 1024, last_port: 1151 },
        reason: "",
    }
}

/// Records blocks for these hosts, waiting where there is no room.
pub(crate) fn give(recorder: &Recorder, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let deadline = Instant::now() + PATIENCE;
        while recorder.record(given(n)).is_err() {
            assert!(Instant::now() < deadline, "there was no room for {PATIENCE:?}");
            std::thread::park_timeout(std::time::Duration::from_micros(200));
        }
    }
}

/// The lines of a file: each must be a JSON object.
pub(crate) fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

pub(crate) fn sequences(lines: &[serde_json::Value]) -> Vec<u64> {
    lines.iter().map(|line| line["sequence"].as_u64().unwrap()).collect()
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
}

/// Waits until all that was recorded is written.
pub(crate) fn settle(recorder: &Recorder) {
    wait_until("all is written", || recorder.counts().waiting == 0);
}
