//! Reading one file, frame by frame. The fuzzer reads with this module too.

use std::io::{self, ErrorKind, Read};

use zerocopy::FromBytes as _;

use super::format::{FileKind, FrameHeader, Header, Identity, Kind, MARKER, Moment};
use super::image::Image;

/// Reads a snapshot, which must be whole.
pub(super) fn read_snapshot(file: impl Read, image: &mut Image) -> Result<Identity, String> {
    let mut frames = Frames::begin(file, FileKind::Snapshot)?.ok_or("it ends within its header")?;
    (image.boot, image.configuration) = (frames.identity.boot, frames.identity.configuration);
    let mut is_whole = false;
    loop {
        let sequence = frames.sequence;
        match frames.next().map_err(|error| error.to_string())? {
            Next::Frame(kind, moment, records) => {
                if is_whole {
                    return Err("something is behind its end".to_owned());
                }
                image.apply(kind, moment, records).map_err(|_| "a record in it makes no sense")?;
                is_whole = kind == Kind::End;
            }
            Next::End if is_whole => return Ok(frames.identity),
            Next::End => return Err("it ends before its end".to_owned()),
            Next::Broken => return Err(format!("frame {sequence} of it is damaged")),
        }
    }
}

/// How a journal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Journal {
    /// By its last frame: another one may follow.
    Sealed,
    /// Behind a frame.
    Open,
    /// So many bytes of its last frame are left.
    Torn(u64),
    /// Before its first frame.
    NoHeader,
    OfAnotherEpoch,
}

/// Reads a journal that goes on from a snapshot.
pub(super) fn read_journal(
    file: impl Read,
    of: &Identity,
    generation: u64,
    image: &mut Image,
) -> Result<Journal, String> {
    // Shorter than its header: the crash came when it was made.
    let Some(mut frames) = Frames::begin(file, FileKind::Journal)? else { return Ok(Journal::NoHeader) };
    let identity = frames.identity;
    if identity.epoch != of.epoch {
        return Ok(Journal::OfAnotherEpoch);
    }
    if identity.generation != generation {
        return Err(format!("it is of generation {}", identity.generation));
    }
    let mut is_sealed = false;
    loop {
        let sequence = frames.sequence;
        match frames.next().map_err(|error| error.to_string())? {
            Next::Frame(..) if is_sealed => return Err("something is behind its end".to_owned()),
            Next::Frame(kind, moment, records) => {
                image.apply(kind, moment, records).map_err(|_| "a record in it makes no sense")?;
                is_sealed = kind == Kind::End;
            }
            Next::End => return Ok(if is_sealed { Journal::Sealed } else { Journal::Open }),
            Next::Broken => {
                return match frames.rest().map_err(|error| error.to_string())? {
                    Rest::Torn(bytes) if !is_sealed => Ok(Journal::Torn(bytes)),
                    _ => Err(format!("frame {sequence} of it is damaged")),
                };
            }
        }
    }
}

/// The frames of a file, one after the other.
struct Frames<R> {
    file: R,
    identity: Identity,
    /// The number of the frame that comes next.
    sequence: u64,
    /// The frame at hand.
    bytes: Vec<u8>,
}

enum Next<'f> {
    Frame(Kind, Moment, &'f [u8]),
    /// The file ends behind a frame.
    End,
    /// What follows is no frame, or not the next one.
    Broken,
}

/// What is behind the last frame that is right.
enum Rest {
    /// The beginning of a frame, and nothing that was whole once.
    Torn(u64),
    /// Frames that came later are whole: what is broken was so too.
    Damage,
}

impl<R: Read> Frames<R> {
    /// `None`: the file is shorter than a header.
    fn begin(mut file: R, kind: FileKind) -> Result<Option<Self>, String> {
        let mut header = [0; Header::LENGTH];
        let read = read_up_to(&mut file, &mut header).map_err(|error| error.to_string())?;
        if read < header.len() {
            return Ok(None);
        }
        let header = Header::read_from_bytes(&header).map_err(|_| "it has no header")?;
        Ok(Some(Self { file, identity: header.check(kind)?, sequence: 0, bytes: Vec::new() }))
    }

    fn next(&mut self) -> io::Result<Next<'_>> {
        self.bytes.resize(FrameHeader::LENGTH, 0);
        let read = read_up_to(&mut self.file, &mut self.bytes)?;
        if read == 0 {
            return Ok(Next::End);
        }
        self.bytes.truncate(read);
        let header = FrameHeader::read_from_bytes(&self.bytes).ok();
        let Some((header, (kind, length))) = header.and_then(|header| Some((header, header.shape()?))) else {
            return Ok(Next::Broken);
        };
        self.bytes.resize(FrameHeader::LENGTH + length, 0);
        let behind = self.bytes.get_mut(FrameHeader::LENGTH..).unwrap_or_default();
        let read = read_up_to(&mut self.file, behind)?;
        self.bytes.truncate(FrameHeader::LENGTH + read);
        let records = self.bytes.get(FrameHeader::LENGTH..).unwrap_or_default();
        if read < length || header.sequence() != self.sequence || !header.is_of(records) {
            return Ok(Next::Broken);
        }
        self.sequence += 1;
        Ok(Next::Frame(kind, header.moment(), records))
    }

    /// Looks at what is behind the last frame, the broken one in [`Self::bytes`] and all that follows.
    fn rest(&mut self) -> io::Result<Rest> {
        let mut rest = std::mem::take(&mut self.bytes);
        self.file.by_ref().take(LONGEST_TAIL).read_to_end(&mut rest)?;
        if rest.len() as u64 >= LONGEST_TAIL {
            return Ok(Rest::Damage);
        }
        // Each checksum that is computed in vain is paid from this: a file cannot be made that takes long.
        let mut budget = 4 * rest.len() + (1 << 20);
        let mut at = 0;
        while let Some(header) = rest.get(at..at + FrameHeader::LENGTH) {
            if header.starts_with(&MARKER)
                && let Ok(header) = FrameHeader::read_from_bytes(header)
                && let Some((_, length)) = header.shape()
                && let Some(records) = rest.get(at + FrameHeader::LENGTH..at + FrameHeader::LENGTH + length)
            {
                let Some(left) = budget.checked_sub(length) else { return Ok(Rest::Damage) };
                budget = left;
                if header.is_of(records) {
                    return Ok(Rest::Damage);
                }
            }
            at += 1;
        }
        Ok(Rest::Torn(rest.len() as u64))
    }
}

/// A longer tail than this cannot be one: it is more than what is written between two moments at which all of it is on the disk.
const LONGEST_TAIL: u64 = 64 << 20;

/// Reads until the buffer is full or the file ends; says how many bytes that were.
fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(free) = buffer.get_mut(filled..)
        && !free.is_empty()
    {
        match file.read(free) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
