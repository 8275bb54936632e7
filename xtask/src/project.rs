//! Where things are, and how other programs are started.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::Shell;

/// The checkout.
pub(crate) struct Project {
    /// Starts commands in the checkout's root.
    pub(crate) shell: Shell,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
}

impl Project {
    /// Finds the checkout that this program was built from.
    pub(crate) fn open() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no checkout")?;
        let shell = Shell::new()?;
        shell.change_dir(root);
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(Self { shell, target })
    }

    /// Where [`crate::verbs::setup`] puts programs.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// An empty directory for one purpose below `target/xtask`.
    pub(crate) fn scratch(&self, purpose: &str) -> Result<PathBuf> {
        let directory = self.target.join("xtask").join(purpose);
        self.shell.remove_path(&directory)?;
        self.shell.create_dir(&directory)?;
        Ok(directory)
    }
}

/// The first of the usual directories for programs, and those of `PATH`, that holds the program.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
