//! protomask: a supervised NAT64 router for Linux.
//!
//! `ARCHITECTURE.md` says what the parts are, who owns which state, and what restarts what.

pub mod actors;
pub mod allocations;
pub mod bell;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod datapath;
pub mod demo;
pub mod error;
pub mod exit;
#[cfg(feature = "fault-injection")]
pub mod faults;
#[cfg(not(feature = "fault-injection"))]
mod faults;
pub mod generation;
pub mod handover;
pub mod kernel;
pub mod logging;
pub mod plan;
pub mod privileges;
pub mod records;
pub mod reload;
pub mod run;
pub mod scheduling;
pub mod service;
pub mod shared;
pub mod startup;
pub mod state;
pub mod supervision;
pub mod who_had;
