//! Allocation records: what reaches a file or a syslog daemon whatever happens to it, and what is found in it later.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

mod common;
mod file;
mod full;
mod support;
mod syslog;
mod who_had;
