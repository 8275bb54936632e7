//! Reads the configuration file anew: when it is told to, and when the file is another one.
//!
//! The file is looked at every second, and its text compared. A watch by inotify would have to follow each link of the path,
//! and Kubernetes changes a `ConfigMap` by pointing a link two levels up to another directory; a text that is compared knows
//! nothing of links, and works on every file system.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use slog::{Logger, error, info, warn};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::change::{Changed, Refused, Wanted, change};
use super::classes::sort;
use crate::cli::Flags;
use crate::config::{self, Configuration, Problems};
use crate::generation::Generation;
use crate::logging::LogControl;
use crate::service;
use crate::shared::Shared;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What reloads the settings.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    flags: Flags,
    log: Logger,
    log_control: Option<LogControl>,
    /// The text that was last made into settings, or refused. It outlives the reader.
    known: Arc<Mutex<Option<Arc<str>>>>,
    /// Another text that was seen at the last look: it may be half-written still.
    seen: Option<Arc<str>>,
}

/// Why the file cannot be read as settings.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("there is no configuration file to read anew: it was not started with --config")]
    NoFile,
    #[error(transparent)]
    Problems(#[from] Problems),
    #[error("{} is empty; an empty file is taken for one that is being written", .0.display())]
    Empty(PathBuf),
    #[error("the file cannot be read: {0}")]
    Lost(tokio::task::JoinError),
}

impl Reader {
    /// A reader of the file that these flags name, whose text was `known` at the start. `log_control`: whose level follows the settings.
    pub fn new(
        shared: Arc<Shared>,
        flags: Flags,
        known: Arc<Mutex<Option<Arc<str>>>>,
        log_control: Option<LogControl>,
    ) -> Self {
        let log = shared.log.clone();
        Self { shared, flags, log, log_control, known, seen: None }
    }

    /// Reads the file whenever something comes from `told`, and when the file has changed. It never ends.
    pub async fn run(&mut self, told: &mut mpsc::Receiver<()>) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(()) = told.recv() => self.reload("SIGHUP").await,
                _ = look.tick() => {
                    if self.is_another().await {
                        self.reload("the file has changed").await;
                    }
                }
            }
        }
    }

    /// Whether the file has another text than the one that is known, and has had it for one look.
    async fn is_another(&mut self) -> bool {
        let Some(path) = self.flags.config.clone() else { return false };
        // One that is not there, for a moment or for good, is no new one.
        let Ok(Ok(text)) = tokio::task::spawn_blocking(move || config::read_text(&path)).await else {
            return false;
        };
        let is_new = self.known.lock().as_deref() != Some(&text);
        let is_same_as_before = self.seen.as_deref() == Some(&text);
        self.seen = is_new.then(|| text.into());
        is_new && is_same_as_before
    }

    async fn reload(&mut self, why: &'static str) {
        let log = self.log.clone();
        let _reloading = service::reloading(&log);
        let outcome = self.try_reload().await;
        match &outcome {
            Ok((_, false)) => info!(self.log, "reload: nothing has changed"; "because_of" => why),
            Ok((generation, true)) => self.tell(generation, why),
            Err(reason) => {
                error!(self.log, "reload refused; nothing was changed"; "because_of" => why, "because" => reason);
                self.shared.board.events.note(format!("a reload was refused: {reason}"));
            }
        }
        self.shared.reloads.count(outcome.map(|(_, has_changed)| has_changed));
    }

    fn tell(&self, generation: &Generation, why: &'static str) {
        let plan = &generation.plan;
        let nets = |pools: &[config::PoolSettings]| {
            pools.iter().map(|pool| pool.net.to_string()).collect::<Vec<_>>().join(", ")
        };
        self.shared.board.events.note(format!("reloaded: generation {} of the settings", generation.number));
        info!(self.log, "reloaded"; "because_of" => why, "generation_of_settings" => generation.number,
            "pools" => nets(&plan.pools), "draining" => nets(&plan.draining));
        if !generation.pending.is_empty() {
            warn!(self.log, "settings of the file wait for a restart"; "settings" => generation.pending.join(", "));
        }
        for sentence in &generation.settings.below_rfc {
            warn!(self.log, "a timer is shorter than its RFC says"; "timer" => sentence);
        }
    }

    async fn try_reload(&mut self) -> Result<(Arc<Generation>, bool), String> {
        let wanted = self.read().await.map_err(|error| error.to_string())?;
        // Once more where a mapping that was added at run time stands against the file: the file goes before it.
        let file_goes_first = |before: &Generation, drop_added: bool| {
            let (base, pending) = sort(before, &wanted);
            let added = if drop_added { config::Mappings::default() } else { before.added.clone() };
            // What was removed is back: the file says so anew.
            Wanted { base, added, removed: config::Mappings::default(), pending }
        };
        let kept = change(&self.shared, |before| Ok(file_goes_first(before, false))).await;
        let Changed { generation, has_changed, .. } = match kept {
            Err(Refused::Wrong(why)) if self.has_added() => {
                let without = change(&self.shared, |before| Ok(file_goes_first(before, true))).await;
                let applied = without.map_err(|_| why.clone())?;
                warn!(self.log, "mappings that were added at run time are gone: the file leaves no room for them";
                    "because" => why);
                applied
            }
            other => other.map_err(|refused| refused.to_string())?,
        };
        if let Some(log) = &self.log_control {
            log.set_level(generation.settings.log.level);
        }
        Ok((generation, has_changed))
    }

    fn has_added(&self) -> bool {
        self.shared.generation().added != config::Mappings::default()
    }

    /// The settings that flags and file give now.
    async fn read(&mut self) -> Result<Configuration, Unread> {
        let Some(path) = self.flags.config.clone() else { return Err(Unread::NoFile) };
        let flags = self.flags.clone();
        // Not on this thread, which watches over the others: a large file takes its time.
        let reading = tokio::task::spawn_blocking(move || read(&flags, &path)).await;
        let (text, configuration) = reading.map_err(Unread::Lost)?;
        // Also one that is refused: it is not tried again before it is another one.
        if text.is_some() {
            *self.known.lock() = text;
        }
        self.seen = None;
        configuration
    }
}

fn read(flags: &Flags, path: &Path) -> (Option<Arc<str>>, Result<Configuration, Unread>) {
    let text: Arc<str> = match config::read_text(path) {
        Ok(text) => text.into(),
        Err(problems) => return (None, Err(problems.into())),
    };
    if text.trim().is_empty() {
        return (Some(text), Err(Unread::Empty(path.to_owned())));
    }
    (Some(Arc::clone(&text)), flags.with_file(path, text).map_err(Unread::from))
}
