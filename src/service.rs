//! What the service manager is told, if one has started this process (`sd_notify(3)`): `READY=1`, `STOPPING=1`, `STATUS=` with what
//! is missing, and `WATCHDOG=1` as often as it wants that.
//!
//! Who has not been started by one tells nobody, and nothing depends on it.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use slog::{Logger, debug, warn};

fn tell(states: &[NotifyState<'_>], log: &Logger) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(log, "the service manager cannot be told"; "what" => ?states, "because" => %error);
    }
}

/// The router runs: all concerns have started. What is missing beside that is in its status.
pub(crate) fn ready(log: &Logger) {
    tell(&[NotifyState::Ready], log);
}

/// One line about how the router is.
pub(crate) fn status(text: &str, log: &Logger) {
    tell(&[NotifyState::Status(&text.replace('\n', " "))], log);
}

/// It ends, and why.
pub(crate) fn stopping(why: &str, log: &Logger) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&why.replace('\n', " "))], log);
}

/// The service manager's watchdog, which wants to hear from a process that is well.
#[derive(Debug)]
pub struct Watchdog {
    /// How often it is told; `None`: nobody watches.
    every: Option<Duration>,
    last: Option<Instant>,
    log: Logger,
}

impl Watchdog {
    /// As the environment says (`WATCHDOG_USEC`). `looks_every`: how often the overseer looks and then tells it; a watchdog that wants to hear
    /// more often than that would end a router that is well.
    pub fn new(looks_every: Duration, log: &Logger) -> Self {
        let patience = sd_notify::watchdog_enabled();
        if let Some(patience) = patience.filter(|patience| *patience < looks_every * 4) {
            warn!(log, "the service manager's watchdog is impatient; raise WatchdogSec";
                "watchdog_ms" => u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
                "at_least_ms" => u64::try_from((looks_every * 4).as_millis()).unwrap_or(u64::MAX));
        }
        Self { every: patience.map(|patience| patience / 4), last: None, log: log.clone() }
    }

    /// No thread has been busy for too long just now.
    pub(crate) fn is_well(&mut self) {
        let Some(every) = self.every else { return };
        if self.last.is_none_or(|last| last.elapsed() >= every) {
            tell(&[NotifyState::Watchdog], &self.log);
            self.last = Some(Instant::now());
        }
    }
}
