//! The router's log: one [`slog`] root logger, written to stderr by a thread of its own.
//!
//! ```text
//!  slog macros ─┐                 bounded queue                 writer thread
//!  `log` crate ─┼─▶ level filter ─▶ 4,096 records ─▶ rate limit ─▶ JSON or terminal line ─▶ stderr
//!  panic hook  ─┘       (drops and counts when full)    (reports what was suppressed and dropped)
//! ```
//!
//! - **Whoever logs never waits**: a full queue drops the record and counts it, and the writer reports the number when
//!   there is room again. The one exception is [`slog::Level::Critical`], the last words of a process: it waits up to a second for
//!   room, and returns when the record is written, or after a second more.
//! - **Equal messages are limited** to 10 in 10 seconds, whatever their fields say: same level, same place in the code
//!   and same text. What was suppressed is reported with the field `suppressed`. So `lease granted` in a burst is
//!   limited too; the metrics count every one. At most 256 kinds of message are told apart; further ones share one
//!   allowance, so that no more than about 257 lines a second are ever written for long. `Critical` is never limited.
//! - Both formats go to stderr, and stdout stays free for what a command was asked to print. Stamps are UTC and taken
//!   when the record is made, not when it is written.
//!
//! Worst-case memory: 4,096 records of about half a kilobyte (2 MiB) and 257 kinds of message (0.2 MiB).

mod bridge;
mod format;
mod limiter;
mod line;
mod panics;
mod queue;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use slog::{Level, Logger, o};

use format::Sink;
use limiter::Limits;
use queue::{Front, Queue};

/// Records that may wait for the writer: at half a kilobyte each, 2 MiB.
const QUEUE: usize = 4096;

/// The name of the thread that writes.
const WRITER: &str = "log";

/// How long the end of the process waits for the last records to be written.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people: time, level, message, fields; in colours on a terminal (unless `NO_COLOR` is set).
    #[default]
    Terminal,
    /// For machines: one JSON object per line with `ts`, `level`, `msg` and the fields.
    Json,
}

/// The least severe records that are written.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, clap::ValueEnum, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something does not work.
    Error,
    /// Something is not as it should be.
    Warning,
    /// What an operator wants to know: starts, ends, leases, changes in the kernel.
    #[default]
    Info,
    /// Why something was done.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// This level, or a more verbose one: each step (`-v`) goes one further, to `trace` at most.
    #[must_use]
    pub fn more_verbose(self, steps: u8) -> Self {
        const ALL: [LogLevel; 5] =
            [LogLevel::Error, LogLevel::Warning, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
        ALL[(self as usize + usize::from(steps)).min(ALL.len() - 1)]
    }
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warning => Self::Warning,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

/// Starts the log on stderr. `dropped` counts the records that were lost because the queue was full or stderr did not
/// take them.
///
/// The guard must live to the end of the process: its drop writes what waits. An error means that the writer's thread
/// could not be started.
pub fn start(format: LogFormat, level: LogLevel, dropped: Arc<AtomicU64>) -> io::Result<(Logger, LogGuard)> {
    start_with(format, level, dropped, QUEUE, Limits::default(), Sink::stderr())
}

fn start_with(
    format: LogFormat,
    level: LogLevel,
    dropped: Arc<AtomicU64>,
    capacity: usize,
    limits: Limits,
    sink: Sink,
) -> io::Result<(Logger, LogGuard)> {
    let (queue, records) = Queue::new(capacity, level.into(), Arc::clone(&dropped));
    let queue = Arc::new(queue);
    let thread = writer::spawn(records, format, sink, limits, dropped, queue.gone())?;
    let log = Logger::root(Front::new(Arc::clone(&queue)), o!());
    let control = LogControl { queue, log: log.clone() };
    Ok((log, LogGuard { control, thread: Some(thread) }))
}

/// A handle on the running log. Clones share it.
#[derive(Debug, Clone)]
pub struct LogControl {
    queue: Arc<Queue>,
    log: Logger,
}

impl LogControl {
    /// Writes from now on what is at least this severe; the `log` crate's records follow.
    pub fn set_level(&self, level: LogLevel) {
        self.queue.set_level(level.into());
        bridge::follow(self);
    }

    /// Returns when all that this thread has logged is written (`true`), or after `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        self.queue.flush(patience)
    }

    /// Sends the records of the `log` crate (libraries) and the panics of this process to this log, from now on. May be
    /// repeated; the last log wins.
    pub fn capture_globals(&self) {
        bridge::install(self);
        panics::install(self.clone());
    }
}

/// Keeps the log running; dropping it writes what waits (for two seconds at most) and ends the writer.
///
/// Records that come later are lost and counted, except panics, which then go to stderr directly.
#[derive(Debug)]
pub struct LogGuard {
    control: LogControl,
    thread: Option<JoinHandle<()>>,
}

impl LogGuard {
    /// A handle that can be handed on.
    pub fn control(&self) -> LogControl {
        self.control.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let written = self.control.queue.finish(FAREWELL);
        if let Some(thread) = self.thread.take().filter(|_| written) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
