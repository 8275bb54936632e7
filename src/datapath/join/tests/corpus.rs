//! Replays what the fuzzer has found worth keeping (`fuzz/corpus/join`): the law holds for all of it, and it reaches what the
//! law speaks of.

use std::fs;
use std::path::Path;

use super::*;

#[test]
fn the_corpus_of_the_fuzzer_obeys_the_law() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/join");
    let mut total = Reached::default();
    let mut files = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let (joins, steps) = scenario::steps(&fs::read(&path).unwrap());
        let reached = obeys(&steps, joins).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()));
        total.add(&reached);
        files += 1;
    }
    println!("{files} files: {total:?}");
    assert!(files >= 50, "{} has only {files} files", folder.display());
    assert!(total.joined.iter().all(|joined| *joined > 100), "{total:?}");
    assert!(total.passed > 20 && total.unreadable > 100 && total.longest == 64, "{total:?}");
}
