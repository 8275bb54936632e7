//! Records in, lines out: through the whole log, into a sink in memory.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use slog::{Drain as _, crit, debug, info, trace, warn};

use super::*;

/// Keeps what was written.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    fn json(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

struct Running {
    log: Logger,
    guard: LogGuard,
    page: Page,
    dropped: Arc<AtomicU64>,
}

impl Running {
    fn start(format: LogFormat, level: LogLevel, limits: Limits) -> Self {
        let (page, dropped) = (Page::default(), Arc::new(AtomicU64::new(0)));
        let sink = Sink { out: Box::new(page.clone()), colours: false };
        let (log, guard) = start_with(format, level, Arc::clone(&dropped), QUEUE, limits, sink).unwrap();
        Self { log, guard, page, dropped }
    }

    fn json(level: LogLevel) -> Self {
        Self::start(LogFormat::Json, level, Limits::default())
    }

    fn end(self) -> Page {
        drop(self.guard);
        self.page
    }
}

#[test]
fn a_json_line_parses_and_carries_stamp_level_message_and_fields() {
    let running = Running::json(LogLevel::Info);
    let log = running.log.new(o!("concern" => "pool", "generation" => 3_u64));
    warn!(log, "lease refused"; "host" => %"2001:db8::1", "because" => "a \"quoted\"\nword");
    let page = running.end();
    let [line] = page.json().try_into().expect("one line");
    assert_eq!(line["level"], "warning");
    assert_eq!(line["msg"], "lease refused");
    assert_eq!((&line["concern"], &line["generation"]), (&"pool".into(), &3.into()));
    assert_eq!((&line["host"], &line["because"]), (&"2001:db8::1".into(), &"a \"quoted\"\nword".into()));
    let stamp = line["ts"].as_str().unwrap();
    assert!(humantime::parse_rfc3339(stamp).is_ok(), "{stamp}");
    assert_eq!(stamp.len(), "2024-01-01T00:00:00.000000Z".len(), "microseconds, UTC: {stamp}");
    assert!(page.text().starts_with("{\"ts\":"), "the stamp comes first: {}", page.text());
}

#[test]
fn a_terminal_line_names_time_level_message_and_fields_and_a_value_cannot_break_it() {
    let running = Running::start(LogFormat::Terminal, LogLevel::Info, Limits::default());
    info!(running.log.new(o!("concern" => "tun")), "started"; "workers" => 2, "name" => "a\n\x1b[31mb");
    let text = running.end().text();
    assert_eq!(text.lines().count(), 1, "{text}");
    let (stamp, rest) = text.trim_end().split_once(' ').unwrap();
    assert!(humantime::parse_rfc3339(stamp).is_ok(), "{stamp}");
    assert_eq!(rest, r"INFO started, concern: tun, workers: 2, name: a\n\x1b[31mb");
}

#[test]
fn colours_frame_the_parts_of_a_terminal_line_and_are_reset_at_its_end() {
    let page = Page::default();
    let drain = slog_term::FullFormat::new(line::LineDecorator::new(Sink {
        out: Box::new(page.clone()),
        colours: true,
    }))
    .use_custom_timestamp(|out: &mut dyn Write| write!(out, "now"))
    .build();
    drain
        .log(&slog::record!(Level::Error, "", &format_args!("no"), slog::b!("key" => "value")), &o!().into())
        .unwrap();
    let text = page.text();
    assert!(text.contains("\x1b[0;1;31mERRO"), "{text:?}");
    assert!(text.ends_with("value\x1b[0m\n"), "{text:?}");
}

#[test]
fn the_level_filters_and_can_be_changed_while_the_log_runs() {
    let running = Running::json(LogLevel::Info);
    debug!(running.log, "debug before");
    trace!(running.log, "trace before");
    info!(running.log, "info before");
    running.guard.control().set_level(LogLevel::Trace);
    debug!(running.log, "debug after");
    trace!(running.log, "trace after");
    running.guard.control().set_level(LogLevel::Error);
    warn!(running.log, "warning after");
    let seen: Vec<_> =
        running.end().json().iter().map(|line| line["msg"].as_str().unwrap().to_owned()).collect();
    assert_eq!(seen, ["info before", "debug after", "trace after"]);
}

