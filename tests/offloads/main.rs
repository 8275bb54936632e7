//! Offloads as kernels make use of them: super-packets that come and go whole, checksums that are left open, and packets that
//! the router joins. All traffic is that of real kernels, or is made by hand where a kernel would not send it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

#[path = "../common/mod.rs"]
mod common;

mod adopting;
mod bulk;
mod corrupted;
mod ecn;
mod endings;
mod joining;
mod lab;
mod mss;
mod order;
mod queues;
mod sizes;
mod trains;
mod wire;
