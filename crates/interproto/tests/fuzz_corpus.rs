//! Replays what the fuzzer has found worth keeping (`fuzz/corpus`): the laws hold for all of it, more than half of it is translated, and
//! every reason for a drop is reached.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[path = "../../../fuzz/src/harness/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fuzz targets use all of it")]
mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use harness::{Outcome, Way, run};
use interproto::DropReason;

fn replay(target: &str, way: Way) -> Vec<Outcome> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let outcomes: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            // A law that is broken panics; the name of the file leads to the input.
            let input = fs::read(&path).unwrap();
            std::panic::catch_unwind(|| run(&input, way))
                .unwrap_or_else(|_| panic!("a law is broken by {}", path.display()))
        })
        .collect();
    assert!(outcomes.len() >= 100, "{} has only {} files", folder.display(), outcomes.len());
    outcomes
}

#[test]
fn the_corpus_of_the_fuzzer_keeps_all_laws_and_reaches_every_verdict_and_reason() {
    let six = replay("six_to_four", Way::SixToFour);
    let four = replay("four_to_six", Way::FourToSix);
    for outcomes in [&six, &four] {
        let forwarded = outcomes.iter().filter(|outcome| **outcome == Outcome::Forward).count();
        assert!(forwarded * 2 > outcomes.len(), "only {forwarded} of {} are translated", outcomes.len());
    }
    let mut verdicts = BTreeMap::new();
    let all: Vec<_> = six.into_iter().chain(four).collect();
    for outcome in &all {
        *verdicts.entry(outcome.verdict()).or_insert(0) += 1;
    }
    assert_eq!(
        verdicts.keys().copied().collect::<Vec<_>>(),
        ["drop", "forward", "hold", "reply"],
        "{verdicts:?}"
    );
    // No input becomes a packet that is long enough for this one, of which `super_packets.rs` has many.
    let reached = DropReason::ALL.iter().filter(|reason| **reason != DropReason::SuperPacketTooLong);
    for reason in reached {
        assert!(all.iter().any(|outcome| outcome.reason() == Some(*reason)), "{reason} is not reached");
    }
}
