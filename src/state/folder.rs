//! The folder of one router's state: who may use it, and what its files are called.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The rights of folders and files: who reads them learns who talks to whom.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

const LOCK: &str = "lock";
pub(super) const SNAPSHOT: &str = "snapshot";
const NEW_SNAPSHOT: &str = "snapshot.new";
const JOURNAL: &str = "journal-";
const SET_ASIDE: &str = "set-aside";
pub(super) const MAPPINGS: &str = "mappings";
const NEW_MAPPINGS: &str = "mappings.new";
pub(super) const DEVICE: &str = "device";
pub(super) const NEW_DEVICE: &str = "device.new";

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another router has it.
    #[error("{} is in use by {}; give this router another folder with --state-dir, or none with --no-state",
        path.display(), pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Whose it is, as far as that one has said so.
        pid: Option<u32>,
    },
    /// It cannot be made or written.
    #[error("{} cannot be used ({source})", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A folder that is this process's alone, as long as this is not dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// For bringing names to the disk.
    itself: File,
    lock: File,
}

impl Folder {
    /// Makes the folder of this interface where there is none, and takes it.
    ///
    /// `lock`: one that another process has handed over.
    pub(super) fn take(base: &Path, interface: &str, lock: Option<File>) -> Result<Self, FolderError> {
        let path = base.join(interface);
        let unusable = |source| FolderError::Unusable { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&path).map_err(unusable)?;
        let itself = File::open(&path).map_err(unusable)?;
        itself.set_permissions(Permissions::from_mode(FOLDER_MODE)).map_err(unusable)?;
        let own = options().read(true).write(true).create(true).open(path.join(LOCK)).map_err(unusable)?;
        let lock = lock.filter(|lock| is_same(lock, &own)).unwrap_or(own);
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = lock.take(16).read_to_string(&mut text);
                return Err(FolderError::InUse { pid: text.trim().parse().ok(), path });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let folder = Self { path, itself, lock };
        match folder.sign() {
            Ok(()) => Ok(folder),
            Err(source) => Err(FolderError::Unusable { path: folder.path, source }),
        }
    }

    /// Writes into the lock whose it is.
    pub(super) fn sign(&self) -> io::Result<()> {
        let mut lock = &self.lock;
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())
    }

    pub(super) fn lock(&self) -> &File {
        &self.lock
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn snapshot(&self) -> PathBuf {
        self.path.join(SNAPSHOT)
    }

    pub(super) fn new_snapshot(&self) -> PathBuf {
        self.path.join(NEW_SNAPSHOT)
    }

    pub(super) fn journal(&self, generation: u64) -> PathBuf {
        self.path.join(format!("{JOURNAL}{generation}"))
    }

    pub(super) fn mappings(&self) -> PathBuf {
        self.path.join(MAPPINGS)
    }

    pub(super) fn new_mappings(&self) -> PathBuf {
        self.path.join(NEW_MAPPINGS)
    }

    /// The generations of the journals that there are, in order.
    pub(super) fn journals(&self) -> io::Result<Vec<u64>> {
        let mut generations = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(JOURNAL));
            generations.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        generations.sort_unstable();
        Ok(generations)
    }

    /// Brings to the disk which files there are.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.itself.sync_all()
    }

    /// Moves what there is of a state into a folder of its own, for a person to look at; what was there before goes. Says where.
    pub(super) fn set_aside(&self) -> io::Result<PathBuf> {
        let aside = self.path.join(SET_ASIDE);
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(FOLDER_MODE).create(&aside)?;
        let journals = self.journals()?.into_iter().map(|generation| self.journal(generation));
        for path in journals.chain([self.snapshot()]) {
            let Some(name) = path.file_name() else { continue };
            match fs::rename(&path, aside.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.sync()?;
        Ok(aside)
    }

    /// Moves the file of mappings there, beside what lies there already. Says where it is then.
    pub(super) fn set_mappings_aside(&self) -> io::Result<PathBuf> {
        let aside = self.path.join(SET_ASIDE);
        match DirBuilder::new().mode(FOLDER_MODE).create(&aside) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let path = aside.join(MAPPINGS);
        fs::rename(self.mappings(), &path)?;
        self.sync()?;
        Ok(path)
    }
}

fn is_same(one: &File, other: &File) -> bool {
    let of = |file: &File| file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    of(one).is_some() && of(one) == of(other)
}

/// An empty file in place of whatever has this name.
pub(super) fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}
