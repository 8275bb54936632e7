//! One process after the other with the device in between: handed over, kept by a service manager, or by nobody.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the helpers of tests fail the test that calls them"
)]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "shared with the tests of the state")]
#[path = "../state/lab.rs"]
mod lab;

mod flows;
mod handover;
mod keeper;
mod store;
