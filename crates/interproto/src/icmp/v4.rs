//! `ICMPv4` types (RFC 792), and what their errors are in `ICMPv6` (RFC 7915 §4.2).

use super::{Head, Quoted, Translated, v6};
use crate::{DropReason, Params};

pub(crate) const ECHO_REPLY: u8 = 0;
pub(crate) const UNREACHABLE: u8 = 3;
pub(crate) const ECHO_REQUEST: u8 = 8;
pub(crate) const TIME_EXCEEDED: u8 = 11;
pub(crate) const PARAMETER_PROBLEM: u8 = 12;

pub(crate) const FRAGMENTATION_NEEDED: u8 = 4;

/// Where the Next Header field lies in an IPv6 header: what "protocol unreachable" points at.
const NEXT_HEADER_AT: u32 = 6;

/// The MTUs that a router without RFC 1191 is taken to mean (RFC 1191 §7.1).
const PLATEAUS: [u32; 11] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// Whether an error of this type can be translated.
pub(crate) fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// What the length attribute counts in, in bytes (RFC 4884 §4.1).
pub(crate) const LENGTH_UNIT: usize = 4;

/// The length attribute: the bytes of the packet inside, where extensions follow it (RFC 4884 §4.1). All types that are
/// errors here have one.
pub(crate) fn quote_length(head: Head) -> usize {
    usize::from((head.rest >> 16) as u8) * LENGTH_UNIT
}

/// The header with a length attribute.
pub(crate) fn with_quote_length(head: Head, length: usize) -> Head {
    let units = (length / LENGTH_UNIT) as u32;
    Head { rest: head.rest & 0xff00_ffff | (units & 0xff) << 16, ..head }
}

/// The error in `ICMPv6`.
pub(crate) fn to_v6(head: Head, quoted: Quoted, params: &Params) -> Translated {
    match (head.kind, head.code) {
        (UNREACHABLE, 0 | 1 | 5 | 6 | 7 | 8 | 11 | 12) => Ok(Head::new(v6::UNREACHABLE, 0)),
        (UNREACHABLE, 2) => Ok(Head { rest: NEXT_HEADER_AT, ..Head::new(v6::PARAMETER_PROBLEM, 1) }),
        (UNREACHABLE, 3) => Ok(Head::new(v6::UNREACHABLE, 4)),
        (UNREACHABLE, FRAGMENTATION_NEEDED) => {
            let mtu = mtu(head.rest & 0xffff, quoted.total_length, params);
            Ok(Head { rest: mtu, ..Head::new(v6::PACKET_TOO_BIG, 0) })
        }
        (UNREACHABLE, 9 | 10 | 13 | 15) => Ok(Head::new(v6::UNREACHABLE, 1)),
        (TIME_EXCEEDED, code) => Ok(Head::new(v6::TIME_EXCEEDED, code)),
        (PARAMETER_PROBLEM, 0 | 2) => {
            let pointer = pointer((head.rest >> 24) as u8).ok_or(DropReason::PointerNotTranslatable)?;
            Ok(Head { rest: pointer, ..Head::new(v6::PARAMETER_PROBLEM, 0) })
        }
        _ => Err(DropReason::IcmpNotTranslatable),
    }
}

/// The MTU for the IPv6 sender: 20 bytes more, since its header is that much longer, no more than the next links carry, and
/// never below 1280.
fn mtu(mtu: u32, total_length: usize, params: &Params) -> u32 {
    let mtu = if mtu == 0 {
        let lower = PLATEAUS.into_iter().find(|plateau| (*plateau as usize) < total_length);
        lower.unwrap_or(68)
    } else {
        mtu
    };
    (mtu + 20).min(params.ipv4_mtu() + 20).min(params.ipv6_mtu()).max(1280)
}

/// RFC 7915 §4.2, figure 3.
fn pointer(pointer: u8) -> Option<u32> {
    match pointer {
        0 => Some(0),
        1 => Some(1),
        2 | 3 => Some(4),
        8 => Some(7),
        9 => Some(6),
        12..=15 => Some(8),
        16..=19 => Some(24),
        _ => None,
    }
}
