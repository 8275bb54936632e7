//! Reading IPv4 packets (RFC 791).

use core::net::Ipv4Addr;
use core::ops::Range;

use super::{
    DESTINATION_OPTIONS, FRAGMENT_HEADER, HOP_BY_HOP, ICMPV4, ICMPV6, IGMP, Parsed, Part, ROUTING, Transport,
    What, icmp, let_in, transport,
};
use crate::DropReason;
use crate::bytes::{array_ref, u8_at};
use crate::checksum::Sum;
use crate::headers::{Fragment, IPV4};
use crate::icmp::v4;

/// Options (RFC 791 §3.1): end of list, no operation, and the two source routes.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// The longest datagram (RFC 791 §3.1), in bytes.
const LONGEST: usize = 65_535;

/// How ICMP is told apart here.
const KINDS: icmp::Kinds =
    icmp::Kinds { echo_request: v4::ECHO_REQUEST, echo_reply: v4::ECHO_REPLY, is_error: v4::is_error };

/// Reads the packet at `range` of `storage`.
pub(crate) fn parse(storage: &[u8], range: Range<usize>, what: What) -> Result<Parsed<Ipv4Addr>, DropReason> {
    let start = range.start;
    let header: &[u8; IPV4] =
        storage.get(..range.end).and_then(|bytes| array_ref(bytes, start)).ok_or(DropReason::Truncated)?;
    let header_length = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_length < IPV4 || total < header_length {
        return Err(DropReason::MalformedHeader);
    }
    let promised = start + total;
    if what == What::Packet && promised > range.end {
        return Err(DropReason::Truncated);
    }
    // Bytes behind the packet (padding of a short frame) are none of its.
    let end = promised.min(range.end);
    let upper_at = start + header_length;
    let bytes = storage.get(..end).ok_or(DropReason::Truncated)?;
    let whole_header = bytes.get(start..upper_at).ok_or(DropReason::Truncated)?;
    let upper_bytes = bytes.get(upper_at..).ok_or(DropReason::Truncated)?;
    let mut refusal = None;
    if what == What::Packet {
        // A header without options is five words.
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let sum = if header_length == IPV4 {
            Sum::of_words([word(0), word(4), word(8), word(12), word(16)])
        } else {
            Sum::of(whole_header)
        };
        if sum.checksum() != 0 {
            return Err(DropReason::BadIpv4Checksum);
        }
        if header_length > IPV4 {
            refusal = options(whole_header.get(IPV4..).unwrap_or_default())?;
        }
    }

    let flags = u16::from_be_bytes([header[6], header[7]]);
    let fragment = Fragment {
        identification: u32::from(u16::from_be_bytes([header[4], header[5]])),
        offset: flags & 0x1fff,
        more: flags & 0x2000 != 0,
    };
    let part = Part::of(Some(&fragment));
    // All fragments but the last hold a multiple of eight bytes (RFC 791 §3.2).
    if fragment.more && what == What::Packet && upper_bytes.len() % 8 != 0 {
        return Err(DropReason::MalformedHeader);
    }
    let upper_length = total - header_length;
    // A datagram that long cannot be put together again, and the offsets of its IPv6 fragments would begin anew at zero.
    if what == What::Packet && header_length + fragment.reach(upper_length) > LONGEST {
        return Err(DropReason::MalformedHeader);
    }
    let read = match header[9] {
        HOP_BY_HOP | ROUTING | FRAGMENT_HEADER | ICMPV6 | DESTINATION_OPTIONS => {
            Err(DropReason::ForbiddenProtocol)
        }
        // All its messages are for one link alone, as are those of MLD, which stand for them in IPv6.
        IGMP => Err(DropReason::IcmpNotTranslatable),
        ICMPV4 if part != Part::Whole => Err(DropReason::FragmentedIcmp),
        ICMPV4 => icmp::read(upper_bytes, what, &KINDS),
        other => transport::read(other, upper_bytes, part, what),
    };
    let Transport { upper, ports } = let_in(read, what, &mut refusal)?;
    let quiet = part == Part::Later || (header[9] == ICMPV4 && KINDS.quiet(upper_bytes, part));
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    Ok(Parsed {
        start,
        upper_at,
        end,
        upper_length,
        traffic_class: header[1],
        hop_limit: header[8],
        protocol: header[9],
        fragment: Some(fragment),
        dont_fragment: flags & 0x4000 != 0,
        upper,
        source,
        destination,
        ports,
        refusal,
        quiet,
    })
}

/// Walks over the options, which translation drops. Each step goes forward by at least one byte.
#[cold]
fn options(options: &[u8]) -> Result<Option<DropReason>, DropReason> {
    let mut at = 0;
    let mut refusal = None;
    while let Some(kind) = u8_at(options, at) {
        match kind {
            END => break,
            NO_OPERATION => at += 1,
            _ => {
                let length = usize::from(u8_at(options, at + 1).ok_or(DropReason::MalformedOptions)?);
                if length < 2 || at + length > options.len() {
                    return Err(DropReason::MalformedOptions);
                }
                if matches!(kind, LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE) {
                    // The route has run out when the pointer has passed its end (RFC 791 §3.1).
                    let pointer = usize::from(u8_at(options, at + 2).ok_or(DropReason::MalformedOptions)?);
                    if length < 3 || pointer < 4 {
                        return Err(DropReason::MalformedOptions);
                    }
                    if pointer <= length {
                        refusal = Some(DropReason::SourceRoute);
                    }
                }
                at += length;
            }
        }
    }
    Ok(refusal)
}
