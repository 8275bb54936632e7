//! protomask: a supervised NAT64 router for Linux.
//!
//! `ARCHITECTURE.md` says what the parts are, who owns which state, and what restarts what.

pub mod kernel;
pub mod logging;
pub mod supervision;
