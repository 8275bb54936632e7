//! State that outlives the process: who has which address, ports and sessions, in files.
//!
//! ```text
//!  start    snapshot, journals ──▶ image ──▶ what still fits ──▶ tables
//!  run      tables ──▶ what has changed (a bit per entry) ──▶ writer thread ──▶ journal; now and then a snapshot
//! ```
//!
//! - **The packets of a session that goes on cost nothing more.** What begins, changes its state or ends sets a bit; a thread of its own
//!   reads these entries without a lock, four times a second, and writes them behind the journal.
//! - **At most the last second is lost**: what the thread has written survives the process, and twice a second the disk is told.
//! - **Timers are not written.** What packets may have refreshed counts as seen until the router last wrote, and the time from then on
//!   counts: by the clock that nobody sets, as long as the machine has not been started anew, by the time of day otherwise.
//! - **Nothing is trusted that is not as it was written.** Files are checksummed and have a version. What a crash tore off the end of the
//!   journal is left out; anything else that is wrong sets all of it aside, and the router starts without.
//! - **What no longer fits the configuration** is dropped, one by one, and counted by reason.
//! - **Mappings of run time** are in a file of their own, which is written before whoever asked for one is told that it is kept.
//! - **Whatever fails does not stop the router.** It runs on without state, and says so.
//!
//! Worst-case memory: while reading, what is in the files; while writing, what has changed within 250 ms, and 512 KiB.

mod device;
mod files;
mod folder;
mod format;
mod framed;
mod image;
mod mappings;
mod read;
mod restore;
mod sink;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fast_nat::Timestamp;
use parking_lot::{Condvar, Mutex};
use slog::{Logger, info, o, warn};

pub use device::{Meanwhile, Note, meanwhile};
pub use folder::FolderError;
pub use format::VERSION;
pub use mappings::{Changes, Lasts, Left, Set, Store};
pub use restore::{Dropped, Entry, Outcome, Restoring};

use crate::reload::again::Begun;
use crate::shared::Shared;
use crate::supervision::faults::Faults;
use folder::Folder;
use format::{Identity, Moment};
use image::Image;
use read::Found;
use writer::Writer;

/// Where state is kept if nothing is said: a folder for each interface is made in it.
pub const DEFAULT_FOLDER: &str = "/var/lib/protomask";

/// How long the end of the process waits for the last of the journal to be written.
pub const FAREWELL: Duration = Duration::from_secs(5);

/// Whether state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeping {
    /// In this folder.
    In(PathBuf),
    /// It is not wanted.
    Off,
    /// It is wanted and cannot be: why.
    Impossible(String),
}

/// How the state is being kept, for metrics and readiness, and the bell of the thread that does it.
#[derive(Debug)]
pub struct Status {
    /// Whether it is.
    pub keeping: Keeping,
    /// What has become of what an earlier run left; `None`: it left nothing that could be used.
    pub outcome: Option<Outcome>,
    /// Why what an earlier run left could not be used, if that is so.
    pub set_aside: Option<String>,
    /// How long reading and putting back took.
    pub took: Duration,
    /// Bytes of the last snapshot.
    pub snapshot_bytes: AtomicU64,
    /// When that was written, in milliseconds since boot; 0: there is none yet.
    pub snapshot_at: AtomicU64,
    /// Bytes of the journal.
    pub journal_bytes: AtomicU64,
    /// Failures to write so far.
    pub write_errors: AtomicU64,
    /// Where mappings of run time are kept.
    pub mappings: Store,
    /// Faults that tests inject.
    pub faults: Faults,
    failing: Mutex<Option<String>>,
    is_ending: Mutex<bool>,
    bell: Condvar,
}

impl Status {
    fn new(keeping: Keeping) -> Self {
        Self {
            keeping,
            outcome: None,
            set_aside: None,
            took: Duration::ZERO,
            snapshot_bytes: AtomicU64::new(0),
            snapshot_at: AtomicU64::new(0),
            journal_bytes: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
            mappings: Store::default(),
            faults: Faults::default(),
            failing: Mutex::default(),
            is_ending: Mutex::default(),
            bell: Condvar::new(),
        }
    }

    /// What an operator should know who looks whether the router is ready, one sentence each: it is no reason not to be.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Keeping::Impossible(because) = &self.keeping {
            notes.push(format!("runs without state: {because}"));
        }
        if let Some(because) = &*self.failing.lock() {
            notes.push(format!("the state cannot be written just now: {because}"));
        }
        if let Some(because) = self.mappings.failing() {
            notes.push(format!("mappings of run time are not kept just now: {because}"));
        }
        notes
    }

    /// The time since the last snapshot; `None`: there is none yet.
    pub fn snapshot_age(&self) -> Option<Duration> {
        let at = self.snapshot_at.load(Ordering::Relaxed);
        (at > 0).then(|| crate::clock::now().since(Timestamp::from_millis(at)))
    }

    /// Whether it cannot be written just now.
    pub fn is_failing(&self) -> bool {
        self.failing.lock().is_some()
    }

    /// The lock of the folder, if there is one.
    pub(crate) fn lock(&self) -> Option<OwnedFd> {
        self.mappings.folder()?.lock().try_clone().ok().map(OwnedFd::from)
    }

    fn set_failing(&self, because: Option<String>) {
        *self.failing.lock() = because;
    }

    fn is_ending(&self) -> bool {
        *self.is_ending.lock()
    }

    /// Waits until then, or until the thread is to end; says whether it is.
    fn wait_until(&self, then: Instant) -> bool {
        let mut is_ending = self.is_ending.lock();
        while !*is_ending && !self.bell.wait_until(&mut is_ending, then).timed_out() {}
        *is_ending
    }
}

