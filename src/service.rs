//! What the service manager is told, if one has started this process (`sd_notify(3)`): `READY=1`, `RELOADING=1`, `STOPPING=1`, `STATUS=`
//! with what is missing, and `WATCHDOG=1` as often as it wants that.
//!
//! Who has not been started by one tells nobody, and nothing depends on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use slog::{Logger, debug, warn};

fn tell(states: &[NotifyState<'_>], log: &Logger) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(log, "the service manager cannot be told"; "what" => ?states, "because" => %error);
    }
}

/// Whether it has been told that the router runs.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// The router runs: all concerns have started. What is missing beside that is in its status.
pub(crate) fn ready(log: &Logger) {
    IS_READY.store(true, Ordering::Relaxed);
    tell(&[NotifyState::Ready], log);
}

/// New settings are being looked at, until the answer is dropped: whatever comes of them, the router runs on.
pub(crate) fn reloading(log: &Logger) -> Reloading<'_> {
    let is_ready = IS_READY.load(Ordering::Relaxed);
    // Before it is ready it cannot become so again.
    if is_ready {
        // By the time a service manager tells which request this is the answer to.
        let now = NotifyState::monotonic_usec_now().ok();
        tell(&[NotifyState::Reloading].into_iter().chain(now).collect::<Vec<_>>(), log);
    }
    Reloading { is_ready, log }
}

/// See [`reloading`].
#[derive(Debug)]
pub(crate) struct Reloading<'l> {
    is_ready: bool,
    log: &'l Logger,
}

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        if self.is_ready {
            ready(self.log);
        }
    }
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
pub struct Watchdog {
    /// How often it is told; `None`: nobody watches.
    every: Option<Duration>,
    last: Option<Instant>,
    tell: Box<dyn Fn()>,
}

impl std::fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watchdog").field("every", &self.every).finish_non_exhaustive()
    }
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
        let log = log.clone();
        Self::telling(patience.map(|patience| patience / 4), move || tell(&[NotifyState::Watchdog], &log))
    }

    /// One that is told in this way, so often.
    pub fn telling(every: Option<Duration>, tell: impl Fn() + 'static) -> Self {
        Self { every, last: None, tell: Box::new(tell) }
    }

    /// No thread has been busy for too long just now.
    pub(crate) fn is_well(&mut self) {
        let Some(every) = self.every else { return };
        if self.last.is_none_or(|last| last.elapsed() >= every) {
            (self.tell)();
            self.last = Some(Instant::now());
        }
    }
}
