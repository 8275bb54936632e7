//! What the router tells the recorder.

use std::net::{Ipv4Addr, Ipv6Addr};

use fast_nat::Timestamp;
use serde::{Deserialize, Serialize};

/// Something that an operator may have to prove. All moments are of the router's own clock ([`crate::clock::now`]); the
/// recorder turns them into UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When it happened.
    pub at: Timestamp,
    /// The host that it is about.
    pub host: Ipv6Addr,
    /// The address, of the IPv4 side, that it is about.
    pub address: Ipv4Addr,
    /// What happened.
    pub what: What,
    /// Why, as one of the words in `docs/allocation-records.md`; empty where there is nothing to say.
    pub reason: &'static str,
}

/// What happened to ports, an address or a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The host has these ports of the address from now on, for all protocols.
    BlockGiven {
        /// The lowest.
        first_port: u16,
        /// The highest.
        last_port: u16,
    },
    /// It has them no longer.
    BlockReturned {
        /// The lowest.
        first_port: u16,
        /// The highest.
        last_port: u16,
        /// Since when it had them.
        given: Timestamp,
    },
    /// The host has the whole address from now on.
    LeaseGiven,
    /// It has it no longer.
    LeaseEnded {
        /// Since when it had it.
        given: Timestamp,
    },
    /// A session began. Written only where sessions are asked for: it tells whom the host talks to (RFC 6888 REQ-12).
    SessionStarted(Flow),
    /// It ended. Written only where sessions are asked for.
    SessionEnded {
        /// Between whom.
        flow: Flow,
        /// When it began.
        started: Timestamp,
    },
}

/// The ports of a session, and its other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the host, or the identifier of an echo query.
    pub host_port: u16,
    /// The port of the pool address.
    pub port: u16,
    /// Whom the host talks to.
    pub remote: Ipv4Addr,
    /// The port there; 0 for ICMP.
    pub remote_port: u16,
}

/// A protocol with ports, or with identifiers that serve as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named after the protocols")]
pub enum Protocol {
    Tcp,
    Udp,
    /// Echo queries.
    Icmp,
}

impl Record {
    /// Whether it tells whom a host talks to.
    pub fn names_a_destination(&self) -> bool {
        matches!(self.what, What::SessionStarted(_) | What::SessionEnded { .. })
    }
}
