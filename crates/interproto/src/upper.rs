//! Rewriting what lies behind the IP headers: ports, identifiers, ICMP types and checksums. Nothing is moved.

use crate::PortRewrite;
use crate::bytes::{put_u16, u16_at};
use crate::checksum::{Sum, as_sent};
use crate::icmp::{v4, v6};
use crate::parse::Upper;

/// The pseudo-header's part in a checksum, before and after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pseudo {
    /// For TCP, UDP and their like: addresses only, since length and protocol stay.
    pub(crate) ported: [Sum; 2],
    /// For echoes: the whole IPv6 pseudo-header on the one side, nothing on the other.
    pub(crate) echo: [Sum; 2],
    /// The checksum holds the sum of the pseudo-header and nothing else: somebody else adds the rest.
    pub(crate) partial: bool,
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    SixToFour,
    FourToSix,
}

/// Rewrites the transport header at the beginning of `bytes`. A checksum that lies behind their end (in a quote) is left.
pub(crate) fn rewrite(bytes: &mut [u8], upper: Upper, wanted: PortRewrite, pseudo: Pseudo, way: Way) {
    match upper {
        Upper::Ported { checksum_at, never_zero } => {
            let [old, new] = pseudo.ported;
            rewrite_ported(bytes, checksum_at, never_zero, wanted, new.minus(old), pseudo.partial);
        }
        Upper::Echo { reply } => {
            let [old, new] = pseudo.echo;
            let (old_kind, new_kind) = match (way, reply) {
                (Way::SixToFour, false) => (v6::ECHO_REQUEST, v4::ECHO_REQUEST),
                (Way::SixToFour, true) => (v6::ECHO_REPLY, v4::ECHO_REPLY),
                (Way::FourToSix, false) => (v4::ECHO_REQUEST, v6::ECHO_REQUEST),
                (Way::FourToSix, true) => (v4::ECHO_REPLY, v6::ECHO_REPLY),
            };
            let old = old.and(u16::from(old_kind) << 8);
            let mut change = new.and(u16::from(new_kind) << 8).minus(old);
            if let Some(kind) = bytes.first_mut() {
                *kind = new_kind;
            }
            if let PortRewrite::Identifier(new) = wanted {
                change = change.and(new).minus(Sum::default().and(u16_at(bytes, 4).unwrap_or(0)));
                put_u16(bytes, 4, new);
            }
            if pseudo.partial {
                let [old, new] = pseudo.echo;
                update_partial(bytes, 2, new.minus(old));
            } else {
                update(bytes, 2, change, false);
            }
        }
        Upper::Error | Upper::Opaque => {}
    }
}

/// Rewrites a transport header with ports, `change` being that of the pseudo-header. A partial checksum has no part of the ports.
#[inline(always)]
pub(crate) fn rewrite_ported(
    bytes: &mut [u8],
    checksum_at: usize,
    never_zero: bool,
    wanted: PortRewrite,
    change: Sum,
    partial: bool,
) {
    let ports = put_ports(bytes, wanted);
    if partial {
        update_partial(bytes, checksum_at, change);
    } else {
        update(bytes, checksum_at, change.plus(ports), never_zero);
    }
}

/// Writes new ports, if they are wanted. The answer is what that changes in a sum.
#[inline(always)]
fn put_ports(bytes: &mut [u8], wanted: PortRewrite) -> Sum {
    let PortRewrite::Pair { source, destination } = wanted else { return Sum::default() };
    let old = Sum::of(bytes.get(..4).unwrap_or_default());
    put_u16(bytes, 0, source);
    put_u16(bytes, 2, destination);
    Sum::default().and(source).and(destination).minus(old)
}

/// A sum that is not complemented yet, and to which the transport header and payload are still to be added.
#[inline(always)]
fn update_partial(bytes: &mut [u8], at: usize, change: Sum) {
    if let Some(sum) = u16_at(bytes, at) {
        put_u16(bytes, at, change.and(sum).fold());
    }
}

#[inline(always)]
fn update(bytes: &mut [u8], at: usize, change: Sum, never_zero: bool) {
    let Some(checksum) = u16_at(bytes, at) else { return };
    if never_zero && checksum == 0 {
        return;
    }
    put_u16(bytes, at, as_sent(change.update(checksum), never_zero));
}
