//! The thread that keeps the files up to date.
//!
//! ```text
//!  every 250 ms   what has changed ──▶ journal          (survives the process)
//!  every 500 ms   the journal ──▶ disk                  (survives the machine)
//!  now and then   a new journal, then all of the state ──▶ snapshot.new ──▶ snapshot; the old journals go
//! ```
//!
//! A snapshot is written while things change: what changes meanwhile stands in the new journal too, and the last of each place counts.
//! When a snapshot fails, the journal goes on. When the journal fails, the row of files begins anew with a snapshot of everything, so
//! nothing that was lost is missed.

use std::fs;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fast_nat::nat64::RestingPort;
use fast_nat::{LeaseKind, SavedLease, Timestamp};
use slog::{Logger, debug, info, warn};

use super::Status;
use super::device::Note;
use super::folder::{Folder, create};
use super::format::{
    BlockRecord, FileKind, Identity, Kind, LeaseRecord, Moment, PlaceRecord, PrefixRecord, RestingRecord,
    SessionRecord,
};
use super::sink::Sink;
use crate::privileges;
use crate::shared::Shared;
use crate::supervision::child::panic_text;
use crate::supervision::faults::Point;

/// How often what has changed is handed to the kernel, and how often that is brought to the disk. Together with the time that the
/// disk takes they stay below the second that may be lost.
const DRAIN_EVERY: Duration = Duration::from_millis(250);
const SYNC_EVERY: Duration = Duration::from_millis(500);

/// How often it is noted that the router still runs, where nothing else is.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// How far the clocks of those who let ports rest may be apart.
const APART: u64 = 1000;

/// Places that are looked at between two looks at the clock.
const STEP: u32 = 8192;

/// A journal that is longer than this, and than twice the snapshot, is followed by a new snapshot: that bounds the time of a restart.
const LONGEST_JOURNAL: u64 = 16 << 20;

/// How long it waits after a failure; twice as long after each further one.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Records that are handed over at a time.
const BATCH: usize = 4096;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) status: Arc<Status>,
    pub(super) folder: Arc<Folder>,
    pub(super) identity: Identity,
    pub(super) log: Logger,
    /// The journal, as long as all of it is written. Without one a row of files of its own is begun.
    pub(super) journal: Option<Sink>,
    /// A snapshot that has failed is tried again then; its journal goes on meanwhile.
    pub(super) again_at: Option<Instant>,
    /// When it was last noted what the device has dropped.
    pub(super) noted: Option<Instant>,
    /// When what had changed was last read.
    pub(super) drained: Moment,
    pub(super) delay: Duration,
    pub(super) trouble: Option<String>,
    /// The row of files that a start would find.
    pub(super) in_place: u64,
    /// What the journals say of the translation prefixes.
    pub(super) prefixes: Vec<PrefixRecord>,
}

/// The translation prefixes by the numbers that sessions have them by.
fn prefixes_of(shared: &Shared) -> Vec<PrefixRecord> {
    shared.generation().plan.prefixes.iter().map(|numbered| PrefixRecord::from(numbered.prefix)).collect()
}

/// Says that nobody keeps the state any more, if the thread panics.
struct Watch(Arc<Status>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set_failing(Some("the thread that writes it has ended".to_owned()));
        }
    }
}

impl Writer {
    pub(super) fn run(mut self) {
        let _watch = Watch(Arc::clone(&self.status));
        privileges::give_up_all(&self.log);
        let (mut drain_at, mut synced, mut alive) = (Instant::now(), Instant::now(), Instant::now());
        loop {
            let is_ending = self.status.wait_until(drain_at);
            let kept = AssertUnwindSafe(|| self.keep_up(&mut synced, &mut alive, is_ending));
            let result = catch_unwind(kept).unwrap_or_else(|panic| {
                // What was read and not written would be missed: the row begins anew with all there is.
                self.journal = None;
                Err(io::Error::other(format!(
                    "the thread that writes it panicked: {}",
                    panic_text(panic.as_ref())
                )))
            });
            drain_at = Instant::now() + DRAIN_EVERY;
            match result {
                Ok(()) => self.works(),
                Err(error) => {
                    if self.fails(&error) {
                        self.again_at = Some(Instant::now() + self.delay);
                    } else {
                        drain_at = Instant::now() + self.delay;
                    }
                    self.delay = (self.delay * 2).min(LONGEST_DELAY);
                }
            }
            if is_ending {
                return;
            }
        }
    }

