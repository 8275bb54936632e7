//! ICMP and `ICMPv6`: which error of one family stands for which of the other (RFC 7915 §4.2, §5.2).

pub(crate) mod quote;
pub(crate) mod v4;
pub(crate) mod v6;

use crate::DropReason;

/// The lengths that ICMP errors keep to, in bytes (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)).
pub(crate) const LONGEST_ICMPV4_ERROR: usize = 576;
pub(crate) const LONGEST_ICMPV6_ERROR: usize = 1280;

/// Type, code, and the four bytes behind the checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) rest: u32,
}

impl Head {
    pub(crate) const fn new(kind: u8, code: u8) -> Self {
        Self { kind, code, rest: 0 }
    }

    /// With a checksum of zero.
    pub(crate) const fn bytes(self) -> [u8; 8] {
        let rest = self.rest.to_be_bytes();
        [self.kind, self.code, 0, 0, rest[0], rest[1], rest[2], rest[3]]
    }
}

/// What of the packet inside an error decides about the error's own translation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quoted {
    /// The total length that its IP header promises, in bytes.
    pub(crate) total_length: usize,
    /// Whether it has an IPv6 fragment header.
    pub(crate) fragment_header: bool,
}

type Translated = Result<Head, DropReason>;

#[cfg(test)]
mod tests;
