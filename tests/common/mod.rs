//! The router under test: the real program in a namespace of a laboratory, its log, its metrics and its end.
//!
//! Every wait has a bound, a failure shows the router's log, and nothing has a name outside its namespace: `/run`, where
//! the router keeps records by interface name, is a directory of the laboratory's own.
#![allow(dead_code, reason = "each file of tests uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail the test that calls them"
)]

pub(crate) mod ctl;
pub(crate) mod files;
pub(crate) mod kernel;
pub(crate) mod lab;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod packets;
pub(crate) mod process;
pub(crate) mod router;
pub(crate) mod trickle;
pub(crate) mod wire;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use netlab::PingOutcome;

pub(crate) use lab::Lab;
#[allow(unused_imports, reason = "each file of tests uses its own part")]
pub(crate) use router::Router;

/// Far beyond what anything here takes, also on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// For what should not come: long enough for a thing that does come by mistake.
pub(crate) const SHORT: Duration = Duration::from_millis(500);

/// A prefix and a pool of addresses for one host each, that fit the documentation addresses of [`netlab::Topology`].
pub(crate) const PLAIN: [&str; 6] =
    ["--translation-prefix", "64:ff9b:1::/96", "--pool-prefix", "203.0.113.0/24", "--sharing", "exclusive"];

/// [`PLAIN`] and more.
pub(crate) fn plain_and(more: &[&'static str]) -> Vec<&'static str> {
    [&PLAIN, more].concat()
}

/// How an IPv6-only host addresses an IPv4 host under the prefix of [`PLAIN`] (RFC 6052 section 2.2).
pub(crate) fn through(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets().map(u16::from);
    Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, a << 8 | b, c << 8 | d)
}

/// The same under the well-known prefix.
pub(crate) fn well_known(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets().map(u16::from);
    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d)
}

/// ICMP type and code of an error, and what follows them.
pub(crate) fn icmp_error(outcome: &PingOutcome) -> (u8, u8) {
    match outcome {
        PingOutcome::Error { icmp_type, code, .. } => (*icmp_type, *code),
        other => panic!("an ICMP error was expected, and there came {other:?}"),
    }
}

/// Looks again and again, until there is an answer or the time is up.
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        pause(Duration::from_millis(20));
    }
}

/// For what has no event that could be waited for.
#[allow(clippy::disallowed_methods, reason = "nobody has to tell a test to stop")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
