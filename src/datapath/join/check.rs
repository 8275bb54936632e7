//! Whether a packet's checksums are those that the kernel would make.

use interproto::{Sum, VirtioNetHdr};

use super::packet::Form;

/// The sum of the pseudo-header (RFC 9293 §3.1, RFC 768, RFC 8200 §8.1) of a transport part of so many bytes, at most 65,535.
pub(super) fn pseudo_header(ip: &[u8], form: Form, length: usize) -> Sum {
    Sum::of(&ip[form.addresses()]).and(u16::from(form.protocol())).and(length as u16)
}

/// Whether each checksum of a plain packet is as the kernel would make it, or was left to the kernel with a right pseudo-header.
///
/// Sums have two zeroes. A checksum that is right with the other one is not taken: the kernel would write the first.
pub(super) fn is_good(frame: &[u8], form: Form) -> bool {
    let Some((said, packet)) = frame.split_first_chunk() else { return false };
    let said = VirtioNetHdr::from_bytes(*said);
    let Some((ip, upper)) = packet.split_at_checked(form.ip_header()) else { return false };
    let at = form.checksum_at();
    let Some(&[c0, c1]) = upper.get(at..at + 2) else { return false };
    let checksum = u16::from_be_bytes([c0, c1]);
    if form.four && !(Sum::of(ip).fold() == 0xffff && ip[10..12] != [0xff; 2]) {
        return false;
    }
    let pseudo = pseudo_header(ip, form, upper.len());
    if said.flags & VirtioNetHdr::NEEDS_CSUM != 0 {
        let place = (usize::from(said.csum_start), usize::from(said.csum_offset));
        // As a number that is added on, both zeroes are equal.
        return place == (ip.len(), at) && pseudo.and(!checksum).fold() == 0xffff;
    }
    if form.tcp && checksum == 0xffff {
        return false;
    }
    said.flags & VirtioNetHdr::DATA_VALID != 0 || Sum::of(upper).plus(pseudo).fold() == 0xffff
}
