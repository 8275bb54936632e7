//! The router's clock: milliseconds since boot, suspend included.
//!
//! Leases must run out while a laptop sleeps, so the monotonic clock (which stands still then) will not do. The packet
//! path reads it once per batch and hands `now` down.

use fast_nat::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// The time now.
pub fn now() -> Timestamp {
    // CLOCK_BOOTTIME exists on every kernel since 2.6.39; there is no other way for this call to fail.
    let since_boot =
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(std::time::Duration::ZERO, std::time::Duration::from);
    Timestamp::from_millis(u64::try_from(since_boot.as_millis()).unwrap_or(u64::MAX))
}
