//! One packet's life: parse, judge, look up, translate, write.
//!
//! No I/O and no actors here: a packet and `now` come in; packets go out through [`Output`], and a [`Verdict`] says
//! what happened. In the steady state a packet costs no allocation, no message, no log line and no wait on a lock.

mod counters;
pub mod fragments;
pub mod hold;
pub mod join;
mod limiter;
mod reason;
mod router;
mod rules;
mod warm;

pub use counters::{Counter, Counters, Traffic};
pub use limiter::TokenBucket;
pub use reason::{DropReason, Refusal};
pub use router::{Ask, Held, Identifications, Limiters, Output, Parcel, Router, Scratch, Tables, Verdict};
pub use rules::{Eams, NetSet, PoolRule, RouterPool, Rules};
pub use warm::Warmer;
