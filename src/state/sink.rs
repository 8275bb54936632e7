//! One file that is being written, frame by frame.

use std::fs::File;
use std::io::{self, Write as _};

use zerocopy::IntoBytes as _;

use super::format::{FileKind, FrameHeader, Header, Identity, Kind, MOST_RECORDS, Moment, Record};
use crate::supervision::faults::{Faults, Point};

/// Bytes that are collected before they are handed to the kernel.
const BUFFER: usize = 256 << 10;

/// A file and what of it is still in hand.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    buffer: Vec<u8>,
    sequence: u64,
    /// Bytes that the file has, those in hand included.
    pub(super) length: u64,
    /// Something was written that may not be on the disk.
    pub(super) is_unsynced: bool,
}

impl Sink {
    /// Begins the file. Its header is in hand.
    pub(super) fn begin(file: File, kind: FileKind, identity: &Identity) -> Self {
        let mut buffer = Vec::with_capacity(BUFFER + FrameHeader::LENGTH);
        buffer.extend_from_slice(Header::new(kind, identity).as_bytes());
        Self { file, length: buffer.len() as u64, buffer, sequence: 0, is_unsynced: true }
    }

    /// Adds records of one kind, if there are any.
    pub(super) fn add<R: Record>(
        &mut self,
        kind: Kind,
        moment: Moment,
        records: &[R],
        faults: &Faults,
    ) -> io::Result<()> {
        for records in records.chunks(MOST_RECORDS) {
            self.frame(kind, moment, records.len(), records.as_bytes(), faults)?;
        }
        Ok(())
    }

    /// Adds a frame that says all by its kind and its time.
    pub(super) fn add_mark(&mut self, kind: Kind, moment: Moment, faults: &Faults) -> io::Result<()> {
        self.frame(kind, moment, 0, &[], faults)
    }

    fn frame(
        &mut self,
        kind: Kind,
        moment: Moment,
        count: usize,
        records: &[u8],
        faults: &Faults,
    ) -> io::Result<()> {
        let header = FrameHeader::new(kind, count, self.sequence, moment, records);
        self.sequence += 1;
        self.buffer.extend_from_slice(header.as_bytes());
        self.buffer.extend_from_slice(records);
        self.length += (FrameHeader::LENGTH + records.len()) as u64;
        if self.buffer.len() >= BUFFER { self.flush(faults) } else { Ok(()) }
    }

    /// Hands to the kernel what is in hand: the end of this process does not harm it then.
    pub(super) fn flush(&mut self, faults: &Faults) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if faults.strikes(Point::StateWrite) {
            return Err(io::Error::other("injected fault: StateWrite"));
        }
        self.is_unsynced = true;
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Brings it to the disk: the end of this machine does not harm it then.
    pub(super) fn sync(&mut self, faults: &Faults) -> io::Result<()> {
        self.flush(faults)?;
        if self.is_unsynced {
            if faults.strikes(Point::StateSync) {
                return Err(io::Error::other("injected fault: StateSync"));
            }
            self.file.sync_data()?;
            self.is_unsynced = false;
        }
        Ok(())
    }
}
