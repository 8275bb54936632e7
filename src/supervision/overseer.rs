//! The overseer: starts the concerns, watches their pulses, restarts what ended, and gives up with a reason.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix_rt::Arbiter;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use slog::{Logger, error, info, o, warn};
use tokio::sync::oneshot;

use super::backoff::{Backoff, Decision, Limits};
use super::child::{Birth, Child, NOBODY};
use super::status::{Board, Concern, Exit, State};
use crate::service::Watchdog;

/// How the router's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to end.
    Shutdown,
    /// It gave up, for this reason; the service manager starts it again.
    Escalated(String),
}

/// How often the pulses are read. A hang is noticed at most this much after `hang_after`.
pub(crate) const WATCH_EVERY: Duration = Duration::from_millis(500);

/// How long an orderly end may take before threads are left behind.
const END_WITHIN: Duration = Duration::from_millis(500);

/// A thread that hangs cannot be ended. One is tolerated; a second one at the same time ends the process. The threads of
/// `metrics`, which never ends the process, are counted apart: after a second one it stays down until one comes back.
const TOLERATED_HUNG_THREADS: usize = 1;

struct Supervised {
    child: Child,
    log: Logger,
    backoff: Backoff,
    /// The number of the last incarnation.
    births: u64,
    current: Option<Current>,
    restart_at: Option<Instant>,
}

struct Current {
    birth: Birth,
    arbiter: Arbiter,
    since: Instant,
}

impl Supervised {
    /// From now on the incarnation of this generation may touch nothing, and nobody finds it. It may be unable to take
    /// itself out of the directory.
    fn retire(&self, generation: u64) {
        self.child.lineage.current.store(NOBODY, Ordering::Release);
        (self.child.withdraw)(generation);
    }
}

impl Current {
    /// Ends its Arbiter, as soon as the thread returns to it. The answer is how long it ran.
    fn end(self) -> Duration {
        self.arbiter.stop();
        self.since.elapsed()
    }
}

/// Ends of incarnations, as they come: concern, generation, and how (`Err`: its thread is gone).
type Ends = FuturesUnordered<futures::future::BoxFuture<'static, (usize, u64, Exit)>>;

/// Starts, watches and restarts the concerns. Runs on the main thread's actix system.
pub struct Overseer {
    concerns: Vec<Supervised>,
    board: Arc<Board>,
    limits: Limits,
    log: Logger,
    ends: Ends,
    /// Hung incarnations, by the place of their concern: threads that could not be ended. At most two of `metrics` and two
    /// of the others.
    abandoned: Vec<(usize, Birth)>,
    watchdog: Option<Watchdog>,
    /// Names a lock that is not given back, if there is one.
    stuck_lock: Option<StuckLock>,
}

/// Looks for a lock that is not given back.
pub type StuckLock = Box<dyn Fn() -> Option<&'static str>>;

impl std::fmt::Debug for Overseer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Overseer({} concerns)", self.concerns.len())
    }
}

impl Overseer {
    /// An overseer of `children`, which start in this order and are ended in the opposite one.
    pub fn new(children: Vec<Child>, board: Arc<Board>, limits: Limits, log: &Logger) -> Self {
        let concerns = children
            .into_iter()
            .map(|child| Supervised {
                log: log.new(o!("concern" => child.lineage.concern.as_str())),
                child,
                backoff: Backoff::default(),
                births: 0,
                current: None,
                restart_at: None,
            })
            .collect();
        Self {
            concerns,
            board,
            limits,
            log: log.clone(),
            ends: FuturesUnordered::new(),
            abandoned: Vec::new(),
            watchdog: None,
            stuck_lock: None,
        }
    }

    /// Tells a service manager's watchdog that all is well, as long as it is.
    #[must_use]
    pub fn with_watchdog(self, watchdog: Watchdog) -> Self {
        Self { watchdog: Some(watchdog), ..self }
    }

    /// Tolerates no thread that hangs with one of these locks: whoever needs it next would hang too.
    #[must_use]
    pub fn with_locks(self, stuck_lock: StuckLock) -> Self {
        Self { stuck_lock: Some(stuck_lock), ..self }
    }

