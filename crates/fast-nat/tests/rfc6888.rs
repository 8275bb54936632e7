//! RFC 6888, what a carrier-grade NAT has to do: limits, port blocks, and that nobody pays for what another one does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail the test that calls them")]

#[allow(dead_code, reason = "each test program needs other parts of it")]
mod common;

#[path = "rfc6888/limits.rs"]
mod limits;
#[path = "rfc6888/pool.rs"]
mod pool;
#[path = "rfc6888/ports.rs"]
mod ports;
#[path = "rfc6888/quotas.rs"]
mod quotas;
#[path = "rfc6888/statics.rs"]
mod statics;

/// A DNS query of this host and port.
fn udp(host: std::net::Ipv6Addr, port: u16) -> fast_nat::nat64::Outbound {
    common::flow(fast_nat::nat64::Protocol::Udp, host, port, common::remote(1), 53)
}
