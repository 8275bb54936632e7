//! One run of the router, from its settings to its exit code.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::FutureExt as _;
use slog::{Logger, crit, info, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::Flags;
use crate::config::Configuration;
use crate::error::chain;
use crate::exit::Exit;
use crate::logging::LogControl;
use crate::records::Recorder;
use crate::reload::reader::Reader;
use crate::service::{self, Watchdog};
use crate::shared::Shared;
use crate::startup::set_up;
use crate::supervision::{Limits, Outcome, Overseer, WATCH_EVERY};

/// How often the router looks whether it has become ready, or is so no longer, for the log.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// No lock is held for nearly as long.
const LOCK_PATIENCE: Duration = Duration::from_millis(50);

/// What a run is started with.
#[derive(Debug)]
pub struct Start {
    /// The flags, and by them the file, which may be read anew.
    pub flags: Flags,
    /// What they say now.
    pub configuration: Configuration,
    /// Records of the log that were lost.
    pub log_dropped: Arc<AtomicU64>,
    /// Whose level follows the settings.
    pub log_control: Option<LogControl>,
}

/// Sets the router up, runs it until a signal or until it gives up, and cleans up.
pub fn run(start: Start, log: &Logger) -> Exit {
    let Ok(system) = std::panic::catch_unwind(actix_rt::System::new) else {
        crit!(log, "cannot start"; "because" => "no runtime can be made (out of threads or descriptors)");
        return Exit::Failed;
    };
    raise_descriptor_limit(log);
    system.block_on(live(start, log))
}

/// A worker needs two descriptors, and there may be 256 workers: what the hard limit allows is taken.
fn raise_descriptor_limit(log: &Logger) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        warn!(log, "the limit of open descriptors cannot be raised"; "because" => %error);
    }
}

async fn live(start: Start, log: &Logger) -> Exit {
    let Start { flags, configuration, log_dropped, log_control } = start;
    // From here on a signal no longer ends the process by itself: what was made is taken away first.
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            crit!(log, "cannot start"; "because" => format!("signals cannot be listened for: {error}"));
            return Exit::Failed;
        }
    };
    let text = configuration.text.clone();
    let made = match Box::pin(set_up(configuration, log, log_dropped)).await {
        Ok(made) => made,
        Err(error) => {
            crit!(log, "cannot start"; "because" => chain(&error));
            return error.exit();
        }
    };
    let tables = Arc::clone(&made.shared);
    let limits = Limits::of(&made.shared.generation().settings);
    let overseer = Overseer::new(made.children(), Arc::clone(&made.shared.board), limits, log)
        .with_watchdog(Watchdog::new(WATCH_EVERY, log))
        .with_locks(Box::new(move || tables.stuck(LOCK_PATIENCE)));
    let announcer = actix_rt::spawn(announce(Arc::clone(&made.shared)));
    // One that is told while one is under way is enough.
    let (tell, told) = mpsc::channel(1);
    let reader = Reader::new(Arc::clone(&made.shared), flags, text, log_control);
    let reader = actix_rt::spawn(read_anew(reader, told));
    let outcome = overseer.run(signals.end(log, made.shared.records.recorder(), tell)).await;
    announcer.abort();
    reader.abort();
    made.finish_state();
    match outcome {
        Outcome::Shutdown => {
            service::stopping("ending", log);
            made.tear_down().await;
            info!(log, "ended");
            Exit::Done
        }
        // Device, routes and nftables table stay: the service manager starts the router again, which adopts them.
        Outcome::Escalated(reason) => {
            service::stopping(&format!("gave up: {reason}"), log);
            // Critical records are neither limited nor lost where the log cannot keep up.
            crit!(log, "last events"; "events" => made.shared.board.events.told().join("; "));
            crit!(log, "gave up"; "because" => reason,
                "left" => "device, routes and nftables table, for the next start; `protomask cleanup` removes them");
            Exit::GaveUp
        }
    }
}

/// The signals that this process cares for.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Ready when the router is to end.
    async fn end(mut self, log: &Logger, recorder: Option<&Recorder>, reload: mpsc::Sender<()>) {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hang_up.recv() => {
                    if let Some(recorder) = recorder {
                        recorder.reopen();
                        info!(log, "the file of allocation records is opened anew"; "signal" => "SIGHUP");
                    }
                    // Full: one is to come that reads what is there by then.
                    let _ = reload.try_send(());
                    continue;
                }
            };
            info!(log, "ending"; "signal" => name);
            return;
        }
    }
}

/// Reloads the settings for as long as the router runs. A panic, which the log tells of, costs the reload that it is in.
async fn read_anew(mut reader: Reader, mut told: mpsc::Receiver<()>) {
    while AssertUnwindSafe(reader.run(&mut told)).catch_unwind().await.is_err() {
        actix_rt::time::sleep(LOOK_EVERY).await;
    }
}

/// Logs when the router becomes ready, and why it is so no longer. The service manager is told of notes as well.
async fn announce(shared: Arc<Shared>) {
    let mut before: Option<Vec<String>> = None;
    let mut last = String::new();
    let mut told = false;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first look would always find a router that has not started.
    look.tick().await;
    loop {
        look.tick().await;
        let problems = shared.problems();
        // What is missing outside is no reason for a service manager to end a router that runs.
        if !told && shared.has_started() {
            service::ready(&shared.log);
            told = true;
        }
        let notes = shared.notes().join("; ");
        let status = match (problems.is_empty(), notes.is_empty()) {
            (true, true) => "ready".to_owned(),
            (true, false) => format!("ready; {notes}"),
            (false, _) => format!("not ready: {}", problems.join("; ")),
        };
        if status != last {
            service::status(&status, &shared.log);
            last = status;
        }
        if before.as_ref() == Some(&problems) {
            continue;
        }
        if problems.is_empty() {
            info!(shared.log, "ready"; "interface" => &shared.interface, "notes" => notes);
            shared.board.events.note("ready".to_owned());
        } else {
            warn!(shared.log, "not ready"; "because" => problems.join("; "));
            shared.board.events.note(format!("not ready: {}", problems.join("; ")));
        }
        before = Some(problems);
    }
}
