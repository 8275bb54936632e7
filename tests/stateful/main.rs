//! Address sharing as the kernels of hosts and servers see it: many IPv6-only hosts behind one IPv4 address (RFC 6146).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

#[path = "../common/mod.rs"]
mod common;

mod computed;
mod crowd;
mod echo;
mod filtering;
mod forwards;
mod fragments;
mod hairpin;
mod lab;
mod limits;
mod pools;
mod punching;
mod records;
mod timers;
mod tools;
