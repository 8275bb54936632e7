//! Replays what the fuzzer has found worth keeping (`fuzz/corpus/state`): the law holds for all of it, and it reaches every outcome.

use std::collections::BTreeMap;
use std::path::Path;

use super::law::{Taken, obeys};

#[test]
fn the_reader_obeys_the_law_on_the_corpus_of_the_fuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/state");
    let mut seen = BTreeMap::new();
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let taken = obeys(&std::fs::read(&path).unwrap());
        let taken = taken.unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()));
        *seen.entry(taken).or_insert(0) += 1;
    }
    println!("{seen:?}");
    let whole = |has_entries| Taken::Whole { has_entries };
    for taken in [whole(true), whole(false), Taken::Torn, Taken::Refused] {
        assert!(seen.get(&taken).is_some_and(|times| *times >= 3), "{taken:?} is met too rarely: {seen:?}");
    }
}
