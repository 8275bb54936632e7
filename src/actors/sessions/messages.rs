//! What `sessions` is asked.

use std::net::Ipv4Addr;

use actix::Message;
use fast_nat::Lease;
use fast_nat::nat64::{SessionRef, SessionView};

/// The leases, at most `limit` of them, by address.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Lease>")]
pub struct ListLeases {
    /// The most that are returned.
    pub limit: usize,
}

/// End the lease of this address now. The answer is the lease that was ended, if there was one.
#[derive(Debug, Message)]
#[rtype(result = "Option<Lease>")]
pub struct DropLease {
    /// The address.
    pub address: Ipv4Addr,
}

/// The sessions of shared addresses, at most `limit` of them, in no order.
#[derive(Debug, Message)]
#[rtype(result = "Vec<SessionView>")]
pub struct ListSessions {
    /// The most that are returned.
    pub limit: usize,
}

/// End this session now. The answer says whether it was still there.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub struct DropSession {
    /// The session.
    pub session: SessionRef,
}
