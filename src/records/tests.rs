use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use fast_nat::Timestamp;
use parking_lot::{Condvar, Mutex};

use super::*;
use crate::clock;

const PATIENCE: Duration = Duration::from_secs(20);

fn config(queue: usize, when_full: WhenFull) -> RecordsConfig {
    RecordsConfig {
        sink: RecordSink::File("/nowhere".into()),
        when_full,
        sessions: false,
        queue,
        subscriber_prefix_len: 64,
        router: "test/nat64".to_owned(),
        configuration: None,
    }
}

fn silent() -> Logger {
    Logger::root(slog::Discard, o!())
}

fn record(n: u32) -> Record {
    Record {
        at: clock::now(),
        host: Ipv6Addr::from((0x2001_0db8_u128 << 96) | u128::from(n)),
        address: Ipv4Addr::new(203, 0, 113, 1),
        what: What::BlockGiven { first_port: 1024, last_port: 1151 },
        reason: "",
    }
}

fn flow() -> Flow {
    Flow {
        protocol: Protocol::Tcp,
        host_port: 40000,
        port: 1024,
        remote: Ipv4Addr::new(192, 0, 2, 1),
        remote_port: 443,
    }
}

fn session(n: u32) -> Record {
    Record { what: What::SessionStarted(flow()), ..record(n) }
}

/// What a sink of a test does next with the lines that it gets.
enum Next {
    /// Takes as many, and fails.
    Fail(usize, ErrorKind),
    /// Takes all.
    Take,
}

/// A sink that does what it is told, and takes all when it is told nothing more.
struct Told {
    orders: Receiver<Next>,
    taken: Arc<Taken>,
}

#[derive(Default)]
struct Taken {
    lines: Mutex<Vec<(u64, String, Option<Ipv6Addr>)>>,
    times: Mutex<Vec<(Stamp, Option<Stamp>)>>,
    more: Condvar,
}

impl Taken {
    /// Waits until as many lines are there.
    fn sequences(&self, count: usize) -> Vec<u64> {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock();
        while lines.len() < count {
            assert!(
                !self.more.wait_until(&mut lines, deadline).timed_out(),
                "{} of {count} lines",
                lines.len()
            );
        }
        lines.iter().map(|(sequence, ..)| *sequence).collect()
    }

    fn events(&self) -> Vec<String> {
        self.lines.lock().iter().map(|(_, event, _)| event.clone()).collect()
    }
}

