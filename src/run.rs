//! One run of the router, from its settings to its exit code.

use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;
use slog::{Logger, crit, info, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::Flags;
use crate::config::Configuration;
use crate::error::chain;
use crate::exit::Exit;
use crate::handover::Inheritance;
use crate::kernel::lanes;
use crate::logging::LogControl;
use crate::records::Recorder;
use crate::reload::reader::Reader;
use crate::service::{self, Watchdog};
use crate::shared::Shared;
use crate::startup::{SetUp, set_up_with};
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
    /// What was kept for this start.
    pub inheritance: Inheritance,
    /// The program that shares packets out to workers, or why there is none.
    pub steering: lanes::Loaded,
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
    let Start { flags, configuration, log_dropped, log_control, inheritance, steering } = start;
    // From here on a signal no longer ends the process by itself: what was made is taken away first.
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            crit!(log, "cannot start"; "because" => format!("signals cannot be listened for: {error}"));
            return Exit::Failed;
        }
    };
    let text = Arc::new(Mutex::new(configuration.text.clone()));
    let made = match Box::pin(set_up_with(configuration, log, log_dropped, inheritance, steering)).await {
        Ok(made) => made,
        Err(error) => {
            crit!(log, "cannot start"; "because" => chain(&error));
            return error.exit();
        }
    };
    loop {
        let (outcome, wish) = run_once(&made, &mut signals, &flags, &text, log_control.clone()).await;
        made.finish_state();
        match (outcome, wish) {
            (Outcome::Shutdown, Some(Wish::HandOver(stream))) => match made.hand_over(stream) {
                Ok(()) => {
                    info!(log, "ended: another process has taken over");
                    return Exit::Done;
                }
                Err(error) => {
                    warn!(log, "another process wanted to take over and did not come to it; this one goes on"; "because" => %error);
                    made.resume();
                }
            },
            (Outcome::Shutdown, Some(Wish::Leave)) => {
                service::stopping("ending, for a start that follows", log);
                made.leave();
                info!(log, "ended");
                return Exit::Done;
            }
            (Outcome::Shutdown, Some(Wish::End) | None) => {
                service::stopping("ending", log);
                made.tear_down().await;
                info!(log, "ended");
                return Exit::Done;
            }
            // Device, routes and nftables table stay: the service manager starts the router again, which adopts them.
            (Outcome::Escalated(reason), _) => {
                service::stopping(&format!("gave up: {reason}"), log);
                // Critical records are neither limited nor lost where the log cannot keep up.
                crit!(log, "last events"; "events" => made.shared.board.events.told().join("; "));
                crit!(log, "gave up"; "because" => reason,
                    "left" => "device, routes and nftables table, for the next start; `protomask cleanup` removes them");
                return Exit::GaveUp;
            }
        }
    }
}

/// Why a router that runs is to end.
#[derive(Debug)]
enum Wish {
    /// For good, as far as it knows.
    End,
    /// For a start that follows, which finds everything as it is.
    Leave,
    /// For another process, which waits at this connection.
    HandOver(UnixStream),
}

/// Runs all concerns until they are to end, or one cannot be kept alive. `text`: that of the file, as far as it is known.
async fn run_once(
    made: &SetUp,
    signals: &mut Signals,
    flags: &Flags,
    text: &Arc<Mutex<Option<Arc<str>>>>,
    log_control: Option<LogControl>,
) -> (Outcome, Option<Wish>) {
    let (shared, log) = (&made.shared, &made.shared.log);
    let tables = Arc::clone(shared);
    let limits = Limits::of(&shared.generation().settings);
    let overseer = Overseer::new(made.children(), Arc::clone(&shared.board), limits, log)
        .with_watchdog(Watchdog::new(WATCH_EVERY, log))
        .with_locks(Box::new(move || tables.stuck(LOCK_PATIENCE)));
    let announcer = actix_rt::spawn(announce(Arc::clone(shared)));
    // One that is told while one is under way is enough.
    let (tell, told) = mpsc::channel(1);
    let reader = Reader::new(Arc::clone(shared), flags.clone(), Arc::clone(text), log_control);
    let reader = actix_rt::spawn(read_anew(reader, told));
    let mut wish = None;
    let wanted = async {
        wish = Some(tokio::select! {
            wish = signals.end(log, shared.records.recorder(), tell) => wish,
            stream = shared.handover.wait() => Wish::HandOver(stream),
        });
    };
    let outcome = overseer.run(wanted).await;
    announcer.abort();
    reader.abort();
    (outcome, wish)
}

/// The signals that this process cares for.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    leave: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            leave: signal(SignalKind::user_defined2())?,
        })
    }

    /// Ready when the router is to end.
    async fn end(&mut self, log: &Logger, recorder: Option<&Recorder>, reload: mpsc::Sender<()>) -> Wish {
        loop {
            let (name, wish) = tokio::select! {
                _ = self.terminate.recv() => ("SIGTERM", Wish::End),
                _ = self.interrupt.recv() => ("SIGINT", Wish::End),
                _ = self.leave.recv() => ("SIGUSR2", Wish::Leave),
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
            return wish;
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