    fn keep_up(&mut self, synced: &mut Instant, alive: &mut Instant, is_ending: bool) -> io::Result<()> {
        if self.journal.is_none() {
            self.again_at = None;
            return self.begin();
        }
        if self.drain()? {
            *alive = Instant::now();
        } else if alive.elapsed() >= ALIVE_EVERY || is_ending {
            *alive = Instant::now();
            self.note_alive()?;
        }
        if self.noted.is_none_or(|noted| noted.elapsed() >= ALIVE_EVERY) || is_ending {
            self.noted = Some(Instant::now());
            self.note_device();
        }
        if synced.elapsed() >= SYNC_EVERY || is_ending {
            *synced = Instant::now();
            self.sync()?;
        }
        if is_ending {
            return Ok(());
        }
        match self.again_at {
            Some(at) if Instant::now() < at => Ok(()),
            Some(_) => self.snapshot(false),
            None if self.is_journal_long() => {
                self.follow_journal()?;
                self.snapshot(false)
            }
            None => Ok(()),
        }
    }

    fn is_journal_long(&self) -> bool {
        let snapshot = self.status.snapshot_bytes.load(Ordering::Relaxed);
        let length = self.journal.as_ref().map_or(0, |journal| journal.length);
        length > LONGEST_JOURNAL.max(2 * snapshot) || self.status.faults.strikes(Point::StateSnapshot)
    }

    fn works(&mut self) {
        if self.again_at.is_some() {
            return;
        }
        self.delay = FIRST_DELAY;
        if let Some(because) = self.trouble.take() {
            self.status.set_failing(None);
            info!(self.log, "the state is kept again"; "failed_with" => because);
        }
    }

    /// Says whether the journal goes on all the same: it was the snapshot that failed.
    fn fails(&mut self, error: &io::Error) -> bool {
        // What cannot be removed is in nobody's way.
        let _ = remove(&self.folder.new_snapshot());
        let is_ours = self.identity.epoch == self.in_place;
        if !is_ours {
            // The beginning of a row that nobody will go on with.
            self.journal = None;
            let _ = remove(&self.folder.journal(self.identity.generation));
        }
        self.status.write_errors.fetch_add(1, Ordering::Relaxed);
        let text = error.to_string();
        if self.trouble.as_ref() != Some(&text) {
            warn!(self.log, "the state cannot be kept as it should be; it is tried again, and what a restart would find may \
                grow old"; "because" => &text);
        }
        self.status.set_failing(Some(text.clone()));
        self.trouble = Some(text);
        self.journal.is_some()
    }

    /// Begins a row of files of its own.
    fn begin(&mut self) -> io::Result<()> {
        let epoch = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        self.new_journal(epoch)?;
        // All of it is read anew from here on: also what has just been put back.
        self.shared.tables.nat.take_changed_sessions(|_| {});
        self.shared.tables.nat.take_changed_blocks(|_| {});
        drop(self.shared.tables.leases.take_changed());
        self.drained = Moment::now();
        self.snapshot(true)
    }

    /// Hands over what has changed; says whether anything has. A journal that fails is none any more: what was read and is not written
    /// would be missed.
    fn drain(&mut self) -> io::Result<bool> {
        let Some(mut journal) = self.journal.take() else { return Ok(false) };
        let has_changed = self.drain_to(&mut journal)?;
        self.journal = Some(journal);
        Ok(has_changed)
    }

