//! The plain packet: IPv4 without options or IPv6 without extension headers, no fragment, TCP or UDP with a checksum, with hops
//! left. Nearly all packets are plain, so they are read by a short way of their own. What is not plain for any reason, if only
//! because something is wrong with it, is read by the general way, which says the same of a plain packet.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use super::{Parsed, TCP, UDP, Upper};
use crate::bytes::array_ref;
use crate::checksum::Sum;
use crate::headers::{Fragment, IPV4, IPV6};

/// The DF flag of an IPv4 header, in the word that it shares with the fragment's place.
const DONT_FRAGMENT: u16 = 0x4000;

/// The first bytes of a transport header: ports, and of UDP the length and the checksum.
const FIRST: usize = 8;

/// What lies behind the IP header, if that is a whole TCP or UDP header. `bytes` end with the packet.
#[inline(always)]
fn upper(protocol: u8, bytes: &[u8]) -> Option<(Upper, u32)> {
    let first: &[u8; FIRST] = array_ref(bytes, 0)?;
    let ports = u32::from_be_bytes([first[0], first[1], first[2], first[3]]);
    let upper = match protocol {
        TCP => {
            let header = usize::from(bytes.get(12)? >> 4) * 4;
            if header < 20 || header > bytes.len() {
                return None;
            }
            Upper::Ported { checksum_at: 16, never_zero: false }
        }
        UDP => {
            let length = usize::from(u16::from_be_bytes([first[4], first[5]]));
            if length < FIRST || length > bytes.len() || first[6..8] == [0, 0] {
                return None;
            }
            Upper::Ported { checksum_at: 6, never_zero: true }
        }
        _ => return None,
    };
    Some((upper, ports))
}

/// Reads the packet at `range` of `storage`, if it is a plain one.
#[inline(always)]
pub(crate) fn parse_v4(storage: &[u8], range: &Range<usize>) -> Option<Parsed<Ipv4Addr>> {
    let bytes = storage.get(range.start..range.end)?;
    let header: &[u8; IPV4] = array_ref(bytes, 0)?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let words = [word(0), word(4), word(8), word(12), word(16)];
    let (total, place) = (usize::from(words[0] as u16), words[1] as u16);
    let is_plain = header[0] == 0x45 && place & !DONT_FRAGMENT == 0 && header[8] > 1;
    if !is_plain || Sum::of_words(words).checksum() != 0 {
        return None;
    }
    let (upper, ports) = upper(header[9], bytes.get(IPV4..total)?)?;
    Some(Parsed {
        start: range.start,
        upper_at: range.start + IPV4,
        end: range.start + total,
        upper_length: total - IPV4,
        traffic_class: header[1],
        hop_limit: header[8],
        protocol: header[9],
        fragment: Some(Fragment { identification: words[1] >> 16, offset: 0, more: false }),
        dont_fragment: place & DONT_FRAGMENT != 0,
        upper,
        source: Ipv4Addr::from_bits(words[3]),
        destination: Ipv4Addr::from_bits(words[4]),
        ports,
        refusal: None,
        quiet: false,
    })
}

/// The same of an IPv6 packet.
#[inline(always)]
pub(crate) fn parse_v6(storage: &[u8], range: &Range<usize>) -> Option<Parsed<Ipv6Addr>> {
    let bytes = storage.get(range.start..range.end)?;
    let header: &[u8; IPV6] = array_ref(bytes, 0)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || header[7] <= 1 {
        return None;
    }
    let (upper, ports) = upper(header[6], bytes.get(IPV6..IPV6 + length)?)?;
    Some(Parsed {
        start: range.start,
        upper_at: range.start + IPV6,
        end: range.start + IPV6 + length,
        upper_length: length,
        traffic_class: header[0] << 4 | header[1] >> 4,
        hop_limit: header[7],
        protocol: header[6],
        fragment: None,
        dont_fragment: false,
        upper,
        source: Ipv6Addr::from_bits(u128::from_be_bytes(*array_ref(header, 8)?)),
        destination: Ipv6Addr::from_bits(u128::from_be_bytes(*array_ref(header, 24)?)),
        ports,
        refusal: None,
        quiet: false,
    })
}
