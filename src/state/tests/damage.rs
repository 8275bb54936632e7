//! Every byte of the files, wrong and missing: what is read is what was written, or nothing.

use super::*;

/// What the folder says after each number of frames of its last journal.
fn after_each_frame() -> Vec<String> {
    let base = Base::new();
    let folder = base.take();
    let each = |frames| {
        lay(&folder, frames);
        found(&folder).unwrap().unwrap().0
    };
    let mut words: Vec<_> = (0..=FRAMES).map(each).collect();
    words.dedup();
    assert_eq!(words.len(), FRAMES + 1, "each frame says something");
    words
}

/// Reads with a change to one of the files, which is undone afterwards.
fn read_with(
    folder: &Folder,
    file: &str,
    change: impl Fn(&mut Vec<u8>),
) -> Result<Option<(String, u64)>, String> {
    let path = folder.path().join(file);
    let before = std::fs::read(&path).unwrap();
    let mut bytes = before.clone();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let read = found(folder);
    std::fs::write(&path, before).unwrap();
    read
}

fn length_of(folder: &Folder, file: &str) -> usize {
    std::fs::metadata(folder.path().join(file)).unwrap().len() as usize
}

#[test]
fn a_byte_that_is_wrong_anywhere_is_noticed() {
    let states = after_each_frame();
    let (whole, without_last) = (&states[FRAMES], &states[FRAMES - 1]);
    let base = Base::new();
    let folder = base.take();
    lay(&folder, FRAMES);
    for file in ["snapshot", "journal-4", "journal-5"] {
        let length = length_of(&folder, file);
        for byte in 0..length {
            for flip in [1, 0x80, 0xff] {
                let read = read_with(&folder, file, |bytes| bytes[byte] ^= flip);
                match &read {
                    Err(because) => assert!(because.contains(file), "{because}"),
                    // The last frame of the last journal may have been torn by a crash.
                    Ok(Some((words, torn))) => {
                        assert!(
                            file == "journal-5" && words == without_last && words != whole,
                            "{file} {byte}: {words}"
                        );
                        assert!(*torn > 0 && byte + *torn as usize >= length, "{file} {byte}: {torn}");
                    }
                    Ok(None) => panic!("{file} {byte}: there is something"),
                }
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_anywhere_says_what_was_whole_or_nothing() {
    let states = after_each_frame();
    let base = Base::new();
    let folder = base.take();
    lay(&folder, FRAMES);
    for file in ["snapshot", "journal-4", "journal-5"] {
        let mut seen = std::collections::BTreeSet::new();
        for length in 0..length_of(&folder, file) {
            match read_with(&folder, file, |bytes| bytes.truncate(length)) {
                // Where another journal follows, what is missing was there once.
                Err(because) => assert!(file != "journal-5" && because.contains(file), "{because}"),
                Ok(Some((words, _))) => {
                    assert_eq!(file, "journal-5", "cut to {length}");
                    let known = states.iter().position(|state| *state == words);
                    seen.insert(known.unwrap_or_else(|| panic!("{file} cut to {length}: {words}")));
                }
                Ok(None) => panic!("{file} cut to {length}: there is something"),
            }
        }
        if file == "journal-5" {
            assert_eq!(seen.len(), FRAMES, "each of its frames was the last one: {seen:?}");
        }
    }
}

#[test]
fn files_that_do_not_belong_together_are_no_state() {
    let base = Base::new();
    let folder = base.take();
    let refused = |what: &str, words: &str| {
        let because = found(&folder).expect_err(what);
        assert!(because.contains(words), "{what}: {because}");
    };
    lay(&folder, FRAMES);
    std::fs::remove_file(folder.journal(4)).unwrap();
    refused("without the first journal", "journal-4: it is missing");
    std::fs::remove_file(folder.journal(5)).unwrap();
    refused("without any journal", "journal-4: it is missing");
    lay(&folder, FRAMES);
    std::fs::rename(folder.journal(5), folder.journal(6)).unwrap();
    refused("a journal under the name of another", "generation 5");
    std::fs::remove_file(folder.journal(6)).unwrap();
    lay(&folder, FRAMES);
    std::fs::copy(folder.journal(4), folder.snapshot()).unwrap();
    refused("a journal in place of the snapshot", "another kind");
    lay(&folder, FRAMES);
    let mut bytes = std::fs::read(folder.snapshot()).unwrap();
    bytes.extend_from_slice(b"more");
    std::fs::write(folder.snapshot(), bytes).unwrap();
    refused("something behind the snapshot", "snapshot: frame 5");
}

#[test]
fn a_start_that_did_not_come_as_far_as_its_snapshot_leaves_what_was_before() {
    let base = Base::new();
    let folder = base.take();
    lay(&folder, FRAMES);
    let before = found(&folder);
    let other = Identity { epoch: 78, ..identity(6) };
    write(&folder.journal(6), FileKind::Journal, &other, |sink, faults| journal(sink, faults, 1));
    assert_eq!(found(&folder), before);
    // One that was cut short when it was made says nothing either.
    std::fs::write(folder.journal(6), b"proto").unwrap();
    assert_eq!(found(&folder), before);
    std::fs::write(folder.new_snapshot(), b"half of it").unwrap();
    assert_eq!(found(&folder), before);
}

#[test]
fn records_that_mean_nothing_are_not_taken_for_something_else() {
    let base = Base::new();
    let folder = base.take();
    for place in [0, u32::MAX] {
        let record = SessionRecord::new(place, &session(1, 1000));
        write(&folder.snapshot(), FileKind::Snapshot, &identity(4), |sink, faults| {
            sink.add(Kind::Sessions, at(1), &[record], faults).unwrap();
            sink.add_mark(Kind::End, at(1), faults).unwrap();
        });
        assert!(found(&folder).unwrap_err().contains("makes no sense"), "{place}");
    }
}

#[test]
fn a_long_tail_of_markers_is_looked_through_in_a_bounded_time() {
    let base = Base::new();
    let folder = base.take();
    lay(&folder, FRAMES);
    let read = read_with(&folder, "journal-5", |bytes| {
        let frame = bytes[52..52 + 40].to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        // Beginnings of frames that would be long, one over the other.
        let mut long = frame;
        long[4] = Kind::Sessions as u8;
        long[8..12].copy_from_slice(&1024_u32.to_le_bytes());
        for _ in 0..50_000 {
            bytes.extend_from_slice(&long);
        }
    });
    assert!(read.is_err_and(|because| because.contains("damaged")));
}
