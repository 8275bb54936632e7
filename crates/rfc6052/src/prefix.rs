use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use crate::{NonGlobal, is_global};

/// Bits 64 to 71 of the address, which are always zero (RFC 6052 §2.2: compatibility with the "u" bit of RFC 4291).
const RESERVED: u128 = 0xff << 56;

/// Why something is not a translation prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// RFC 6052 §2.2 knows six lengths.
    #[error("/{0} is not a length of a translation prefix; it is 32, 40, 48, 56, 64 or 96 (RFC 6052 §2.2)")]
    Length(u8),
    /// Bits 64 to 71 must be zero.
    #[error("bits 64 to 71 of {0} are not zero, as those of a translation prefix must be (RFC 6052 §2.2)")]
    ReservedBits(Ipv6Addr),
    /// There are bits set behind the prefix.
    #[error("{address} has bits set behind its /{length}; the prefix is {network}/{length}")]
    HostBits {
        /// What was given.
        address: Ipv6Addr,
        /// The length that was given with it.
        length: u8,
        /// What was probably meant.
        network: Ipv6Addr,
    },
    /// The text is no `ADDRESS/LENGTH` at all.
    #[error("not an IPv6 prefix; write it as ADDRESS/LENGTH, like 64:ff9b::/96")]
    Syntax,
}

/// An IPv6 prefix under which IPv4 addresses are represented: of a legal length, with bits 64 to 71 zero, and with no
/// bit set behind it. No other value can exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    bits: u128,
    length: u8,
}

impl Prefix {
    /// The well-known prefix, `64:ff9b::/96` (RFC 6052 §2.1).
    pub const WELL_KNOWN: Self = Self { bits: 0x0064_ff9b << 96, length: 96 };

    /// The prefix for local use, `64:ff9b:1::/48` (RFC 8215). Networks inside it are for local use as well.
    pub const LOCAL_USE: Self = Self { bits: 0x0064_ff9b_0001 << 80, length: 48 };

    /// A prefix from its address and its length in bits.
    pub const fn new(address: Ipv6Addr, length: u8) -> Result<Self, PrefixError> {
        if !matches!(length, 32 | 40 | 48 | 56 | 64 | 96) {
            return Err(PrefixError::Length(length));
        }
        let bits = address.to_bits();
        let network = bits & mask(length);
        if bits != network {
            return Err(PrefixError::HostBits { address, length, network: Ipv6Addr::from_bits(network) });
        }
        if bits & RESERVED != 0 {
            return Err(PrefixError::ReservedBits(address));
        }
        Ok(Self { bits, length })
    }

    /// The address of the prefix: what precedes the slash.
    pub const fn address(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.bits)
    }

    /// The length in bits: 32, 40, 48, 56, 64 or 96.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether this is the well-known prefix.
    pub const fn is_well_known(self) -> bool {
        self.bits == Self::WELL_KNOWN.bits && self.length == Self::WELL_KNOWN.length
    }

    /// Whether this is, or lies in, the prefix for local use (RFC 8215).
    pub const fn is_local_use(self) -> bool {
        self.length >= 48 && self.bits & mask(48) == Self::LOCAL_USE.bits
    }

    /// Whether an address lies in the prefix.
    #[inline]
    pub const fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(self.length) == self.bits
    }

    /// The IPv6 address that represents an IPv4 address. The suffix behind it is zero (RFC 6052 §2.2).
    #[inline]
    pub const fn embed(self, address: Ipv4Addr) -> Ipv6Addr {
        let v4 = address.to_bits() as u128;
        if self.length == 96 {
            return Ipv6Addr::from_bits(self.bits | v4);
        }
        // As if bits 64 to 71 were not there: 120 bits, and then those from bit 64 on move back by eight.
        let packed = v4 << (120 - 32 - self.length as u32);
        let upper = packed >> 56 << 64;
        let lower = packed & ((1 << 56) - 1);
        Ipv6Addr::from_bits(self.bits | upper | lower)
    }

    /// The IPv4 address that an IPv6 address represents. `None` outside the prefix, and where bits 64 to 71 are not
    /// zero. The suffix is ignored (RFC 6052 §2.2).
    #[inline]
    pub const fn extract(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let bits = address.to_bits();
        if bits & mask(self.length) != self.bits || bits & RESERVED != 0 {
            return None;
        }
        if self.length == 96 {
            return Some(Ipv4Addr::from_bits(bits as u32));
        }
        let packed = (bits >> 64 << 56) | (bits & ((1 << 56) - 1));
        Some(Ipv4Addr::from_bits((packed >> (120 - 32 - self.length as u32)) as u32))
    }

    /// Whether packets from or to this IPv4 address may be translated under this prefix: the well-known prefix must not
    /// represent non-global addresses (RFC 6052 §3.1), other prefixes may.
    #[inline]
    pub const fn permits(self, address: Ipv4Addr, non_global: NonGlobal) -> bool {
        matches!(non_global, NonGlobal::Allow) || !self.is_well_known() || is_global(address)
    }
}

/// The mask of a prefix length between 1 and 128.
const fn mask(length: u8) -> u128 {
    u128::MAX << (128 - length as u32)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = text.split_once('/').ok_or(PrefixError::Syntax)?;
        let address = address.parse().map_err(|_| PrefixError::Syntax)?;
        Self::new(address, length.parse().map_err(|_| PrefixError::Syntax)?)
    }
}

