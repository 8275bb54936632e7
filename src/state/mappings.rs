//! The file of mappings that were added and removed while the router ran.
//!
//! ```text
//!  protomask mappings 1 5f3a90c2          the version, and a checksum (CRC-32) of all that is behind this line
//!  {"added": {"forwards": [...], "static": [...]}, "removed": {...}}
//! ```
//!
//! It is small, and written as a whole at each change: into another file, which is brought to the disk and then takes its name. So a
//! crash leaves the old ones or the new ones. It is JSON in the words of the control socket, so that a person can read one that was
//! set aside.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use slog::{Logger, info, warn};

use super::folder::{self, Folder};
use super::framed;
use crate::config::{Mappings, PartialForward, Placed, StaticPair, Text};
use crate::control::{Forward, Pair};
use crate::generation::Generation;

/// The layout that is written and read here.
const VERSION: u16 = 1;

/// The beginning of the first line.
const NAME: &str = "protomask mappings";

/// A longer file is none of this program: it would hold more forwards than there are ports of 16 addresses, for both protocols.
const LONGEST: u64 = 256 << 20;

/// What was changed while the router ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// Mappings that the settings do not have.
    pub added: Set,
    /// Mappings of the settings that do not hold.
    pub removed: Set,
}

/// Mappings in the words of the control socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// Forwarded ports.
    pub forwards: Vec<Forward>,
    /// Addresses of hosts.
    #[serde(rename = "static")]
    pub static_pairs: Vec<Pair>,
}

impl Set {
    fn of(mappings: &Mappings) -> Self {
        let forwards = mappings.forwards.iter().map(|forward| Forward {
            protocol: forward.protocol.value,
            address: forward.address.value,
            port: forward.port.value,
            host: forward.host.value,
            host_port: forward.host_port.as_ref().map(|port| port.value),
            prefix: forward.prefix.as_ref().map(|prefix| Text(prefix.value)),
        });
        let pair = |pair: &Placed<StaticPair>| Pair { address: pair.value.address, host: pair.value.host };
        Self { forwards: forwards.collect(), static_pairs: mappings.static_pairs.iter().map(pair).collect() }
    }

    /// The same as settings have them.
    pub fn mappings(&self) -> Mappings {
        Mappings {
            static_pairs: self.static_pairs.iter().map(Pair::placed).collect(),
            forwards: self.forwards.iter().map(Forward::placed).collect(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.forwards.len() + self.static_pairs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn placed<T>(value: T) -> Placed<T> {
    Placed::by_flag("control socket", value)
}

impl Forward {
    /// As if it were written in the file, by the control socket.
    pub fn placed(&self) -> PartialForward {
        let Self { protocol, address, port, host, host_port, prefix } = *self;
        PartialForward {
            protocol: placed(protocol),
            address: placed(address),
            port: placed(port),
            host: placed(host),
            host_port: host_port.map(placed),
            prefix: prefix.map(|Text(prefix)| placed(prefix)),
        }
    }
}

impl Pair {
    /// As if it were written in the file, by the control socket.
    pub fn placed(&self) -> Placed<StaticPair> {
        placed(StaticPair { host: self.host, address: self.address })
    }
}

impl Changes {
    /// Those of a generation.
    pub fn of(generation: &Generation) -> Self {
        Self { added: Set::of(&generation.added), removed: Set::of(&generation.removed) }
    }

    fn write(&self) -> io::Result<Vec<u8>> {
        framed::write(NAME, VERSION, self)
    }

    fn read(file: &[u8]) -> Result<Self, String> {
        framed::read(NAME, VERSION, file)
    }
}

/// What an earlier run has left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// What was changed then, as far as it is known.
    pub changes: Changes,
    /// Why the file cannot be trusted, if that is so.
    pub damage: Option<String>,
    /// Its checksum, to see whether it is still the same; `None`: there was none.
    sum: Option<u32>,
}

impl Left {
    /// Reads the file of this interface, if there is one. The folder need not be taken for that.
    pub fn read(base: &Path, interface: &str) -> Self {
        let path = base.join(interface).join(folder::MAPPINGS);
        let read = fs::File::open(&path).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(LONGEST + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        match read {
            Ok(bytes) if bytes.len() as u64 > LONGEST => Self::damaged("it is too long".to_owned(), None),
            Ok(bytes) => {
                let sum = Some(crc32fast::hash(&bytes));
                match Changes::read(&bytes) {
                    Ok(changes) => Self { changes, damage: None, sum },
                    Err(because) => Self::damaged(because, sum),
                }
            }
            // The folder is not there, or is none: whoever takes it says what is to be said.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Self::default()
            }
            Err(error) => Self::damaged(error.to_string(), None),
        }
    }

    fn damaged(because: String, sum: Option<u32>) -> Self {
        Self { changes: Changes::default(), damage: Some(because), sum }
    }
}

/// How long what was just changed lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lasts {
    /// Over a restart.
    ForGood,
    /// Until the router ends, because of this.
    UntilTheEnd(String),
}

impl fmt::Display for Lasts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForGood => {
                f.write_str("also over a restart, until it is undone or the file stands against it")
            }
            Self::UntilTheEnd(because) => {
                write!(
                    f,
                    "until the router ends ({because}); write it into the configuration file to keep it"
                )
            }
        }
    }
}

