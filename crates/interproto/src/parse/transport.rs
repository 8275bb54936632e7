//! Reading transport headers, alike in both families.

use super::{DCCP, Part, TCP, Transport, UDP, UDP_LITE, Upper, What};
use crate::DropReason;
use crate::bytes::{u8_at, u16_at, u32_at};

/// The shortest headers, in bytes (RFC 9293 §3.1, RFC 768, RFC 3828 §3.1, RFC 4340 §5.1).
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const DCCP_HEADER: usize = 12;

/// What every quote must at least hold of a transport header (RFC 792).
pub(super) const QUOTED: usize = 8;

/// Reads what is not ICMP. `bytes` begin at the transport header and end with the packet.
#[inline(always)]
pub(super) fn read(protocol: u8, bytes: &[u8], part: Part, what: What) -> Result<Transport, DropReason> {
    let (shortest, checksum_at) = match protocol {
        TCP => (TCP_HEADER, 16),
        UDP | UDP_LITE => (UDP_HEADER, 6),
        DCCP => (DCCP_HEADER, 6),
        _ => return Ok(Transport::OPAQUE),
    };
    if part == Part::Later {
        return Ok(Transport::OPAQUE);
    }
    if what == What::Packet {
        whole_header(protocol, bytes, part, shortest)?;
    } else if bytes.len() < QUOTED {
        return Err(DropReason::EmbeddedMalformed);
    }
    let Some(ports) = u32_at(bytes, 0) else { return Err(DropReason::MalformedTransport) };
    Ok(Transport {
        // A zero on the wire says that there is no checksum (RFC 768), or is forbidden (RFC 3828 §3.1).
        upper: Upper::Ported { checksum_at, never_zero: matches!(protocol, UDP | UDP_LITE) },
        ports,
    })
}

/// A packet, and a first fragment (RFC 7112), holds its whole transport header.
#[inline(always)]
fn whole_header(protocol: u8, bytes: &[u8], part: Part, shortest: usize) -> Result<(), DropReason> {
    let too_short =
        if part == Part::First { DropReason::FirstFragmentTooShort } else { DropReason::MalformedTransport };
    if bytes.len() < shortest {
        return Err(too_short);
    }
    match protocol {
        TCP => {
            let header = usize::from(u8_at(bytes, 12).unwrap_or(0) >> 4) * 4;
            if header < shortest {
                return Err(DropReason::MalformedTransport);
            }
            if bytes.len() < header {
                return Err(too_short);
            }
        }
        UDP => {
            let length = usize::from(u16_at(bytes, 4).unwrap_or(0));
            if length < shortest || (part == Part::Whole && length > bytes.len()) {
                return Err(DropReason::MalformedTransport);
            }
        }
        _ => {}
    }
    Ok(())
}
