//! The far end of the log: the thread that limits, formats and writes.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use slog::{Level, OwnedKVList, Record, RecordLocation, RecordStatic, b};
use slog_async::AsyncRecord;

use super::format::{Formatter, Sink, Stamp};
use super::limiter::{Limiter, Limits, Suppressed};
use super::queue::Message;
use super::{LogFormat, WRITER};

/// Dropped records are reported this often at most.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What is kept of the text of a message whose like is suppressed, in bytes.
const EXAMPLE: usize = 256;

/// The place in the code that stands in the writer's own records.
const HERE: RecordLocation =
    RecordLocation { file: file!(), line: 0, column: 0, function: "", module: module_path!() };

/// Starts the writer's thread. `gone` is set when it ends, however that comes.
pub(super) fn spawn(
    records: Receiver<Message>,
    format: LogFormat,
    sink: Sink,
    limits: Limits,
    dropped: Arc<AtomicU64>,
    gone: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(WRITER.to_owned()).spawn(move || {
        let _gone = SetOnDrop(gone);
        let reported = dropped.load(Ordering::Relaxed);
        let writer = Writer {
            records,
            formatter: Formatter::new(format, sink),
            limiter: Limiter::new(limits),
            limits,
            kinds: RandomState::new(),
            dropped,
            reported,
            report_after: Instant::now(),
        };
        writer.run();
    })
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A message whose like is suppressed.
struct Example {
    level: Level,
    text: String,
    location: RecordLocation,
    values: OwnedKVList,
}

struct Writer {
    records: Receiver<Message>,
    formatter: Formatter,
    limiter: Limiter<Example>,
    limits: Limits,
    kinds: RandomState,
    /// Records lost so far, and how many of them have been reported.
    dropped: Arc<AtomicU64>,
    reported: u64,
    report_after: Instant,
}

impl Writer {
    fn run(mut self) {
        loop {
            let now = Instant::now();
            while let Some(suppressed) = self.limiter.end_next(now) {
                self.suppressed(&suppressed);
            }
            if self.lost() > 0 && now >= self.report_after {
                self.report_lost();
                self.report_after = now + REPORT_EVERY;
            }
            match self.next(now) {
                Ok(Message::Record(at, record)) => self.record(at, &record),
                Ok(Message::Flush(answer)) => {
                    let _ = answer.try_send(());
                }
                Ok(Message::Finish(answer)) => {
                    self.last_words();
                    let _ = answer.try_send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.last_words(),
            }
        }
    }

    /// The next message; or a time-out, when there is something to say without one.
    fn next(&self, now: Instant) -> Result<Message, RecvTimeoutError> {
        let report = (self.lost() > 0).then_some(self.report_after);
        match self.limiter.next_end().into_iter().chain(report).min() {
            Some(deadline) => self.records.recv_timeout(deadline.saturating_duration_since(now)),
            None => self.records.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn last_words(&mut self) {
        for suppressed in self.limiter.end_all() {
            self.suppressed(&suppressed);
        }
        if self.lost() > 0 {
            self.report_lost();
        }
    }

    fn record(&mut self, at: Stamp, record: &AsyncRecord) {
        record.as_record_values(|record, values| {
            if record.level() != Level::Critical {
                let text = record.msg().to_string();
                let describe = || Example {
                    level: record.level(),
                    text: text[..text.floor_char_boundary(EXAMPLE)].to_owned(),
                    location: *record.location(),
                    values: values.clone(),
                };
                if !self.limiter.admit(kind(&self.kinds, record, &text), Instant::now(), describe) {
                    return;
                }
            }
            if self.formatter.write(at, record, values).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// Says how many equal messages were held back. That stderr does not take this is no further loss.
    fn suppressed(&self, suppressed: &Suppressed<Example>) {
        let others = Example {
            level: Level::Warning,
            text: "too many kinds of message at once".to_owned(),
            location: HERE,
            values: OwnedKVList::from(slog::o!()),
        };
        let example = suppressed.example.as_ref().unwrap_or(&others);
        let fixed = RecordStatic { location: &example.location, tag: "", level: example.level };
        let interval = humantime::format_duration(self.limits.interval);
        let _ = self.formatter.write(
            Stamp::now(),
            &Record::new(
                &fixed,
                &format_args!("{} (repeated)", example.text),
                b!("suppressed" => suppressed.count, "within" => %interval),
            ),
            &example.values,
        );
    }

    fn lost(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed).saturating_sub(self.reported)
    }

    fn report_lost(&mut self) {
        let lost = self.lost();
        self.reported += lost;
        let fixed = RecordStatic { location: &HERE, tag: "", level: Level::Warning };
        let _ = self.formatter.write(
            Stamp::now(),
            &Record::new(
                &fixed,
                &format_args!("log records were lost: the log could not keep up"),
                b!("dropped" => lost, "dropped_total" => self.reported),
            ),
            &OwnedKVList::from(slog::o!()),
        );
    }
}

/// What makes messages equal: level, place in the code, tag (the target of a library's record) and text; not the fields.
fn kind(kinds: &RandomState, record: &Record<'_>, text: &str) -> u64 {
    kinds.hash_one((record.level().as_usize(), record.file(), record.line(), record.tag(), text))
}
