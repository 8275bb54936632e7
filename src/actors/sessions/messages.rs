//! What `sessions` is asked.

use std::net::Ipv4Addr;

use actix::Message;
use fast_nat::Lease;
use fast_nat::nat64::SessionRef;

use crate::datapath::Rules;
use crate::generation::{Generation, NotChanged};

/// End the lease of this address now. The answer is the lease that was ended, if there was one.
#[derive(Debug, Message)]
#[rtype(result = "Option<Lease>")]
pub struct DropLease {
    /// The address.
    pub address: Ipv4Addr,
}

/// Put this generation of settings into force, with these rules.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), NotChanged>")]
pub struct PutIntoForce {
    /// The one after that which holds.
    pub next: Box<Generation>,
    /// Its rules.
    pub rules: Box<Rules>,
}

/// End this session now. The answer says whether it was still there.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub struct DropSession {
    /// The session.
    pub session: SessionRef,
}
