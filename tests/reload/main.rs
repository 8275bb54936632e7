//! Settings that change while the router runs: all of a file, or nothing of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

#[path = "../common/mod.rs"]
mod common;

mod draining;
mod file;
mod lab;
mod load;
