//! Replays what the fuzzer has found worth keeping (`fuzz/corpus/nat`): the engine agrees with the model on all of it,
//! and it reaches what matters.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::cast_precision_loss,
    reason = "shared with the fuzz target"
)]
#[path = "model/mod.rs"]
mod model;

use std::fs;
use std::path::Path;

use model::replay::replay;
use model::run::Counts;

#[test]
fn the_engine_agrees_with_the_model_on_the_corpus_of_the_fuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/nat");
    let mut counts = Counts::new();
    let mut files = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let input = fs::read(&path).unwrap();
        let reached = replay(&input).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()));
        files += 1;
        for (what, times) in reached {
            *counts.entry(what).or_insert(0) += times;
        }
    }
    assert!(files >= 50, "{} has only {files} files", folder.display());
    for (what, times) in &counts {
        println!("{times:>9} {what}");
    }
    // Random operations reach every outcome; a corpus that is grown now and then may lack one or another.
    let outcomes = model::outcomes::OUTCOMES;
    let missing: Vec<_> =
        outcomes.iter().map(|(what, _)| what).filter(|what| !counts.contains_key(*what)).collect();
    assert!(missing.len() * 20 <= outcomes.len(), "not reached: {missing:?}");
}