/// A state folder that was opened, and what was found in it.
#[derive(Debug)]
pub struct Opened {
    status: Status,
    kept: Option<Kept>,
    log: Logger,
}

#[derive(Debug)]
struct Kept {
    folder: Arc<Folder>,
    image: Option<Box<Image>>,
    boot: [u8; 16],
    start: Instant,
}

impl Opened {
    /// Takes the folder of this interface and reads what is in it. Without a folder that can be used the router does without, and the log
    /// says so; that another router has it is the one thing that is an error. `folder`: `None`: no state is wanted.
    /// `lock`: that of the folder, if another router has handed it over.
    pub fn open(
        folder: Option<&Path>,
        interface: &str,
        lock: Option<OwnedFd>,
        log: &Logger,
    ) -> Result<Self, FolderError> {
        let log = log.new(o!("state" => folder.map_or_else(|| "off".to_owned(), |folder| folder.join(interface).display().to_string())));
        let Some(base) = folder else {
            info!(log, "no state is kept: a restart ends all sessions");
            return Ok(Self { status: Status::new(Keeping::Off), kept: None, log });
        };
        let start = Instant::now();
        let folder = match Folder::take(base, interface, lock.map(std::fs::File::from)) {
            Ok(folder) => Arc::new(folder),
            Err(error @ FolderError::InUse { .. }) => return Err(error),
            Err(error @ FolderError::Unusable { .. }) => {
                warn!(log, "runs without state: a restart ends all sessions; give it another folder with --state-dir, or say \
                    --no-state"; "because" => %error);
                return Ok(Self {
                    status: Status::new(Keeping::Impossible(error.to_string())),
                    kept: None,
                    log,
                });
            }
        };
        let mut status = Status::new(Keeping::In(folder.path().to_owned()));
        let mut image = None;
        match read::read(&folder) {
            Found::Nothing => info!(log, "no state was found: it begins here"),
            Found::State { image: found, torn } => {
                if torn > 0 {
                    warn!(log, "the last of the journal is torn, as a crash leaves it; what is before it is used"; "bytes" => torn);
                }
                image = Some(found);
            }
            Found::Damage(because) => {
                let aside = folder.set_aside();
                let aside = aside
                    .map_or_else(|error| format!("nowhere ({error})"), |path| path.display().to_string());
                warn!(log, "the state that was found cannot be trusted and is not used: sessions begin anew";
                    "because" => &because, "moved_to" => aside);
                status.set_aside = Some(because);
            }
        }
        Ok(Self { status, kept: Some(Kept { folder, image, boot: boot_id(), start }), log })
    }

    /// Puts back what was found, as far as it fits. To be called before the first packet is looked at.
    pub fn restore(&mut self, into: &Restoring<'_>) -> Result<(), String> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let Some(image) = kept.image.take().filter(|image| !image.is_empty()) else { return Ok(()) };
        let outcome = into.restore(*image, Moment::now(), kept.boot)?;
        self.status.took = kept.start.elapsed();
        info!(self.log, "state restored";
            "sessions" => outcome.restored(Entry::Session), "blocks" => outcome.restored(Entry::Block),
            "leases" => outcome.restored(Entry::Lease), "dropped" => outcome.all_dropped(),
            "took_ms" => self.status.took.as_millis() as u64);
        if outcome.all_dropped() > 0 {
            warn!(self.log, "some of the state no longer fits and was dropped"; "what" => outcome.describe_dropped());
        }
        self.status.outcome.get_or_insert_default().add(outcome);
        Ok(())
    }

