//! What the overseer knows of each concern, for readiness, metrics and logs.

use parking_lot::Mutex;

use super::events::Events;

/// The concerns of the router: each fails and restarts on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Concern {
    /// Reads, translates and writes packets.
    Tun,
    /// Expires leases, keeps static pairs.
    Sessions,
    /// Leases addresses.
    Pool,
    /// Keeps link, addresses, routes and masquerade as they should be.
    Routes,
    /// Serves metrics, health and readiness.
    Metrics,
    /// Answers and does what is asked by the control socket.
    Control,
}

impl Concern {
    /// Every concern, in the order of their start.
    pub const ALL: [Self; 6] =
        [Self::Pool, Self::Sessions, Self::Tun, Self::Routes, Self::Metrics, Self::Control];

    /// The name in logs, metrics and readiness.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tun => "tun",
            Self::Sessions => "sessions",
            Self::Pool => "pool",
            Self::Routes => "routes",
            Self::Metrics => "metrics",
            Self::Control => "control",
        }
    }

    /// Whether the router is worth nothing without it. `metrics` and `control` are not: who cannot ask must not lose the
    /// forwarding, so they are tried again for ever, at the longest wait.
    pub const fn is_essential(self) -> bool {
        !matches!(self, Self::Metrics | Self::Control)
    }
}

impl std::fmt::Display for Concern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It stopped without being asked to, or was asked to stop.
    Stopped,
    /// It gave up, saying why.
    Failed(String),
    /// It gave up, saying why, and no successor could do better.
    FailedForGood(String),
    /// It panicked, with this message.
    Panicked(String),
    /// It was busy with one thing for too long.
    Hung(String),
    /// It could not start, because of this.
    CannotStart(String),
    /// Its thread is gone without a word.
    Lost,
}

impl Exit {
    /// The closed set of metric labels.
    pub const KINDS: [&'static str; 6] = ["stopped", "failed", "panicked", "hung", "cannot_start", "lost"];

    /// Which of [`Self::KINDS`] this is.
    pub const fn kind(&self) -> usize {
        match self {
            Self::Stopped => 0,
            Self::Failed(_) | Self::FailedForGood(_) => 1,
            Self::Panicked(_) => 2,
            Self::Hung(_) => 3,
            Self::CannotStart(_) => 4,
            Self::Lost => 5,
        }
    }

    /// The label of this exit.
    pub const fn kind_name(&self) -> &'static str {
        Self::KINDS[self.kind()]
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped unasked"),
            Self::Failed(why) | Self::FailedForGood(why) => write!(f, "failed: {why}"),
            Self::Panicked(why) => write!(f, "panicked: {why}"),
            Self::Hung(why) => write!(f, "hung: {why}"),
            Self::CannotStart(why) => write!(f, "cannot start: {why}"),
            Self::Lost => f.write_str("its thread is gone without a word"),
        }
    }
}

/// Where an incarnation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Between its birth and the end of `started()`.
    Starting,
    /// It answers messages.
    Running,
    /// It ended, and waits for its restart.
    Waiting,
}

impl State {
    /// The word in logs and readiness.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting => "waiting for its restart",
        }
    }
}

/// What is known of one concern.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where its current incarnation stands.
    pub state: State,
    /// The number of its current incarnation, from 1.
    pub generation: u64,
    /// Exits so far, by [`Exit::kind`].
    pub exits: [u64; Exit::KINDS.len()],
    /// Why it ended last.
    pub last_failure: Option<String>,
}

/// The status of all concerns: written by the overseer and by each incarnation, read by anyone.
#[derive(Debug)]
pub struct Board {
    /// What has happened, for the last words of the process.
    pub events: Events,
    entries: [Mutex<Status>; Concern::ALL.len()],
}

impl Default for Board {
    fn default() -> Self {
        let fresh = || {
            Mutex::new(Status {
                state: State::Waiting,
                generation: 0,
                exits: [0; Exit::KINDS.len()],
                last_failure: None,
            })
        };
        Self { events: Events::default(), entries: std::array::from_fn(|_| fresh()) }
    }
}

impl Board {
    /// The status of one concern.
    pub fn of(&self, concern: Concern) -> Status {
        self.entries[concern as usize].lock().clone()
    }

    /// Whether every concern runs.
    pub fn all_running(&self) -> bool {
        Concern::ALL.iter().all(|concern| self.of(*concern).state == State::Running)
    }

    pub(super) fn born(&self, concern: Concern, generation: u64) {
        let mut status = self.entries[concern as usize].lock();
        status.state = State::Starting;
        status.generation = generation;
        drop(status);
        self.events.note(format!("{concern} generation {generation} was started"));
    }

    /// Called by the incarnation itself: ignored from one that has been replaced.
    pub(super) fn running(&self, concern: Concern, generation: u64) {
        let mut status = self.entries[concern as usize].lock();
        if status.generation == generation && status.state == State::Starting {
            status.state = State::Running;
        }
    }

    pub(super) fn ended(&self, concern: Concern, exit: &Exit) {
        let mut status = self.entries[concern as usize].lock();
        status.state = State::Waiting;
        status.exits[exit.kind()] += 1;
        status.last_failure = Some(exit.to_string());
        let generation = status.generation;
        drop(status);
        self.events.note(format!("{concern} generation {generation} {exit}"));
    }
}
