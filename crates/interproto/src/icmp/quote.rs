//! The packet inside an ICMP error and the extensions behind it, alike in both families.

use core::ops::Range;

use super::Head;
use crate::DropReason;
use crate::bytes::u32_at;

/// The least length of a packet inside an error that extensions follow, padding included, in bytes (RFC 4884 §4).
const LEAST_BEFORE_EXTENSIONS: usize = 128;

/// Type, code and the rest of an ICMP header that the checks have seen.
pub(crate) fn read_head(storage: &[u8], at: usize) -> Result<Head, DropReason> {
    match (storage.get(at..at + 2), u32_at(storage, at + 4)) {
        (Some(&[kind, code]), Some(rest)) => Ok(Head { kind, code, rest }),
        _ => Err(DropReason::Truncated),
    }
}

/// Where the packet inside an error ends, `length` being its length attribute in bytes: before the extensions, if there
/// are any. An attribute that points past the end is none.
pub(crate) fn quote_end(quote: usize, end: usize, length: usize) -> usize {
    if length > 0 && quote + length <= end { quote + length } else { end }
}

/// The extensions behind the packet inside an error that begins at `quote`. A shorter quote than RFC 4884 asks for is not
/// followed by what that RFC says.
pub(crate) fn extensions(quote: usize, end: usize, length: usize) -> Option<Range<usize>> {
    let at = quote + length;
    (length >= LEAST_BEFORE_EXTENSIONS && at < end).then_some(at..end)
}

/// What of a packet inside an error is kept in the translation, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// Where its transport header begins.
    pub(crate) upper_at: usize,
    /// Behind its last byte.
    pub(crate) quote_end: usize,
    /// Behind the last byte of the message.
    pub(crate) end: usize,
    /// The length attribute in bytes; zero without extensions.
    pub(crate) length: usize,
}

/// The room of a translation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Bytes that the message may have behind its ICMP header.
    pub(crate) most: usize,
    /// The IP headers that the packet inside is to have, in bytes.
    pub(crate) header: usize,
    /// What the length attribute counts in, in bytes (RFC 4884 §4.1, §4.4: 4 in `ICMPv4`, 8 in `ICMPv6`).
    pub(crate) unit: usize,
}

impl Room {
    /// Puts what lies behind the IP headers of the packet inside, `upper`, into its place. Without extensions it stays where
    /// it is. Extensions stay where they are, and the quote is moved up to them, with zeros in between (RFC 4884 §4): if
    /// both do not fit, the quote is cut; if even the least quote does not fit, the extensions are left out.
    pub(crate) fn lay_out(
        self,
        storage: &mut [u8],
        upper: Range<usize>,
        extensions: Option<Range<usize>>,
    ) -> Kept {
        let fitting = extensions.filter(|extensions| extensions.len() + LEAST_BEFORE_EXTENSIONS <= self.most);
        let Some(extensions) = fitting else {
            let end = upper.end.min(upper.start + self.most - self.header);
            return Kept { upper_at: upper.start, quote_end: end, end, length: 0 };
        };
        let quote = self.header + upper.len();
        let wanted = quote.next_multiple_of(self.unit).max(LEAST_BEFORE_EXTENSIONS);
        let length = wanted.min((self.most - extensions.len()) / self.unit * self.unit);
        let kept = quote.min(length) - self.header;
        let upper_at = extensions.start - length + self.header;
        let quote_end = upper_at + kept;
        storage.copy_within(upper.start..upper.start + kept, upper_at);
        if let Some(padding) = storage.get_mut(quote_end..extensions.start) {
            padding.fill(0);
        }
        Kept { upper_at, quote_end, end: extensions.end, length }
    }
}

/// What is wrong with a packet inside an error.
pub(crate) fn embedded_reason(reason: DropReason) -> DropReason {
    match reason {
        DropReason::EmbeddedNotTranslatable
        | DropReason::ForbiddenProtocol
        | DropReason::FragmentedIcmp
        | DropReason::IcmpNotTranslatable
        | DropReason::ExtensionAfterFragment => DropReason::EmbeddedNotTranslatable,
        _ => DropReason::EmbeddedMalformed,
    }
}
