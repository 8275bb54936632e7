//! What outlives the process: connections, mappings and leases, over `kill -9`, a clean end, and damage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

#[path = "../common/mod.rs"]
mod common;

mod crowd;
mod folders;
mod lab;
mod mappings;
mod survival;