impl Sink for Told {
    fn write(&mut self, lines: &[Line<'_>], done: &mut usize) -> io::Result<()> {
        let (take, result) = match self.orders.recv() {
            Ok(Next::Fail(take, kind)) => (take, Err(kind.into())),
            Ok(Next::Take) | Err(_) => (lines.len(), Ok(())),
        };
        let lines = lines.iter().take(take);
        *done = lines.len();
        self.taken.times.lock().extend(lines.clone().map(|line| (line.time, line.given)));
        let lines = lines.map(|line| (line.sequence, line.event.name().to_owned(), line.host));
        self.taken.lines.lock().extend(lines);
        self.taken.more.notify_all();
        result
    }
}

fn told() -> (Box<Told>, SyncSender<Next>, Arc<Taken>) {
    let (order, orders) = sync_channel(100);
    let taken = Arc::<Taken>::default();
    (Box::new(Told { orders, taken: Arc::clone(&taken) }), order, taken)
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The messages of a log, kept.
#[derive(Clone)]
struct Kept(Arc<std::panic::AssertUnwindSafe<Mutex<Vec<String>>>>);

impl slog::Drain for Kept {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        self.0.lock().push(record.msg().to_string());
        Ok(())
    }
}

fn keeping() -> (Logger, Kept) {
    let kept = Kept(Arc::new(std::panic::AssertUnwindSafe(Mutex::default())));
    (Logger::root(kept.clone(), o!()), kept)
}

#[test]
fn records_are_written_in_order_between_a_first_and_a_last_line() {
    let (sink, order, taken) = told();
    drop(order);
    let (recorder, guard) = start_with(&config(1000, WhenFull::Wait), sink, &silent()).unwrap();
    for n in 0..500 {
        recorder.record(record(n)).unwrap();
    }
    assert_eq!(guard.finish(PATIENCE), 0);
    assert_eq!(taken.sequences(502), (1..=502).collect::<Vec<_>>());
    let events = taken.events();
    assert_eq!((events[0].as_str(), events[501].as_str()), ("recording_started", "recording_ended"));
    assert!(events[1..501].iter().all(|event| event == "block_given"));
    let hosts: Vec<_> = taken.lines.lock().iter().filter_map(|(_, _, host)| *host).collect();
    assert_eq!(hosts, (0..500).map(|n| record(n).host).collect::<Vec<_>>());
    let counts = recorder.counts();
    assert_eq!((counts.written, counts.waiting, counts.lost, counts.refused), (502, 0, 0, 0));
    assert_eq!(recorder.record(record(0)), Err(SinkFull), "after the end");
}

#[test]
fn a_full_queue_refuses_until_the_sink_has_taken_something() {
    let (sink, order, taken) = told();
    let (recorder, guard) = start_with(&config(10, WhenFull::Wait), sink, &silent()).unwrap();
    // The first line of the instance is one of the ten.
    for n in 0..9 {
        recorder.record(record(n)).unwrap();
    }
    assert_eq!(recorder.record(record(9)), Err(SinkFull));
    assert_eq!(recorder.record(record(9)), Err(SinkFull));
    assert_eq!(recorder.counts().refused, 2);
    assert_eq!(recorder.counts().waiting, 10);
    // Records that the writer has taken out of the queue, and not written, still count.
    order.send(Next::Fail(0, ErrorKind::StorageFull)).unwrap();
    wait_until(|| recorder.counts().sink_errors == 1);
    assert_eq!(recorder.record(record(9)), Err(SinkFull));
    order.send(Next::Take).unwrap();
    order.send(Next::Take).unwrap();
    wait_until(|| recorder.record(record(9)).is_ok());
    drop(order);
    assert_eq!(guard.finish(PATIENCE), 0);
    // Nothing is missing: what was refused has used up no number.
    assert_eq!(taken.sequences(12), (1..=12).collect::<Vec<_>>());
    assert_eq!(recorder.counts().lost, 0);
}

#[test]
fn where_allocations_go_on_a_loss_is_counted_and_leaves_a_gap() {
    let (sink, order, taken) = told();
    let (recorder, guard) = start_with(&config(4, WhenFull::GoOn), sink, &silent()).unwrap();
    for n in 0..10 {
        assert_eq!(recorder.record(record(n)), Ok(()));
    }
    assert_eq!(recorder.counts().lost, 7);
    drop(order);
    taken.sequences(4);
    wait_until(|| recorder.counts().waiting == 0);
    recorder.record(record(10)).unwrap();
    assert_eq!(guard.finish(PATIENCE), 0);
    assert_eq!(taken.sequences(6), [1, 2, 3, 4, 12, 13], "5 to 11 are missing");
    assert_eq!(recorder.counts().refused, 0);
}

#[test]
fn what_a_failing_sink_did_not_take_comes_again_and_nothing_comes_twice() {
    let (sink, order, taken) = told();
    let (recorder, guard) = start_with(&config(100, WhenFull::Wait), sink, &silent()).unwrap();
    for n in 0..9 {
        recorder.record(record(n)).unwrap();
    }
    for take in [0, 3, 0, 2] {
        order.send(Next::Fail(take, ErrorKind::StorageFull)).unwrap();
    }
    wait_until(|| recorder.counts().sink_errors == 4);
    assert!(recorder.counts().failing);
    drop(order);
    assert_eq!(taken.sequences(10), (1..=10).collect::<Vec<_>>());
    wait_until(|| !recorder.counts().failing);
    assert_eq!(guard.finish(PATIENCE), 0);
    assert_eq!(taken.sequences(11), (1..=11).collect::<Vec<_>>());
}

#[test]
fn a_failure_is_logged_once_for_each_cause_and_its_end_once() {
    let (sink, order, _taken) = told();
    let (log, kept) = keeping();
    let (recorder, guard) = start_with(&config(100, WhenFull::Wait), sink, &log).unwrap();
    for kind in
        [ErrorKind::StorageFull, ErrorKind::StorageFull, ErrorKind::StorageFull, ErrorKind::PermissionDenied]
    {
        order.send(Next::Fail(0, kind)).unwrap();
    }
    wait_until(|| recorder.counts().sink_errors == 4);
    drop(order);
    assert_eq!(guard.finish(PATIENCE), 0);
    let messages = kept.0.lock().clone();
    let failed = "allocation records cannot be written; they wait, and are tried again";
    assert_eq!(messages, [failed, failed, "allocation records are written again"]);
}

#[test]
fn the_end_waits_for_a_dead_sink_no_longer_than_it_may() {
    let (sink, order, _taken) = told();
    let (recorder, guard) = start_with(&config(100, WhenFull::Wait), sink, &silent()).unwrap();
    for n in 0..5 {
        recorder.record(record(n)).unwrap();
    }
    for _ in 0..50 {
        order.send(Next::Fail(0, ErrorKind::StorageFull)).unwrap();
    }
    let began = Instant::now();
    assert_eq!(guard.finish(Duration::from_millis(400)), 7, "first and last line, and five between");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(350) && took < Duration::from_secs(5), "{took:?}");
    // A sink that does not even fail: the writer hangs in it.
    let (sink, order, _taken) = told();
    let (_recorder, guard) = start_with(&config(100, WhenFull::Wait), sink, &silent()).unwrap();
    let began = Instant::now();
    assert_eq!(guard.finish(Duration::from_millis(200)), 2);
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(order);
}

