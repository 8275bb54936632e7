//! `ICMPv6` types (RFC 4443), and what their errors are in `ICMPv4` (RFC 7915 §5.2).

use core::net::Ipv6Addr;

use super::{Head, Quoted, Translated, v4};
use crate::DropReason;
use crate::bytes::{put, put_u16};
use crate::checksum::{Sum, pseudo_v6};
use crate::parse::ICMPV6;

pub(crate) const UNREACHABLE: u8 = 1;
pub(crate) const PACKET_TOO_BIG: u8 = 2;
pub(crate) const TIME_EXCEEDED: u8 = 3;
pub(crate) const PARAMETER_PROBLEM: u8 = 4;
pub(crate) const ECHO_REQUEST: u8 = 128;
pub(crate) const ECHO_REPLY: u8 = 129;

/// The least MTU that IPv4 knows (RFC 791 §3.2).
const LOWEST_MTU: u32 = 68;

/// Whether an error of this type can be translated.
pub(crate) fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | PACKET_TOO_BIG | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// The bytes of the packet inside that are there of the original datagram, where extensions follow it (RFC 4884 §4.2).
pub(crate) fn quote_length(head: Head) -> usize {
    match head.kind {
        UNREACHABLE | TIME_EXCEEDED => usize::from((head.rest >> 24) as u8) * 8,
        _ => 0,
    }
}

/// The error in `ICMPv4`.
pub(crate) fn to_v4(head: Head, quoted: Quoted) -> Translated {
    match (head.kind, head.code) {
        (UNREACHABLE, 0 | 2 | 3) => Ok(Head::new(v4::UNREACHABLE, 1)),
        (UNREACHABLE, 1) => Ok(Head::new(v4::UNREACHABLE, 10)),
        (UNREACHABLE, 4) => Ok(Head::new(v4::UNREACHABLE, 3)),
        // The code is zero and to be ignored (RFC 4443 §3.2).
        (PACKET_TOO_BIG, _) => {
            let longer = if quoted.fragment_header { 28 } else { 20 };
            let mtu = head.rest.saturating_sub(longer).clamp(LOWEST_MTU, 0xffff);
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
