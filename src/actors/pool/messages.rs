//! What `pool` is asked.

use actix::Message;
use fast_nat::Lease;
use fast_nat::nat64::BlockRef;

use crate::datapath::Ask;

/// Lease an address or a port block to each of these hosts, whichever it is served with. The answers go to the desk of
/// `worker`. May be repeated: a host that has what it needs gets no more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AcquireLeases {
    /// The worker that holds packets of these hosts.
    pub worker: usize,
    /// The hosts: at most as many as one batch of packets.
    pub asks: Vec<Ask>,
}

/// These leases have ended and are out of the table: their addresses rest and are then free. May be repeated, and
/// may be lost: a restarted `pool` reads the table.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReleaseLeases {
    /// The leases.
    pub leases: Vec<Lease>,
}

/// These port blocks are without a binding, and their ports have rested: take them back. May be repeated, and may be lost: a
/// block that is still idle is told of again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReleaseBlocks {
    /// The blocks.
    pub blocks: Vec<BlockRef>,
}