#[test]
fn the_writer_is_gone_when_its_time_is_up() {
    let (sink, order, _taken) = told();
    let (_recorder, guard) = start_with(&config(100, WhenFull::Wait), sink, &silent()).unwrap();
    let fail = || Next::Fail(0, ErrorKind::StorageFull);
    for _ in 0..50 {
        order.send(fail()).unwrap();
    }
    assert_eq!(guard.finish(Duration::from_millis(100)), 2);
    // Its sink is dropped: nobody takes orders any more.
    wait_until(|| matches!(order.try_send(fail()), Err(TrySendError::Disconnected(_))));
}

#[test]
fn a_failing_sink_is_left_alone_for_longer_each_time() {
    let (sink, order, _taken) = told();
    let (recorder, guard) = start_with(&config(100, WhenFull::Wait), sink, &silent()).unwrap();
    for _ in 0..100 {
        order.send(Next::Fail(0, ErrorKind::StorageFull)).unwrap();
    }
    let began = Instant::now();
    wait_until(|| began.elapsed() > Duration::from_millis(1500));
    // At 0, 50, 150, 350, 750 ms; the next one at 1550 ms. With 50 ms each it would be thirty.
    let tries = recorder.counts().sink_errors;
    assert!((2..=6).contains(&tries), "{tries}");
    guard.finish(Duration::from_millis(100));
}

/// A sink that keeps time: how many lines it had taken at each call of `sync`, and when.
struct Synced {
    taken: usize,
    at: Arc<Mutex<Vec<(usize, Instant)>>>,
    /// So many calls fail.
    failures: usize,
}

