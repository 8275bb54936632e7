#![doc = include_str!("../README.md")]
//!
//! # Rooms
//! [`LeaseTable`] is the truth: who holds which address. It is shared by all packet workers and outlives everything
//! that manages it. [`LeasePool`] is derived from it: which addresses are free. It belongs to one owner, who can
//! [rebuild](LeasePool::rebuild) it at any time.
//!
//! `now` is a parameter everywhere; nothing here reads a clock, sleeps or does I/O.
#![forbid(unsafe_code)]

mod deterministic;
mod eam;
mod lease;
mod pool;
mod table;
mod timestamp;

pub use deterministic::{Deterministic, DeterministicConfig, DeterministicNet, InvalidDeterministic};
pub use eam::{Eam, EamTable, InvalidEam};
pub use lease::{Lease, LeaseKind, is_eligible_host, subnet};
pub use pool::{InvalidPool, LeasePool, PoolConfig, Refusal, Usage};
pub use table::{Ended, InsertError, LeaseTable};
pub use timestamp::Timestamp;
