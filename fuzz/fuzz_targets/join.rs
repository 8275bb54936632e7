//! Joins what the fuzzer makes up, has it cut as a kernel does, and compares.
#![no_main]

#[allow(dead_code, unreachable_pub, missing_docs, reason = "the router's own module")]
#[path = "../../src/datapath/join/mod.rs"]
mod join;
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the tests of the joiner")]
#[path = "../../src/datapath/join/tests/shared/mod.rs"]
mod shared;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (joins, steps) = shared::scenario::steps(data);
    if let Err(wrong) = shared::law::obeys(&steps, joins) {
        panic!("{wrong}");
    }
});
