//! Reads files of state that the fuzzer makes up, as they are and with a byte that is wrong.
#![no_main]

#[allow(dead_code, unreachable_pub, missing_docs, reason = "the router's own module")]
#[path = "../../src/state/files.rs"]
mod files;
#[allow(dead_code, unreachable_pub, missing_docs, reason = "the router's own module")]
#[path = "../../src/state/format.rs"]
mod format;
#[allow(dead_code, unreachable_pub, missing_docs, reason = "the router's own module")]
#[path = "../../src/state/image.rs"]
mod image;
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the tests of the reader")]
#[path = "../../src/state/tests/law.rs"]
mod law;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Err(wrong) = law::obeys(data) {
        panic!("{wrong}");
    }
});
