//! Supervision: start, watch, restart, escalate.
//!
//! actix restarts an actor that stops, but not one that panics, and cannot end one that hangs. Here all of these take
//! one path. Each concern lives on its own Arbiter (a thread with its own runtime). An incarnation that stops, panics,
//! hangs or cannot start is replaced by the next generation on a fresh Arbiter, after a back-off. Too many restarts,
//! or a second hanging thread, end the process with the reason.
//!
//! ```text
//!                    overseer (main thread): back-off, watchdog, escalation
//!          births and ends │                        ▲ pulses (one word per thread)
//!      ┌────────┬──────────┼─────────┬─────────┬────────┐ │
//!    pool    sessions     tun      routes   metrics  control   one Arbiter each, generation n
//!      │        │          │          │         │        │
//!      └────────┴── directory: current addresses, looked up at each send
//! ```

pub mod backoff;
pub mod child;
pub mod directory;
pub mod events;
pub mod faults;
pub mod overseer;
pub mod pulse;
pub mod status;

pub use backoff::Limits;
pub use child::{Birth, Blueprint, Child};
pub use directory::{Slot, Unavailable};
pub(crate) use overseer::WATCH_EVERY;
pub use overseer::{Outcome, Overseer, StuckLock};
pub use status::{Board, Concern, Exit, State, Status};
