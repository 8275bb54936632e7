//! `ICMPv6` types (RFC 4443), and what their errors are in `ICMPv4` (RFC 7915 §5.2).

use core::net::Ipv6Addr;

use super::{Head, Quoted, Translated, v4};
use crate::bytes::{put, put_u16};
use crate::checksum::{Sum, pseudo_v6};
use crate::params::LEAST_IPV4_MTU;
use crate::parse::ICMPV6;
use crate::{DropReason, Params};

pub(crate) const UNREACHABLE: u8 = 1;
pub(crate) const PACKET_TOO_BIG: u8 = 2;
pub(crate) const TIME_EXCEEDED: u8 = 3;
pub(crate) const PARAMETER_PROBLEM: u8 = 4;
pub(crate) const ECHO_REQUEST: u8 = 128;
pub(crate) const ECHO_REPLY: u8 = 129;

/// Whether an error of this type can be translated.
pub(crate) fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | PACKET_TOO_BIG | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// What the length attribute counts in, in bytes (RFC 4884 §4.4).
pub(crate) const LENGTH_UNIT: usize = 8;

/// Whether errors of this type can have extensions (RFC 4884 §4.4, §4.5).
pub(crate) fn has_quote_length(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | TIME_EXCEEDED)
}

/// The length attribute: the bytes of the packet inside, where extensions follow it (RFC 4884 §4.4).
pub(crate) fn quote_length(head: Head) -> usize {
    if has_quote_length(head.kind) { usize::from((head.rest >> 24) as u8) * LENGTH_UNIT } else { 0 }
}

/// The header with a length attribute, if its type has one.
pub(crate) fn with_quote_length(head: Head, length: usize) -> Head {
    if !has_quote_length(head.kind) {
        return head;
    }
    let units = (length / LENGTH_UNIT) as u32;
    Head { rest: head.rest & 0x00ff_ffff | units << 24, ..head }
}

/// The error in `ICMPv4`.
pub(crate) fn to_v4(head: Head, quoted: Quoted, params: &Params) -> Translated {
    match (head.kind, head.code) {
        (UNREACHABLE, 0 | 2 | 3) => Ok(Head::new(v4::UNREACHABLE, 1)),
        (UNREACHABLE, 1) => Ok(Head::new(v4::UNREACHABLE, 10)),
        (UNREACHABLE, 4) => Ok(Head::new(v4::UNREACHABLE, 3)),
        // The code is zero and to be ignored (RFC 4443 §3.2).
        (PACKET_TOO_BIG, _) => {
            let longer = if quoted.fragment_header { 28 } else { 20 };
            let mtu = head.rest.min(params.ipv6_mtu()).saturating_sub(longer);
            let mtu = mtu.min(params.ipv4_mtu()).max(u32::from(LEAST_IPV4_MTU));
            Ok(Head { rest: mtu, ..Head::new(v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) })
        }
        (TIME_EXCEEDED, code) => Ok(Head::new(v4::TIME_EXCEEDED, code)),
        (PARAMETER_PROBLEM, 0) => {
            let pointer = pointer(head.rest).ok_or(DropReason::PointerNotTranslatable)?;
            Ok(Head { rest: u32::from(pointer) << 24, ..Head::new(v4::PARAMETER_PROBLEM, 0) })
        }
        (PARAMETER_PROBLEM, 1) => Ok(Head::new(v4::UNREACHABLE, 2)),
        _ => Err(DropReason::IcmpNotTranslatable),
    }
}

/// RFC 7915 §5.2, figure 6. The pointer has 32 bits: 256 is not 0.
fn pointer(pointer: u32) -> Option<u8> {
    match pointer {
        0 => Some(0),
        1 => Some(1),
        4 | 5 => Some(2),
        6 => Some(9),
        7 => Some(8),
        8..=23 => Some(12),
        24..=39 => Some(16),
        _ => None,
    }
}

/// Writes the header of the message that ends at `end`, with its checksum.
pub(crate) fn write(
    storage: &mut [u8],
    at: usize,
    end: usize,
    head: Head,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) {
    put(storage, at, head.bytes());
    let bytes = storage.get(at..end).unwrap_or_default();
    let checksum = pseudo_v6(source, destination, bytes.len(), ICMPV6).plus(Sum::of(bytes)).checksum();
    put_u16(storage, at + 2, checksum);
}
