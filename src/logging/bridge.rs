//! Records of the `log` crate: libraries speak it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use slog::{Level, RecordLocation, RecordStatic, b};

use super::LogControl;

/// The `log` crate takes one logger, once in the life of a process; this one forwards to whichever log is current.
struct Bridge(ArcSwapOption<LogControl>);

static BRIDGE: Bridge = Bridge(ArcSwapOption::const_empty());

/// Forwards to `log` from now on. If the process has another logger of the `log` crate already, that one stays.
pub(super) fn install(log: &LogControl) {
    BRIDGE.0.store(Some(Arc::new(log.clone())));
    if log::set_logger(&BRIDGE).is_ok() || is_ours() {
        log::set_max_level(filter(log.queue.level()));
    }
}

/// Follows a change of the level of `log`, if that is where records go.
pub(super) fn follow(log: &LogControl) {
    let current = BRIDGE.0.load();
    if is_ours() && current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.queue, &log.queue)) {
        log::set_max_level(filter(log.queue.level()));
    }
}

fn is_ours() -> bool {
    std::ptr::addr_eq(log::logger(), &raw const BRIDGE)
}

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.0.load().as_ref().is_some_and(|log| log.queue.takes(severity(metadata.level())))
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = severity(record.level());
        let current = self.0.load();
        let Some(log) = current.as_ref().filter(|log| log.queue.takes(level)) else { return };
        let location = RecordLocation {
            file: record.file_static().unwrap_or_default(),
            line: record.line().unwrap_or_default(),
            column: 0,
            function: "",
            module: record.module_path_static().unwrap_or_default(),
        };
        let fixed = RecordStatic { location: &location, tag: record.target(), level };
        log.log.log(&slog::Record::new(&fixed, record.args(), b!("target" => record.target())));
    }

    fn flush(&self) {}
}

fn severity(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warning,
        log::Level::Info => Level::Info,
        log::Level::Debug => Level::Debug,
        log::Level::Trace => Level::Trace,
    }
}

fn filter(level: Level) -> log::LevelFilter {
    match level {
        Level::Critical | Level::Error => log::LevelFilter::Error,
        Level::Warning => log::LevelFilter::Warn,
        Level::Info => log::LevelFilter::Info,
        Level::Debug => log::LevelFilter::Debug,
        Level::Trace => log::LevelFilter::Trace,
    }
}
