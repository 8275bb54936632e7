//! Writing IP headers.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::bytes::put;
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
    pub(crate) fn write(&self, storage: &mut [u8], at: usize) {
        let mut header = [0; IPV4];
        header[0] = 0x45;
        header[1] = self.tos;
        header[2..4].copy_from_slice(&self.total_length.to_be_bytes());
        header[4..6].copy_from_slice(&self.identification.to_be_bytes());
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.more_fragments) << 13;
        header[6..8].copy_from_slice(&(flags | self.fragment_offset & 0x1fff).to_be_bytes());
        header[8] = self.ttl;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&self.source.octets());
        header[16..20].copy_from_slice(&self.destination.octets());
        let checksum = Sum::of(&header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        put(storage, at, header);
    }
}

/// The fields of an IPv6 header (RFC 8200 §3), and of the fragment header behind it if there is one. The flow label is 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ipv6Header {
    pub(crate) traffic_class: u8,
    /// Without the fragment header.
    pub(crate) payload_length: usize,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
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

impl Ipv6Header {
    /// The length of what [`Self::write`] writes, in bytes.
    pub(crate) const fn length(&self) -> usize {
        if self.fragment.is_some() { IPV6 + FRAGMENT } else { IPV6 }
    }

    pub(crate) fn write(&self, storage: &mut [u8], at: usize) {
        let mut header = [0; IPV6];
        header[0] = 0x60 | self.traffic_class >> 4;
        header[1] = self.traffic_class << 4;
        let payload = self.payload_length + self.length() - IPV6;
        header[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
        header[6] = if self.fragment.is_some() { crate::parse::FRAGMENT_HEADER } else { self.next_header };
        header[7] = self.hop_limit;
        header[8..24].copy_from_slice(&self.source.octets());
        header[24..40].copy_from_slice(&self.destination.octets());
        put(storage, at, header);
        if let Some(fragment) = self.fragment {
            let mut header = [0; FRAGMENT];
            header[0] = self.next_header;
            header[2..4].copy_from_slice(&(fragment.offset << 3 | u16::from(fragment.more)).to_be_bytes());
            header[4..8].copy_from_slice(&fragment.identification.to_be_bytes());
            put(storage, at + IPV6, header);
        }
    }
}