#[test]
fn verbosity_goes_one_step_per_v_and_ends_at_trace() {
    assert_eq!(LogLevel::default(), LogLevel::Info);
    let steps: Vec<_> = (0..=3).map(|steps| LogLevel::Info.more_verbose(steps)).collect();
    assert_eq!(steps, [LogLevel::Info, LogLevel::Debug, LogLevel::Trace, LogLevel::Trace]);
}

#[test]
fn a_burst_of_equal_messages_is_limited_and_the_rest_is_told_at_the_end() {
    let running = Running::json(LogLevel::Info);
    let log = running.log.new(o!("concern" => "pool"));
    for host in 0..500 {
        info!(log, "lease granted"; "host" => host);
    }
    for _ in 0..50 {
        crit!(log, "the end");
    }
    let lines = running.end().json();
    let of = |text: &str| lines.iter().filter(|line| line["msg"] == text).count();
    assert_eq!(of("lease granted"), 10);
    assert_eq!(of("the end"), 50, "critical records are never limited");
    let told: Vec<_> = lines.iter().filter(|line| line["msg"] == "lease granted (repeated)").collect();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["suppressed"], &told[0]["concern"]), (&490.into(), &"pool".into()));
    assert_eq!((&told[0]["level"], &told[0]["within"]), (&"info".into(), &"10s".into()));
}

