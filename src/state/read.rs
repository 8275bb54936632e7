//! Reading what an earlier run has left.
//!
//! A journal whose last frame is torn is what a crash leaves: what comes before that frame is right. Anything else that is not as it was
//! written is damage, and then nothing of it is trusted: half of a state may give one host's port to another.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use super::files::{Journal, read_journal, read_snapshot};
use super::folder::Folder;
use super::image::Image;

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// No state: a first start.
    Nothing,
    /// All of it.
    State {
        image: Box<Image>,
        /// Bytes at the end of the last journal that a crash has left of a frame.
        torn: u64,
    },
    /// Something that must not be trusted, and why.
    Damage(String),
}

/// Reads the state of a folder.
pub(super) fn read(folder: &Folder) -> Found {
    read_all(folder).unwrap_or_else(Found::Damage)
}

fn read_all(folder: &Folder) -> Result<Found, String> {
    let mut image = Image::default();
    let path = folder.snapshot();
    let Some(snapshot) = open(&path)? else { return Ok(Found::Nothing) };
    let identity = read_snapshot(snapshot, &mut image).map_err(|error| said_of(&path, &error))?;
    let mut journals = Vec::new();
    for generation in folder.journals().map_err(|error| said_of(folder.path(), &error.to_string()))? {
        if generation >= identity.generation {
            journals.push((generation, folder.journal(generation)));
        }
    }
    let mut torn = 0;
    let mut expected = identity.generation;
    // The journal that was read last, and whether it is one that another one may follow.
    let mut before: Option<(&Path, bool)> = None;
    for (generation, path) in &journals {
        let Some(file) = open(path)? else { continue };
        let journal =
            read_journal(file, &identity, *generation, &mut image).map_err(|error| said_of(path, &error))?;
        // A start that did not come as far as its first snapshot, or as its header: it goes on from nothing.
        if journal == Journal::OfAnotherEpoch || (journal == Journal::NoHeader && before.is_some()) {
            continue;
        }
        if let Some((path, false)) = before {
            return Err(said_of(path, "it ends too early: another one follows"));
        }
        if *generation != expected {
            return Err(said_of(&folder.journal(expected), "it is missing"));
        }
        expected += 1;
        before = Some((path, journal == Journal::Sealed));
        if let Journal::Torn(bytes) = journal {
            torn = bytes;
        }
    }
    if before.is_none() {
        return Err(said_of(&folder.journal(expected), "it is missing"));
    }
    Ok(Found::State { image: Box::new(image), torn })
}

fn said_of(path: &Path, what: &str) -> String {
    format!("{}: {what}", path.display())
}

fn open(path: &Path) -> Result<Option<impl Read>, String> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::with_capacity(1 << 16, file))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(said_of(path, &error.to_string())),
    }
}
