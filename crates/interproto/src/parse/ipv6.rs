//! Reading IPv6 packets (RFC 8200).

use core::net::Ipv6Addr;
use core::ops::Range;

use super::{
    AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT_HEADER, HIP, HOP_BY_HOP, ICMPV4, ICMPV6, MOBILITY, Parsed,
    Part, ROUTING, SHIM6, Transport, What, icmp, let_in, transport,
};
use crate::DropReason;
use crate::bytes::{array_ref, u8_at, u16_at, u32_at};
use crate::headers::{Fragment, IPV6};
use crate::icmp::v6;

/// RFC 8200 §4.1 recommends an order of at most seven headers; one step more finds what they carry.
const MOST_STEPS: usize = 8;

/// The longest payload that fragments may make up together (RFC 8200 §4.5), in bytes.
const LONGEST_PAYLOAD: usize = 65_535;

/// The extension headers in front of the transport header.
struct Extensions {
    upper_at: usize,
    next_header: u8,
    fragment: Option<Fragment>,
    refusal: Option<DropReason>,
}

/// How ICMP is told apart here.
const KINDS: icmp::Kinds =
    icmp::Kinds { echo_request: v6::ECHO_REQUEST, echo_reply: v6::ECHO_REPLY, is_error: v6::is_error };

/// Reads the packet at `range` of `storage`.
pub(crate) fn parse(storage: &[u8], range: Range<usize>, what: What) -> Result<Parsed<Ipv6Addr>, DropReason> {
    let start = range.start;
    let header: &[u8; IPV6] =
        storage.get(..range.end).and_then(|bytes| array_ref(bytes, start)).ok_or(DropReason::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::MalformedHeader);
    }
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let promised = start + IPV6 + payload;
    if what == What::Packet && promised > range.end {
        return Err(DropReason::Truncated);
    }
    // Bytes behind the packet (padding of a short frame) are none of its.
    let end = promised.min(range.end);
    let bytes = storage.get(..end).ok_or(DropReason::Truncated)?;

    let Extensions { upper_at, next_header, fragment, mut refusal } = match header[6] {
        HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING | FRAGMENT_HEADER => {
            extensions(bytes, start, start + IPV6, header[6], what)?
        }
        next_header => Extensions { upper_at: start + IPV6, next_header, fragment: None, refusal: None },
    };
    let part = Part::of(fragment.as_ref());
    let upper_bytes = bytes.get(upper_at..).ok_or(DropReason::Truncated)?;
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    source.copy_from_slice(&header[8..24]);
    destination.copy_from_slice(&header[24..40]);
    let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
    let upper_length = promised.saturating_sub(upper_at);

    let read = match next_header {
        ICMPV4 => Err(DropReason::ForbiddenProtocol),
        ICMPV6 if part != Part::Whole => Err(DropReason::FragmentedIcmp),
        ICMPV6 => icmp::read(upper_bytes, what, &KINDS),
        other => transport::read(other, upper_bytes, part, what),
    };
    let Transport { upper, ports } = let_in(read, what, &mut refusal)?;
    let quiet = next_header == ICMPV6 && KINDS.quiet(upper_bytes, part);
    Ok(Parsed {
        start,
        upper_at,
        end,
        upper_length,
        traffic_class: header[0] << 4 | header[1] >> 4,
        hop_limit: header[7],
        protocol: next_header,
        fragment,
        dont_fragment: false,
        upper,
        source,
        destination,
        ports,
        refusal,
        quiet,
    })
}

/// Walks over hop-by-hop options, destination options, routing headers and one fragment header (RFC 7915 §5.1, §5.1.1).
#[inline(never)]
fn extensions(
    bytes: &[u8],
    start: usize,
    mut at: usize,
    mut next_header: u8,
    what: What,
) -> Result<Extensions, DropReason> {
    let mut refusal = None;
    for _ in 0..MOST_STEPS {
        match next_header {
            HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING => {
                let length = u8_at(bytes, at + 1).ok_or(DropReason::Truncated)?;
                if next_header == ROUTING {
                    let left = u8_at(bytes, at + 3).ok_or(DropReason::Truncated)?;
                    if left > 0 && what == What::Packet {
                        refusal = refusal.or(Some(DropReason::SegmentsLeft));
                    }
                }
                next_header = u8_at(bytes, at).ok_or(DropReason::Truncated)?;
                at += 8 + usize::from(length) * 8;
            }
            FRAGMENT_HEADER => {
                let next_header = u8_at(bytes, at).ok_or(DropReason::Truncated)?;
                let offset = u16_at(bytes, at + 2).ok_or(DropReason::Truncated)?;
                let identification = u32_at(bytes, at + 4).ok_or(DropReason::Truncated)?;
                if is_extension(next_header) {
                    return Err(DropReason::ExtensionAfterFragment);
                }
                let fragment = Fragment { identification, offset: offset >> 3, more: offset & 1 == 1 };
                let upper_at = at + 8;
                // All fragments but the last hold a multiple of eight bytes (RFC 8200 §4.5).
                let length = bytes.len().saturating_sub(upper_at);
                if fragment.more && what == What::Packet && !length.is_multiple_of(8) {
                    return Err(DropReason::MalformedHeader);
                }
                if what == What::Packet && fragment.reach(length) > LONGEST_PAYLOAD {
                    return Err(DropReason::MalformedHeader);
                }
                return Ok(Extensions { upper_at, next_header, fragment: Some(fragment), refusal });
            }
            _ => {
                debug_assert!(at >= start);
                return Ok(Extensions { upper_at: at, next_header, fragment: None, refusal });
            }
        }
    }
    Err(DropReason::TooManyExtensionHeaders)
}

/// Where the Segments Left field of the first routing header with segments left lies, counted from the IPv6 header.
pub(crate) fn segments_left_at(packet: &[u8]) -> Option<usize> {
    let has_left = |at| u8_at(packet, at + 3).is_some_and(|left| left > 0);
    find(packet, |kind, at| kind == ROUTING && has_left(at)).map(|at| at + 3)
}

/// Where the fragment header lies, counted from the IPv6 header.
pub(crate) fn fragment_header_at(packet: &[u8]) -> Option<usize> {
    find(packet, |kind, _| kind == FRAGMENT_HEADER)
}

/// Where the first header behind the IPv6 header lies that is wanted, by its kind and its place.
fn find(packet: &[u8], wanted: impl Fn(u8, usize) -> bool) -> Option<usize> {
    let (mut at, mut next_header) = (IPV6, u8_at(packet, 6)?);
    for _ in 0..MOST_STEPS {
        match next_header {
            kind if wanted(kind, at) => return Some(at),
            HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING => {
                next_header = u8_at(packet, at)?;
                at += 8 + usize::from(u8_at(packet, at + 1)?) * 8;
            }
            _ => return None,
        }
    }
    None
}

/// What RFC 7915 §5.1.1 calls an extension header (RFC 6564, IANA's registry; ESP aside, which hides what follows).
fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT_HEADER
            | AUTHENTICATION
            | DESTINATION_OPTIONS
            | MOBILITY
            | HIP
            | SHIM6
    )
}
