//! RFC 6146, stateful NAT64: bindings, sessions, the state machine of TCP, and timers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[allow(dead_code, reason = "each test program needs other parts of it")]
mod common;

#[path = "rfc6146/bindings.rs"]
mod bindings;
#[path = "rfc6146/events.rs"]
mod events;
#[path = "rfc6146/stored.rs"]
mod stored;
#[path = "rfc6146/tcp.rs"]
mod tcp;
#[path = "rfc6146/timers.rs"]
mod timers;
