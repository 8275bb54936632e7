//! Files of records, line by line: as they are, or compressed with gzip, and however long.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::records::{BEGIN, Line};

/// A line that is longer is no record: ours have less than 2 KiB, but for the configuration in the first of an instance.
const LONGEST: u64 = 1 << 20;

/// How much is read at a time.
const CHUNK: usize = 256 << 10;

/// What was in the lines of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Records.
    pub records: u64,
    /// Lines that begin like a record and are none: a process was killed, or a disk was full, within them.
    pub damaged: u64,
}

impl Found {
    /// What was in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { records: self.records + other.records, damaged: self.damaged + other.damaged }
    }
}

/// Reads the records of a file, or of standard input for `-`, and hands over each.
pub fn read(path: &Path, each: impl FnMut(&Line<'_>)) -> io::Result<Found> {
    if path == Path::new("-") {
        return read_from(io::stdin().lock(), each);
    }
    read_from(File::open(path)?, each)
}

fn read_from(input: impl Read, each: impl FnMut(&Line<'_>)) -> io::Result<Found> {
    let mut input = BufReader::with_capacity(CHUNK, input);
    // A name may lie; the first two bytes of a gzip file do not (RFC 1952 §2.3.1).
    if input.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        lines(BufReader::with_capacity(CHUNK, MultiGzDecoder::new(input)), each)
    } else {
        lines(input, each)
    }
}

fn lines(mut input: impl BufRead, mut each: impl FnMut(&Line<'_>)) -> io::Result<Found> {
    let mut found = Found::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut input).take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == LONGEST {
            input.skip_until(b'\n')?;
        }
        // A syslog daemon puts words of its own before the record.
        let Some(start) = position(&line, BEGIN.as_bytes()) else { continue };
        match serde_json::from_slice(line[start..].trim_ascii_end()) {
            Ok(record) => {
                found.records += 1;
                each(&record);
            }
            Err(_) => found.damaged += 1,
        }
    }
}

fn position(line: &[u8], part: &[u8]) -> Option<usize> {
    if line.starts_with(part) { Some(0) } else { line.windows(part.len()).position(|window| window == part) }
}

/// A file and what rotation has made of it: the files beside it whose names go on with `.` or `-`, like
/// `allocations.jsonl.1` and `allocations.jsonl-20260131.gz`. Sorted by name.
pub fn with_rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(name) = path.file_name() else { return Ok(vec![path.to_owned()]) };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut files = Vec::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        if belongs(&entry.file_name(), name) && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn belongs(name: &OsStr, base: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(base.as_encoded_bytes());
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'.' | b'-')))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn record(sequence: u64) -> String {
        format!(
            "{{\"time\":\"2026-01-01T00:00:00.000Z\",\"event\":\"block_given\",\"router\":\"r\",\"instance\":\"i\",\
             \"sequence\":{sequence}}}\n"
        )
    }

    fn sequences(bytes: &[u8]) -> (Vec<u64>, Found) {
        let mut sequences = Vec::new();
        let found = read_from(bytes, |line| sequences.push(line.sequence)).unwrap();
        (sequences, found)
    }

    #[test]
    fn records_are_found_between_other_lines_and_behind_the_words_of_a_daemon() {
        let text = [
            record(1),
            "\n".to_owned(),
            format!("<134>1 2026-01-01T00:00:00.000Z cgn1 protomask 7 block_given [x y=\"z\"] {}", record(2)),
            "Jan  1 00:00:00 cgn1 sshd: hello\n".to_owned(),
            "{\"time\":\"2026-01-01T00:00:00.000Z\",\"event\":\"blo\n".to_owned(),
            "{\"other\":\"object\"}\n".to_owned(),
            record(3).trim_end().to_owned(),
        ];
        let (read, found) = sequences(text.concat().as_bytes());
        assert_eq!(read, [1, 2, 3]);
        assert_eq!(found, Found { records: 3, damaged: 1 });
        assert_eq!(sequences(b""), (vec![], Found::default()));
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory_and_hides_nothing_behind_it() {
        let mut text = vec![b'x'; 5 << 20];
        text.push(b'\n');
        text.extend(record(4).as_bytes());
        assert_eq!(sequences(&text).0, [4]);
        let exact = [vec![b'x'; LONGEST as usize - 1], b"\n".to_vec(), record(5).into_bytes()].concat();
        assert_eq!(sequences(&exact).0, [5]);
        let one_more = [vec![b'x'; LONGEST as usize], b"\n".to_vec(), record(6).into_bytes()].concat();
        assert_eq!(sequences(&one_more).0, [6]);
        let within = [vec![b'x'; LONGEST as usize], record(7).into_bytes(), record(8).into_bytes()].concat();
        assert_eq!(sequences(&within).0, [8], "7 is no line of its own");
    }

    #[test]
    fn compressed_files_are_read_as_they_are_also_when_they_were_put_together() {
        let mut all = Vec::new();
        for n in 1..=2 {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(record(n).as_bytes()).unwrap();
            all.extend(encoder.finish().unwrap());
        }
        assert_eq!(sequences(&all).0, [1, 2]);
        all.truncate(all.len() - 9);
        assert!(read_from(&all[..], |_| {}).is_err(), "the end of it is missing");
    }

    #[test]
    fn rotated_files_are_those_whose_names_go_on() {
        let belongs = |name: &str| belongs(OsStr::new(name), OsStr::new("a.jsonl"));
        for name in ["a.jsonl", "a.jsonl.1", "a.jsonl.2.gz", "a.jsonl-20260131", "a.jsonl-20260131.gz"] {
            assert!(belongs(name), "{name}");
        }
        for name in ["a.json", "a.jsonl2", "b.jsonl", "xa.jsonl"] {
            assert!(!belongs(name), "{name}");
        }
    }
}
