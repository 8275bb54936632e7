//! Reading ICMP headers, alike in both families but for the numbers of their types.

use super::{Part, Transport, Upper, What};
use crate::DropReason;
use crate::bytes::{u8_at, u16_at};
use crate::headers::ICMP;

/// The types of one family.
pub(super) struct Kinds {
    pub(super) echo_request: u8,
    pub(super) echo_reply: u8,
    /// Whether an error of this type can be translated.
    pub(super) is_error: fn(u8) -> bool,
}

impl Kinds {
    /// Whether no error may be sent about this piece of an ICMP message: it is not seen to be the beginning of an echo.
    pub(super) fn quiet(&self, bytes: &[u8], part: Part) -> bool {
        let kind = u8_at(bytes, 0);
        part == Part::Later || (kind != Some(self.echo_request) && kind != Some(self.echo_reply))
    }
}

/// Reads an ICMP header. `bytes` begin at it and end with the packet.
#[inline(never)]
pub(super) fn read(bytes: &[u8], what: What, kinds: &Kinds) -> Result<Transport, DropReason> {
    let malformed = match what {
        What::Packet => DropReason::MalformedTransport,
        What::Quote => DropReason::EmbeddedMalformed,
    };
    let (Some(kind), Some(identifier)) = (u8_at(bytes, 0), u16_at(bytes, 4)) else { return Err(malformed) };
    if bytes.len() < ICMP {
        return Err(malformed);
    }
    if kind == kinds.echo_request || kind == kinds.echo_reply {
        let reply = kind == kinds.echo_reply;
        return Ok(Transport { upper: Upper::Echo { reply }, ports: u32::from(identifier) });
    }
    match what {
        What::Quote => Err(DropReason::EmbeddedNotTranslatable),
        What::Packet if (kinds.is_error)(kind) => Ok(Transport { upper: Upper::Error, ports: 0 }),
        What::Packet => Err(DropReason::IcmpNotTranslatable),
    }
}
