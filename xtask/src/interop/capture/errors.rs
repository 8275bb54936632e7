//! The ICMP errors of the capture.

use anyhow::Result;
use etherparse::TcpOptionElement;

use super::packets::{Family, Sender, echo, fragments, icmp, payload, tcp, udp};

/// One type of error.
struct Kind {
    number: u8,
    code: u8,
    /// The four bytes behind the checksum.
    rest: [u8; 4],
    /// Whether RFC 4884 gives it a length, and so extensions.
    has_length: bool,
}

/// One MPLS label (RFC 4950) behind the header of an extension structure, whose checksum is right.
const EXTENSION: [u8; 12] = [0x20, 0, 0x9d, 0xb5, 0, 8, 1, 1, 0, 1, 0x41, 0x40];
/// RFC 4884 §4.1: where a length is given, the packet inside has at least this many bytes.
const LEAST_QUOTE: usize = 128;

fn kinds(family: Family) -> Vec<Kind> {
    let plain = |number, code| Kind { number, code, rest: [0; 4], has_length: true };
    let mut kinds = Vec::new();
    match family {
        Family::V4 => {
            kinds.extend((0..=13).filter(|code| *code != 4).map(|code| plain(3, code)));
            kinds.push(Kind { rest: 1300_u32.to_be_bytes(), ..plain(3, 4) });
            kinds.extend((0..=1).map(|code| plain(11, code)));
            kinds.extend([0, 8, 9, 12, 16].map(|pointer| Kind { rest: [pointer, 0, 0, 0], ..plain(12, 0) }));
        }
        Family::V6 => {
            kinds.extend((0..=6).map(|code| plain(1, code)));
            kinds.push(Kind { rest: 1400_u32.to_be_bytes(), has_length: false, ..plain(2, 0) });
            kinds.extend((0..=1).map(|code| plain(3, code)));
            kinds.extend([0_u32, 6, 7, 8, 24].map(|pointer| Kind {
                rest: pointer.to_be_bytes(),
                has_length: false,
                ..plain(4, 0)
            }));
            kinds.push(Kind { rest: 6_u32.to_be_bytes(), has_length: false, ..plain(4, 1) });
        }
    }
    kinds
}

/// Errors of all types about packets that went the other way: whole, cut, and with an extension behind.
pub(super) fn about_everything(family: Family, sender: Sender) -> Result<Vec<Vec<u8>>> {
    let about = other(sender);
    let long = payload(600);
    let parts = fragments(&udp(family, about, None, &long)?, 104, 9)?;
    let inside = [
        udp(family, about, None, &payload(1))?,
        udp(family, about, None, &long)?,
        tcp(family, about, 1, &[TcpOptionElement::MaximumSegmentSize(1440)], &long)?,
        echo(family, about, &payload(33))?,
        parts[0].clone(),
        parts[1].clone(),
    ];
    // Errors are at most 576 bytes long in IPv4 (RFC 1812 §4.3.2.3) and 1280 in IPv6 (RFC 4443 §2.4).
    let (header, longest) = match family {
        Family::V4 => (20, 576 - 28),
        Family::V6 => (40, 1280 - 48),
    };
    let mut made = Vec::new();
    for kind in kinds(family) {
        for packet in &inside {
            for length in [longest, header + 16] {
                let quote = &packet[..packet.len().min(length)];
                made.push(icmp(family, sender, (kind.number, kind.code), kind.rest, quote)?);
            }
            if kind.has_length {
                made.push(extended(family, sender, &kind, packet)?);
            }
        }
    }
    Ok(made)
}

/// Time Exceeded with an extension.
pub(super) fn with_extension(family: Family, sender: Sender) -> Result<Vec<u8>> {
    let number = match family {
        Family::V4 => 11,
        Family::V6 => 3,
    };
    let packet = udp(family, other(sender), None, &payload(1))?;
    extended(family, sender, &Kind { number, code: 0, rest: [0; 4], has_length: true }, &packet)
}

fn extended(family: Family, sender: Sender, kind: &Kind, packet: &[u8]) -> Result<Vec<u8>> {
    let mut quote = packet[..packet.len().min(208)].to_vec();
    quote.resize(quote.len().max(LEAST_QUOTE).next_multiple_of(8), 0);
    // The length counts words of 32 bits in ICMPv4, and of 64 bits in ICMPv6.
    let (at, word) = match family {
        Family::V4 => (1, 4),
        Family::V6 => (0, 8),
    };
    let mut rest = kind.rest;
    rest[at] = u8::try_from(quote.len() / word)?;
    quote.extend(EXTENSION);
    icmp(family, sender, (kind.number, kind.code), rest, &quote)
}

fn other(sender: Sender) -> Sender {
    match sender {
        Sender::Host => Sender::Peer,
        Sender::Peer => Sender::Host,
    }
}
