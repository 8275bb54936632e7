//! The maximum segment size that a TCP endpoint announces (RFC 9293 §3.7.1).

use core::ops::Range;

use crate::bytes::{put_u16, u8_at, u16_at};
use crate::checksum::Sum;
use crate::packets::FLAGS_AT;
use crate::parse::Parsed;

/// A TCP flag (RFC 9293 §3.1): only such a segment may announce a size.
const SYN: u8 = 0x02;

/// Where the options of a TCP header begin, and where its checksum lies, in bytes.
const OPTIONS: usize = 20;
const CHECKSUM_AT: usize = 16;

/// Options (RFC 9293 §3.2): end of list, no operation, and the maximum segment size with its length.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const LENGTH: usize = 4;

/// Lowers what the packet announces to `most`. Whether that changed it.
#[inline(always)]
pub(crate) fn clamp<A: Copy>(storage: &mut [u8], packet: &Parsed<A>, partial: bool, most: u16) -> bool {
    if packet.tcp_flags(storage) & SYN == 0 {
        return false;
    }
    // By value: a pointer to the checked packet would keep it in memory.
    !packet.is_fragmented() && clamp_syn(storage, packet.upper_at..packet.end, partial, most)
}

/// The same for a segment with SYN. A list of options that is not well formed to its end is left as it is: what an endpoint
/// reads out of it cannot be known.
#[cold]
fn clamp_syn(storage: &mut [u8], segment: Range<usize>, partial: bool, most: u16) -> bool {
    let Some(segment) = storage.get_mut(segment) else { return false };
    let header = usize::from(u8_at(segment, FLAGS_AT - 1).unwrap_or(0) >> 4) * 4;
    let Some(options) = segment.get(OPTIONS..header) else { return false };
    if !is_well_formed(options) {
        return false;
    }
    let mut change = Sum::default();
    let mut at = 0;
    let mut changed = false;
    while let Some((kind, length)) = segment.get(OPTIONS..header).and_then(|options| option(options, at)) {
        let value_at = OPTIONS + at + 2;
        if let (MAXIMUM_SEGMENT_SIZE, Some(old)) = (kind, u16_at(segment, value_at))
            && old > most
        {
            put_u16(segment, value_at, most);
            // At an odd offset it lies across two words of the sum, whose halves it fills the other way round.
            let [old, new] =
                if value_at.is_multiple_of(2) { [old, most] } else { [old.swap_bytes(), most.swap_bytes()] };
            change = change.and(new).minus(Sum::default().and(old));
            changed = true;
        }
        at += length;
    }
    if changed
        && !partial
        && let Some(checksum) = u16_at(segment, CHECKSUM_AT)
    {
        put_u16(segment, CHECKSUM_AT, change.update(checksum));
    }
    changed
}

/// Whether the list ends where its options say so, and every announcement has the length of one.
fn is_well_formed(options: &[u8]) -> bool {
    let mut at = 0;
    while let Some((kind, length)) = option(options, at) {
        if kind == MAXIMUM_SEGMENT_SIZE && length != LENGTH {
            return false;
        }
        at += length;
    }
    at == options.len() || u8_at(options, at) == Some(END)
}

/// The kind and the length of the option at this place: at least one byte, and none behind the end of the list.
fn option(options: &[u8], at: usize) -> Option<(u8, usize)> {
    match u8_at(options, at)? {
        END => None,
        NO_OPERATION => Some((NO_OPERATION, 1)),
        kind => {
            let length = usize::from(u8_at(options, at + 1)?);
            (length >= 2 && at + length <= options.len()).then_some((kind, length))
        }
    }
}
