//! The packet inside an ICMP error, alike in both families.

use super::Head;
use crate::DropReason;
use crate::bytes::u32_at;

/// Type, code and the rest of an ICMP header that the checks have seen.
pub(crate) fn read_head(storage: &[u8], at: usize) -> Result<Head, DropReason> {
    match (storage.get(at..at + 2), u32_at(storage, at + 4)) {
        (Some(&[kind, code]), Some(rest)) => Ok(Head { kind, code, rest }),
        _ => Err(DropReason::Truncated),
    }
}

/// Where the packet inside an error ends: before the extensions, if there are any (RFC 4884 §5.5).
pub(crate) fn quote_end(quote: usize, end: usize, length: usize) -> usize {
    if length > 0 && quote + length <= end { quote + length } else { end }
}

/// What is wrong with a packet inside an error.
pub(crate) fn embedded_reason(reason: DropReason) -> DropReason {
    match reason {
        DropReason::EmbeddedNotTranslatable
        | DropReason::ForbiddenProtocol
        | DropReason::FragmentedIcmp
        | DropReason::ExtensionAfterFragment => DropReason::EmbeddedNotTranslatable,
        _ => DropReason::EmbeddedMalformed,
    }
}
