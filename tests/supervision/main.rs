//! The real actors under the real overseer, in network namespaces: what fails is restarted, and everything else goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

mod down;
mod dozing;
mod faults;
mod flows;
mod hangs;
mod lab;
mod lull;
mod overseer;
mod shared;
mod state;
mod storms;