/// Where the changes of this run are kept.
#[derive(Debug, Default)]
pub struct Store {
    /// `None`: nowhere.
    folder: Mutex<Option<Arc<Folder>>>,
    /// What the file says, as far as that is known. Locked while it is written.
    written: Mutex<Option<Changes>>,
    failing: Mutex<Option<String>>,
}

impl Store {
    /// That of a folder which was taken, whose file says `last`.
    pub(super) fn new(folder: Arc<Folder>, last: Option<Changes>) -> Self {
        Self { folder: Mutex::new(Some(folder)), written: Mutex::new(last), failing: Mutex::default() }
    }

    pub(super) fn folder(&self) -> Option<Arc<Folder>> {
        self.folder.lock().clone()
    }

    /// Somebody else may have written the file.
    pub(super) fn forget(&self) {
        *self.written.lock() = None;
    }

    /// Keeps nothing any more: the folder is somebody else's from now on.
    pub(super) fn close(&self) {
        *self.folder.lock() = None;
    }

    /// Why it cannot be written just now, if that is so.
    pub fn failing(&self) -> Option<String> {
        self.failing.lock().clone()
    }

    /// Writes what has been changed, unless the file says so already. `generation` is asked for once nobody else writes, so that the last
    /// to write has the newest. Waits for the disk. `None`: nothing is kept.
    pub fn keep(&self, generation: impl Fn() -> Arc<Generation>, log: &Logger) -> Option<Result<(), String>> {
        let folder = self.folder()?;
        let mut written = self.written.lock();
        let changes = Changes::of(&generation());
        if written.as_ref() == Some(&changes) {
            return Some(Ok(()));
        }
        match write(&folder, &changes) {
            Ok(()) => {
                if let Some(because) = self.failing.lock().take() {
                    info!(log, "mappings of run time are kept again"; "failed_with" => because);
                }
                *written = Some(changes);
                Some(Ok(()))
            }
            Err(error) => {
                // It may be on the disk or not.
                *written = None;
                let because = format!("{} cannot be written ({error})", folder.mappings().display());
                warn!(log, "mappings of run time cannot be kept: a restart would find those of before"; "because" => &because);
                *self.failing.lock() = Some(because.clone());
                Some(Err(because))
            }
        }
    }
}

fn write(folder: &Folder, changes: &Changes) -> io::Result<()> {
    let (path, new) = (folder.mappings(), folder.new_mappings());
    let bytes = changes.write()?;
    let mut file = folder::create(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    folder.sync()
}

/// Moves the file away where it is damaged, or says what does not hold any more. Says where.
pub(super) fn set_aside(folder: &Folder) -> io::Result<std::path::PathBuf> {
    folder.set_mappings_aside()
}

/// Whether the file is still the one that was read.
pub(super) fn is_same(folder: &Folder, left: &Left) -> bool {
    match fs::read(folder.mappings()) {
        Ok(bytes) => left.sum == Some(crc32fast::hash(&bytes)),
        Err(_) => left.sum.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Changes {
        let forward = |port, prefix: Option<&str>| Forward {
            protocol: crate::config::ForwardProtocol::Udp,
            address: [203, 0, 113, 1].into(),
            port,
            host: "2001:db8::1".parse().unwrap(),
            host_port: prefix.is_some().then_some(8080),
            prefix: prefix.map(|prefix| prefix.parse().unwrap()),
        };
        let pair = Pair { address: [203, 0, 113, 9].into(), host: "2001:db8::2".parse().unwrap() };
        Changes {
            added: Set {
                forwards: vec![forward(1, None), forward(2, Some("64:ff9b::/96"))],
                static_pairs: vec![pair],
            },
            removed: Set { forwards: vec![forward(3, None)], static_pairs: vec![] },
        }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for changes in [changes(), Changes::default()] {
            assert_eq!(Changes::read(&changes.write().unwrap()), Ok(changes));
        }
    }

    #[test]
    fn a_byte_that_is_wrong_anywhere_and_an_end_that_is_missing_are_noticed() {
        let file = changes().write().unwrap();
        for at in 0..file.len() {
            for flip in [1, 0x20, 0x80, 0xff] {
                let mut wrong = file.clone();
                wrong[at] ^= flip;
                assert!(Changes::read(&wrong).is_err(), "byte {at}");
            }
            assert!(Changes::read(&file[..at]).is_err(), "cut at {at}");
        }
        let mut longer = file.clone();
        longer.push(b' ');
        assert_eq!(Changes::read(&longer), Err("its checksum is wrong".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        for (line, because) in [
            ("", "it ends within its first line"),
            ("snapshot\n{}", "it is not a file of this program"),
            ("protomask mappings 2 00000000\n{}", "it is of version 2, and this program reads 1"),
            ("protomask mappings 1 00000000\n{}", "its checksum is wrong"),
            ("protomask mappings\n{}", "its first line is damaged"),
        ] {
            assert_eq!(Changes::read(line.as_bytes()), Err(because.to_owned()));
        }
        // A checksum that is right is not enough.
        for body in ["", "{}", "[]", r#"{"added":{"forwards":[],"static":[],"colour":1},"removed":{}}"#] {
            let because = Changes::read(
                format!("{}{body}", framed::first_line(NAME, VERSION, body.as_bytes())).as_bytes(),
            )
            .unwrap_err();
            assert!(because.starts_with("it makes no sense: "), "{because}");
        }
    }
}
