//! Writing IP headers.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::bytes::{array_mut, put};
use crate::checksum::Sum;

/// An IPv4 header without options, in bytes.
pub(crate) const IPV4: usize = 20;
/// An IPv6 header, in bytes.
pub(crate) const IPV6: usize = 40;
/// An IPv6 fragment header, in bytes.
pub(crate) const FRAGMENT: usize = 8;
/// An ICMP header of either family, in bytes.
pub(crate) const ICMP: usize = 8;

/// The fields of an IPv4 header (RFC 791 §3.1).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ipv4Header {
    pub(crate) tos: u8,
    pub(crate) total_length: u16,
    pub(crate) identification: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) more_fragments: bool,
    /// In units of eight bytes.
    pub(crate) fragment_offset: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
}

impl Ipv4Header {
    /// Its five words of 32 bits, but for the checksum.
    const fn words(&self) -> [u32; 5] {
        let flags = (self.dont_fragment as u16) << 14 | (self.more_fragments as u16) << 13;
        let fragment = flags | self.fragment_offset & 0x1fff;
        [
            0x4500 << 16 | (self.tos as u32) << 16 | self.total_length as u32,
            (self.identification as u32) << 16 | fragment as u32,
            (self.ttl as u32) << 24 | (self.protocol as u32) << 16,
            self.source.to_bits(),
            self.destination.to_bits(),
        ]
    }

    #[inline]
    pub(crate) fn write(&self, storage: &mut [u8], at: usize) {
        // The checksum is computed in registers: to read back bytes that were just written is what costs time here.
        let mut words = self.words();
        words[2] |= u32::from(Sum::of_words(words).checksum());
        let Some(header) = array_mut::<IPV4>(storage, at) else { return };
        for (place, word) in header.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
    }
}

/// The fields of an IPv6 header (RFC 8200 §3), and of the fragment header behind it if there is one. The flow label is 0. The
/// addresses go from where the caller has them to their place without a stop on the way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ipv6Header<'h> {
    pub(crate) traffic_class: u8,
    /// Without the fragment header.
    pub(crate) payload_length: usize,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) source: &'h Ipv6Addr,
    pub(crate) destination: &'h Ipv6Addr,
    pub(crate) fragment: Option<Fragment>,
}

/// The fields of an IPv6 fragment header (RFC 8200 §4.5).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fragment {
    pub(crate) identification: u32,
    /// In units of eight bytes.
    pub(crate) offset: u16,
    pub(crate) more: bool,
}

impl Fragment {
    /// How far a fragment with this many bytes reaches into the payload of its datagram, in bytes.
    pub(crate) fn reach(&self, length: usize) -> usize {
        usize::from(self.offset) * 8 + length
    }
}

impl Ipv6Header<'_> {
    /// The length of what [`Self::write`] writes, in bytes.
    pub(crate) const fn length(&self) -> usize {
        if self.fragment.is_some() { IPV6 + FRAGMENT } else { IPV6 }
    }

    #[inline]
    pub(crate) fn write(&self, storage: &mut [u8], at: usize) {
        let payload = (self.payload_length + self.length() - IPV6) as u16;
        let next_header =
            if self.fragment.is_some() { crate::parse::FRAGMENT_HEADER } else { self.next_header };
        let first = 6 << 60
            | u64::from(self.traffic_class) << 52
            | u64::from(payload) << 16
            | u64::from(next_header) << 8
            | u64::from(self.hop_limit);
        let Some(header) = array_mut::<IPV6>(storage, at) else { return };
        header[..8].copy_from_slice(&first.to_be_bytes());
        header[8..24].copy_from_slice(&self.source.octets());
        header[24..].copy_from_slice(&self.destination.octets());
        if let Some(fragment) = self.fragment {
            let place = u64::from(fragment.offset << 3 | u16::from(fragment.more));
            let header = u64::from(self.next_header) << 56 | place << 32 | u64::from(fragment.identification);
            put(storage, at + IPV6, header.to_be_bytes());
        }
    }
}
