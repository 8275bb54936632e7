//! The far end: the thread that writes, and tries again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slog::{Logger, info, warn};

use super::line::Line;
use super::queue::{Entry, Shared};

/// The most records that go to the sink at a time.
const BATCH: usize = 1024;

/// How long the writer waits after the first failure in a row; twice as long after each further one.
const FIRST_DELAY: Duration = Duration::from_millis(50);

/// The longest wait.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// What is written is brought to the disk this often at most.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Where records go.
pub trait Sink: Send {
    /// Writes these lines in order. `done` is counted up for each line that is written for good; after an error the same
    /// lines come again, beginning with the first that was not counted.
    fn write(&mut self, lines: &[Line<'_>], done: &mut usize) -> io::Result<()>;

    /// Brings to the disk what was written.
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Begins anew: opens the file again, or connects again.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the writer's thread.
pub(super) fn spawn(shared: Arc<Shared>, sink: Box<dyn Sink>, log: Logger) -> io::Result<()> {
    let gone = Gone(shared);
    std::thread::Builder::new().name("records".to_owned()).spawn(move || {
        let shared = &gone.0;
        let batch = Vec::with_capacity(shared.reserve());
        let (writing, syncing) = (Trouble::default(), Trouble::default());
        Writer { shared, sink, log, batch, at: 0, unsynced: None, delay: FIRST_DELAY, writing, syncing }
            .run();
    })?;
    Ok(())
}

/// Says that the writer has ended, however that comes: nobody must wait for it then.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.state.lock().gone = true;
        self.0.ended.notify_all();
    }
}

/// A failure that lasts, if there is one.
#[derive(Default)]
struct Trouble(Option<Failure>);

struct Failure {
    since: Instant,
    errors: u64,
    text: String,
}

/// What the writer is to do.
struct Order {
    reopen: bool,
    closing: bool,
}

struct Writer<'s> {
    shared: &'s Shared,
    sink: Box<dyn Sink>,
    log: Logger,
    /// What was taken from the queue, and how much of it is written.
    batch: Vec<Entry>,
    at: usize,
    /// When the oldest line was written that may not be on the disk.
    unsynced: Option<Instant>,
    delay: Duration,
    writing: Trouble,
    syncing: Trouble,
}

impl Writer<'_> {
    fn run(mut self) {
        while let Some(order) = self.take() {
            if order.reopen {
                self.reopen();
            }
            while self.at < self.batch.len() {
                if !self.write() && !self.pause() {
                    return;
                }
            }
            if order.closing || self.unsynced.is_some_and(|since| since.elapsed() >= SYNC_EVERY) {
                self.sync();
            }
        }
    }

    /// Waits for something to do, and takes all records that wait. `None`: the recording has ended.
    fn take(&mut self) -> Option<Order> {
        let mut state = self.shared.state.lock();
        loop {
            let order = Order { reopen: std::mem::take(&mut state.reopen), closing: state.closing.is_some() };
            if !state.queue.is_empty() {
                self.batch.clear();
                self.at = 0;
                std::mem::swap(&mut state.queue, &mut self.batch);
                return Some(order);
            }
            if order.closing {
                return None;
            }
            if order.reopen {
                return Some(order);
            }
            match self.unsynced {
                Some(since) => {
                    if self.shared.wake.wait_until(&mut state, since + SYNC_EVERY).timed_out() {
                        return Some(order);
                    }
                }
                None => self.shared.wake.wait(&mut state),
            }
        }
    }

    fn reopen(&mut self) {
        // A failure shows at the next write, which opens too.
        if let Err(error) = self.sink.reopen() {
            self.writing.begins(&error, self.shared, &self.log);
        }
    }

    /// Writes a part of what was taken; false: the sink has failed.
    fn write(&mut self) -> bool {
        let end = self.batch.len().min(self.at + BATCH);
        let entries = &self.batch[self.at..end];
        let lines: Vec<_> = entries.iter().map(|entry| Line::of(entry, &self.shared.identity)).collect();
        let mut done = 0;
        let result = self.sink.write(&lines, &mut done);
        let done = done.min(lines.len());
        self.at += done;
        self.shared.written.fetch_add(done as u64, Ordering::Relaxed);
        self.shared.waiting.fetch_sub(done as u64, Ordering::AcqRel);
        if done > 0 {
            self.delay = FIRST_DELAY;
            self.unsynced.get_or_insert_with(Instant::now);
        }
        match result {
            Ok(()) => {
                self.writing.ends(&self.log);
                self.shared.failing.store(self.syncing.0.is_some(), Ordering::Relaxed);
                true
            }
            Err(error) => {
                self.writing.begins(&error, self.shared, &self.log);
                false
            }
        }
    }

    fn sync(&mut self) {
        match self.sink.sync() {
            Ok(()) => {
                self.unsynced = None;
                self.syncing.ends(&self.log);
                self.shared.failing.store(self.writing.0.is_some(), Ordering::Relaxed);
            }
            Err(error) => {
                self.syncing.begins(&error, self.shared, &self.log);
                // Not at once again, and not never.
                self.unsynced = Some(Instant::now());
            }
        }
    }

    /// Waits before the next try. False: the recording ends, and its time is up.
    fn pause(&mut self) -> bool {
        let until = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
        let mut state = self.shared.state.lock();
        let already_closing = state.closing.is_some();
        loop {
            if std::mem::take(&mut state.reopen) {
                drop(state);
                self.reopen();
                return true;
            }
            let until = match state.closing {
                Some(deadline) if Instant::now() >= deadline => return false,
                Some(_) if !already_closing => {
                    // One try at once, and short waits until the time is up.
                    self.delay = FIRST_DELAY;
                    return true;
                }
                Some(deadline) => until.min(deadline),
                None => until,
            };
            if self.shared.wake.wait_until(&mut state, until).timed_out() {
                return true;
            }
        }
    }
}

impl Trouble {
    /// Counts an error, and logs it if it is the first or has another cause than the one before.
    fn begins(&mut self, error: &io::Error, shared: &Shared, log: &Logger) {
        shared.sink_errors.fetch_add(1, Ordering::Relaxed);
        shared.failing.store(true, Ordering::Relaxed);
        let text = error.to_string();
        if self.0.as_ref().is_none_or(|failure| failure.text != text) {
            warn!(log, "allocation records cannot be written; they wait, and are tried again";
                "because" => &text, "waiting" => shared.waiting.load(Ordering::Relaxed));
        }
        let (since, errors) = self.0.take().map_or((Instant::now(), 0), |known| (known.since, known.errors));
        self.0 = Some(Failure { since, errors: errors + 1, text });
    }

    fn ends(&mut self, log: &Logger) {
        if let Some(failure) = self.0.take() {
            info!(log, "allocation records are written again";
                "after" => format!("{:.1} s", failure.since.elapsed().as_secs_f64()), "errors" => failure.errors);
        }
    }
}
