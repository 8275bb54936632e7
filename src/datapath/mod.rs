//! One packet's life: parse, judge, look up, translate, write.
//!
//! No I/O and no actors here: a packet and `now` come in; frames go out through [`Output`], and a [`Verdict`] says
//! what happened. In the steady state a packet costs no allocation, no message, no log line and no wait on a lock.

mod counters;
pub mod fragments;
pub mod hold;
mod identifications;
pub mod join;
mod limiter;
mod reason;
mod router;
mod rules;
mod warm;

pub use counters::{Counter, Counters, Traffic};
pub use identifications::Identifications;
pub use limiter::TokenBucket;
pub use reason::{DropReason, Refusal};
pub use router::{Ask, Held, Limiters, Output, Parcel, Router, Scratch, Tables, Verdict, lost, parcel_lost};
pub use rules::{Eams, MssLimits, NetSet, PoolRule, RouterPool, Rules};
pub use warm::Warmer;
