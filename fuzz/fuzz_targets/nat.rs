//! Does what the fuzzer makes up to the NAT64 engine and to its reference model, and compares.
#![no_main]

#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the tests of the engine")]
#[path = "../../crates/fast-nat/tests/model/mod.rs"]
mod model;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Err(wrong) = model::replay::replay(data) {
        panic!("{wrong}");
    }
});
