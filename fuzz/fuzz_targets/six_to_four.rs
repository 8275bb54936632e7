//! Translates what the fuzzer makes up, one way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protomask_fuzz::harness::{Way, run};
use protomask_fuzz::statistics;

fuzz_target!(|data: &[u8]| {
    statistics::count("six_to_four", run(data, Way::SixToFour));
});
