#![doc = include_str!("../README.md")]
//!
//! # Rooms
//! [`nat64::Nat64`] is the truth about shared addresses, and [`BlockPool`] knows which port blocks are free; one owner has it, and can
//! [rebuild](BlockPool::rebuild) it from the engine at any time.
//!
//! [`LeaseTable`] is the truth about exclusive ones: who holds which address. It is shared by all packet workers and outlives everything
//! that manages it. [`LeasePool`] is derived from it: which addresses are free. It belongs to one owner, who can
//! [rebuild](LeasePool::rebuild) it at any time.
//!
//! `now` is a parameter everywhere; nothing here reads a clock, sleeps or does I/O.
#![deny(unsafe_code)]

mod blocks;
mod deterministic;
mod eam;
#[cfg(feature = "fault-injection")]
pub mod faults;
#[cfg(not(feature = "fault-injection"))]
mod faults;
mod lanes;
mod lease;
mod memory;
pub mod nat64;
mod pool;
mod prefetch;
mod table;
mod timestamp;

pub use blocks::{BlockPool, BlockPoolConfig, BlockRefusal, BlockUsage, Granted, PortNet};
pub use deterministic::{Deterministic, DeterministicConfig, DeterministicNet, InvalidDeterministic};
pub use eam::{Eam, EamTable, InvalidEam};
pub use lanes::Lanes;
pub use lease::{Lease, LeaseKind, is_eligible_host, subnet};
pub use pool::{InvalidPool, LeasePool, PoolConfig, Refusal, Usage};
pub use table::{Ended, InsertError, LeaseTable, SavedLease};
pub use timestamp::Timestamp;

/// A key that no stranger knows. Without a source of randomness the addresses of this process have to do.
fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    if getrandom::fill(&mut key).is_err() {
        use std::hash::{BuildHasher as _, RandomState};
        key[..8].copy_from_slice(&RandomState::new().hash_one(0).to_le_bytes());
        key[8..].copy_from_slice(&RandomState::new().hash_one(1).to_le_bytes());
    }
    key
}
