//! Translates what the fuzzer makes up, one way.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use protomask_fuzz::harness::{Way, run};
use protomask_fuzz::statistics::{count, is_kept};

fuzz_target!(|data: &[u8]| -> Corpus {
    let outcome = run(data, Way::SixToFour);
    count("six_to_four", outcome);
    if is_kept(outcome) { Corpus::Keep } else { Corpus::Reject }
});