#[cfg(feature = "ipnet")]
impl From<Prefix> for ipnet::Ipv6Net {
    fn from(prefix: Prefix) -> Self {
        Self::new_assert(prefix.address(), prefix.length)
    }
}

#[cfg(feature = "ipnet")]
impl TryFrom<ipnet::Ipv6Net> for Prefix {
    type Error = PrefixError;

    fn try_from(net: ipnet::Ipv6Net) -> Result<Self, PrefixError> {
        Self::new(net.addr(), net.prefix_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 6052 §2.4, "Text Representation": the six prefixes with 192.0.2.33.
    const TABLE: [(&str, &str); 6] = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ];

    #[test]
    fn the_table_of_section_2_4_both_ways() {
        let v4: Ipv4Addr = "192.0.2.33".parse().unwrap();
        for (prefix, address) in TABLE {
            let prefix: Prefix = prefix.parse().unwrap();
            let address: Ipv6Addr = address.parse().unwrap();
            assert_eq!(prefix.embed(v4), address, "{prefix}");
            assert_eq!(prefix.extract(address), Some(v4), "{prefix}");
        }
        let well_known: Ipv6Addr = "64:ff9b::192.0.2.33".parse().unwrap();
        assert_eq!(Prefix::WELL_KNOWN.embed(v4), well_known);
    }

    #[test]
    fn illegal_prefixes_are_refused_by_name() {
        let error = |text: &str| text.parse::<Prefix>().unwrap_err();
        assert_eq!(error("2001:db8::/33"), PrefixError::Length(33));
        assert_eq!(error("::/0"), PrefixError::Length(0));
        assert_eq!(error("2001:db8::/128"), PrefixError::Length(128));
        assert!(matches!(error("2001:db8::1/96"), PrefixError::HostBits { .. }));
        assert!(matches!(error("2001:db8:0:0:100::/96"), PrefixError::ReservedBits(_)));
        assert_eq!(error("2001:db8::"), PrefixError::Syntax);
        assert_eq!(error("192.0.2.0/24"), PrefixError::Syntax);
        assert_eq!(
            error("2001:db8::1/96").to_string(),
            "2001:db8::1 has bits set behind its /96; the prefix is 2001:db8::/96"
        );
    }

    #[test]
    fn outside_the_prefix_or_with_reserved_bits_there_is_no_ipv4_address() {
        let prefix: Prefix = "2001:db8::/32".parse().unwrap();
        assert_eq!(prefix.extract("2001:db9:c000:221::".parse().unwrap()), None);
        assert_eq!(prefix.extract("2001:db8:c000:221:100::".parse().unwrap()), None);
    }

    #[test]
    fn the_well_known_prefix_alone_refuses_non_global_addresses() {
        let private: Ipv4Addr = "10.0.0.1".parse().unwrap();
        let public: Ipv4Addr = "8.8.8.8".parse().unwrap();
        let local: Prefix = "64:ff9b:1::/96".parse().unwrap();
        assert!(!Prefix::WELL_KNOWN.permits(private, NonGlobal::Refuse));
        assert!(Prefix::WELL_KNOWN.permits(private, NonGlobal::Allow));
        assert!(Prefix::WELL_KNOWN.permits(public, NonGlobal::Refuse));
        assert!(local.permits(private, NonGlobal::Refuse));
        assert!(
            local.is_local_use() && Prefix::LOCAL_USE.is_local_use() && !Prefix::WELL_KNOWN.is_local_use()
        );
    }

    fn prefixes() -> impl Strategy<Value = Prefix> {
        (any::<u128>(), prop::sample::select(vec![32_u8, 40, 48, 56, 64, 96])).prop_map(|(bits, length)| {
            Prefix::new(Ipv6Addr::from_bits(bits & mask(length) & !RESERVED), length).unwrap()
        })
    }

    proptest! {
        #[test]
        fn what_is_embedded_can_be_extracted(prefix in prefixes(), v4: u32) {
            let v4 = Ipv4Addr::from_bits(v4);
            let v6 = prefix.embed(v4);
            prop_assert!(prefix.contains(v6));
            prop_assert_eq!(v6.to_bits() & RESERVED, 0);
            prop_assert_eq!(prefix.extract(v6), Some(v4));
        }

        /// RFC 6052 §2.2: the suffix is reserved, and ignored by a translator.
        #[test]
        fn the_suffix_is_ignored(prefix in prefixes(), v4: u32, noise: u128) {
            let v4 = Ipv4Addr::from_bits(v4);
            let used = prefix.embed(Ipv4Addr::BROADCAST).to_bits() & !prefix.bits;
            let noisy = prefix.embed(v4).to_bits() | (noise & !mask(prefix.length) & !used & !RESERVED);
            prop_assert_eq!(prefix.extract(Ipv6Addr::from_bits(noisy)), Some(v4));
        }

        #[test]
        fn text_and_back(prefix in prefixes()) {
            prop_assert_eq!(prefix.to_string().parse::<Prefix>(), Ok(prefix));
        }
    }

    #[cfg(feature = "ipnet")]
    #[test]
    fn networks_and_back() {
        let net: ipnet::Ipv6Net = "64:ff9b::/96".parse().unwrap();
        assert_eq!(Prefix::try_from(net), Ok(Prefix::WELL_KNOWN));
        assert_eq!(ipnet::Ipv6Net::from(Prefix::WELL_KNOWN), net);
    }
}