#[test]
fn the_suppressed_number_is_told_when_the_interval_is_over_though_nothing_follows() {
    let limits = Limits { interval: Duration::from_millis(50), ..Limits::default() };
    let running = Running::start(LogFormat::Json, LogLevel::Info, limits);
    for _ in 0..30 {
        warn!(running.log, "again");
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !running.page.text().contains("\"suppressed\":20") {
        assert!(std::time::Instant::now() < deadline, "{}", running.page.text());
        std::thread::yield_now();
    }
}

#[test]
fn equal_texts_from_two_places_are_two_kinds() {
    let running = Running::json(LogLevel::Info);
    for _ in 0..20 {
        info!(running.log, "started");
        info!(running.log, "started");
    }
    let lines = running.end().json();
    assert_eq!(lines.iter().filter(|line| line["msg"] == "started").count(), 20);
}

/// Takes nothing until it is told to.
struct Stuck {
    page: Page,
    entered: SyncSender<()>,
    gate: Receiver<()>,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.entered.try_send(());
        let _ = self.gate.recv();
        self.page.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log with room for eight records, whose writer is stuck at the first one until `open` is dropped.
struct StuckLog {
    log: Logger,
    guard: LogGuard,
    page: Page,
    dropped: Arc<AtomicU64>,
    open: SyncSender<()>,
}

impl StuckLog {
    /// `dropped`: so many records were lost before.
    fn new(dropped: u64) -> Self {
        let (page, dropped) = (Page::default(), Arc::new(AtomicU64::new(dropped)));
        let ((entered, has_entered), (open, gate)) = (sync_channel(1), sync_channel(1));
        let sink = Sink { out: Box::new(Stuck { page: page.clone(), entered, gate }), colours: false };
        let counter = Arc::clone(&dropped);
        let (log, guard) =
            start_with(LogFormat::Json, LogLevel::Info, counter, 8, Limits::default(), sink).unwrap();
        info!(log, "the first");
        has_entered.recv().unwrap();
        Self { log, guard, page, dropped, open }
    }
}

#[test]
fn what_finds_the_queue_full_is_dropped_at_once_counted_and_reported_when_there_is_room() {
    let StuckLog { log, guard, page, dropped, open } = StuckLog::new(5);
    for number in 0..20 {
        info!(log, "more"; "number" => number);
    }
    assert_eq!(dropped.load(Ordering::Relaxed) - 5, 12, "8 of 20 fit");
    assert!(!guard.control().flush(Duration::from_millis(20)), "a stuck log must not hold anyone up");
    drop(open);
    drop(guard);
    let lines = page.json();
    assert_eq!(lines.iter().filter(|line| line["msg"] == "more").count(), 8);
    let reports: u64 = lines.iter().filter_map(|line| line["dropped"].as_u64()).sum();
    assert_eq!(reports, 12);
    info!(log, "after the end");
    assert_eq!(dropped.load(Ordering::Relaxed) - 5, 13, "nobody writes any more: that is counted too");
}

#[test]
fn the_last_words_wait_for_room_in_a_full_queue_and_come_behind_what_waits() {
    let StuckLog { log, guard, page, dropped, open } = StuckLog::new(0);
    for number in 0..9 {
        info!(log, "more"; "number" => number);
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 1, "it is full");
    let speaking = std::thread::spawn({
        let log = log.clone();
        move || crit!(log, "gave up")
    });
    // Until it is at it, or longer than that takes.
    std::thread::park_timeout(Duration::from_millis(100));
    drop(open);
    speaking.join().unwrap();
    let lines = page.json();
    let said: Vec<_> = lines.iter().filter(|line| line["msg"] != "more").map(|line| &line["msg"]).collect();
    assert_eq!(said.last(), Some(&&"gave up".into()), "{said:?}");
    drop(guard);
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn records_that_stderr_does_not_take_are_counted_and_the_log_lives_on() {
    let dropped = Arc::new(AtomicU64::new(0));
    let sink = Sink { out: Box::new(Broken), colours: false };
    let counter = Arc::clone(&dropped);
    let (log, guard) =
        start_with(LogFormat::Terminal, LogLevel::Info, counter, QUEUE, Limits::default(), sink).unwrap();
    for _ in 0..3 {
        info!(log, "into the void");
    }
    assert!(guard.control().flush(Duration::from_secs(5)));
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}

#[test]
fn a_flush_returns_when_all_before_it_is_written_and_a_critical_record_flushes_by_itself() {
    let running = Running::json(LogLevel::Info);
    for _ in 0..10 {
        info!(running.log, "one of many");
    }
    assert!(running.guard.control().flush(Duration::from_secs(5)));
    assert_eq!(running.page.json().len(), 10);
    crit!(running.log, "cannot go on");
    assert_eq!(running.page.json().last().unwrap()["msg"], "cannot go on");
    assert_eq!(running.dropped.load(Ordering::Relaxed), 0);
}

/// One test for what belongs to the whole process: tests run side by side.
#[test]
fn records_of_the_log_crate_and_panics_arrive_and_capturing_twice_is_no_error() {
    let first = Running::json(LogLevel::Info);
    first.guard.control().capture_globals();
    // Other tests of this process may panic on purpose in the meantime.
    let unlimited = Limits { burst: u32::MAX, ..Limits::default() };
    let running = Running::start(LogFormat::Json, LogLevel::Debug, unlimited);
    running.guard.control().capture_globals();
    let target = "a::library";
    log::info!(target: target, "hello from {}", "afar");
    log::debug!(target: target, "details");
    log::trace!(target: target, "too much");
    running.guard.control().set_level(LogLevel::Warning);
    log::info!(target: target, "not any more");
    let panicked =
        std::thread::Builder::new().name("unlucky".to_owned()).spawn(|| panic!("as the {}", "test wants"));
    assert!(panicked.unwrap().join().is_err());
    let _ = std::panic::take_hook();
    let lines = running.end().json();
    let mine: Vec<_> = lines.iter().filter(|line| line["target"] == target).collect();
    assert_eq!(mine.len(), 2, "{lines:?}");
    assert_eq!((&mine[0]["msg"], &mine[0]["level"]), (&"hello from afar".into(), &"info".into()));
    assert_eq!(mine[1]["msg"], "details");
    let panic =
        lines.iter().find(|line| line["msg"] == "a thread panicked" && line["thread"] == "unlucky").unwrap();
    assert_eq!((&panic["level"], &panic["reason"]), (&"error".into(), &"as the test wants".into()));
    assert!(panic["location"].as_str().unwrap().contains("tests.rs:"), "{panic}");
    assert!(!first.end().text().contains("hello"), "the last log wins");
}
