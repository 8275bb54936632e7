//! The control socket of a running router: what it tells, what it does, and whom it serves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

#[path = "../common/mod.rs"]
mod common;

mod lists;
mod mappings;
mod socket;
