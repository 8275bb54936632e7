//! Panics as log records: message, thread and place.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::time::Duration;

use slog::error;

use super::{LogControl, WRITER};

/// A panic waits this long for its record to be written: a second panic while unwinding would abort the process.
const PATIENCE: Duration = Duration::from_millis(100);

/// Replaces the panic hook of the process.
pub(super) fn install(control: LogControl) {
    std::panic::set_hook(Box::new(move |panic| report(&control, panic)));
}

fn report(control: &LogControl, panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    let message = panic.payload_as_str().unwrap_or("without words");
    let location = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    // Only with RUST_BACKTRACE: it takes long and its text is long.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    if control.queue.is_gone() {
        let trace = backtrace.unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "thread {name} panicked at {location}: {message}\n{trace}");
        return;
    }
    error!(control.log, "a thread panicked";
        "thread" => name, "location" => location, "reason" => message, "backtrace" => backtrace);
    // The writer cannot wait for itself.
    if name != WRITER {
        control.flush(PATIENCE);
    }
}