    fn drain_to(&mut self, journal: &mut Sink) -> io::Result<bool> {
        let shared = Arc::clone(&self.shared);
        let nat = &shared.tables.nat;
        let moment = Moment::now();
        let since = Timestamp::from_millis(self.drained.boot.saturating_sub(APART));
        let before = journal.length;
        let faults = &self.status.faults;

        let (mut sessions, mut gone) = (Vec::new(), Vec::new());
        nat.take_changed_sessions(|place| match nat.saved_session(place) {
            Some(saved) => sessions.push(SessionRecord::new(place, &saved)),
            None => gone.push(PlaceRecord::new(place)),
        });
        // Read behind the sessions: a reload may have given them a prefix with a new number.
        let prefixes = prefixes_of(&shared);
        if self.prefixes != prefixes {
            journal.add(Kind::Prefixes, moment, &prefixes, faults)?;
            self.prefixes = prefixes;
        }
        journal.add(Kind::SessionsGone, moment, &gone, faults)?;
        journal.add(Kind::Sessions, moment, &sessions, faults)?;

        let (mut blocks, mut gone, mut resting) = (Vec::new(), Vec::new(), Vec::new());
        nat.take_changed_blocks(|place| {
            match nat.saved_block(place) {
                Some(saved) => blocks.push(BlockRecord::new(place, &saved)),
                None => gone.push(PlaceRecord::new(place)),
            }
            nat.resting_ports(place, since, &mut resting);
        });
        let resting: Vec<_> = resting.iter().map(RestingRecord::from).collect();
        journal.add(Kind::BlocksGone, moment, &gone, faults)?;
        journal.add(Kind::Blocks, moment, &blocks, faults)?;
        journal.add(Kind::Resting, moment, &resting, faults)?;

        let changed = shared.tables.leases.take_changed();
        if !changed.is_empty() {
            let held = changed.iter().filter_map(|address| shared.tables.leases.by_address(*address));
            let held = held.filter(|lease| lease.kind == LeaseKind::Dynamic);
            let held: Vec<_> = held.map(|lease| LeaseRecord::from(&SavedLease::from(lease))).collect();
            let ended = self.shared.tables.leases.ended().into_iter();
            let ended =
                ended.filter(|ended| changed.contains(&ended.lease.address)).map(|ended| of_ended(&ended));
            let ended: Vec<_> = ended.collect();
            journal.add(Kind::LeasesEnded, moment, &ended, faults)?;
            journal.add(Kind::Leases, moment, &held, faults)?;
        }
        journal.flush(faults)?;
        faults.at(Point::StateWritten);
        self.drained = moment;
        self.status.journal_bytes.store(journal.length, Ordering::Relaxed);
        Ok(journal.length > before)
    }

    /// What the device has dropped, for the log of the next start.
    fn note_device(&self) {
        let Some(note) = Note::now(&self.shared.interface, self.shared.device_index) else { return };
        if let Err(error) = note.write(&self.folder) {
            debug!(self.log, "what the device has dropped cannot be noted"; "because" => %error);
        }
    }

    fn note_alive(&mut self) -> io::Result<()> {
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        let was_unsynced = journal.is_unsynced;
        journal.add_mark(Kind::Alive, Moment::now(), &self.status.faults)?;
        journal.flush(&self.status.faults)?;
        // It is worth no work of the disk of its own.
        journal.is_unsynced = was_unsynced;
        self.journal = Some(journal);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        journal.sync(&self.status.faults)?;
        self.journal = Some(journal);
        Ok(())
    }

    /// Ends the journal and begins the next one of this row.
    fn follow_journal(&mut self) -> io::Result<()> {
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        // All of it must be on the disk before there is a journal behind it, and its end must be known for one.
        journal.add_mark(Kind::End, Moment::now(), &self.status.faults)?;
        journal.sync(&self.status.faults)?;
        self.new_journal(self.identity.epoch)
    }

    fn new_journal(&mut self, epoch: u64) -> io::Result<()> {
        let last = self.folder.journals()?.last().copied().unwrap_or_default();
        let generation = last.max(self.identity.generation) + 1;
        self.identity = Identity { epoch, generation, ..self.identity };
        let file = create(&self.folder.journal(generation))?;
        let mut journal = Sink::begin(file, FileKind::Journal, &self.identity);
        journal.sync(&self.status.faults)?;
        self.folder.sync()?;
        self.journal = Some(journal);
        Ok(())
    }

