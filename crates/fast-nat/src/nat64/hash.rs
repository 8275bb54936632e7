//! The keyed hashes of the indexes: what a stranger can choose must not choose the bucket.

use std::net::{Ipv4Addr, Ipv6Addr};

use siphasher::sip::SipHasher13;

use super::Protocol;

/// A secret, and what it makes of keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hasher {
    sip: SipHasher13,
    /// Odd numbers, for what only spreads work.
    odd: [u64; 2],
}

impl Hasher {
    pub(crate) fn random() -> Self {
        Self::new(SipHasher13::new_with_key(&crate::random_key()))
    }

    /// Always the same one for a seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::new(SipHasher13::new_with_keys(seed, !seed))
    }

    fn new(sip: SipHasher13) -> Self {
        Self { sip, odd: [b"upper", b"lower"].map(|half| sip.hash(half) | 1) }
    }

    /// One of 256 shards, for what lies under a prefix. Multiplication by secret numbers and no more: the worst that a stranger
    /// could gain is that others wait for a lock.
    #[inline]
    pub(super) fn shard(&self, prefix: u128) -> u8 {
        let [upper, lower] = self.odd;
        let sum =
            ((prefix >> 64) as u64).wrapping_mul(upper).wrapping_add((prefix as u64).wrapping_mul(lower));
        (sum >> 56) as u8
    }

    /// A binding's, by its IPv6 side.
    #[inline]
    pub(super) fn host_port(&self, host: Ipv6Addr, key: u32) -> u64 {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&host.octets());
        bytes[16..].copy_from_slice(&key.to_ne_bytes());
        self.sip.hash(&bytes)
    }

    /// A binding's, by its IPv4 side.
    #[inline]
    pub(super) fn address_port(&self, address: Ipv4Addr, port: u16, protocol: Protocol) -> u64 {
        let mut bytes = [protocol as u8; 7];
        bytes[..4].copy_from_slice(&address.octets());
        bytes[4..6].copy_from_slice(&port.to_ne_bytes());
        self.sip.hash(&bytes)
    }

    /// A session's: the IPv6 side of its binding, and its remote.
    #[inline]
    pub(super) fn session(&self, host: Ipv6Addr, key: u32, remote: u64) -> u64 {
        let mut bytes = [0; 28];
        bytes[..16].copy_from_slice(&host.octets());
        bytes[16..20].copy_from_slice(&key.to_ne_bytes());
        bytes[20..].copy_from_slice(&remote.to_ne_bytes());
        self.sip.hash(&bytes)
    }

    /// An address's that a binding lets in.
    #[inline]
    pub(super) fn permit(&self, binding: u32, address: Ipv4Addr) -> u64 {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&binding.to_ne_bytes());
        bytes[4..].copy_from_slice(&address.octets());
        self.sip.hash(&bytes)
    }

    /// A host's or a subscriber's, by its prefix.
    #[inline]
    pub(super) fn prefix(&self, bits: u128) -> u64 {
        self.sip.hash(&bits.to_ne_bytes())
    }

    /// The next of a row of numbers that nobody can foresee.
    #[inline]
    pub(crate) fn random_number(&self, place: u64) -> u64 {
        let mut bytes = [0xff; 13];
        bytes[..8].copy_from_slice(&place.to_ne_bytes());
        self.sip.hash(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_secrets_place_the_same_keys_differently_and_one_always_alike() {
        let (a, b) = (Hasher::random(), Hasher::random());
        let keys: Vec<u128> = (0..64).collect();
        let places = |hasher: Hasher| keys.iter().map(|key| hasher.prefix(*key)).collect::<Vec<_>>();
        assert_ne!(places(a), places(b));
        assert_eq!(places(a), places(a));
        let host = Ipv6Addr::LOCALHOST;
        assert_ne!(a.host_port(host, 1), b.host_port(host, 1));
        assert_ne!(a.session(host, 1, 2), b.session(host, 1, 2));
        let address = Ipv4Addr::LOCALHOST;
        assert_ne!(a.address_port(address, 1, Protocol::Tcp), b.address_port(address, 1, Protocol::Tcp));
        assert_ne!(a.random_number(1), b.random_number(1));
    }
}
