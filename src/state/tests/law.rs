//! What the fuzzer and the replay of its corpus check of the reader.

use super::files::{Journal, read_journal, read_snapshot};
use super::format::{FileKind, FrameHeader, Header, Identity, Kind, Moment};
use super::image::Image;
use zerocopy::IntoBytes as _;

const IDENTITY: Identity = Identity { epoch: 1, generation: 2, boot: [3; 16], configuration: 4 };

/// What a file was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Taken {
    /// A whole snapshot, or a journal, with so many entries in it: none, or some.
    Whole { has_entries: bool },
    /// A journal of which the end is torn.
    Torn,
    /// No state.
    Refused,
}

/// An image in words, the same words for the same image.
pub(super) fn in_words(image: Image) -> String {
    fn sorted(entries: impl IntoIterator<Item = impl std::fmt::Debug>) -> Vec<String> {
        let mut words: Vec<_> = entries.into_iter().map(|entry| format!("{entry:?}")).collect();
        words.sort_unstable();
        words
    }
    let Image { prefixes, last, sessions, blocks, resting, leases, ended, .. } = image;
    let (sessions, blocks) = (sorted(sessions.into_entries()), sorted(blocks.into_entries()));
    let (resting, leases, ended) = (sorted(resting), sorted(leases), sorted(ended));
    format!("{prefixes:?} {last:?} {sessions:?} {blocks:?} {resting:?} {leases:?} {ended:?}")
}

fn read(kind: FileKind, file: &[u8]) -> (Result<Journal, String>, String) {
    let mut image = Image::default();
    let read = match kind {
        FileKind::Snapshot => read_snapshot(file, &mut image).map(|_| Journal::Sealed),
        FileKind::Journal => read_journal(file, &IDENTITY, IDENTITY.generation, &mut image),
    };
    (read, in_words(image))
}

/// Bytes with the beginning of a file, and frames whose records, but not their checksums, come from the input.
fn file_of(kind: FileKind, mut input: &[u8]) -> Vec<u8> {
    let mut file = Header::new(kind, &IDENTITY).as_bytes().to_vec();
    let mut sequence = 0;
    while let [of, count, rest @ ..] = input {
        let Some(frame) = Kind::from_number(of % 11) else {
            // Bytes as they are.
            let (bytes, left) = rest.split_at(rest.len().min(usize::from(*count)));
            file.extend_from_slice(bytes);
            input = left;
            continue;
        };
        let count = usize::from(count % 6);
        let length = count * frame.record_length();
        let (bytes, left) = rest.split_at(rest.len().min(length));
        let mut records = bytes.to_vec();
        records.resize(length, 0);
        // Most places are near each other, as they are in a table.
        if matches!(frame, Kind::Sessions | Kind::SessionsGone | Kind::Blocks | Kind::BlocksGone) {
            for record in records.chunks_mut(frame.record_length()) {
                record[1..4].fill(0);
            }
        }
        let moment = Moment { boot: sequence, wall: sequence };
        file.extend_from_slice(FrameHeader::new(frame, count, sequence, moment, &records).as_bytes());
        file.extend_from_slice(&records);
        sequence += 1;
        input = left;
    }
    file
}

/// Reads a file of the input, and once more with a byte that is wrong: that is noticed, or was the end of a journal.
pub(super) fn obeys(input: &[u8]) -> Result<Taken, String> {
    let [mode, at_low, at_high, flip, input @ ..] = input else { return Ok(Taken::Refused) };
    let kind = if mode & 1 == 0 { FileKind::Snapshot } else { FileKind::Journal };
    let mut file = if mode & 2 == 0 { file_of(kind, input) } else { input.to_vec() };
    let (taken, words) = read(kind, &file);
    if let Ok(Journal::Torn(torn)) = taken {
        let whole = &file[..file.len() - torn as usize];
        let (again, as_before) = read(kind, whole);
        if again != Ok(Journal::Open) || as_before != words {
            return Err(format!("without its torn end it says {again:?} {as_before} and not {words}"));
        }
    }
    let at = usize::from(u16::from_le_bytes([*at_low, *at_high]));
    let length = file.len();
    if *flip != 0
        && matches!(taken, Ok(Journal::Sealed | Journal::Open))
        && let Some(byte) = file.get_mut(at)
    {
        *byte ^= flip;
        match read(kind, &file).0 {
            Err(_) => {}
            Ok(Journal::Torn(torn)) if at + torn as usize >= length && kind == FileKind::Journal => {}
            other => return Err(format!("byte {at} of {length} is wrong, and it says {other:?}")),
        }
    }
    Ok(match taken {
        Ok(Journal::Torn(_)) => Taken::Torn,
        Ok(Journal::Sealed | Journal::Open) => {
            Taken::Whole { has_entries: words != in_words(Image::default()) }
        }
        Ok(Journal::NoHeader | Journal::OfAnotherEpoch) | Err(_) => Taken::Refused,
    })
}