    /// Writes all of the state, while the journal goes on. `is_first`: there is no other snapshot that it could go on from.
    fn snapshot(&mut self, is_first: bool) -> io::Result<()> {
        let start = Instant::now();
        let path = self.folder.new_snapshot();
        let mut snapshot = Sink::begin(create(&path)?, FileKind::Snapshot, &self.identity);
        if !self.write_everything(&mut snapshot, is_first)? {
            debug!(self.log, "a snapshot was given up: the router ends");
            return remove(&path);
        }
        snapshot.add_mark(Kind::End, Moment::now(), &self.status.faults)?;
        snapshot.sync(&self.status.faults)?;
        // What the snapshot has of a place may be newer than what the journal says of it, but not for long.
        self.drain()?;
        self.sync()?;
        if self.status.faults.strikes(Point::StateRename) {
            return Err(io::Error::other("injected fault: StateRename"));
        }
        fs::rename(&path, self.folder.snapshot())?;
        self.in_place = self.identity.epoch;
        self.again_at = None;
        self.folder.sync()?;
        let generation = self.identity.generation;
        for old in self.folder.journals()?.into_iter().filter(|old| *old != generation) {
            remove(&self.folder.journal(old))?;
        }
        self.status.snapshot_bytes.store(snapshot.length, Ordering::Relaxed);
        self.status.snapshot_at.store(crate::clock::now().as_millis(), Ordering::Relaxed);
        debug!(self.log, "a snapshot of the state was written";
            "bytes" => snapshot.length, "took_ms" => start.elapsed().as_millis() as u64);
        Ok(())
    }

    /// `false`: given up because the router ends and the files before do as well.
    fn write_everything(&mut self, snapshot: &mut Sink, is_first: bool) -> io::Result<bool> {
        let shared = Arc::clone(&self.shared);
        let status = Arc::clone(&self.status);
        let (nat, leases, faults) = (&shared.tables.nat, &shared.tables.leases, &status.faults);
        let moment = Moment::now();
        let prefixes = prefixes_of(&shared);
        snapshot.add(Kind::Prefixes, moment, &prefixes, faults)?;
        let mut drained = Instant::now();

        let held = leases.leases().filter(|lease| lease.kind == LeaseKind::Dynamic);
        let held: Vec<_> = held.map(|lease| LeaseRecord::from(&SavedLease::from(lease))).collect();
        let ended: Vec<_> = leases.ended().iter().map(of_ended).collect();
        snapshot.add(Kind::LeasesEnded, moment, &ended, faults)?;
        snapshot.add(Kind::Leases, moment, &held, faults)?;

        let (mut blocks, mut resting) = (Vec::new(), Vec::<RestingPort>::new());
        let places = nat.block_places();
        for place in 1..=places {
            blocks.extend(nat.saved_block(place).map(|saved| BlockRecord::new(place, &saved)));
            nat.resting_ports(place, Timestamp::default(), &mut resting);
            if blocks.len() >= BATCH || resting.len() >= BATCH || place == places {
                snapshot.add(Kind::Blocks, moment, &blocks, faults)?;
                let records: Vec<_> = resting.iter().map(RestingRecord::from).collect();
                snapshot.add(Kind::Resting, moment, &records, faults)?;
                blocks.clear();
                resting.clear();
                if !self.go_on(&mut drained, is_first)? {
                    return Ok(false);
                }
            }
        }

        let mut sessions = Vec::with_capacity(STEP as usize);
        let places = nat.session_places();
        for first in (1..=places).step_by(STEP as usize) {
            let step = first..=places.min(first + (STEP - 1));
            let saved = step.filter_map(|place| Some(SessionRecord::new(place, &nat.saved_session(place)?)));
            sessions.extend(saved);
            snapshot.add(Kind::Sessions, moment, &sessions, faults)?;
            sessions.clear();
            if !self.go_on(&mut drained, is_first)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// In the midst of a snapshot: keeps up with what changes. `false`: the router ends, and the files do without the snapshot.
    fn go_on(&mut self, drained: &mut Instant, is_first: bool) -> io::Result<bool> {
        let is_ending = self.status.is_ending();
        if drained.elapsed() >= DRAIN_EVERY || is_ending {
            *drained = Instant::now();
            self.drain()?;
            self.sync()?;
        }
        Ok(!is_ending || is_first)
    }
}

/// A lease that ended, as the files have it.
fn of_ended(ended: &fast_nat::Ended) -> LeaseRecord {
    LeaseRecord::from(&SavedLease { last_seen: ended.at, ..SavedLease::from(ended.lease) })
}

/// Removes a file, if it is there.
fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