    /// Runs until `shutdown` is ready or a concern cannot be kept alive.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Outcome {
        let mut shutdown = pin!(shutdown);
        for index in 0..self.concerns.len() {
            self.start(index);
        }
        let mut last_watch = Instant::now();
        let mut watch = tokio::time::interval(WATCH_EVERY);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let outcome = loop {
            let restart_at = self.concerns.iter().filter_map(|concern| concern.restart_at).min();
            let restart = async move {
                match restart_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let gave_up = tokio::select! {
                biased;
                () = &mut shutdown => break Outcome::Shutdown,
                Some((index, generation, exit)) = self.ends.next() => self.ended(index, generation, &exit),
                () = restart => { self.restart_due(); None }
                _ = watch.tick() => {
                    let late = last_watch.elapsed() > WATCH_EVERY * 3;
                    last_watch = Instant::now();
                    // A watchdog that was late itself (a paused machine, a starved one) forgives everyone once.
                    let gave_up = if late { None } else { self.watch() };
                    if gave_up.is_none() && !self.is_anybody_hanging() && let Some(watchdog) = &mut self.watchdog {
                        watchdog.is_well();
                    }
                    gave_up
                }
            };
            if let Some(reason) = gave_up {
                break Outcome::Escalated(reason);
            }
        };
        self.end_all().await;
        outcome
    }

    /// Gives birth to the next generation of a concern, on a fresh Arbiter.
    fn start(&mut self, index: usize) {
        let supervised = &mut self.concerns[index];
        supervised.restart_at = None;
        let lineage = Arc::clone(&supervised.child.lineage);
        supervised.births += 1;
        let generation = supervised.births;
        lineage.current.store(generation, Ordering::Release);
        self.board.born(lineage.concern, generation);
        let birth = Birth::new(lineage, generation);
        let (tell, told) = oneshot::channel();
        self.ends.push(Box::pin(async move { (index, generation, told.await.unwrap_or(Exit::Lost)) }));

        // `Arbiter::new` panics where no thread can be had.
        let Ok(arbiter) = std::panic::catch_unwind(AssertUnwindSafe(Arbiter::new)) else {
            let _ = tell.send(Exit::CannotStart("no thread can be started".to_owned()));
            return;
        };
        let start = Arc::clone(&supervised.child.start);
        let own = birth.clone();
        arbiter.spawn_fn(move || {
            actix_rt::spawn(async move {
                let exit = start(own).await;
                // The overseer may be gone already: the process is ending.
                let _ = tell.send(exit);
            });
        });
        supervised.current = Some(Current { birth, arbiter, since: Instant::now() });
        if generation > 1 {
            info!(supervised.log, "restarted"; "generation" => generation);
        }
    }

    fn restart_due(&mut self) {
        let now = Instant::now();
        for index in 0..self.concerns.len() {
            if self.concerns[index].restart_at.is_none_or(|at| at > now) {
                continue;
            }
            if self.hanging_beside(index) > TOLERATED_HUNG_THREADS {
                self.concerns[index].restart_at = Some(now + self.limits.longest_delay);
            } else {
                self.start(index);
            }
        }
    }

    /// An incarnation ended by itself. Returns the reason to give up, if this was one too many.
    fn ended(&mut self, index: usize, generation: u64, exit: &Exit) -> Option<String> {
        let supervised = &mut self.concerns[index];
        // The end of one that was abandoned: its successor has been decided on, or lives.
        if generation != supervised.births || supervised.restart_at.is_some() {
            return None;
        }
        let ran_for = supervised.current.take().map_or(Duration::ZERO, Current::end);
        self.decide(index, generation, exit, ran_for)
    }

    /// Threads that hang, of those that count for this concern.
    fn hanging_beside(&self, index: usize) -> usize {
        let is_essential = |index: usize| self.concerns[index].child.lineage.concern.is_essential();
        let counts = |(other, birth): &&(usize, Birth)| {
            is_essential(*other) == is_essential(index) && birth.incarnation().is_busy()
        };
        self.abandoned.iter().filter(counts).count()
    }