    /// What has become of the mappings of run time that an earlier run was told: those that are dropped are said one by one, and the file
    /// says from now on what holds. `left`: what was read of it.
    pub fn restore_mappings(&mut self, left: &Left, begun: &Begun) -> Result<(), FolderError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let (folder, log) = (&kept.folder, &self.log);
        if !mappings::is_same(folder, left) {
            let source =
                io::Error::other("another router has changed its mappings in this very moment; start again");
            return Err(FolderError::Unusable { path: folder.mappings(), source });
        }
        let move_aside = || {
            let aside = mappings::set_aside(folder);
            aside.map_or_else(|error| format!("nowhere ({error})"), |path| path.display().to_string())
        };
        if let Some(because) = &left.damage {
            warn!(log, "the mappings of run time that were found cannot be trusted and are not used; those of the settings hold";
                "because" => because, "moved_to" => move_aside());
            self.status
                .set_aside
                .get_or_insert_with(|| format!("{}: {because}", folder.mappings().display()));
        }
        for (mapping, why) in &begun.dropped {
            warn!(log, "a mapping of run time no longer fits and was dropped"; "mapping" => mapping, "because" => why);
        }
        if !begun.dropped.is_empty() {
            info!(log, "the file of mappings of before is kept for a person to look at"; "moved_to" => move_aside());
        }
        if begun.restored > 0 {
            info!(log, "mappings of run time restored"; "mappings" => begun.restored, "dropped" => begun.dropped.len());
        }
        let mut outcome = Outcome::default();
        (0..begun.restored).for_each(|_| outcome.count(Entry::Mapping, Ok(())));
        begun.dropped.iter().for_each(|_| outcome.count(Entry::Mapping, Err(Dropped::Conflict)));
        if outcome != Outcome::default() {
            self.status.outcome.get_or_insert_default().add(outcome);
        }
        let is_whole = left.damage.is_none() && begun.dropped.is_empty();
        self.status.mappings = Store::new(Arc::clone(folder), is_whole.then(|| left.changes.clone()));
        Ok(())
    }

    /// What metrics and readiness are told, and what keeps the state from now on.
    pub fn split(self) -> (Arc<Status>, Option<Keeper>) {
        let status = Arc::new(self.status);
        let keeper = self.kept.map(|kept| Keeper {
            status: Arc::clone(&status),
            folder: kept.folder,
            boot: kept.boot,
            log: self.log,
        });
        (status, keeper)
    }
}

/// A folder whose state is not yet being kept.
#[derive(Debug)]
pub struct Keeper {
    status: Arc<Status>,
    folder: Arc<Folder>,
    boot: [u8; 16],
    log: Logger,
}

impl Keeper {
    /// Starts the thread that keeps the state of these tables. `None`: there can be no thread, and the router does without.
    pub fn start(self, shared: &Arc<Shared>) -> Option<Guard> {
        let thread = self.spawn(shared)?;
        Some(Guard { keeper: self, thread: Mutex::new(Some(thread)) })
    }

    fn spawn(&self, shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
        let generation = shared.generation();
        let configuration = format!("{:?} {:?}", generation.plan, generation.settings.translation_prefixes);
        let configuration = crc32fast::hash(configuration.as_bytes());
        let writer = Writer {
            shared: Arc::clone(shared),
            status: Arc::clone(&self.status),
            folder: Arc::clone(&self.folder),
            identity: Identity { epoch: 0, generation: 0, boot: self.boot, configuration },
            log: self.log.clone(),
            journal: None,
            noted: None,
            drained: Moment::default(),
            delay: Duration::from_millis(500),
            trouble: None,
            in_place: 0,
            prefixes: Vec::new(),
            again_at: None,
        };
        match std::thread::Builder::new().name("state".to_owned()).spawn(move || writer.run()) {
            Ok(thread) => Some(thread),
            Err(error) => {
                warn!(self.log, "runs without state: a restart ends all sessions"; "because" => %error);
                self.status.set_failing(Some(format!("no thread can be started ({error})")));
                None
            }
        }
    }
}

/// The thread that keeps the state. Ends it when it is dropped.
#[derive(Debug)]
pub struct Guard {
    keeper: Keeper,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Guard {
    /// Writes the last of the journal. Waits for `patience` at most; `false`: it was not done by then. May be repeated.
    pub fn finish(&self, patience: Duration) -> bool {
        let Some(thread) = self.thread.lock().take() else { return true };
        let status = &self.keeper.status;
        *status.is_ending.lock() = true;
        status.bell.notify_all();
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        thread.is_finished() && thread.join().is_ok() && !status.is_failing()
    }

    /// Goes on after it was [finished](Self::finish), with files of its own: somebody else may have written some meanwhile.
    pub fn resume(&self, shared: &Arc<Shared>) {
        let Keeper { status, folder, log, .. } = &self.keeper;
        *status.is_ending.lock() = false;
        status.mappings.forget();
        if let Err(error) = folder.sign() {
            warn!(log, "the lock of the state cannot be written"; "because" => %error);
        }
        *self.thread.lock() = self.keeper.spawn(shared);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.finish(FAREWELL);
        self.keeper.status.mappings.close();
    }
}

impl Moment {
    fn now() -> Self {
        Self { boot: crate::clock::now().as_millis(), wall: crate::records::Stamp::now().as_millis() }
    }
}

/// The interfaces whose state is kept below this folder, as far as that can be seen.
pub fn kept_below(base: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(base).into_iter().flatten().flatten();
    let kept = folders.filter(|folder| folder.path().join(folder::SNAPSHOT).exists());
    let mut names: Vec<_> = kept.map(|folder| folder.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// The kernel's name for the time since the machine was started; zeros where it says nothing.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_default().to_be_bytes()
}