impl Sink for Synced {
    fn write(&mut self, lines: &[Line<'_>], done: &mut usize) -> io::Result<()> {
        self.taken += lines.len();
        *done = lines.len();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.at.lock().push((self.taken, Instant::now()));
        if self.failures > 0 {
            self.failures -= 1;
            return Err(io::Error::other("the disk does not answer"));
        }
        Ok(())
    }
}

#[test]
fn what_is_written_is_on_the_disk_a_second_later_and_at_the_end() {
    let at = Arc::default();
    let sink = Synced { taken: 0, at: Arc::clone(&at), failures: 0 };
    let began = Instant::now();
    let (recorder, guard) = start_with(&config(100, WhenFull::Wait), Box::new(sink), &silent()).unwrap();
    recorder.record(record(1)).unwrap();
    wait_until(|| !at.lock().is_empty());
    let (taken, when) = at.lock()[0];
    assert_eq!(taken, 2);
    assert!(when - began >= Duration::from_millis(950), "not for each record: {:?}", when - began);
    // Nothing was written meanwhile, so nothing is to be brought to the disk.
    wait_until(|| when.elapsed() > Duration::from_millis(1300));
    assert_eq!(at.lock().len(), 1);
    recorder.record(record(2)).unwrap();
    assert_eq!(guard.finish(PATIENCE), 0);
    let synced = at.lock().clone();
    assert_eq!((synced.len(), synced.last().unwrap().0), (2, 4), "at the end, with the last line");
}

#[test]
fn a_disk_that_does_not_take_what_is_written_is_told_once_and_asked_again() {
    let at = Arc::default();
    let sink = Synced { taken: 0, at: Arc::clone(&at), failures: 2 };
    let (log, kept) = keeping();
    let (recorder, guard) = start_with(&config(100, WhenFull::Wait), Box::new(sink), &log).unwrap();
    wait_until(|| recorder.counts().sink_errors == 1);
    assert!(recorder.counts().failing);
    // Writing works, which is no end of that failure.
    recorder.record(record(1)).unwrap();
    wait_until(|| recorder.counts().waiting == 0);
    assert!(recorder.counts().failing);
    wait_until(|| at.lock().len() == 3);
    wait_until(|| !recorder.counts().failing);
    assert_eq!(guard.finish(PATIENCE), 0);
    assert_eq!(kept.0.lock().len(), 2, "{:?}", kept.0.lock());
    assert_eq!(recorder.counts().sink_errors, 2);
}

#[test]
fn moments_of_the_router_become_times_of_the_day() {
    let (sink, order, taken) = told();
    drop(order);
    let (recorder, guard) = start_with(&config(100, WhenFull::Wait), sink, &silent()).unwrap();
    let ago = |millis| Timestamp::from_millis(clock::now().as_millis().saturating_sub(millis));
    let now = Stamp::now().as_millis();
    let given = ago(5000);
    let returned = What::BlockReturned { first_port: 1024, last_port: 1151, given };
    let flow = What::SessionEnded { flow: flow(), started: given };
    for what in [returned, What::LeaseEnded { given }, flow] {
        recorder.record(Record { at: ago(2000), what, ..record(1) }).unwrap();
    }
    assert_eq!(guard.finish(PATIENCE), 0);
    taken.sequences(4);
    let times = taken.times.lock().clone();
    for (time, given) in &times[1..3] {
        assert!((1500..=2500).contains(&(now - time.as_millis())), "{time}");
        assert!((4500..=5500).contains(&(now - given.unwrap().as_millis())), "{given:?}");
    }
}

#[test]
fn a_record_is_tried_again_at_once_when_the_recording_ends() {
    let (sink, order, taken) = told();
    let (recorder, guard) = start_with(&config(100, WhenFull::Wait), sink, &silent()).unwrap();
    // 50, 100, 200, 400, 800, 1600 ms: the writer rests for more than a second by now.
    for _ in 0..6 {
        order.send(Next::Fail(0, ErrorKind::StorageFull)).unwrap();
    }
    wait_until(|| recorder.counts().sink_errors == 6);
    drop(order);
    let began = Instant::now();
    assert_eq!(guard.finish(PATIENCE), 0);
    assert!(began.elapsed() < Duration::from_millis(800), "{:?}", began.elapsed());
    assert_eq!(taken.sequences(2), [1, 2]);
}

#[test]
fn destinations_are_recorded_only_where_they_are_asked_for() {
    for (sessions, expected) in [(false, vec![1, 2, 3]), (true, vec![1, 2, 3, 4])] {
        let (sink, order, taken) = told();
        drop(order);
        let config = RecordsConfig { sessions, ..config(100, WhenFull::Wait) };
        let (recorder, guard) = start_with(&config, sink, &silent()).unwrap();
        recorder.record(session(1)).unwrap();
        recorder.record(record(1)).unwrap();
        assert_eq!(guard.finish(PATIENCE), 0);
        assert_eq!(taken.sequences(expected.len()), expected);
        assert_eq!(taken.events().contains(&"session_started".to_owned()), sessions);
    }
}

#[test]
fn many_at_once_get_numbers_of_their_own_in_the_order_of_the_lines() {
    let (sink, order, taken) = told();
    drop(order);
    let (recorder, guard) = start_with(&config(256, WhenFull::Wait), sink, &silent()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let recorder = recorder.clone();
            std::thread::spawn(move || {
                for n in 0..5000 {
                    while recorder.record(record(thread * 5000 + n)).is_err() {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(guard.finish(PATIENCE), 0);
    assert_eq!(taken.sequences(20_002), (1..=20_002).collect::<Vec<_>>());
    let mut hosts: Vec<_> = taken.lines.lock().iter().filter_map(|(_, _, host)| *host).collect();
    for thread in 0..4 {
        let range = record(thread * 5000).host..=record(thread * 5000 + 4999).host;
        assert!(hosts.iter().filter(|host| range.contains(*host)).is_sorted(), "the order of one thread");
    }
    hosts.sort_unstable();
    hosts.dedup();
    assert_eq!(hosts.len(), 20_000);
}

/// The text of a line.
fn text(entry: &queue::Entry, identity: &Identity) -> String {
    serde_json::to_string(&Line::of(entry, identity)).unwrap()
}

fn identity(configuration: Option<&str>) -> Identity {
    Identity {
        router: "cgn1/nat64".to_owned(),
        instance: "0123456789abcdef".to_owned(),
        subscriber_prefix_len: 56,
        configuration: configuration.map(str::to_owned),
    }
}

#[test]
fn a_line_is_one_json_object_with_the_documented_keys() {
    let time = Stamp::from_millis(1_769_903_999_007);
    let given = Some(Stamp::from_millis(1_769_900_000_000));
    let moment = Timestamp::from_millis(0);
    let entry =
        |record: Record, given| queue::Entry { sequence: 7, time, given, body: queue::Body::Record(record) };
    let host = "2001:db8:0:1ff::5".parse().unwrap();
    let returned = What::BlockReturned { first_port: 1024, last_port: 1151, given: moment };
    let record = Record { host, what: returned, reason: "idle", ..record(0) };
    let head = "\"router\":\"cgn1/nat64\",\"instance\":\"0123456789abcdef\",\"sequence\":7";
    assert_eq!(
        text(&entry(record, given), &identity(None)),
        format!(
            "{{\"time\":\"2026-01-31T23:59:59.007Z\",\"event\":\"block_returned\",{head},\"host\":\"2001:db8:0:1ff::5\",\
             \"subscriber\":\"2001:db8:0:100::/56\",\"address\":\"203.0.113.1\",\"first_port\":1024,\"last_port\":1151,\
             \"given\":\"2026-01-31T22:53:20.000Z\",\"reason\":\"idle\"}}"
        )
    );
    let leased = Record { host, what: What::LeaseGiven, reason: "", ..record };
    assert_eq!(
        text(&entry(leased, None), &identity(None)),
        format!(
            "{{\"time\":\"2026-01-31T23:59:59.007Z\",\"event\":\"lease_given\",{head},\"host\":\"2001:db8:0:1ff::5\",\
             \"subscriber\":\"2001:db8:0:100::/56\",\"address\":\"203.0.113.1\"}}"
        )
    );
    let session = Record { host, ..session(0) };
    let line = text(&entry(session, None), &identity(None));
    let flow = "\"protocol\":\"tcp\",\"host_port\":40000,\"port\":1024,\"remote\":\"192.0.2.1\",\"remote_port\":443}";
    assert!(line.ends_with(flow), "{line}");
    let started = queue::Entry { sequence: 1, time, given: None, body: queue::Body::Started };
    let line = text(&started, &identity(Some("hosts \"a\"")));
    assert!(line.starts_with(BEGIN), "{line}");
    assert!(line.ends_with("\"sequence\":1,\"configuration\":\"hosts \\\"a\\\"\"}"), "{line}");
}

#[test]
fn every_line_reads_back_as_what_was_written() {
    let moment = Timestamp::from_millis(0);
    let flow = flow();
    let whats = [
        What::BlockGiven { first_port: 1024, last_port: 1151 },
        What::BlockReturned { first_port: 1, last_port: 65535, given: moment },
        What::LeaseGiven,
        What::LeaseEnded { given: moment },
        What::SessionStarted(flow),
        What::SessionEnded { flow, started: moment },
    ];
    let identity = identity(None);
    for what in whats {
        let body = queue::Body::Record(Record { what, reason: "idle", ..record(3) });
        let entry =
            queue::Entry { sequence: 9, time: Stamp::now(), given: Some(Stamp::from_millis(5)), body };
        let written = Line::of(&entry, &identity);
        let text = serde_json::to_string(&written).unwrap();
        let read: Line<'_> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, written, "{text}");
        assert!(text.contains(&format!("\"event\":\"{}\"", written.event.name())), "{text}");
    }
    let later = "{\"time\":\"2026-01-01T00:00:00.000Z\",\"event\":\"something_new\",\"router\":\"r\",\"instance\":\"i\",\
                 \"sequence\":1,\"colour\":\"blue\"}";
    let read: Line<'_> = serde_json::from_str(later).unwrap();
    assert_eq!(read.event, Event::Other, "a later version may know more");
}