    fn decide(&mut self, index: usize, generation: u64, exit: &Exit, ran_for: Duration) -> Option<String> {
        let supervised = &mut self.concerns[index];
        let concern = supervised.child.lineage.concern;
        supervised.retire(generation);
        self.board.ended(concern, exit);
        if let Exit::FailedForGood(_) = exit {
            return Some(format!("{concern} {exit}"));
        }
        let wait = match supervised.backoff.on_exit(&self.limits, ran_for, Instant::now()) {
            Decision::RestartAfter(wait) => wait,
            Decision::GiveUp(_) if !concern.is_essential() => self.limits.longest_delay,
            Decision::GiveUp(restarts) => {
                return Some(format!(
                    "{concern} was restarted {restarts} times within {:?} and ended again: {exit}",
                    self.limits.restart_window
                ));
            }
        };
        warn!(supervised.log, "ended; it will be restarted";
            "cause" => exit.kind_name(), "reason" => %exit, "generation" => generation,
            "restart_in_ms" => u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        supervised.restart_at = Some(Instant::now() + wait);
        None
    }

    /// Reads the pulses. Returns the reason to give up, if a thread hangs that cannot be tolerated.
    fn watch(&mut self) -> Option<String> {
        self.abandoned.retain(|(index, birth)| {
            let hangs = birth.incarnation().is_busy();
            if !hangs {
                let concern = self.concerns[*index].child.lineage.concern;
                self.board.events.note(format!("a hung thread of {concern} generation {} came back", birth.generation()));
                info!(self.concerns[*index].log, "a hung thread came back"; "generation" => birth.generation());
            }
            hangs
        });
        for index in 0..self.concerns.len() {
            let Some(current) = &self.concerns[index].current else { continue };
            let concern = self.concerns[index].child.lineage.concern;
            let state = self.board.of(concern).state;
            let Some(hang) = hang(current, &self.limits, state) else { continue };
            let Some(current) = self.concerns[index].current.take() else { continue };
            let birth = current.birth.clone();
            let generation = birth.generation();
            // From here on the old incarnation is a zombie: not current, not listed. Its Arbiter ends when it returns.
            self.concerns[index].retire(generation);
            birth.incarnation().stop.notify_one();
            let ran_for = current.end();
            // One that waits for ever where it is built holds no thread.
            if birth.incarnation().is_busy() {
                self.abandoned.push((index, birth));
            }
            error!(self.concerns[index].log, "hangs; it is abandoned"; "reason" => &hang, "generation" => generation);
            if let Some(lock) = self.stuck_lock.as_ref().and_then(|stuck| stuck()) {
                return Some(format!("{concern} hung ({hang}) and holds {lock}, which others need"));
            }
            if concern.is_essential() && self.hanging_beside(index) > TOLERATED_HUNG_THREADS {
                return Some(format!("{concern} hung ({hang}) while another thread was still hanging"));
            }
            let reason = self.decide(index, generation, &Exit::Hung(hang), ran_for);
            if reason.is_some() {
                return reason;
            }
        }
        None
    }

    /// Whether a pulse says `busy` for too long that nothing was done about yet.
    fn is_anybody_hanging(&self) -> bool {
        let hangs = |supervised: &Supervised| {
            let state = self.board.of(supervised.child.lineage.concern).state;
            supervised.current.as_ref().is_some_and(|current| hang(current, &self.limits, state).is_some())
        };
        self.concerns.iter().any(hangs)
    }

    async fn end_all(mut self) {
        for supervised in self.concerns.iter().rev() {
            supervised.child.lineage.current.store(NOBODY, Ordering::Release);
            if let Some(current) = &supervised.current {
                current.birth.incarnation().stop.notify_one();
            }
        }
        let mut waiting = self.concerns.iter().filter(|supervised| supervised.current.is_some()).count();
        let deadline = tokio::time::Instant::now() + END_WITHIN;
        while waiting > 0 {
            match tokio::time::timeout_at(deadline, self.ends.next()).await {
                Ok(Some((index, generation, _))) => {
                    let supervised = &mut self.concerns[index];
                    if let Some(current) = supervised.current.take_if(|c| c.birth.generation() == generation)
                    {
                        current.end();
                        waiting -= 1;
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    for supervised in self.concerns.iter().filter(|supervised| supervised.current.is_some()) {
                        warn!(supervised.log, "did not end in time; its thread is left behind");
                    }
                    break;
                }
            }
        }
        info!(self.log, "all concerns have ended");
    }
}

/// Why this incarnation counts as hung, if it does.
fn hang(current: &Current, limits: &Limits, state: State) -> Option<String> {
    let incarnation = current.birth.incarnation();
    let too_long = |busy: Option<Duration>| busy.filter(|busy| *busy > limits.hang_after);
    if let Some(busy) = too_long(incarnation.pulse.busy_for()) {
        return Some(format!("busy with one message for {busy:.1?}"));
    }
    for (name, pulse) in incarnation.further_pulses.lock().iter() {
        if let Some(busy) = too_long(pulse.busy_for()) {
            return Some(format!("{name} busy with one batch for {busy:.1?}"));
        }
    }
    (state == State::Starting && current.since.elapsed() > limits.start_within)
        .then(|| format!("not started after {:?}", limits.start_within))
}

/// A reminder that the closed list of concerns and the board agree.
const _: () = assert!(Concern::ALL.len() == 6);
