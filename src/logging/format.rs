//! How a record looks.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slog::{Drain, FnValue, Level, OwnedKVList, PushFnValue, Record, o};
use slog_term::FullFormat;

use super::LogFormat;
use super::line::{Line, LineDecorator};

/// Where lines go.
pub(super) struct Sink {
    pub(super) out: Box<dyn Write + Send>,
    /// Whether terminal lines are coloured.
    pub(super) colours: bool,
}

impl Sink {
    /// To stderr, in colours if it is a terminal.
    pub(super) fn stderr() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out: Box::new(io::stderr()), colours: wanted && io::stderr().is_terminal() }
    }
}

/// When a record was made: microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp(u64);

impl Stamp {
    #[allow(clippy::disallowed_methods)] // people and log stores want the time of day; nothing is decided by it
    pub(super) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn time(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_micros(self.0)).unwrap_or(UNIX_EPOCH)
    }
}

/// RFC 3339, UTC, microseconds.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_rfc3339_micros(self.time()))
    }
}

/// Formats records and writes each with one write call. Lives on the writer's thread.
pub(super) struct Formatter {
    drain: Box<dyn Drain<Ok = (), Err = io::Error>>,
    /// The stamp of the record in hand.
    stamp: Arc<AtomicU64>,
}

impl Formatter {
    pub(super) fn new(format: LogFormat, sink: Sink) -> Self {
        let stamp = Arc::new(AtomicU64::new(0));
        let drain: Box<dyn Drain<Ok = (), Err = io::Error>> = match format {
            LogFormat::Terminal => Box::new(terminal(sink, Arc::clone(&stamp))),
            LogFormat::Json => Box::new(json(sink.out, Arc::clone(&stamp))),
        };
        Self { drain, stamp }
    }

    /// Writes one record. An error means that (part of) it is lost.
    pub(super) fn write(&self, at: Stamp, record: &Record<'_>, values: &OwnedKVList) -> io::Result<()> {
        self.stamp.store(at.0, Ordering::Relaxed);
        self.drain.log(record, values)
    }
}

fn terminal(sink: Sink, stamp: Arc<AtomicU64>) -> FullFormat<LineDecorator> {
    FullFormat::new(LineDecorator::new(sink))
        .use_original_order()
        .use_custom_timestamp(move |out: &mut dyn Write| {
            let stamp = Stamp(stamp.load(Ordering::Relaxed));
            write!(out, "{}", humantime::format_rfc3339_millis(stamp.time()))
        })
        .build()
}

fn json(out: Box<dyn Write + Send>, stamp: Arc<AtomicU64>) -> slog_json::Json<Line> {
    // One by one: keys of one `o!` would be written last to first.
    slog_json::Json::new(Line::new(out))
        .add_key_value(o!("ts" => FnValue(move |_| Stamp(stamp.load(Ordering::Relaxed)).to_string())))
        .add_key_value(o!("level" => FnValue(|record: &Record<'_>| word(record.level()))))
        .add_key_value(o!("msg" => PushFnValue(|record: &Record<'_>, out| out.emit(record.msg()))))
        .set_newlines(true)
        .set_flush(true)
        .build()
}

/// The word of a level in JSON: that of the settings.
fn word(level: Level) -> &'static str {
    match level {
        Level::Critical => "critical",
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}
