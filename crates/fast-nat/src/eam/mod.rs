//! Explicit address mappings (RFC 7757).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

mod table;

pub use table::EamTable;

/// Why something is no explicit address mapping, or why several are no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEam {
    /// There are bits set behind the IPv4 prefix.
    #[error("{given} has bits set behind its prefix; the prefix is {}", given.trunc())]
    HostBits4 {
        /// What was given.
        given: Ipv4Net,
    },
    /// There are bits set behind the IPv6 prefix.
    #[error("{given} has bits set behind its prefix; the prefix is {}", given.trunc())]
    HostBits6 {
        /// What was given.
        given: Ipv6Net,
    },
    /// More bits follow the IPv4 prefix than the IPv6 prefix: addresses would have to share a mapping (RFC 7757 §3.2).
    #[error(
        "{ipv4} has more addresses than {ipv6}; make the IPv6 prefix /{} or shorter (RFC 7757 §3.2)",
        96 + ipv4.prefix_len()
    )]
    SuffixTooLong {
        /// The IPv4 prefix.
        ipv4: Ipv4Net,
        /// The IPv6 prefix.
        ipv6: Ipv6Net,
    },
    /// Two mappings have the same IPv4 prefix.
    #[error("{0} is mapped twice")]
    Twice4(Ipv4Net),
    /// Two mappings have the same IPv6 prefix.
    #[error("{0} is mapped twice")]
    Twice6(Ipv6Net),
}

/// One explicit address mapping: an IPv4 prefix and an IPv6 prefix, whose addresses stand for each other.
///
/// What follows the IPv4 prefix in an IPv4 address follows the IPv6 prefix in its IPv6 address. The bits behind that, if
/// there are any, are zero when an IPv6 address is made, and ignored when one is read (RFC 7757 §3.3).
///
/// No bit is set behind either prefix, and at least as many bits follow the IPv6 prefix as the IPv4 prefix. No other value can
/// exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Eam {
    ipv4: Ipv4Net,
    ipv6: Ipv6Net,
}

impl Eam {
    /// The mapping of two prefixes.
    pub fn new(ipv4: Ipv4Net, ipv6: Ipv6Net) -> Result<Self, InvalidEam> {
        if ipv4 != ipv4.trunc() {
            return Err(InvalidEam::HostBits4 { given: ipv4 });
        }
        if ipv6 != ipv6.trunc() {
            return Err(InvalidEam::HostBits6 { given: ipv6 });
        }
        if 32 - ipv4.prefix_len() > 128 - ipv6.prefix_len() {
            return Err(InvalidEam::SuffixTooLong { ipv4, ipv6 });
        }
        Ok(Self { ipv4, ipv6 })
    }

    /// The mapping of two addresses: a static pair is a mapping of a /32 and a /128.
    pub fn pair(ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> Self {
        Self { ipv4: ipv4.into(), ipv6: ipv6.into() }
    }

    /// The IPv4 prefix.
    pub fn ipv4(&self) -> Ipv4Net {
        self.ipv4
    }

    /// The IPv6 prefix.
    pub fn ipv6(&self) -> Ipv6Net {
        self.ipv6
    }

    /// The IPv6 address of an IPv4 address in the IPv4 prefix (RFC 7757 §3.3.1). What another address gives is not said.
    #[inline]
    fn embed(&self, address: Ipv4Addr) -> Ipv6Addr {
        let suffix = u128::from(address.to_bits() & self.ipv4.hostmask().to_bits());
        let moved = suffix.checked_shl(self.padding()).unwrap_or(0);
        Ipv6Addr::from_bits(self.ipv6.addr().to_bits() | moved)
    }

    /// The IPv4 address of an IPv6 address in the IPv6 prefix (RFC 7757 §3.3.2). What another address gives is not said.
    #[inline]
    fn extract(&self, address: Ipv6Addr) -> Ipv4Addr {
        let suffix = address.to_bits().checked_shr(self.padding()).unwrap_or(0) as u32;
        Ipv4Addr::from_bits(self.ipv4.addr().to_bits() | (suffix & self.ipv4.hostmask().to_bits()))
    }

    /// How many bits of an IPv6 address follow the suffix: 0 to 128.
    #[inline]
    fn padding(&self) -> u32 {
        // Not negative: `new` has seen to that.
        96 + u32::from(self.ipv4.prefix_len()) - u32::from(self.ipv6.prefix_len())
    }
}

impl fmt::Display for Eam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <-> {}", self.ipv4, self.ipv6)
    }
}

impl fmt::Debug for Eam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Eam({self})")
    }
}

#[cfg(test)]
mod tests;
