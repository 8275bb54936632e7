//! The state's files fail in every way: traffic goes on, it is said, and what the next start finds is right again afterwards.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use protomask::config::Sharing;
use protomask::state::Entry;
use protomask::supervision::faults::Point;

use crate::flows::Echoes;
use crate::lab::{Lab, PATIENCE, Wanted, eventually};

/// A folder that goes with the value, and what a router is started with that keeps its state there.
struct Kept {
    folder: PathBuf,
    wanted: Wanted,
}

impl Kept {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("sx{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        let _ = std::fs::remove_dir_all(&folder);
        let wanted = Wanted {
            sharing: Sharing::Ports,
            state_dir: Some(folder.clone()),
            interface: Some(name.clone()),
            ..Wanted::default()
        };
        Self { folder: folder.join(name), wanted }
    }

    /// The files of snapshots and journals, and the lock.
    fn names(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.folder).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        // What the device has dropped is noted beside them, by whichever look comes first.
        names.retain(|name| !name.starts_with("device"));
        names.sort_unstable();
        names
    }

    /// One more session ends, and then the router. The next start finds those that were left, each of them fits, and the port of the
    /// one that ended rests.
    fn end_and_restore(&self, lab: Lab) {
        let nat = &lab.shared.tables.nat;
        let over = nat.sessions().next().unwrap();
        assert!(nat.end_session(over.reference, protomask::clock::now()));
        let sessions = nat.session_count();
        assert!(sessions >= 5, "the pings and the echoes: {sessions}");
        lab.end();
        let lab = Lab::start(&self.wanted).unwrap();
        let outcome = lab.shared.state.outcome.clone().unwrap();
        assert_eq!((outcome.restored(Entry::Session), outcome.all_dropped()), (u64::from(sessions), 0));
        assert!(lab.shared.tables.nat.find_outbound(&over.outbound).is_none(), "{over:?} is over");
        assert!(outcome.resting >= 1, "{outcome:?}");
        lab.end();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.wanted.state_dir.as_ref().unwrap());
    }
}

/// A host more has a session: a change that is to be written.
fn change(lab: &Lab, host: usize) {
    assert!(lab.ping_once(host, PATIENCE).is_reply());
}

/// A new snapshot is written now.
fn snapshot(lab: &Lab) {
    let at = || lab.shared.state.snapshot_at.load(Ordering::SeqCst);
    let before = at();
    lab.shared.state.faults.arm(Point::StateSnapshot, 1);
    eventually("another snapshot", || (at() > before).then_some(()));
}

#[test]
fn when_the_files_of_the_state_fail_traffic_goes_on_and_all_of_it_is_written_anew() {
    let kept = Kept::new();
    let Some(lab) = Lab::start(&kept.wanted) else { return };
    let state = &lab.shared.state;
    eventually("the first snapshot", || state.snapshot_age());
    let echoes = Echoes::start(&lab);
    let cases = [
        (Point::StateWrite, 0),
        (Point::StateSync, 0),
        (Point::StateWrite, 1),
        (Point::StateSync, 1),
        (Point::StateRename, 1),
    ];
    for (number, (point, snapshots)) in cases.into_iter().enumerate() {
        println!("--- {point:?}, with {snapshots} snapshots");
        let (errors, struck) = (state.write_errors.load(Ordering::SeqCst), state.faults.struck(point));
        state.faults.arm(point, 2);
        state.faults.arm(Point::StateSnapshot, snapshots);
        change(&lab, 1 + number);
        eventually("the failure is noticed", || state.is_failing().then_some(()));
        let notes = lab.shared.notes();
        assert!(notes.iter().any(|note| note.contains("injected fault")), "{notes:?}");
        assert_eq!(lab.shared.problems(), [""; 0], "it is ready all the same");
        eventually("it is written again", || (!state.is_failing()).then_some(()));
        assert_eq!(state.faults.struck(point), struck + 2);
        assert_eq!(state.write_errors.load(Ordering::SeqCst), errors + 2);
        assert_eq!(lab.shared.notes(), [""; 0]);
        assert_eq!(kept.names().len(), 3, "nothing is left of what failed: {:?}", kept.names());
        echoes.go_on();
    }
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    kept.end_and_restore(lab);
}

#[test]
fn snapshots_follow_each_other_under_traffic_and_one_that_fails_leaves_the_one_before() {
    let kept = Kept::new();
    let Some(lab) = Lab::start(&kept.wanted) else { return };
    eventually("the first snapshot", || lab.shared.state.snapshot_age());
    let echoes = Echoes::start(&lab);
    for host in 1..6 {
        change(&lab, host);
        snapshot(&lab);
    }
    assert_eq!(kept.names(), ["journal-6", "lock", "snapshot"], "what is older has gone");
    // No further snapshot comes to its place before the router ends: what is there is gone on with, and the journals behind it.
    lab.shared.state.faults.arm(Point::StateRename, u32::MAX);
    lab.shared.state.faults.arm(Point::StateSnapshot, 1);
    eventually("the snapshot fails", || lab.shared.state.is_failing().then_some(()));
    let (sent, lost) = echoes.end();
    assert_eq!(lost, [0; 0], "of {sent}");
    assert!(kept.names().contains(&"journal-7".to_owned()), "{:?}", kept.names());
    kept.end_and_restore(lab);
}
