//! Files as they are, torn, and damaged; and what of them fits which configuration.

mod corpus;
mod damage;
mod fitting;
mod law;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use fast_nat::nat64::{Course, Outbound, Protocol, RestingPort, SavedBlock, SavedSession, SessionState};
use fast_nat::{SavedLease, Timestamp};

use super::folder::{Folder, FolderError, create};
use super::format::{
    BlockRecord, FileKind, Identity, Kind, LeaseRecord, Moment, PlaceRecord, PrefixRecord, RestingRecord,
    SessionRecord,
};
use super::image::Image;
use super::read::{self, Found};
use super::sink::Sink;
use super::{files, format, image};
use crate::supervision::faults::Faults;

/// A folder that goes with the value.
struct Base(PathBuf);

impl Base {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("protomask-state-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn take(&self) -> Folder {
        Folder::take(&self.0, "nat64", None).unwrap()
    }

    fn of_interface(&self) -> PathBuf {
        self.0.join("nat64")
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn host(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, 1)
}

/// A session of the host's port on its block (see [`block`]).
fn session(n: u16, port: u16) -> SavedSession {
    SavedSession {
        outbound: Outbound {
            prefix: 0,
            protocol: Protocol::Tcp,
            host: host(n),
            port,
            remote: Ipv4Addr::new(198, 51, 100, 2),
            remote_port: 443,
        },
        address: Ipv4Addr::new(203, 0, 113, 1),
        port: 4096 + 64 * n + port % 64,
        state: SessionState::Established,
        course: Course::from_bits(7).unwrap(),
        last_seen: Timestamp::from_millis(5_000_000),
    }
}

fn block(n: u16) -> SavedBlock {
    SavedBlock {
        host: host(n),
        address: Ipv4Addr::new(203, 0, 113, 1),
        first_port: 4096 + 64 * n,
        size: 64,
        given: Timestamp::from_millis(4_000_000),
    }
}

fn lease(n: u8) -> SavedLease {
    SavedLease {
        host: host(100 + u16::from(n)),
        address: Ipv4Addr::new(192, 0, 2, n),
        granted: Timestamp::from_millis(3_000_000),
        last_seen: Timestamp::from_millis(5_000_000),
    }
}

fn at(boot: u64) -> Moment {
    Moment { boot, wall: 1_700_000_000_000 + boot }
}

const BOOT: [u8; 16] = [3; 16];

fn identity(generation: u64) -> Identity {
    Identity { epoch: 77, generation, boot: BOOT, configuration: 9 }
}

fn faults() -> Faults {
    Faults::default()
}

/// Writes a file of frames.
fn write(path: &Path, kind: FileKind, of: &Identity, frames: impl Fn(&mut Sink, &Faults)) {
    let mut sink = Sink::begin(create(path).unwrap(), kind, of);
    frames(&mut sink, &faults());
    sink.sync(&faults()).unwrap();
}

fn snapshot(sink: &mut Sink, faults: &Faults) {
    let prefixes = [PrefixRecord::from("64:ff9b:1::/96".parse::<rfc6052::Prefix>().unwrap())];
    sink.add(Kind::Prefixes, at(5_000_000), &prefixes, faults).unwrap();
    sink.add(
        Kind::Leases,
        at(5_000_000),
        &[LeaseRecord::from(&lease(1)), LeaseRecord::from(&lease(2))],
        faults,
    )
    .unwrap();
    sink.add(
        Kind::Blocks,
        at(5_000_000),
        &[BlockRecord::new(1, &block(1)), BlockRecord::new(2, &block(2))],
        faults,
    )
    .unwrap();
    let sessions = [(1, 1), (2, 2)].map(|(place, n)| SessionRecord::new(place, &session(n, 1000)));
    sink.add(Kind::Sessions, at(5_000_000), &sessions, faults).unwrap();
    sink.add_mark(Kind::End, at(5_000_100), faults).unwrap();
}

/// What each frame of the journal says: the state is another one after each of them.
const FRAMES: usize = 5;

fn journal(sink: &mut Sink, faults: &Faults, frames: usize) {
    let resting = RestingPort {
        protocol: Protocol::Tcp,
        address: Ipv4Addr::new(203, 0, 113, 1),
        port: 4096 + 64 + 1000 % 64,
        since: Timestamp::from_millis(5_000_200),
    };
    for frame in 0..frames {
        let moment = at(5_000_200 + frame as u64);
        match frame {
            0 => sink.add(Kind::SessionsGone, moment, &[PlaceRecord::new(1)], faults),
            1 => sink.add(Kind::Resting, moment, &[RestingRecord::from(&resting)], faults),
            2 => sink.add(Kind::Sessions, moment, &[SessionRecord::new(1, &session(2, 1001))], faults),
            3 => {
                let ended = SavedLease { last_seen: Timestamp::from_millis(5_000_203), ..lease(2) };
                sink.add(Kind::LeasesEnded, moment, &[LeaseRecord::from(&ended)], faults)
            }
            _ => sink.add_mark(Kind::Alive, moment, faults),
        }
        .unwrap();
    }
}

/// A folder with a snapshot and two journals that go on from it; of the second one so many frames.
fn lay(folder: &Folder, frames: usize) {
    write(&folder.snapshot(), FileKind::Snapshot, &identity(4), snapshot);
    write(&folder.journal(4), FileKind::Journal, &identity(4), |sink, faults| {
        sink.add_mark(Kind::End, at(5_000_150), faults).unwrap();
    });
    write(&folder.journal(5), FileKind::Journal, &identity(5), |sink, faults| journal(sink, faults, frames));
}

/// What is read of a folder: in words, and how many bytes are torn.
fn found(folder: &Folder) -> Result<Option<(String, u64)>, String> {
    match read::read(folder) {
        Found::Nothing => Ok(None),
        Found::State { image, torn } => Ok(Some((law::in_words(*image), torn))),
        Found::Damage(because) => Err(because),
    }
}

#[test]
fn what_was_written_is_read_and_the_last_of_each_place_counts() {
    let base = Base::new();
    let folder = base.take();
    assert_eq!(found(&folder), Ok(None));
    lay(&folder, FRAMES);
    let Found::State { image, torn } = read::read(&folder) else { panic!("there is a state") };
    assert_eq!((image.boot, image.configuration, image.last, torn), (BOOT, 9, at(5_000_204), 0));
    assert_eq!(image.prefixes, ["64:ff9b:1::/96".parse().unwrap()]);
    let mut sessions = image.sessions.into_entries();
    sessions.sort_by_key(|session| session.outbound.port);
    assert_eq!(sessions, [session(2, 1000), session(2, 1001)]);
    assert_eq!(image.blocks.len(), 2);
    assert_eq!(image.leases.values().copied().collect::<Vec<_>>(), [lease(1)]);
    assert_eq!(image.ended.len(), 1);
    assert_eq!(image.resting.len(), 1);
}

#[test]
fn the_folder_is_nobody_elses_business_and_a_second_user_is_told_whose_it_is() {
    use std::os::unix::fs::PermissionsExt as _;

    let base = Base::new();
    let folder = base.take();
    lay(&folder, 0);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&base.0), mode(folder.path())), (0o700, 0o700));
    assert_eq!((mode(&folder.snapshot()), mode(&folder.journal(4))), (0o600, 0o600));
    let refused = Folder::take(&base.0, "nat64", None).unwrap_err();
    assert!(
        matches!(refused, FolderError::InUse { pid: Some(pid), .. } if pid == std::process::id()),
        "{refused}"
    );
    let said = refused.to_string();
    assert!(
        said.contains(&format!("process {}", std::process::id())) && said.contains("--state-dir"),
        "{said}"
    );
    // Another interface has a folder of its own, and this one is free again when its user has gone.
    drop(Folder::take(&base.0, "nat65", None).unwrap());
    drop(folder);
    base.take();
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_says_why() {
    let base = Base::new();
    std::fs::write(&base.0, "a file").unwrap();
    let error = Folder::take(&base.0, "nat64", None).unwrap_err();
    assert!(
        matches!(error, FolderError::Unusable { .. }) && error.to_string().contains("cannot be used"),
        "{error}"
    );
    std::fs::remove_file(&base.0).unwrap();
}

#[test]
fn what_is_set_aside_is_kept_for_a_person_to_look_at_and_in_nobodys_way() {
    let base = Base::new();
    let folder = base.take();
    for _ in 0..2 {
        lay(&folder, FRAMES);
        let aside = folder.set_aside().unwrap();
        assert_eq!(aside, base.of_interface().join("set-aside"));
        let mut names: Vec<_> = std::fs::read_dir(aside)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["journal-4", "journal-5", "snapshot"]);
        assert_eq!(found(&folder), Ok(None));
    }
}
