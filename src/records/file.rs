//! Records in a file.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::line::Line;
use super::writer::Sink;

/// The rights of a file that is made: who reads it learns what people have done.
const MODE: u32 = 0o640;

/// A file that is appended to. Before each batch it is opened anew if its name belongs to another file by now, or to
/// none: it has been rotated.
#[derive(Debug)]
pub(super) struct FileSink {
    path: PathBuf,
    file: Option<Open>,
    buffer: Vec<u8>,
    ends: Vec<usize>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    /// A line that the disk took only the beginning of: how much of it, and how long the file was then.
    torn: Option<(usize, u64)>,
}

impl FileSink {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = Some(Open::new(path)?);
        Ok(Self { path: path.to_owned(), file, buffer: Vec::new(), ends: Vec::new() })
    }

    /// The file that the name belongs to now.
    fn current(&mut self) -> io::Result<&mut Open> {
        let there = match std::fs::metadata(&self.path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(open) = self.file.take() {
            if there.as_ref().map(identity) == Some(open.identity) {
                self.file = Some(open);
            } else {
                // Rotated. What it has is brought to the disk before it is let go of; what the disk says to that is
                // said about a file that nobody can write to any more.
                let _ = open.sync();
            }
        }
        match &mut self.file {
            Some(open) => Ok(open),
            empty => Ok(empty.insert(Open::new(&self.path)?)),
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        // O_APPEND: also after the file was cut to nothing, each line goes to its end.
        let file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
        let metadata = file.metadata()?;
        let mut open = Self { file, identity: identity(&metadata), torn: None };
        if metadata.is_file() {
            open.mend()?;
        }
        Ok(open)
    }

    /// Ends the last line, if whoever wrote it was interrupted in it: the next one must not be a part of it.
    fn mend(&mut self) -> io::Result<()> {
        self.torn = None;
        let mut last = [b'\n'];
        if self.file.seek(SeekFrom::End(0))? > 0 {
            self.file.seek(SeekFrom::End(-1))?;
            self.file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            self.file.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Writes lines of which `ends` tells the ends, goes on in one that is torn, and tells how many are written.
    fn write(&mut self, lines: &[u8], ends: &[usize]) -> (usize, io::Result<()>) {
        if let Some((_, length)) = self.torn {
            // Cut meanwhile: its beginning is gone.
            let mended = match self.file.metadata() {
                Ok(metadata) if metadata.len() == length => Ok(()),
                Ok(_) => self.mend(),
                Err(error) => Err(error),
            };
            if mended.is_err() {
                return (0, mended);
            }
        }
        let mut at = self.torn.take().map_or(0, |(written, _)| written);
        let result = loop {
            if at >= lines.len() {
                break Ok(());
            }
            match self.file.write(&lines[at..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(n) => at += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let done = ends.partition_point(|end| *end <= at);
        let written = at - done.checked_sub(1).map_or(0, |last| ends[last]);
        if written > 0 {
            let length = self.file.metadata().map_or(0, |metadata| metadata.len());
            self.torn = Some((written, length));
        }
        (done, result)
    }

    fn sync(&self) -> io::Result<()> {
        match self.file.sync_data() {
            // A device or a pipe, which has no disk.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            result => result,
        }
    }
}

impl Sink for FileSink {
    fn write(&mut self, lines: &[Line<'_>], done: &mut usize) -> io::Result<()> {
        self.buffer.clear();
        self.ends.clear();
        for line in lines {
            serde_json::to_writer(&mut self.buffer, line)?;
            self.buffer.push(b'\n');
            self.ends.push(self.buffer.len());
        }
        let (buffer, ends) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.ends));
        let result = self.current().and_then(|open| {
            let (written, result) = open.write(&buffer, &ends);
            *done += written;
            result
        });
        (self.buffer, self.ends) = (buffer, ends);
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), Open::sync)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.current().map(|_| ())
    }
}
