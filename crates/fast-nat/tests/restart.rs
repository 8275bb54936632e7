//! An engine that goes on from a copy of another one answers as that one would have: the reference model in `model` says so, before,
//! at, and after each change of engines.
//!
//! `PROTOMASK_SEED` sets which operations; the seed is printed.
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

use model::run::Run;
use model::setups::setups;
use model::source::Seeded;

/// Operations of each setup, and how many there are at most from one change of engines to the next.
const OPERATIONS: u64 = 40_000;
const BETWEEN: u32 = 200;

#[test]
fn an_engine_that_goes_on_from_a_copy_answers_as_the_one_before() {
    let now = || std::time::UNIX_EPOCH.elapsed().map_or(1, |elapsed| elapsed.as_nanos() as u64);
    let seed = std::env::var("PROTOMASK_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
    println!("PROTOMASK_SEED={seed}");
    let mut source = Seeded(seed);
    let mut seen = std::collections::BTreeMap::new();
    for setup in setups() {
        let wrong = |wrong| -> () { panic!("{}: PROTOMASK_SEED={seed}: {wrong}", setup.name) };
        let mut run = Run::new(&setup, source.0);
        let mut left = 0;
        for _ in 0..OPERATIONS {
            if left == 0 {
                left = model::source::Source::below(&mut source, BETWEEN);
                run.restart(source.0).unwrap_or_else(wrong);
            }
            left = left.saturating_sub(1);
            run.step(&mut source, 50).unwrap_or_else(wrong);
        }
        run.close().unwrap_or_else(wrong);
        for (what, times) in run.counts {
            *seen.entry(what).or_insert(0) += times;
        }
    }
    for (what, least) in [
        ("restart", 1000),
        ("restart: established session", 500),
        ("restart: session", 2000),
        ("restart: session that is over, or without a place", 50),
        ("port: as soon as it has rested", 5),
        ("expire: session", 1000),
    ] {
        let times = seen.get(what).copied().unwrap_or(0);
        println!("{times} {what}");
        assert!(times >= least, "PROTOMASK_SEED={seed}: only {times} times: {what}");
    }
}
