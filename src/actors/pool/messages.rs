//! What `pool` is asked.

use std::net::Ipv6Addr;

use actix::Message;
use fast_nat::Lease;

/// Lease an address to each of these hosts. The answers go to the desk of `worker`. May be repeated: a host that has
/// a lease gets the same one.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AcquireLeases {
    /// The worker that holds packets of these hosts.
    pub worker: usize,
    /// The hosts: at most as many as one batch of packets.
    pub hosts: Vec<Ipv6Addr>,
}

/// These leases have ended and are out of the table: their addresses rest and are then free. May be repeated, and
/// may be lost: a restarted `pool` reads the table.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReleaseLeases {
    /// The leases.
    pub leases: Vec<Lease>,
}
