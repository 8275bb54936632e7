//! Random operations on the NAT64 engine, each compared with the reference model in `model`.
//!
//! `PROTOMASK_OPERATIONS` sets how many, `PROTOMASK_SEED` which: the seed is printed, and all that is random in an
//! operation and in the engine follows from it.
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

use std::env;

use model::Fairness;
use model::outcomes::OUTCOMES;
use model::run::{Counts, Run};
use model::setups::setups;
use model::source::Seeded;

/// Operations after which all of the state is compared.
const COMPARE_EVERY: u64 = 50;
/// Operations after which everything begins anew, as after a restart.
const RESTART_EVERY: u64 = 50_000;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}: {error}")))
}

fn seed() -> u64 {
    number("PROTOMASK_SEED").unwrap_or_else(|| {
        // The time is as good as any: the seed is printed.
        std::time::UNIX_EPOCH.elapsed().map_or(1, |elapsed| elapsed.as_nanos() as u64)
    })
}

#[test]
fn random_operations_do_to_the_engine_what_they_do_to_the_model() {
    let operations = number("PROTOMASK_OPERATIONS").unwrap_or(1_000_000);
    let seed = seed();
    println!("PROTOMASK_SEED={seed} PROTOMASK_OPERATIONS={operations}");
    let setups = setups();
    let mut counts = Counts::new();
    let mut fairness = Fairness::default();
    let mut passed = [[[0; 4]; 2]; 8];
    let mut source = Seeded(seed);
    for setup in &setups {
        let mut left = operations / setups.len() as u64;
        while left > 0 {
            let mut run = Run::new(setup, source.0);
            let steps = left.min(RESTART_EVERY);
            for _ in 0..steps {
                if let Err(wrong) =
                    run.step(&mut source, number("PROTOMASK_COMPARE").unwrap_or(COMPARE_EVERY))
                {
                    panic!("{}: PROTOMASK_SEED={seed}: {wrong}", setup.name);
                }
            }
            left -= steps;
            if let Err(wrong) = run.close() {
                panic!("{}: PROTOMASK_SEED={seed}: {wrong}", setup.name);
            }
            fairness.add(&run.model.fairness);
            for (sum, times) in passed
                .as_flattened_mut()
                .as_flattened_mut()
                .iter_mut()
                .zip(run.model.steps.as_flattened().as_flattened())
            {
                *sum += times;
            }
            for (what, times) in &run.counts {
                *counts.entry(what).or_insert(0) += times;
            }
        }
    }
    for (what, times) in &counts {
        println!("{times:>9} {what}");
    }
    println!("{fairness:?}");
    fairness.check().unwrap_or_else(|wrong| panic!("PROTOMASK_SEED={seed}: {wrong}"));
    // One state is none of TCP.
    for (state, sides) in passed.iter().enumerate().take(7) {
        for (side, signals) in sides.iter().enumerate() {
            println!("state {state}, from side {side}: {signals:?} packets of no flag, SYN, FIN, RST");
            let fewest = signals.iter().min().unwrap();
            assert!(
                *fewest >= operations / 10_000,
                "PROTOMASK_SEED={seed}: state {state}, side {side}: {signals:?}"
            );
        }
    }
    for (what, least) in OUTCOMES {
        // A third of what is usual: a rare outcome must not fail a run by chance.
        let least = (least * operations / 1_000_000).div_ceil(3);
        let times = counts.get(what).copied().unwrap_or(0);
        // A short run proves nothing of what is rare.
        let is_short = operations < 1_000_000 && least < 10;
        assert!(times >= least || is_short, "PROTOMASK_SEED={seed}: only {times} times: {what}");
    }
}

#[test]
fn a_seed_repeats_every_operation_and_every_choice_of_the_engine() {
    let run = || {
        let mut source = Seeded(7);
        let mut run = Run::new(&setups()[0], 7);
        for _ in 0..5000 {
            run.step(&mut source, COMPARE_EVERY).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        run.model.bindings
    };
    let bindings = run();
    assert!(!bindings.is_empty());
    assert_eq!(bindings, run());
}
