//! The headers of one host and one server, from a template, in both directions.
//!
//! A frame is a `virtio_net_hdr` of ten bytes (native byte order) with an IP packet behind it. An IPv4 header is 20 bytes
//! shorter than an IPv6 header, so a frame that becomes IPv4 begins 20 bytes later, and one that becomes IPv6 20 bytes earlier.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// The length of a `virtio_net_hdr`, in bytes.
pub(super) const VNET: usize = 10;
const V4: usize = 20;
const V6: usize = 40;
/// By so much the headers differ: the room that is needed before a frame.
pub(super) const GROWTH: usize = V6 - V4;
/// The same, as the header of a frame counts.
const MOVED: u16 = 20;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum field holds the sum of the pseudo-header, the rest is still to be added.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4` and `VIRTIO_NET_HDR_GSO_TCPV6`, and the flag `VIRTIO_NET_HDR_GSO_ECN`.
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_ECN: u8 = 0x80;
/// Where `hdr_len` and `csum_start` are in the header.
const HDR_LEN: usize = 2;
const CSUM_START: usize = 6;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What both directions write into each packet.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// Without length, protocol and checksum.
    v4: [u8; V4],
    /// The sum of its words.
    v4_sum: u32,
    /// Without length and next header.
    v6: [u8; V6],
    /// What is added to the sum of a pseudo-header that becomes IPv4, and to one that becomes IPv6.
    to_v4: u32,
    to_v6: u32,
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy)]
enum Direction {
    ToV4,
    ToV6,
}

/// The two addresses of one side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<A> {
    pub(super) host: A,
    pub(super) server: A,
}

impl Template {
    /// For one host and one server, each with its address on either side.
    pub(super) fn new(v6: Pair<Ipv6Addr>, v4: Pair<Ipv4Addr>) -> Self {
        let mut four = [0; V4];
        // Version and header length; do not fragment; hops left.
        four[0] = 0x45;
        four[6] = 0x40;
        four[8] = 63;
        four[12..16].copy_from_slice(&v4.host.octets());
        four[16..20].copy_from_slice(&v4.server.octets());
        let mut six = [0; V6];
        six[0] = 0x60;
        six[7] = 63;
        six[8..24].copy_from_slice(&v6.server.octets());
        six[24..40].copy_from_slice(&v6.host.octets());
        let (sum4, sum6) = (fold(sum(&four[12..])), fold(sum(&six[8..])));
        Self {
            v4_sum: sum(&four),
            v4: four,
            v6: six,
            to_v4: u32::from(sum4) + u32::from(!sum6),
            to_v6: u32::from(sum6) + u32::from(!sum4),
        }
    }

    /// Rewrites the frame that lies there in the buffer, and says where it lies then; `None` if it is not TCP or UDP
    /// without extension headers and options, or too short for that. `start` is at least [`GROWTH`].
    pub(super) fn rewrite(&self, buffer: &mut [u8], frame: Range<usize>) -> Option<Range<usize>> {
        match buffer.get(frame.start + VNET)? >> 4 {
            6 => self.six_to_four(buffer, frame),
            4 => self.four_to_six(buffer, frame),
            _ => None,
        }
    }

    fn six_to_four(&self, buffer: &mut [u8], frame: Range<usize>) -> Option<Range<usize>> {
        let start = frame.start + GROWTH;
        let (head, segment) = buffer.get_mut(frame.start..frame.end)?.split_at_mut_checked(VNET + V6)?;
        let protocol = head[VNET + 6];
        let (vnet, _) = head.split_first_chunk_mut::<VNET>()?;
        let vnet = shift(*vnet, Direction::ToV4);
        update(segment, protocol, self.to_v4, vnet[0] & NEEDS_CSUM != 0)?;
        let length = u16::try_from(V4 + segment.len()).ok()?;
        let mut ip = self.v4;
        ip[2..4].copy_from_slice(&length.to_be_bytes());
        ip[9] = protocol;
        let check = !fold(self.v4_sum + u32::from(length) + u32::from(protocol));
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        head[GROWTH..GROWTH + VNET].copy_from_slice(&vnet);
        head[GROWTH + VNET..].copy_from_slice(&ip);
        Some(start..frame.end)
    }

    fn four_to_six(&self, buffer: &mut [u8], frame: Range<usize>) -> Option<Range<usize>> {
        let start = frame.start.checked_sub(GROWTH)?;
        let (head, segment) = buffer.get_mut(start..frame.end)?.split_at_mut_checked(VNET + V6)?;
        let protocol = head[GROWTH + VNET + 9];
        let vnet = *head[GROWTH..].first_chunk::<VNET>()?;
        let vnet = shift(vnet, Direction::ToV6);
        update(segment, protocol, self.to_v6, vnet[0] & NEEDS_CSUM != 0)?;
        let mut ip = self.v6;
        ip[4..6].copy_from_slice(&u16::try_from(segment.len()).ok()?.to_be_bytes());
        ip[6] = protocol;
        head[..VNET].copy_from_slice(&vnet);
        head[VNET..].copy_from_slice(&ip);
        Some(start..frame.end)
    }
}

/// The header with its places moved by [`GROWTH`] in this direction, and its kind of TCP changed.
fn shift(mut vnet: [u8; VNET], direction: Direction) -> [u8; VNET] {
    let (from, to) = match direction {
        Direction::ToV4 => (GSO_TCP6, GSO_TCP4),
        Direction::ToV6 => (GSO_TCP4, GSO_TCP6),
    };
    let (has_sum, has_segments) = (vnet[0] & NEEDS_CSUM != 0, vnet[1] & !GSO_ECN != 0);
    for (place, is_used) in [(CSUM_START, has_sum), (HDR_LEN, has_segments)] {
        let value = u16::from_ne_bytes([vnet[place], vnet[place + 1]]);
        let value = match direction {
            _ if !is_used => value,
            Direction::ToV4 => value.wrapping_sub(MOVED),
            Direction::ToV6 => value.wrapping_add(MOVED),
        };
        vnet[place..place + 2].copy_from_slice(&value.to_ne_bytes());
    }
    if vnet[1] & !GSO_ECN == from {
        vnet[1] = to | (vnet[1] & GSO_ECN);
    }
    vnet
}

/// Adds to the checksum of a segment what the other addresses add to it. A partial one is a sum, a whole one the complement
/// of a sum (RFC 1624).
fn update(segment: &mut [u8], protocol: u8, addresses: u32, is_partial: bool) -> Option<()> {
    let place = match protocol {
        TCP => 16,
        UDP => 6,
        _ => return None,
    };
    let field = segment.get_mut(place..)?.first_chunk_mut::<2>()?;
    let old = u16::from_be_bytes(*field);
    let new = if is_partial {
        fold(u32::from(old) + addresses)
    } else {
        // A sum of zero would say that there is no checksum (RFC 768).
        match !fold(u32::from(!old) + addresses) {
            0 if protocol == UDP => 0xffff,
            sum => sum,
        }
    };
    *field = new.to_be_bytes();
    Some(())
}

/// The sum of 16-bit words, of which there are few.
fn sum(bytes: &[u8]) -> u32 {
    bytes.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum()
}

/// The one's complement sum, in 16 bits.
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    #[allow(clippy::cast_possible_truncation, reason = "at most 0xffff by now")]
    let folded = sum as u16;
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
    const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0xc633, 0x6402);
    const HOST4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
    const SERVER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    fn template() -> Template {
        Template::new(Pair { host: HOST6, server: SERVER6 }, Pair { host: HOST4, server: SERVER4 })
    }

    /// The one's complement sum of all these bytes, the last padded with a zero: written apart from what it judges.
    fn ones(parts: &[&[u8]]) -> u16 {
        let mut total: u64 = 0;
        for part in parts {
            for pair in part.chunks(2) {
                total += u64::from(pair[0]) * 256 + u64::from(*pair.get(1).unwrap_or(&0));
            }
        }
        u16::try_from(total % 65_535).unwrap()
    }

    fn addresses(v6: bool, to_server: bool) -> Vec<u8> {
        let (host, server) = if v6 {
            (HOST6.octets().to_vec(), SERVER6.octets().to_vec())
        } else {
            (HOST4.octets().to_vec(), SERVER4.octets().to_vec())
        };
        if to_server { [host, server].concat() } else { [server, host].concat() }
    }

    /// The length and the protocol as they are in the pseudo-header.
    fn rest(segment: &[u8], protocol: u8) -> [u8; 4] {
        let [high, low] = u16::try_from(segment.len()).unwrap().to_be_bytes();
        [high, low, 0, protocol]
    }

    /// A frame in a buffer with room before it, with a whole checksum or a partial one.
    fn frame(v6: bool, protocol: u8, partial: bool, gso: u8) -> (Vec<u8>, Range<usize>) {
        let place = if protocol == TCP { 16 } else { 6 };
        let mut segment: Vec<u8> = (0..47).map(|byte: u8| byte.wrapping_mul(37)).collect();
        segment[place..place + 2].fill(0);
        let pseudo = [addresses(v6, v6), rest(&segment, protocol).to_vec()].concat();
        let check = if partial { ones(&[&pseudo]) } else { 65_535 - ones(&[&pseudo, &segment]) };
        segment[place..place + 2].copy_from_slice(&check.to_be_bytes());
        let mut vnet = [0; VNET];
        let header: u16 = if v6 { 40 } else { 20 };
        vnet[0] = u8::from(partial);
        vnet[1] = gso;
        vnet[2..4].copy_from_slice(&(header + 20).to_ne_bytes());
        vnet[4..6].copy_from_slice(&1400_u16.to_ne_bytes());
        vnet[6..8].copy_from_slice(&header.to_ne_bytes());
        vnet[8..10].copy_from_slice(&u16::try_from(place).unwrap().to_ne_bytes());
        let ip = if v6 {
            let mut ip = vec![0x60, 0, 0, 0, 0, 47, protocol, 64];
            ip.extend(addresses(true, true));
            ip
        } else {
            let mut ip = vec![0x45, 0, 0, 67, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            ip.extend(addresses(false, false));
            let check = 65_535 - ones(&[&ip]);
            ip[10..12].copy_from_slice(&check.to_be_bytes());
            ip
        };
        let mut buffer = vec![0xee; 32];
        buffer.extend(vnet);
        buffer.extend(ip);
        buffer.extend(segment);
        let length = buffer.len();
        (buffer, 32..length)
    }

    fn word(bytes: &[u8], place: usize) -> u16 {
        u16::from_ne_bytes([bytes[place], bytes[place + 1]])
    }

    #[test]
    fn a_whole_checksum_is_right_after_the_way_to_either_side() {
        for protocol in [TCP, UDP] {
            for v6 in [true, false] {
                let (mut buffer, before) = frame(v6, protocol, false, 0);
                let sent = buffer[buffer.len() - 47..].to_vec();
                let after = template().rewrite(&mut buffer, before).unwrap();
                let out = &buffer[after];
                let (header, length) = if v6 { (20, 4) } else { (40, 6) };
                assert_eq!(out[VNET] >> 4, length);
                let segment = &out[VNET + header..];
                let place = if protocol == TCP { 16 } else { 6 };
                assert_eq!(segment[..place], sent[..place]);
                assert_eq!(segment[place + 2..], sent[place + 2..], "only the checksum changes");
                let pseudo = [addresses(!v6, v6), rest(segment, protocol).to_vec()].concat();
                assert_eq!(
                    ones(&[&pseudo, segment]),
                    0,
                    "{protocol} from {}",
                    if v6 { "IPv6" } else { "IPv4" }
                );
            }
        }
    }

    #[test]
    fn a_checksum_of_zero_is_sent_as_ones_in_udp_alone() {
        let template = template();
        // The value whose complement, with the addresses added, is the complement of zero.
        let before = fold(template.to_v4);
        for (protocol, expected) in [(UDP, [0xff, 0xff]), (TCP, [0, 0])] {
            let mut segment = [0; 20];
            let place = if protocol == TCP { 16 } else { 6 };
            segment[place..place + 2].copy_from_slice(&before.to_be_bytes());
            update(&mut segment, protocol, template.to_v4, false).unwrap();
            assert_eq!(segment[place..place + 2], expected);
        }
    }

    #[test]
    fn a_partial_checksum_is_the_sum_of_the_other_pseudo_header() {
        for v6 in [true, false] {
            let (mut buffer, before) = frame(v6, UDP, true, 5);
            let after = template().rewrite(&mut buffer, before).unwrap();
            let out = &buffer[after];
            let header: u16 = if v6 { 20 } else { 40 };
            let segment = &out[VNET + usize::from(header)..];
            let pseudo = [addresses(!v6, v6), rest(segment, UDP).to_vec()].concat();
            assert_eq!(u16::from_be_bytes([segment[6], segment[7]]) % 65_535, ones(&[&pseudo]));
            assert_eq!(word(out, 6), header, "where the checksum begins");
            assert_eq!(word(out, 2), header + 20, "how long the headers are");
            assert_eq!(
                (out[0], out[1], word(out, 4), word(out, 8)),
                (NEEDS_CSUM, 5, 1400, 6),
                "and what stays"
            );
        }
    }

    #[test]
    fn a_super_packet_of_tcp_changes_its_kind_and_keeps_ecn() {
        for (v6, from, to) in [(true, 4, 1), (false, 1, 4), (true, 0x84, 0x81), (false, 0x81, 0x84)] {
            let (mut buffer, before) = frame(v6, TCP, true, from);
            let after = template().rewrite(&mut buffer, before).unwrap();
            assert_eq!(buffer[after][1], to);
        }
    }

    #[test]
    fn the_header_is_whole() {
        let (mut buffer, before) = frame(true, UDP, false, 0);
        let after = template().rewrite(&mut buffer, before).unwrap();
        let ip = &buffer[after][VNET..VNET + V4];
        assert_eq!(ones(&[ip]), 0, "the header's own checksum");
        assert_eq!((ip[0], ip[2], ip[3], ip[9]), (0x45, 0, 67, UDP));
        assert_eq!(ip[12..], addresses(false, true));
        let (mut buffer, before) = frame(false, UDP, false, 0);
        let after = template().rewrite(&mut buffer, before).unwrap();
        let ip = &buffer[after][VNET..VNET + V6];
        assert_eq!((ip[0], ip[4], ip[5], ip[6]), (0x60, 0, 47, UDP));
        assert_eq!(ip[8..], addresses(true, false));
    }

    #[test]
    fn what_it_does_not_know_is_left_out() {
        let template = template();
        let (mut buffer, frame) = frame(true, 58, false, 0);
        assert_eq!(template.rewrite(&mut buffer, frame.clone()), None, "ICMPv6");
        for end in frame.start..frame.start + VNET + V6 + 8 {
            assert_eq!(template.rewrite(&mut buffer, frame.start..end), None, "too short");
        }
        assert_eq!(template.rewrite(&mut [0; 60], 20..60), None, "neither IPv4 nor IPv6");
    }
}
