//! The actors: one room per concern.
//!
//! ```text
//!  device queues (descriptors outlive the workers)
//!    │ read            ▲ write
//!  ┌─▼─────────────────┴─┐  AcquireLeases (one per batch)  ┌──────┐
//!  │ tun: worker threads │ ───────────────────────────────▶│ pool │◀─┐ ReleaseLeases, ReleaseBlocks
//!  │ parse, judge,       │ ◀── answers, by the desk ───────└──────┘  │
//!  │ translate           │                                       ┌───┴──────┐
//!  └─────────────────────┘  expiry, static pairs, forwards ──────│ sessions │
//!        │ look up, begin, refresh                               └───┬──────┘
//!        ▼                                                           ▼
//!   ════ Shared: tables (leases, sessions, fragments), rules, desks, records, kernel view, board ════
//!        ▲ rules: own addresses, connected prefixes       ▲ read at each scrape
//!  ┌─────┴──┐ netlink events, comparison, repair     ┌────┴────┐        ┌─────────┐ drop, PutIntoForce
//!  │ routes │ ─── link, routes, masquerade ──▶ kernel│ metrics │──▶ HTTP│ control │ ──▶ sessions
//!  └────────┘                                        └─────────┘        └─────────┘◀─▶ unix socket
//! ```
//!
//! Settings are one generation in `Shared`; a reload or a mapping at run time goes by `sessions` too ([`crate::reload`]).
//!
//! Messages carry requests, batches and facts, never single packets. Each can be repeated without harm, and each
//! sender copes with "not there just now".

pub mod control;
pub mod metrics;
pub mod pool;
pub mod routes;
pub mod sessions;
pub mod tun;
